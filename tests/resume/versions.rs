//! Sources that are another version by their size, time or inode: what is saved counts if the server has the same blocks.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::SystemTime;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::frame::{DIGEST, HEADER, PAYLOAD_CHECK, TRAILER};
use dt_testkit::process::Outcome;
use dt_testkit::programs::Run;
use dt_testkit::proxy::{Carries, Ending, Fate, Proxy};
use dt_testkit::reverse_proxy::{ReverseProxy, Upgrades};
use dt_testkit::session::Session;
use dt_testkit::wait::{PATIENCE, until_true};
use rustix::process::Signal;

use crate::{MIB, PROGRAMS, STREAMS, Scene};

/// A name for a change of the source, and the change.
type Change<'a> = (&'a str, &'a dyn Fn(&Scene));

fn source(scene: &Scene) -> PathBuf {
    scene.workspace.root().join("f")
}

fn touch(scene: &Scene) {
    let file = File::options().append(true).open(source(scene)).expect("it opens");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("its time is set");
}

/// Another file in its place, with another inode.
fn replace(scene: &Scene) {
    let copy = scene.workspace.root().join("copy");
    fs::copy(source(scene), &copy).expect("it is copied");
    fs::rename(copy, source(scene)).expect("it is replaced");
}

fn append(scene: &Scene) {
    let mut file = File::options().append(true).open(source(scene)).expect("it opens");
    file.write_all(&pattern(7, 100_000)).expect("it is written");
}

