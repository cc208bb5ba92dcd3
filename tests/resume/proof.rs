//! After another boot the saved bytes are read back: reported while it lasts, ended by an interrupt, and possibly longer than
//! the session lives.

use std::fs::{self, File};

use dt_testkit::events::{Events, number};
use dt_testkit::frame::block_digest;
use dt_testkit::journal::Journal;
use dt_testkit::process::Process;
use dt_testkit::session::Session;
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, Scene};

/// Long enough that reading it back can be watched.
const LEN: usize = 256 * MIB;

/// A transfer of zeros that has all but its last block, and was stopped before the machine was restarted.
fn before_another_boot() -> Scene {
    let workspace = Workspace::new();
    let source = File::create(workspace.root().join("f")).expect("it is made");
    source.set_len(LEN.try_into().expect("it fits")).expect("it is sparse");
    let server = PROGRAMS.serve(&workspace.root()).ready();
    let block = Session::request(server.addr, "f", 1).block;
    let scene = Scene { workspace, server, content: vec![0; LEN], block };
    scene.interrupted();
    let mut header = scene.journal().expect("it is there").header();
    header.boot[5] ^= 1;
    let mut journal = header.encode();
    let n_done = scene.size() / block - 1;
    for index in 0..n_done {
        let [start, end] = [index, index + 1].map(|n| usize::try_from(n * block).expect("it fits"));
        let digest = block_digest(scene.size(), index * block, &scene.content[start..end]);
        journal.extend(header.record(index, &digest));
    }
    fs::write(scene.journal_path(), journal).expect("it is written");
    assert_eq!(scene.recorded(), n_done);
    scene
}

/// Waits until the client reads back what is there.
fn until_checking(client: &mut Process) {
    until_true("its checking", || {
        assert!(!client.has_ended(), "the client has ended: {}", client.stderr());
        Events::so_far(&client.stdout()).count("checking") > 0
    });
}

#[test]
fn rereading_is_reported() {
    let scene = before_another_boot();
    let outcome = scene.fetch().run();
    let events = Events::of(&outcome);
    let names = events.names();
    let started = names.iter().position(|name| *name == "started").expect("it starts");
    assert!(names[..started].contains(&"checking"), "{names:?}");
    assert!(!names[started..].contains(&"checking"), "{names:?}");
    let first = events.named("checking")[0];
    assert_eq!((number(first, "bytes"), number(first, "of")), (0, scene.size() - scene.block));
    scene.assert_resumed(&outcome, scene.size() / scene.block - 1, "after another boot");
}

#[test]
fn rereading_can_be_interrupted() {
    // On a busy machine it may be through before the interrupt arrives.
    for _ in 0..20 {
        let scene = before_another_boot();
        let journal = fs::read(scene.journal_path()).expect("it is there");
        let mut client = scene.fetch().start();
        until_checking(&mut client);
        client.signal(Signal::INT);
        let outcome = client.finish_within(PATIENCE);
        if Events::of(&outcome).count("started") > 0 {
            continue;
        }
        outcome.assert_failure(130);
        scene.assert_saved();
        assert!(fs::read(scene.journal_path()).expect("it is there") == journal, "it is as it was");
        scene.resume(scene.recorded(), "after the interrupt");
        return;
    }
    panic!("no interrupt was heard before all was read back");
}

/// The session has expired when the streams connect, as if reading back took longer than the server waits for them.
#[test]
fn session_may_expire_during_rereading() {
    let mut scene = before_another_boot();
    let known = scene.recorded();
    let mut client = scene.fetch().start();
    until_checking(&mut client);
    client.signal(Signal::STOP);
    let port = scene.server.addr.port();
    scene.server.kill();
    scene.server = PROGRAMS.serve(&scene.workspace.root()).ready_on(port);
    client.signal(Signal::CONT);
    scene.assert_resumed(&client.finish_within(PATIENCE), known, "in another session");
    assert!(Journal::read(&scene.journal_path()).is_none());
}
