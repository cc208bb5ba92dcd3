//! Which transfer a part file belongs to: its remote file, its version, its place; no transfer gets bytes of another.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::journal::remote;
use dt_testkit::session::Session;

use crate::{MIB, PROGRAMS, STREAMS, Scene};

#[test]
fn journal_header_is_as_documented() {
    let scene = Scene::new(6 * MIB);
    scene.interrupted();
    let header = scene.journal().expect("it is there").header();
    let answer = Session::request(scene.server.addr, "f", 1);
    let part = fs::metadata(scene.part()).expect("it is there");
    assert_eq!((header.format, u64::from(header.block), header.size), (1, scene.block, scene.size()));
    assert_eq!(Some(header.modified), answer.json["modified"].as_i64());
    assert_eq!(answer.json["version"], dt_testkit::content::hex(&header.version));
    assert_eq!(header.remote, remote(&scene.server.addr.to_string(), "f"));
    assert_eq!(header.part, [part.dev(), part.ino()]);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("it is read").replace('-', "");
    assert_eq!(dt_testkit::content::hex(&header.boot), boot.trim());
    scene.resume(0, "a whole one");
    scene.interrupted();
    assert_ne!(scene.journal().expect("it is there").header().nonce, header.nonce, "no nonce is used twice");
}

/// A name for a change of the source, and the change.
type Change<'a> = (&'a str, &'a dyn Fn(&Scene));

/// A source that changed between two attempts is reported, everything is saved, and --no-resume starts over.
#[test]
fn changed_source_is_reported_and_nothing_is_lost() {
    let changes: [Change; 3] = [
        ("overwritten", &|scene| drop(scene.workspace.serve_pattern("f", 2, 6 * MIB))),
        ("another size", &|scene| drop(scene.workspace.serve_pattern("f", 2, 6 * MIB - 1))),
        ("cut off", &|scene| {
            let file = File::options().append(true).open(scene.workspace.root().join("f")).expect("it opens");
            file.set_len(scene.size() - 1).expect("it is truncated");
        }),
    ];
    for (what, change) in changes {
        let mut scene = Scene::new(6 * MIB);
        let known = scene.interrupted();
        let part = fs::read(scene.part()).expect("it is there");
        change(&scene);
        for _ in 0..2 {
            let outcome = scene.fetch().run();
            outcome.assert_failure(11);
            assert!(outcome.error().contains("--no-resume"), "{what}: {outcome}");
            scene.workspace.assert_outputs(&["out.dtjournal", "out.dtpart"]);
            assert_eq!(scene.recorded(), known, "{what}: the journal is saved");
            assert!(fs::read(scene.part()).expect("it is there") == part, "{what}: the part file is saved");
        }
        scene.content = fs::read(scene.workspace.root().join("f")).expect("it is there");
        scene.start_over_with(scene.fetch().options(["--no-resume"]), what);
    }
}

#[test]
fn no_resume_starts_over() {
    let scene = Scene::new(6 * MIB);
    scene.interrupted();
    scene.start_over_with(scene.fetch().options(["--no-resume"]), "--no-resume");
    scene.interrupted();
    scene.start_over_with(scene.fetch().env("DT_NO_RESUME", "1"), "DT_NO_RESUME");
    // A transfer that is interrupted with it can be resumed without it.
    let known = scene.interrupted_after(20, scene.slowly().options(["--no-resume"]));
    scene.resume(known, "after --no-resume");
}

/// Another file with the same output starts over.
#[test]
fn another_file_starts_over() {
    let scene = Scene::new(6 * MIB);
    let other = scene.workspace.serve_pattern("g", 9, 6 * MIB);
    scene.interrupted();
    let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "g", scene.output()).options(["--json"]);
    let outcome = run.run();
    let finished = assert_fetched(&outcome, &scene.output(), &other, "another file");
    assert_eq!(number(&finished, "resumed"), 0, "{finished}");
    let notices = Events::of(&outcome);
    assert!(notices.named("notice").iter().any(|notice| notice["kind"] == "started_over"), "{outcome}");
}

/// A journal that belongs to the part file of another output.
#[test]
fn journal_of_another_transfer_is_not_used() {
    let scene = Scene::new(6 * MIB);
    let mut other = pattern(9, 6 * MIB);
    other[0] = 1;
    fs::write(scene.workspace.root().join("g"), &other).expect("it is written");
    scene.interrupted();
    for [from, to] in [["out.dtjournal", "kept.dtjournal"], ["out.dtpart", "kept.dtpart"]] {
        fs::rename(scene.workspace.output(from), scene.workspace.output(to)).expect("it is moved");
    }
    let run = PROGRAMS.fetch(scene.server.addr, STREAMS, "g", scene.output());
    let mut client = run.options(["--limit-rate", "12M"]).start();
    scene.until_recorded(&mut client, 20);
    client.signal(rustix::process::Signal::INT);
    client.finish_within(dt_testkit::wait::PATIENCE).assert_failure(130);
    fs::rename(scene.workspace.output("kept.dtjournal"), scene.journal_path()).expect("it is moved");
    fs::remove_file(scene.workspace.output("kept.dtpart")).expect("it is ours");
    scene.start_over("a part file of g with the journal of f");
}

/// A file with the part file's name that no client made.
#[test]
fn foreign_part_file_is_left_alone() {
    let scene = Scene::new(MIB);
    let mut file = File::create(scene.part()).expect("it is made");
    file.write_all(b"not ours").expect("it is written");
    drop(file);
    let outcome = scene.fetch().run();
    if outcome.code == Some(0) {
        assert_fetched(&outcome, &scene.output(), &scene.content, "in the place of it");
    } else {
        outcome.assert_one_line("dtclient: ");
        assert_eq!(fs::read(scene.part()).expect("it is there"), b"not ours");
    }
}

/// An output that appeared in the meantime is replaced, or not, as at any other time.
#[test]
fn existing_output_is_replaced_at_the_end() {
    let scene = Scene::new(6 * MIB);
    let known = scene.interrupted();
    fs::write(scene.output(), "in the meantime").expect("it is written");
    let refused = scene.fetch().options(["--no-clobber"]).run();
    refused.assert_failure(13);
    assert_eq!(Events::of(&refused).only("failed", &["exit"])["exit"], 13);
    assert_eq!(fs::read(scene.output()).expect("it is there"), b"in the meantime");
    assert_eq!(scene.recorded(), known, "what is saved stays saved");
    scene.resume(known, "replacing");
}
