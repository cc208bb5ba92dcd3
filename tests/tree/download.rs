//! Downloads of directories that succeed, or say what is left out and go on.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::process::Outcome;
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use proptest::prelude::*;
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, described, get};

fn finished(outcome: &Outcome, key: &str) -> u64 {
    number(Events::of(outcome).last("finished").expect("it has finished"), key)
}

/// Files of many sizes, empty directories, links, and names of any bytes.
fn plant(root: &Path) {
    fs::create_dir_all(root.join("a/b/c")).expect("it is made");
    fs::create_dir(root.join("empty")).expect("it is made");
    for n in 0..200_usize {
        fs::write(root.join(format!("a/f{n}")), pattern(1, n * 37)).expect("it is written");
    }
    for (name, len) in [("zero", 0), ("large", 5 * MIB), ("limit", 256 << 10), ("over", (256 << 10) + 1)] {
        fs::write(root.join("a/b").join(name), pattern(2, len)).expect("it is written");
    }
    for name in [&b"new\nline"[..], b"\xff\xfe", "ümlaut ☃".as_bytes(), b" ", b"-o", b"%41", &[b'n'; 255]]
    {
        fs::write(root.join(OsStr::from_bytes(name)), name).expect("it is written");
    }
    symlink("f1", root.join("a/link")).expect("it is made");
    symlink("../a/b", root.join("a/b/up")).expect("it is made");
    symlink("missing", root.join("dangling")).expect("it is made");
    let time = SystemTime::UNIX_EPOCH + Duration::new(981_173_106, 987_654_321);
    for name in ["a/f7", "a/b", "a", "empty"] {
        File::open(root.join(name)).expect("it opens").set_modified(time).expect("it is set");
    }
}

#[test]
fn directory_arrives_as_it_is_and_again_nothing_does() {
    let workspace = Workspace::new();
    plant(&workspace.root());
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let expected = described(&workspace.root());
    for streams in ["1", "8"] {
        let outcome = get(&server, &workspace, "", "out").options(["-s", streams]).run();
        outcome.assert_success();
        assert!(described(&workspace.output("out")) == expected, "{streams}: {outcome}");
        assert_eq!((finished(&outcome, "files"), finished(&outcome, "failed")), (211, 0));
        let again = get(&server, &workspace, "", "out").run();
        again.assert_success();
        assert_eq!((finished(&again, "files"), finished(&again, "unchanged")), (0, 211), "{again}");
        assert!(described(&workspace.output("out")) == expected, "again: {again}");
        fs::remove_dir_all(workspace.output("out")).expect("it is ours");
    }
}

#[test]
fn only_what_has_changed_is_fetched_again() {
    let workspace = Workspace::new();
    plant(&workspace.root());
    let server = PROGRAMS.serve(&workspace.root()).ready();
    get(&server, &workspace, "", "out").run().assert_success();
    fs::write(workspace.root().join("a/f3"), "changed").expect("it is written");
    fs::write(workspace.root().join("a/b/new"), "new").expect("it is written");
    fs::write(workspace.output("out/a/f9"), "changed here").expect("it is written");
    let dry = get(&server, &workspace, "", "out").options(["-n"]).run();
    dry.assert_success();
    assert_eq!(finished(&dry, "files"), 3, "{dry}");
    assert_eq!(fs::read(workspace.output("out/a/f9")).expect("it is there"), b"changed here");
    let careful = get(&server, &workspace, "", "out").options(["--no-clobber"]).run();
    careful.assert_success();
    assert_eq!((finished(&careful, "files"), finished(&careful, "skipped")), (1, 2), "{careful}");
    assert_eq!(fs::read(workspace.output("out/a/f9")).expect("it is there"), b"changed here");
    fs::remove_file(workspace.output("out/a/b/new")).expect("it is ours");
    let outcome = get(&server, &workspace, "", "out").options(["--sync"]).run();
    outcome.assert_success();
    assert_eq!(finished(&outcome, "files"), 3, "{outcome}");
    assert!(described(&workspace.output("out")) == described(&workspace.root()));
}

