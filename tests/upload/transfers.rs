//! Uploads that succeed: every size, from files and pipes, with what they keep of the source.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use dt_testkit::events::{Events, number};
use dt_testkit::process::Process;
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::files_in;

use crate::{MIB, Scene};

#[test]
fn files_of_any_size_arrive() {
    let scene = Scene::new(&[]);
    for (len, streams) in [(0, 8), (1, 8), (65_536, 1), (65_537, 255), (20 * MIB + 5, 1), (20 * MIB + 5, 8)] {
        let content = scene.local("f", len);
        let outcome = scene.put("f", "out").options(["-s", &streams.to_string()]).run();
        outcome.assert_success();
        scene.assert_stored("out", &content);
        let finished = Events::of(&outcome);
        assert_eq!(
            number(finished.last("finished").expect("it has finished"), "bytes"),
            u64::try_from(len).expect("it fits"),
            "{outcome}"
        );
        fs::remove_file(scene.stored("out")).expect("it is ours");
    }
}

#[test]
fn remote_file_gets_the_time_and_if_wanted_the_mode() {
    let scene = Scene::new(&[]);
    scene.local("f", 1000);
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options()
        .append(true)
        .open(scene.path("f"))
        .expect("it opens")
        .set_modified(time)
        .expect("it is set");
    fs::set_permissions(scene.path("f"), Permissions::from_mode(0o4751)).expect("it is ours");
    for (options, mode, is_kept) in
        [(&[][..], None, true), (&["-p"], Some(0o751), true), (&["--no-preserve"], None, false)]
    {
        scene.put("f", "out").options(options).run().assert_success();
        let found = fs::metadata(scene.stored("out")).expect("it is there");
        assert_eq!(found.modified().expect("it has one") == time, is_kept, "{options:?}");
        if let Some(mode) = mode {
            assert_eq!(found.mode() & 0o7777, mode, "{options:?}");
        }
        assert_eq!(found.mode() & 0o7000, 0, "{options:?}");
        fs::remove_file(scene.stored("out")).expect("it is ours");
    }
}

/// Folders on the way are created, and names of any bytes arrive as they are.
#[test]
fn names_are_those_of_the_place() {
    let scene = Scene::new(&[]);
    let content = scene.local("f", 5000);
    for name in ["a/b/c", "/d", "sp ace", "per%20cent", "ümlaut", "./e", "g//h"] {
        scene.put("f", name).run().assert_success();
        assert!(
            fs::read(scene.stored(name.trim_start_matches('/'))).expect("it is there") == content,
            "{name}"
        );
    }
    scene.local("own", 7);
    scene.put("own", "into/").run().assert_success();
    assert_eq!(files_in(&scene.stored("into")), ["own"]);
}

#[test]
fn several_files_go_one_after_the_other() {
    let scene = Scene::new(&[]);
    scene.local("a", 10);
    scene.local("c", 10);
    let place = format!("{}/x/", scene.server.addr);
    let run = crate::PROGRAMS.client().options(["put"]);
    let outcome = run.args(["a", "missing", "c"].map(|name| scene.path(name))).args([&place]).run();
    // The one that is missing is reported, and the others are sent.
    assert_eq!(outcome.code, Some(8), "{outcome}");
    assert!(outcome.stderr.contains("missing"), "{outcome}");
    assert_eq!(files_in(&scene.stored("x")), ["a", "c"]);
}

#[test]
fn pipe_is_sent_to_its_end() {
    let scene = Scene::new(&[]);
    let content = scene.local("f", 3 * MIB);
    let put = scene.put("-", "out").under(["sh", "-c", "cat \"$1\" | { shift; \"$@\"; }", "sh"]);
    let mut words = put.clone();
    // The first argument of the script is what it reads.
    words = words.under([
        "sh".to_owned(),
        "-c".to_owned(),
        "f=$1; shift; cat \"$f\" | \"$@\"".to_owned(),
        "sh".to_owned(),
        scene.path("f").display().to_string(),
    ]);
    words.run().assert_success();
    scene.assert_stored("out", &content);
}

/// Who downloads meanwhile gets the old version, whole.
#[test]
fn replaced_file_is_the_old_one_or_the_new_one() {
    let scene = Scene::new(&["--allow-overwrite"]);
    let old = scene.local("f", 8 * MIB);
    scene.put("f", "out").run().assert_success();
    let other = crate::PROGRAMS.serve(&scene.workspace.outputs()).ready();
    let copy = scene.path("copy");
    let download = crate::PROGRAMS.fetch(other.addr, 4, "out", &copy).options(["--limit-rate", "8M"]).start();
    until_true("its first bytes", || scene.path("copy.dtpart").exists());
    let new = dt_testkit::content::pattern(9, 6 * MIB);
    fs::write(scene.path("f"), &new).expect("it is written");
    scene.put("f", "out").options(["--overwrite"]).run().assert_success();
    scene.assert_stored("out", &new);
    Process::finish_within(download, PATIENCE).assert_success();
    assert!(fs::read(copy).expect("it is there") == old);
}

#[test]
fn rate_is_limited() {
    let scene = Scene::new(&[]);
    let content = scene.local("f", 4 * MIB);
    let outcome = scene.put("f", "out").options(["--limit-rate", "4M"]).run();
    outcome.assert_success();
    let events = Events::of(&outcome);
    assert!(
        events.last("finished").expect("it has finished")["seconds"]
            .as_f64()
            .is_some_and(|seconds| seconds > 0.7),
        "{outcome}"
    );
    scene.assert_stored("out", &content);
}
