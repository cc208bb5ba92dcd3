//! Uploads that are refused: before the first byte, with a line that says why, and nothing changed.

use std::fs;
use std::os::unix::fs::symlink;

use dt_testkit::disk::SmallDisk;
use dt_testkit::workspace::{Workspace, files_in};

use crate::{MIB, PROGRAMS, Scene};

#[test]
fn uploads_are_not_permitted_by_default() {
    let workspace = Workspace::new();
    workspace.serve_pattern("f", 1, 100);
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let run = PROGRAMS.client().options(["put"]).args([workspace.root().join("f")]);
    let outcome = run.args([format!("{}/new", server.addr)]).run();
    outcome.assert_failure(3);
    assert!(outcome.error().contains("uploads are not permitted"), "{outcome}");
    assert_eq!(files_in(&workspace.root()), ["f"]);
}

#[test]
fn existing_file_is_replaced_only_if_both_sides_want_it() {
    for (permitted, wanted) in [(false, false), (false, true), (true, false), (true, true)] {
        let scene = Scene::new(if permitted { &["--allow-overwrite"] } else { &[] });
        let content = scene.local("f", 200_000);
        fs::write(scene.stored("out"), "before").expect("it is written");
        let run = scene.put("f", "out");
        let outcome = if wanted { run.options(["--overwrite"]) } else { run }.run();
        if permitted && wanted {
            outcome.assert_success();
            scene.assert_stored("out", &content);
        } else {
            outcome.assert_failure(13);
            assert!(outcome.error().contains("--overwrite"), "{outcome}");
            scene.assert_stored("out", b"before");
        }
    }
}

/// Names that lead out, to something else than a file, or to what transfers leave beside their outputs.
#[test]
fn names_outside_and_odd_names_are_refused() {
    let scene = Scene::new(&["--allow-overwrite"]);
    scene.local("f", 100);
    let outside = scene.workspace.path().join("outside");
    fs::create_dir(&outside).expect("it is made");
    fs::write(outside.join("secret"), "secret").expect("it is written");
    symlink(&outside, scene.stored("link")).expect("it is made");
    symlink(outside.join("secret"), scene.stored("file-link")).expect("it is made");
    fs::create_dir(scene.stored("folder")).expect("it is made");
    fs::write(scene.stored("file"), "").expect("it is written");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        scene.stored("fifo"),
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .expect("it is made");
    let before = files_in(&scene.workspace.outputs());
    for name in [
        "../outside/new",
        "a/../../outside/new",
        "link/new",
        "link/secret",
        "file-link",
        "folder",
        "file/new",
        "fifo",
        "x.dtpart",
        "x.dtjournal",
        "x.dtjournew",
        &"n".repeat(256),
        &"deep/".repeat(1000),
    ] {
        let name = name.trim_end_matches('/');
        let outcome = scene.put("f", name).options(["--overwrite"]).run();
        assert!(matches!(outcome.code, Some(1 | 3)), "{name}: {outcome}");
        outcome.assert_one_line("dtclient: ");
        assert_eq!(files_in(&scene.workspace.outputs()), before, "{name}");
    }
    assert_eq!(files_in(&outside), ["secret"]);
    assert_eq!(fs::read(outside.join("secret")).expect("it is there"), b"secret");
}

#[test]
fn size_is_limited_and_room_is_looked_for_first() {
    let scene = Scene::new(&["--max-upload-size", "1M"]);
    let content = scene.local("f", MIB);
    scene.put("f", "out").run().assert_success();
    scene.assert_stored("out", &content);
    scene.local("g", MIB + 1);
    let outcome = scene.put("g", "more").run();
    outcome.assert_failure(7);
    assert!(outcome.error().contains("1048576 bytes"), "{outcome}");
    scene.assert_stored("out", &content);

    let Some(disk) = SmallDisk::mount() else { return };
    let server =
        PROGRAMS.serve(&scene.workspace.root()).options(["--upload-dir".as_ref(), disk.path()]).ready();
    scene.local("big", 20 * MIB);
    let outcome = scene.put_as("big", &format!("{}/big", server.addr)).run();
    outcome.assert_failure(7);
    assert!(outcome.error().contains("no space left"), "{outcome}");
    assert!(files_in(disk.path()).is_empty());
    scene.local("small", MIB);
    scene.put_as("small", &format!("{}/small", server.addr)).run().assert_success();
}

#[test]
fn sources_that_cannot_be_read_are_reported() {
    let scene = Scene::new(&[]);
    fs::create_dir(scene.path("folder")).expect("it is made");
    for name in ["missing", "folder"] {
        let outcome = scene.put(name, "out").run();
        outcome.assert_failure(8);
        assert!(outcome.error().contains(name), "{outcome}");
        assert!(!outcome.error().contains("create"), "advice about outputs: {outcome}");
    }
    assert!(files_in(&scene.workspace.outputs()).is_empty());
}

/// A listener that speaks something else, and a server that does not know uploads.
#[test]
fn other_servers_are_called_that() {
    let scene = Scene::new(&[]);
    scene.local("f", 10);
    let stranger = dt_testkit::original_server::OriginalServer::start(
        &scene.path("f"),
        dt_testkit::original_server::Script::answering(dt_testkit::original_server::Answering::Bytes(
            b"HTTP/1.0 405 Method Not Allowed\r\nContent-Length: 6\r\n\r\n<html>".to_vec(),
        )),
    );
    let outcome = scene.put_as("f", &format!("{}/f", stranger.addr)).run();
    outcome.assert_failure(12);
    assert!(outcome.error().contains("no dtserver"), "{outcome}");
}
