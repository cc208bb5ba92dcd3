//! Uploads that are interrupted: what the server has verified stays, and the same command resumes.

use std::fs;
use std::io::Write;
use std::time::Duration;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::journal::Journal;
use dt_testkit::process::Process;
use dt_testkit::programs::Run;
use dt_testkit::proxy::Proxy;
use dt_testkit::wait::{PATIENCE, until_true};
use rustix::process::Signal;

use crate::{MIB, Scene, server};

const SIZE: usize = 24 * MIB;

fn recorded(scene: &Scene) -> u64 {
    Journal::read(&scene.stored("out.dtjournal")).map_or(0, |journal| journal.blocks())
}

/// An upload that has sent something and takes seconds for the rest.
fn started(scene: &Scene) -> Process {
    let client = slow(scene).start();
    until_true("recorded blocks", || recorded(scene) >= 20);
    client
}

fn slow(scene: &Scene) -> Run {
    scene.put("f", "out").options(["--limit-rate", "8M"])
}

/// Fails unless the run stored the file and sent only what was missing.
#[track_caller]
fn assert_resumed(scene: &Scene, run: Run, content: &[u8]) {
    let known = recorded(scene);
    assert!(known >= 20, "{known} blocks are recorded");
    let outcome = run.run();
    outcome.assert_success();
    let events = Events::of(&outcome);
    let (sent, bytes) = (
        number(events.last("finished").expect("it has finished"), "sent"),
        number(events.last("finished").expect("it has finished"), "bytes"),
    );
    let block = 64 << 10;
    assert!(
        sent + known * block <= bytes + 4 * block,
        "{sent} of {bytes} bytes sent, {known} blocks were known"
    );
    scene.assert_stored("out", content);
}

#[test]
fn upload_resumes_after_an_interruption_and_after_a_kill() {
    for signal in [Signal::INT, Signal::KILL] {
        let scene = Scene::new(&[]);
        let content = scene.local("f", SIZE);
        let client = started(&scene);
        client.signal(signal);
        let outcome = client.finish_within(PATIENCE);
        if signal == Signal::INT {
            outcome.assert_failure(130);
            assert!(outcome.error().contains("to resume, run"), "{outcome}");
        }
        // Whether the server has noticed or not: it does not keep the next one out.
        assert_resumed(&scene, scene.put("f", "out"), &content);
    }
}

#[test]
fn upload_survives_the_kill_of_the_server() {
    let mut scene = Scene::new(&[]);
    let content = scene.local("f", SIZE);
    let client = started(&scene);
    let port = scene.server.addr.port();
    scene.server.kill();
    std::thread::sleep(Duration::from_millis(300));
    scene.server = server(&scene.workspace, &[]).ready_on(port);
    let outcome = client.finish_within(Duration::from_secs(40));
    outcome.assert_success();
    scene.assert_stored("out", &content);
    let events = Events::of(&outcome);
    assert!(
        number(events.last("finished").expect("it has finished"), "sent")
            < 2 * number(events.last("finished").expect("it has finished"), "bytes"),
        "{outcome}"
    );
}

/// A server that shuts down reports it, and the client waits for the next one.
#[test]
fn upload_survives_the_restart_of_the_server() {
    let scene = Scene::new(&[]);
    let content = scene.local("f", SIZE);
    let client = started(&scene);
    let Scene { workspace, server: old } = scene;
    let port = old.addr.port();
    old.stop(Signal::TERM, PATIENCE).assert_success();
    let scene = Scene { server: server(&workspace, &[]).ready_on(port), workspace };
    let outcome = client.finish_within(Duration::from_secs(40));
    outcome.assert_success();
    scene.assert_stored("out", &content);
}

#[test]
fn upload_survives_lost_connections() {
    let scene = Scene::new(&[]);
    let content = scene.local("f", SIZE);
    let proxy = Proxy::plain(scene.server.addr);
    let place = format!("{}/out", proxy.addr);
    let client = scene.put_as("f", &place).options(["--limit-rate", "8M"]).start();
    for _ in 0..3 {
        let known = recorded(&scene);
        until_true("more blocks", || recorded(&scene) > known + 10);
        proxy.cut_all();
    }
    let outcome = client.finish_within(Duration::from_secs(40));
    outcome.assert_success();
    scene.assert_stored("out", &content);
    let events = Events::of(&outcome);
    assert!(number(events.last("finished").expect("it has finished"), "streams_lost") > 0, "{outcome}");
}

/// A source that is another version resumes where its blocks are the same; else it is kept, and the user decides.
#[test]
fn other_version_of_the_source_is_compared() {
    let scene = Scene::new(&[]);
    let mut content = scene.local("f", SIZE);
    let interrupt = || {
        let client = started(&scene);
        client.signal(Signal::INT);
        client.finish_within(PATIENCE).assert_failure(130);
    };
    interrupt();
    let added = pattern(7, 100_000);
    let mut file = fs::File::options().append(true).open(scene.path("f")).expect("it opens");
    file.write_all(&added).expect("it is written");
    content.extend(added);
    assert_resumed(&scene, scene.put("f", "out"), &content);

    fs::remove_file(scene.stored("out")).expect("it is ours");
    interrupt();
    let other = pattern(8, SIZE);
    fs::write(scene.path("f"), &other).expect("it is written");
    let outcome = scene.put("f", "out").run();
    outcome.assert_failure(11);
    assert!(outcome.error().contains("--no-resume"), "{outcome}");
    assert!(recorded(&scene) >= 20, "what was saved is gone");
    scene.put("f", "out").options(["--no-resume"]).run().assert_success();
    scene.assert_stored("out", &other);
}

#[test]
fn source_that_changes_during_the_upload_is_an_error() {
    let scene = Scene::new(&[]);
    let content = scene.local("f", SIZE);
    let client = started(&scene);
    fs::write(scene.path("f"), &content[..SIZE / 2]).expect("it is written");
    let outcome = client.finish_within(PATIENCE);
    outcome.assert_failure(11);
    assert!(!scene.stored("out").exists());
}

/// The second one does not disturb the first.
#[test]
fn one_of_two_uploads_to_one_name_is_refused() {
    let scene = Scene::new(&[]);
    let content = scene.local("f", SIZE);
    scene.local("g", MIB);
    let first = started(&scene);
    let outcome = scene.put("g", "out").run();
    outcome.assert_failure(13);
    assert!(outcome.error().contains("another upload"), "{outcome}");
    first.finish_within(PATIENCE).assert_success();
    scene.assert_stored("out", &content);
}

/// A file that appears under the name during the upload is kept.
#[test]
fn file_that_appears_during_the_upload_is_kept() {
    let scene = Scene::new(&[]);
    scene.local("f", SIZE);
    let client = started(&scene);
    fs::write(scene.stored("out"), "appeared").expect("it is written");
    let outcome = client.finish_within(PATIENCE);
    outcome.assert_failure(13);
    assert_eq!(fs::read(scene.stored("out")).expect("it is there"), b"appeared");
}