/// As rsync: with a slash what is in the directory, without one the directory.
#[test]
fn slash_decides_where_the_content_goes() {
    let workspace = Workspace::new();
    fs::create_dir_all(workspace.root().join("d/e")).expect("it is made");
    fs::write(workspace.root().join("d/e/f"), "x").expect("it is written");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    get(&server, &workspace, "d/", "one").run().assert_success();
    assert!(workspace.output("one/e/f").exists());
    fs::create_dir(workspace.output("two")).expect("it is made");
    get(&server, &workspace, "d", "two").options(["-r"]).run().assert_success();
    assert!(workspace.output("two/d/e/f").exists());
    let run = PROGRAMS.fetch(server.addr, 4, "d/", workspace.output("three"));
    run.run().assert_success();
    assert!(workspace.output("three/e/f").exists());
    get(&server, &workspace, "missing/", "four").run().assert_failure(3);
    assert!(!workspace.output("four").exists(), "a directory for nothing");
    fs::create_dir(workspace.root().join("nothing")).expect("it is made");
    get(&server, &workspace, "nothing/", "six").run().assert_success();
    assert_eq!(fs::read_dir(workspace.output("six")).expect("it is there").count(), 0);
    get(&server, &workspace, "d", "five").run().assert_failure(3);
}

#[test]
fn what_cannot_be_fetched_or_written_is_reported_and_the_rest_arrives() {
    let workspace = Workspace::new();
    plant(&workspace.root());
    symlink("/etc/passwd", workspace.root().join("absolute")).expect("it is made");
    symlink("../../x", workspace.root().join("a/outside")).expect("it is made");
    mkfifoat(CWD, workspace.root().join("fifo"), Mode::RUSR).expect("it is made");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    // A directory where a file is to be, and a file where a directory is to be.
    fs::create_dir_all(workspace.output("out/a/f5/x")).expect("it is made");
    fs::write(workspace.output("out/empty"), "a file").expect("it is written");
    let outcome = get(&server, &workspace, "", "out").run();
    assert_eq!(outcome.code, Some(8), "{outcome}");
    assert_eq!((finished(&outcome, "skipped"), finished(&outcome, "failed")), (3, 2), "{outcome}");
    assert_eq!(finished(&outcome, "files"), 210);
    assert!(outcome.stderr.contains("cannot write a/f5: is a directory"), "{outcome}");
    assert!(outcome.stderr.contains("empty"), "{outcome}");
    assert_eq!(fs::read(workspace.output("out/empty")).expect("it is there"), b"a file");
    assert!(!workspace.output("out/absolute").exists() && !workspace.output("out/fifo").exists());

    if rustix::process::geteuid().is_root() {
        for folder in [workspace.path().to_owned(), workspace.root()] {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).expect("it is ours");
        }
        fs::set_permissions(workspace.root().join("a/f1"), Permissions::from_mode(0o000))
            .expect("it is ours");
        fs::set_permissions(workspace.root().join("a/b/large"), Permissions::from_mode(0o000))
            .expect("it is ours");
        let other = PROGRAMS.serve(&workspace.root()).unprivileged().ready();
        let outcome = get(&other, &workspace, "a/", "other").run();
        assert_eq!(outcome.code, Some(3), "{outcome}");
        assert_eq!(finished(&outcome, "failed"), 2, "{outcome}");
        assert!(outcome.stderr.contains("cannot fetch f1: permission denied"), "{outcome}");
        assert!(outcome.stderr.contains("cannot fetch b/large"), "{outcome}");
    }
}

#[test]
fn modes_are_kept_if_wanted_without_special_bits() {
    let workspace = Workspace::new();
    fs::write(workspace.root().join("f"), "x").expect("it is written");
    fs::create_dir(workspace.root().join("d")).expect("it is made");
    fs::set_permissions(workspace.root().join("f"), Permissions::from_mode(0o4750)).expect("it is ours");
    fs::set_permissions(workspace.root().join("d"), Permissions::from_mode(0o2711)).expect("it is ours");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    get(&server, &workspace, "", "out").options(["-p"]).run().assert_success();
    let mode = |name: &str| {
        fs::metadata(workspace.output("out").join(name)).expect("it is there").permissions().mode() & 0o7777
    };
    assert_eq!((mode("f"), mode("d") & 0o777), (0o750, 0o711));
}

