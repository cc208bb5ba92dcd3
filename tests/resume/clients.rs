//! Clients that are not like the first one: another number of streams, another engine, another protocol, two at once.

use std::fs;
use std::time::Duration;

use dt_testkit::content::md5;
use dt_testkit::fetched::blake3_of;
use dt_testkit::wait::PATIENCE;
use rustix::process::Signal;

use crate::{ENGINES, MIB, PROGRAMS, Scene};

#[test]
fn resume_with_another_number_of_streams() {
    let scene = Scene::new(6 * MIB);
    for streams in [1, 3, 8, 255] {
        let known = scene.interrupted();
        let run = PROGRAMS.fetch(scene.server.addr, streams, "f", scene.output()).options(["--json"]);
        // What is in flight with so many streams is not compared here.
        if streams <= 8 {
            scene.resume_with(run, known, &format!("{streams} streams"));
        } else {
            run.run().assert_success();
            assert!(fs::read(scene.output()).expect("it is there") == scene.content);
            fs::remove_file(scene.output()).expect("it is ours");
        }
    }
}

#[test]
fn resume_with_another_engine() {
    let scene = Scene::new(6 * MIB);
    for (first, second) in [("map", "write"), ("write", "map"), ("map", "auto")] {
        let known = scene.interrupted_after(20, scene.slowly().options(["--engine", first]));
        scene.resume_with(
            scene.fetch().options(["--engine", second]),
            known,
            &format!("{first}, then {second}"),
        );
    }
}

/// Digests of a file that this run has received only in part.
#[test]
fn resumed_file_has_both_digests() {
    let scene = Scene::new(6 * MIB);
    for engine in ENGINES {
        let known = scene.interrupted();
        let run = scene.fetch().options(["--md5", "--engine", engine]);
        let finished = scene.resume_with(run, known, "with --md5");
        assert_eq!(finished["md5"], md5(&scene.content));
        for (checksum, code) in [
            (format!("md5={}", md5(&scene.content)), 0),
            (format!("blake3={}", blake3_of(&scene.content)), 0),
            (format!("md5={}", md5(b"another")), 6),
            (format!("blake3={}", blake3_of(b"another")), 6),
        ] {
            scene.interrupted();
            let run = scene.fetch().options(["--engine", engine, "--checksum", &checksum]);
            let outcome = run.run();
            assert_eq!(outcome.code, Some(code), "{checksum}: {outcome}");
            assert_eq!(scene.output().exists(), code == 0, "{checksum}: {outcome}");
            for left in [scene.output(), scene.part(), scene.journal_path()] {
                let _ = fs::remove_file(left);
            }
        }
    }
}

#[test]
fn second_client_finds_the_part_file_in_use() {
    let scene = Scene::new(12 * MIB);
    let mut first = scene.slowly().start();
    scene.until_recorded(&mut first, 20);
    for options in [["--json"].as_slice(), &["--no-resume"], &["--engine", "write"], &["--protocol", "1"]] {
        let run = PROGRAMS.fetch(scene.server.addr, 4, "f", scene.output()).options(options);
        let second = run.run();
        second.assert_failure(13);
        assert!(second.error().contains("out"), "{second}");
    }
    let outcome = first.finish_within(PATIENCE);
    scene.assert_resumed(&outcome, 0, "the first is not disturbed");
}

/// Eight at once on what an interrupted one left: one resumes it, the others find it in use or done.
#[test]
fn one_of_many_clients_resumes() {
    let scene = Scene::new(6 * MIB);
    scene.interrupted();
    let clients: Vec<_> = (0..8).map(|_| scene.slowly().start()).collect();
    let outcomes: Vec<_> = clients.into_iter().map(|client| client.finish_within(PATIENCE)).collect();
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.code).collect();
    assert!(codes.contains(&Some(0)), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, Some(0 | 13))), "{codes:?}");
    assert!(fs::read(scene.output()).expect("it is there") == scene.content);
    scene.workspace.assert_outputs(&["out"]);
}

/// Protocol 1 cannot resume, so it does not start where blocks would be lost, without `--no-resume`.
#[test]
fn legacy_protocol_keeps_saved_blocks() {
    let scene = Scene::new(6 * MIB);
    let known = scene.interrupted();
    let run = PROGRAMS.fetch(scene.server.addr, 4, "f", scene.output()).options(["--protocol", "1"]);
    let outcome = run.clone().run();
    outcome.assert_failure(8);
    assert!(outcome.error().contains("--no-resume"), "{outcome}");
    scene.resume(known, "protocol 2 after protocol 1");
    scene.interrupted();
    run.options(["--no-resume"]).run().assert_success();
    assert!(fs::read(scene.output()).expect("it is there") == scene.content);
    fs::remove_file(scene.output()).expect("it is ours");
    scene.start_over("protocol 2 after protocol 1");
    // And protocol 1 itself keeps nothing.
    let run = PROGRAMS.fetch(scene.server.addr, 1, "f", scene.output()).options(["--protocol", "1"]);
    let client = run.options(["--limit-rate", "1M"]).start();
    dt_testkit::wait::until_true("its part file", || scene.part().exists());
    client.signal(Signal::INT);
    let outcome = client.finish_within(Duration::from_secs(10));
    if outcome.code == Some(130) {
        scene.workspace.assert_outputs(&[]);
    }
}
