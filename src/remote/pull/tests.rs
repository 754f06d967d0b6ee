use super::*;

fn takes(given: &[&str], in_use: &[&str], version: &str) -> bool {
    let versions = Versions {
        given: given.iter().map(|tag| tag.parse().unwrap()).collect(),
    };
    let in_use = in_use.iter().map(|tag| (*tag).to_owned()).collect();
    versions.takes_here(version, &in_use)
}

#[test]
fn versions_in_use_or_given_are_taken_and_no_others() {
    const NEW: &str = "py314_kida0_12_0_ast2";
    // Nothing here yet.
    assert!(takes(&[], &[], NEW));
    assert!(takes(&[], &[NEW], NEW));
    assert!(!takes(&[], &[NEW], "py314_kida0_13_0_ast2"));
    assert!(!takes(&[], &[NEW], "py313"));
    // What only the interpreter decides: Jinja2's entries, the import system's.
    assert!(takes(&[], &[NEW], "py314"));
    assert!(takes(&[], &[NEW], ""));
    // Given ones alone count.
    assert!(takes(&["py314"], &["py313"], NEW));
    assert!(!takes(&["py314"], &["py313"], "py313"));
    assert!(!takes(&["py31"], &[], NEW));
    assert!(takes(&[NEW], &[], NEW));
    assert!(takes(&[NEW], &[], "py314"));
    assert!(!takes(&[NEW], &[], "py314_kida0_13_0_ast2"));
}