/// Changes a byte of the block with this number.
fn damage(scene: &Scene, block: u64) {
    let file = File::options().read(true).write(true).open(source(scene)).expect("it opens");
    let (mut byte, at) = ([0], block * scene.block + 77);
    file.read_exact_at(&mut byte, at).expect("it is read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("it is written");
}

/// The blocks that are recorded.
fn recorded(scene: &Scene) -> BTreeSet<u64> {
    scene.journal().expect("it is there").records.iter().map(|record| record.block).collect()
}

fn saved(scene: &Scene) -> [Vec<u8>; 2] {
    [scene.part(), scene.journal_path()].map(|path| fs::read(path).expect("it is there"))
}

fn fetch_from(server: &impl ToString, scene: &Scene) -> Run {
    let (server, streams, output) = (server.to_string(), STREAMS.to_string(), scene.output());
    let args = [OsStr::new(&server), OsStr::new(&streams), OsStr::new("f"), output.as_os_str()];
    PROGRAMS.client().options(["--json"]).args(args)
}

/// Fails unless a run fetched the blocks that were missing, and nothing else.
#[track_caller]
fn assert_missing_fetched(scene: &mut Scene, outcome: &Outcome, known: &BTreeSet<u64>, what: &str) {
    scene.content = fs::read(source(scene)).expect("it is there");
    let finished = assert_fetched(outcome, &scene.output(), &scene.content, what);
    let saved = u64::try_from(known.len()).expect("it fits") * scene.block;
    let [received, resumed, wasted] =
        ["received", "resumed", "wasted_bytes"].map(|key| number(&finished, key));
    assert_eq!(resumed, saved, "{what}: {finished}");
    assert_eq!(received - wasted, scene.size() - saved, "{what}: {finished}");
    assert_eq!(Events::of(outcome).count("notice"), 0, "{what}: {outcome}");
    scene.workspace.assert_outputs(&["out"]);
    fs::remove_file(scene.output()).expect("it is ours");
}

#[test]
fn source_with_the_same_bytes_resumes() {
    let changes: [Change; 4] = [
        ("touched", &touch),
        ("replaced", &replace),
        ("appended to", &append),
        ("both", &|scene| {
            replace(scene);
            append(scene);
        }),
    ];
    for (what, change) in changes {
        let mut scene = Scene::new(6 * MIB);
        scene.interrupted();
        let known = recorded(&scene);
        change(&scene);
        let outcome = scene.fetch().run();
        assert_missing_fetched(&mut scene, &outcome, &known, what);
    }
}

/// Whether one stream or many, and however much was saved.
#[test]
fn touched_source_resumes_with_any_number_of_streams() {
    for (streams, blocks) in [(1, 1), (2, 40), (32, 85)] {
        let mut scene = Scene::new(6 * MIB);
        scene.interrupted_after(blocks, scene.slowly());
        let known = recorded(&scene);
        touch(&scene);
        let run = PROGRAMS.fetch(scene.server.addr, streams, "f", scene.output());
        let outcome = run.options(["--json", "--md5"]).run();
        assert_missing_fetched(&mut scene, &outcome, &known, &format!("{streams} streams"));
    }
}

/// What is missing may have changed; what is saved may not.
#[test]
fn changed_block_counts_if_it_is_saved() {
    let mut scene = Scene::new(6 * MIB);
    scene.interrupted();
    let known = recorded(&scene);
    let n_blocks = scene.size().div_ceil(scene.block);
    let missing = (0..n_blocks).find(|block| !known.contains(block)).expect("one is missing");
    damage(&scene, missing);
    touch(&scene);
    let outcome = scene.fetch().run();
    assert_missing_fetched(&mut scene, &outcome, &known, "a missing block changed");

    for at_end in [false, true] {
        let mut scene = Scene::new(6 * MIB);
        scene.interrupted();
        let known = recorded(&scene);
        let ends = [known.first(), known.last()];
        damage(&scene, *ends[usize::from(at_end)].expect("blocks are saved"));
        let before = saved(&scene);
        let changes: [Change; 3] = [("as it is", &|_| {}), ("touched", &touch), ("appended to", &append)];
        for (what, change) in changes {
            change(&scene);
            let outcome = scene.fetch().run();
            outcome.assert_failure(11);
            assert!(outcome.error().contains("--no-resume"), "{what}: {outcome}");
            assert!(saved(&scene) == before, "{what}: what is saved stays saved");
        }
        scene.content = fs::read(source(&scene)).expect("it is there");
        scene.start_over_with(scene.fetch().options(["--no-resume"]), "a saved block changed");
    }
}

/// Another spelling of the server's name, and another server with a copy.
#[test]
fn other_names_of_the_same_bytes_resume() {
    let mut scene = Scene::new(6 * MIB);
    let localhost = format!("localhost:{}", scene.server.addr.port());
    let changes: [Change; 2] = [("as it was", &|_| {}), ("touched", &touch)];
    for (what, change) in changes {
        scene.interrupted();
        let known = recorded(&scene);
        change(&scene);
        let outcome = fetch_from(&localhost, &scene).run();
        assert_missing_fetched(&mut scene, &outcome, &known, what);
    }
    let there = tempfile::tempdir().expect("a folder is made");
    fs::copy(source(&scene), there.path().join("f")).expect("it is copied");
    let mirror = PROGRAMS.serve(there.path()).ready();
    scene.interrupted();
    let known = recorded(&scene);
    let outcome = fetch_from(&mirror.addr, &scene).run();
    assert_missing_fetched(&mut scene, &outcome, &known, "a copy on another server");
}

/// A proxy that lets nothing through after the beginning of the digests that the server sends on the first stream, and how many bytes
/// precede that.
fn ending_in_the_proof(scene: &Scene, ending: Ending) -> (Proxy, u64) {
    let known = recorded(scene);
    let missing = |block: &u64| !known.contains(block);
    let session = Session::request(scene.server.addr, "f", STREAMS);
    let first = (0..session.n_blocks()).find(missing).expect("one is missing");
    let n_missing = (first..session.n_blocks()).take_while(missing).count();
    let gap = u64::try_from(n_missing).expect("it fits") * session.block;
    let pushed = session.pushed(first * session.block, gap.min(512 << 10)).unwrap_or_default();
    let (bytes, n_pushed) = (session.bytes_of(&pushed), usize::try_from(pushed.end - pushed.start));
    let offer = HEADER + session.json.to_string().len() + PAYLOAD_CHECK;
    let data = if pushed.is_empty() { 0 } else { HEADER + TRAILER + n_pushed.expect("it fits") * DIGEST };
    // Between the header and the last digest, however long the offer is exactly.
    let after = u64::try_from(offer + data + HEADER + TRAILER + 3 * DIGEST).expect("it fits");
    let after = after + bytes.end - bytes.start;
    let proxy = Proxy::start(scene.server.addr, move |connection| match connection.carries {
        Carries::First => Fate::fine().ends(after, ending),
        Carries::Request | Carries::Stream | Carries::Upgraded | Carries::Upload | Carries::Legacy => {
            Fate::fine()
        }
    });
    (proxy, after)
}

/// Ended in any way before everything is verified.
#[test]
fn nothing_is_lost_during_the_proof() {
    for (signal, code) in [(Signal::KILL, None), (Signal::INT, Some(130)), (Signal::TERM, Some(143))] {
        let mut scene = Scene::new(6 * MIB);
        scene.interrupted();
        let (known, before) = (recorded(&scene), saved(&scene));
        touch(&scene);
        let (proxy, after) = ending_in_the_proof(&scene, Ending::Stall);
        let mut client = fetch_from(&proxy.addr, &scene).start();
        until_true("a part of the digests", || {
            assert!(!client.has_ended(), "the client has ended: {}", client.stderr());
            proxy.carried() >= after
        });
        client.signal(signal);
        let outcome = client.finish_within(PATIENCE);
        assert_eq!(outcome.code, code, "{outcome}");
        assert_eq!(Events::so_far(&outcome.stdout).count("started"), 0, "{outcome}");
        assert!(saved(&scene) == before, "{signal:?}: what is saved stays saved");
        let outcome = scene.fetch().run();
        assert_missing_fetched(&mut scene, &outcome, &known, "after it");
    }
}

#[test]
fn broken_connection_costs_no_saved_block() {
    for ending in [Ending::Reset, Ending::Close] {
        let mut scene = Scene::new(6 * MIB);
        scene.interrupted();
        let known = recorded(&scene);
        touch(&scene);
        let (proxy, _) = ending_in_the_proof(&scene, ending);
        let outcome = fetch_from(&proxy.addr, &scene).run();
        assert_missing_fetched(&mut scene, &outcome, &known, &format!("{ending:?}"));
    }
}

/// Streams that begin with an upgrade of their own, as the proxy reads HTTP.
#[test]
fn touched_source_resumes_behind_a_reverse_proxy() {
    for upgrades in [Upgrades::CarriedWithBody, Upgrades::CarriedWithoutBody] {
        let mut scene = Scene::new(6 * MIB);
        scene.interrupted();
        let known = recorded(&scene);
        touch(&scene);
        let proxy = ReverseProxy::start(scene.server.addr, upgrades);
        let outcome = fetch_from(&proxy.addr, &scene).run();
        assert_missing_fetched(&mut scene, &outcome, &known, "behind a proxy");
    }
}
