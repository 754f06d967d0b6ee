//! A remote that is written to by somebody else: nothing of it is served, and each thing is counted under its reason.

use std::fs;
use std::path::Path;

use kidafs::format::Engines;
use kidafs::remote::catalogue::Catalogue;
use kidafs::remote::keys::{Trust, TrustedKey};
use kidafs::remote::local::Local;
use kidafs::remote::pull::{Puller, Versions};
use kidafs::remote::reject::Reason;
use kidafs::remote::store::{Options, Remote};

use crate::fleet::Fleet;

/// What a pull in this process rejects; it must bring nothing.
fn rejected(fleet: &Fleet, namespace: &str) -> Vec<Reason> {
    let host = tempfile::tempdir().unwrap();
    let namespace = namespace.parse().unwrap();
    let url = format!("file://{}", fleet.text("packs"));
    let remote = Remote::open(&url, &namespace, &Options::default()).unwrap();
    let trust = Trust {
        keys: vec![TrustedKey::read(&fleet.text("ci.pub")).unwrap()],
        ..Trust::default()
    };
    let engines = Engines::default();
    let mut catalogue = Catalogue::new(&remote, namespace, trust, engines.clone());
    let local = Local::open(host.path(), engines).unwrap();
    let mut puller = Puller::new(Versions::default());
    let (pulled, result) = puller.pull(&mut catalogue, &local);
    result.unwrap();
    assert_eq!(pulled.entries, 0);
    assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0);
    // It is not looked at a second time.
    let requests = remote.requests();
    let (again, result) = puller.pull(&mut catalogue, &local);
    result.unwrap();
    assert_eq!(
        (again.rejected.total(), remote.requests()),
        (0, requests + 1)
    );
    let reasons = pulled.rejected.0.into_iter();
    reasons
        .flat_map(|(reason, n)| vec![reason; usize::try_from(n).unwrap()])
        .collect()
}

#[test]
fn no_byte_of_a_pack_can_be_changed_and_no_part_of_it_left_out() {
    let fleet = Fleet::new(2);
    fleet.push(&fleet.folder_remote());
    for ending in ["manifest", "body"] {
        let path = fleet.objects(ending).remove(0);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, &changed).unwrap();
            let reasons = rejected(&fleet, "shop");
            assert_eq!(reasons.len(), 1, "byte {at} of the {ending}: {reasons:?}");
            if ending == "body" {
                assert_eq!(reasons, [Reason::BadBody], "byte {at}");
            }
        }
        for end in (0..whole.len()).step_by(7) {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(
                rejected(&fleet, "shop").len(),
                1,
                "{ending} cut off at {end}"
            );
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(fleet.pull("host", &fleet.folder_remote())["entries"], 2);
}

fn rename(path: &Path, id: &str) {
    let ending = path.extension().unwrap().to_str().unwrap();
    fs::rename(path, path.with_file_name(format!("{id}.{ending}"))).unwrap();
}

#[test]
fn a_pack_is_of_its_name_its_namespace_its_key_and_its_epoch() {
    let fleet = Fleet::new(2);
    let remote = fleet.folder_remote();
    fleet.push(&remote);
    let saved = tempfile::tempdir().unwrap();
    let shop = fleet.path("packs").join("shop/v1");
    let keep = |from: &Path, to: &Path| {
        fs::create_dir_all(to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    keep(&shop, saved.path());
    // Of another namespace.
    keep(saved.path(), &fleet.path("packs").join("other/v1"));
    assert_eq!(rejected(&fleet, "other"), [Reason::WrongNamespace]);
    // Under another name.
    for ending in ["manifest", "body"] {
        rename(&fleet.objects(ending)[0], &"0".repeat(64));
    }
    assert_eq!(rejected(&fleet, "shop"), [Reason::WrongName]);
    fs::remove_dir_all(&shop).unwrap();
    // Without its body.
    keep(saved.path(), &shop);
    fs::remove_file(&fleet.objects("body")[0]).unwrap();
    assert_eq!(rejected(&fleet, "shop"), [Reason::MissingBody]);
    // Put there again after the namespace was cleared.
    fleet.sign(&["remote", "clear"], &remote).done();
    keep(saved.path(), &shop);
    assert_eq!(rejected(&fleet, "shop"), [Reason::Cleared]);
    fs::remove_dir_all(&shop).unwrap();
    // Of another key, or of none.
    let stranger = Fleet::new(2);
    let cache = fleet.text("cache");
    stranger.sign(&["push", &cache], &remote).done();
    assert_eq!(rejected(&fleet, "shop"), [Reason::UntrustedKey]);
    fs::remove_dir_all(&shop).unwrap();
    let url = &remote[1];
    fleet
        .run(&[
            "push",
            &cache,
            "--unsigned",
            "--remote",
            url,
            "--namespace",
            "shop",
        ])
        .done();
    assert_eq!(rejected(&fleet, "shop"), [Reason::Unsigned]);
    let host = fleet.text("host");
    let pulled = fleet
        .run(&[
            "pull",
            &host,
            "--unsigned",
            "--remote",
            url,
            "--namespace",
            "shop",
            "--json",
        ])
        .json();
    assert_eq!(pulled["entries"], 2);
}

#[test]
fn an_epoch_that_nobody_trusted_began_is_not_believed() {
    let fleet = Fleet::new(2);
    let remote = fleet.folder_remote();
    fleet.push(&remote);
    let stranger = Fleet::new(0);
    let saved: Vec<_> = ["manifest", "body"]
        .map(|ending| fleet.objects(ending).remove(0))
        .into();
    let saved: Vec<_> = saved
        .iter()
        .map(|path| (path, fs::read(path).unwrap()))
        .collect();
    stranger.sign(&["remote", "clear"], &remote).done();
    for (path, bytes) in saved {
        fs::write(path, bytes).unwrap();
    }
    let pulled = fleet.pull("host", &remote);
    assert_eq!(pulled["entries"], 2);
    assert_eq!(pulled["rejected"]["untrusted-key"], 1);
}
