use super::*;

fn source(folder: &str, module: &str, file_name: Option<&str>) -> SourceFile {
    let file_name = file_name.map(|name| name.as_bytes().to_vec());
    module_source(Path::new(folder), OsStr::new(module), file_name)
}

#[test]
fn a_modules_source_is_where_the_interpreter_looks_for_it() {
    let at = |path: &str| SourceFile::At(path.into());
    // The root is the prefix.
    assert_eq!(
        source("usr/lib/shop", "cart", Some("/usr/lib/shop/cart.py")),
        at("/usr/lib/shop/cart.py")
    );
    // A folder of the root is the prefix.
    assert_eq!(
        source("py/usr/lib/shop", "cart", Some("/usr/lib/shop/cart.py")),
        at("/usr/lib/shop/cart.py")
    );
    // It was compiled elsewhere, under a relative name, or cannot be read.
    for named in [Some("/build/shop/cart.py"), Some("./cart.py"), None] {
        assert_eq!(
            source("usr/lib/shop", "cart", named),
            at("/usr/lib/shop/cart.py")
        );
    }
    // A part of a name is not a folder.
    assert_eq!(
        source("usr/lib/myshop", "cart", Some("/shop/cart.py")),
        at("/usr/lib/myshop/cart.py")
    );
    // The bytecode of a module that lies in the cache itself, as Mako's do.
    assert_eq!(
        source(
            "blog/__pycache__",
            "post.html",
            Some("/c/blog/post.html.py")
        ),
        SourceFile::InCache("blog/post.html.py".into())
    );
    assert_eq!(
        source("__pycache__", "post.html", None),
        SourceFile::InCache("post.html.py".into())
    );
}

#[test]
fn a_templates_name_is_an_end_of_its_path() {
    let ends: Vec<&str> = suffixes(b"/srv/a/b.html").collect();
    assert_eq!(
        ends,
        ["/srv/a/b.html", "srv/a/b.html", "a/b.html", "b.html"]
    );
    assert_eq!(suffixes(b"").count(), 0);
    assert_eq!(suffixes(b"a/\xff/b").collect::<Vec<_>>(), ["b"]);
}