/// Killed at any moment: the next run completes it, and no file is ever a part of itself.
#[test]
fn killed_download_is_completed_by_the_next() {
    let workspace = Workspace::new();
    for n in 0..3000_usize {
        fs::create_dir_all(workspace.root().join(format!("d{}", n % 7))).expect("it is made");
        fs::write(workspace.root().join(format!("d{}/f{n}", n % 7)), pattern(3, 1000 + n))
            .expect("it is written");
    }
    fs::write(workspace.root().join("large"), pattern(4, 20 * MIB)).expect("it is written");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    for (round, signal) in [Signal::KILL, Signal::INT, Signal::KILL].into_iter().enumerate() {
        let client = get(&server, &workspace, "", "out").options(["--limit-rate", "20M"]).start();
        until_true("its first files", || workspace.output("out/large.dtjournal").exists() || round > 0);
        std::thread::sleep(Duration::from_millis(60));
        client.signal(signal);
        let outcome = client.finish_within(PATIENCE);
        assert_ne!(outcome.code, Some(0), "{round}: it was too fast");
        for (name, text) in described(&workspace.output("out")) {
            let name = Path::new(OsStr::from_bytes(&name)).to_owned();
            let is_whole = described(&workspace.root()).iter().any(|(_, expected)| *expected == text);
            let is_ours = name.extension().is_some_and(|end| end == "dtpart" || end == "dtjournal");
            assert!(
                is_whole || is_ours || text.starts_with("directory"),
                "{round}: {} is {text}",
                name.display()
            );
        }
    }
    get(&server, &workspace, "", "out").run().assert_success();
    let expected = described(&workspace.root());
    let left = described(&workspace.output("out"));
    let left: Vec<_> = left.into_iter().filter(|(name, _)| !name.ends_with(b".dtpart")).collect();
    assert!(left == expected, "not the same");
}

/// A tree that was made up.
#[derive(Clone, Debug)]
enum Node {
    File(usize, u32),
    Directory(Vec<(Vec<u8>, Node)>),
    Link(String),
}

fn node() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        (0..3000_usize, 0..0o1000_u32).prop_map(|(len, mode)| Node::File(len, mode)),
        (260_000..300_000_usize, Just(0o600)).prop_map(|(len, mode)| Node::File(len, mode)),
        "[a-c]{1,3}".prop_map(Node::Link),
    ];
    leaf.prop_recursive(5, 60, 8, |inner| {
        let name = proptest::collection::vec(1..=255_u8, 1..20);
        proptest::collection::vec((name, inner), 0..8).prop_map(Node::Directory)
    })
}

fn build(at: &Path, node: &Node) {
    match node {
        Node::File(len, mode) => {
            fs::write(at, pattern(5, *len)).expect("it is written");
            fs::set_permissions(at, Permissions::from_mode(mode | 0o400)).expect("it is ours");
        }
        Node::Link(target) => symlink(target, at).expect("it is made"),
        Node::Directory(children) => {
            fs::create_dir(at).expect("it is made");
            for (name, child) in children {
                let name: Vec<u8> =
                    name.iter().map(|byte| if *byte == b'/' { b'_' } else { *byte }).collect();
                let path = at.join(OsStr::from_bytes(&name));
                let is_odd = matches!(&name[..], b"." | b"..") || path.symlink_metadata().is_ok();
                if !is_odd {
                    build(&path, child);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_tree_survives(tree in node()) {
        let workspace = Workspace::new();
        build(&workspace.root().join("tree"), &Node::Directory(vec![(b"top".to_vec(), tree)]));
        let server = PROGRAMS.serve(&workspace.root()).ready();
        let outcome = get(&server, &workspace, "tree/", "out").run();
        prop_assert_eq!(outcome.code, Some(0), "{}", outcome);
        prop_assert!(described(&workspace.output("out")) == described(&workspace.root().join("tree")));
    }
}
