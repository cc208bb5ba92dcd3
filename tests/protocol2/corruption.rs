//! Bits that are flipped on the way: found, fetched again alone, and told; or the end, never wrong bytes.

use std::fs;

use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::proxy::{Carries, Fate, Proxy};
use dt_testkit::session::Session;

use crate::{ENGINES, MIB, PROGRAMS, fetch, served};

#[test]
fn a_bit_flipped_once_is_repaired() {
    let (workspace, server, content) = served(6 * MIB);
    let block = Session::ask(server.addr, "f", 1).block;
    // Bytes of the first range on one stream: the first, one within, and one of the digest behind it.
    for (at, streams) in [(24, 4), (24 + 999, 4), (24 + 999, 1), (24 + block + 8 + 3, 4)] {
        for engine in ENGINES {
            let what = format!("byte {at} of the first of {streams} connections, {engine}");
            let proxy = Proxy::on_streams(server.addr, move |connection| match connection.number {
                0 => Fate::fine().flips(at),
                _ => Fate::fine(),
            });
            let outcome = fetch(proxy.addr, streams, &workspace).options(["--engine", engine]).run();
            let finished = assert_fetched(&outcome, &workspace.output("out"), &content, &what);
            assert_eq!(number(&finished, "repaired_blocks"), 1, "{what}: {finished}");
            assert!(number(&finished, "wasted_bytes") >= 1024, "{what}: {finished}");
            let events = Events::of(&outcome);
            let corrupt = events.only("block_corrupt", &["block", "stream"]);
            assert!(number(corrupt, "block") < (6 << 20) / block, "{what}: {corrupt}");
            assert!(number(corrupt, "stream") < u64::from(streams), "{what}: {corrupt}");
        }
    }
    let proxy = Proxy::on_streams(server.addr, |connection| match connection.number {
        0 => Fate::fine().flips(30),
        _ => Fate::fine(),
    });
    let piped = PROGRAMS.fetch(proxy.addr, 4, "f", "-").options(["--protocol", "2"]).run();
    piped.assert_success();
    assert!(piped.stdout == content, "to standard output");
}

/// A short last block has a digest like the others.
#[test]
fn a_bit_of_the_last_byte() {
    let (workspace, server, content) = served(MIB + 1);
    let proxy = Proxy::on_streams(server.addr, |connection| match connection.attempt {
        0 => Fate::fine().flips_in_file(1 << 20),
        _ => Fate::fine(),
    });
    // Every time on the connections that there are, so that only a new one can bring it.
    let outcome = fetch(proxy.addr, 2, &workspace).run();
    if outcome.code == Some(0) {
        assert_fetched(&outcome, &workspace.output("out"), &content, "the last byte");
    } else {
        outcome.assert_failure(6);
    }
}

#[test]
fn a_bit_flipped_every_time_ends_the_transfer() {
    let (workspace, server, _) = served(6 * MIB);
    let block = Session::ask(server.addr, "f", 1).block;
    let at = (3 << 20) + 77;
    let proxy = Proxy::on_streams(server.addr, move |_| Fate::fine().flips_in_file(at));
    for engine in ENGINES {
        let outcome = fetch(proxy.addr, 4, &workspace).options(["--engine", engine]).run();
        outcome.assert_failure(6);
        let number_of_it = (at / block).to_string();
        let error = outcome.error();
        assert!(
            error.split(|c: char| !c.is_ascii_digit()).any(|word| word == number_of_it),
            "block {number_of_it} is not named: {error}"
        );
        let events = Events::of(&outcome);
        let tries = events.named("block_corrupt");
        assert!((2..=6).contains(&tries.len()), "{} tries", tries.len());
        assert!(tries.iter().all(|event| number(event, "block") == at / block), "{tries:?}");
        assert!(!workspace.output("out").exists(), "wrong bytes were published");
        for left in ["out.dtpart", "out.dtjournal"] {
            let _ = fs::remove_file(workspace.output(left));
        }
    }
    let piped = PROGRAMS.fetch(proxy.addr, 4, "f", "-").options(["--protocol", "2"]).run();
    assert_eq!(piped.code, Some(6), "{}", piped.stderr);
    let written = u64::try_from(piped.stdout.len()).expect("it fits");
    assert!(written <= at / block * block, "bytes of a wrong block were written out");
}

/// A bit anywhere in a header or trailer: repaired, or the end of the transfer, but never a wrong file.
#[test]
fn bits_of_headers_and_trailers() {
    let (workspace, server, content) = served(MIB);
    let block = Session::ask(server.addr, "f", 1).block;
    for at in [0, 1, 2, 4, 8, 10, 16, 17, 18, 23, 24 + block, 24 + block + 1, 24 + block + 39] {
        let proxy = Proxy::on_streams(server.addr, move |connection| match connection.number {
            0 => Fate::fine().flips(at),
            _ => Fate::fine(),
        });
        let run = fetch(proxy.addr, 4, &workspace).options(["--stall-timeout", "1s", "--no-resume"]);
        let outcome = run.run();
        match outcome.code {
            Some(0) => {
                assert_fetched(&outcome, &workspace.output("out"), &content, &format!("byte {at}"));
                fs::remove_file(workspace.output("out")).expect("it is ours");
            }
            Some(12) => {
                outcome.assert_failure(12);
                assert!(!workspace.output("out").exists(), "byte {at}");
            }
            _ => panic!("byte {at}: {outcome}"),
        }
    }
}

/// The answer that grants the session, damaged anywhere: refused, or harmless.
#[test]
fn bits_of_the_answer() {
    let (workspace, server, content) = served(300_000);
    let outcome = fetch(server.addr, 2, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "undamaged");
    fs::remove_file(workspace.output("out")).expect("it is ours");
    for at in (0..460).step_by(7) {
        let proxy = Proxy::start(server.addr, move |connection| match connection.carries {
            Carries::Control => Fate::fine().flips(at),
            Carries::Data | Carries::Upgraded => Fate::fine(),
        });
        let run = fetch(proxy.addr, 2, &workspace);
        let options = ["--stall-timeout", "1s", "--connect-timeout", "1s", "--retries", "1", "--no-resume"];
        let outcome = run.options(options).run();
        if outcome.code == Some(0) {
            let received = fs::read(workspace.output("out")).expect("it is there");
            assert!(received == content, "byte {at}: wrong bytes were published");
            fs::remove_file(workspace.output("out")).expect("it is ours");
        } else {
            outcome.assert_one_line("dtclient: ");
            assert!(!workspace.output("out").exists(), "byte {at}");
        }
    }
}
