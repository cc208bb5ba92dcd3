//! Bits that are flipped in transit: found and fetched again, or the end of the transfer, never wrong bytes.

use std::fs;
use std::net::SocketAddr;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::frame::{self, kind};
use dt_testkit::programs::Server;
use dt_testkit::proxy::{Carries, Connection, Fate, Place, Proxy};
use dt_testkit::range_server::{Lie, RangeServer};
use dt_testkit::session::Session;
use dt_testkit::workspace::Workspace;

use crate::{ENGINES, MIB, PROGRAMS, fetch, served};

/// A block of the reference server.
const BLOCK: u64 = 64 << 10;

#[test]
fn flipped_bit_is_repaired() {
    let (workspace, server, content) = served(6 * MIB);
    let block = Session::request(server.addr, "f", 1).block;
    // Bytes of the first run on any stream: the first, one within, and one of the first digest.
    for (place, streams) in [
        (Place::Payload(0), 4),
        (Place::Payload(999), 4),
        (Place::Payload(999), 1),
        (Place::Trailer(8 + 3), 4),
    ] {
        for engine in ENGINES {
            let what = format!("{place:?} of the first run on {streams} streams, {engine}");
            let proxy =
                Proxy::on_streams(server.addr, move |_| Fate::fine().flips_in_frame(kind::DATA, place));
            proxy.flip_at_most(1);
            let outcome = fetch(proxy.addr, streams, &workspace).options(["--engine", engine]).run();
            let finished = assert_fetched(&outcome, &workspace.output("out"), &content, &what);
            assert_eq!(number(&finished, "repaired_blocks"), 1, "{what}: {finished}");
            assert!(number(&finished, "wasted_bytes") >= 1024, "{what}: {finished}");
            // The stream is as good as before.
            assert_eq!(number(&finished, "streams_lost"), 0, "{what}: {finished}");
            let events = Events::of(&outcome);
            let corrupt = events.only("block_corrupt", &["block", "stream"]);
            assert!(number(corrupt, "block") < (6 << 20) / block, "{what}: {corrupt}");
            assert!(number(corrupt, "stream") < u64::from(streams), "{what}: {corrupt}");
        }
    }
    let proxy =
        Proxy::on_streams(server.addr, |_| Fate::fine().flips_in_frame(kind::DATA, Place::Payload(6)));
    proxy.flip_at_most(1);
    let piped = PROGRAMS.fetch(proxy.addr, 4, "f", "-").options(["--protocol", "2"]).run();
    piped.assert_success();
    assert!(piped.stdout == content, "to standard output");
}

/// A short last block has a digest like the others.
#[test]
fn flipped_bit_of_the_last_byte() {
    let (workspace, server, content) = served(MIB + 1);
    let proxy = Proxy::on_streams(server.addr, |connection| match connection.attempt {
        0 => Fate::fine().flips_in_file(1 << 20),
        _ => Fate::fine(),
    });
    // Every time on the first connections, so that only a new one can carry the block.
    let outcome = fetch(proxy.addr, 2, &workspace).run();
    if outcome.code == Some(0) {
        assert_fetched(&outcome, &workspace.output("out"), &content, "the last byte");
    } else {
        outcome.assert_failure(6);
    }
}

#[test]
fn bit_flipped_every_time_ends_the_transfer() {
    let (workspace, server, _) = served(6 * MIB);
    let block = Session::request(server.addr, "f", 1).block;
    let at = (3 << 20) + 77;
    let proxy = Proxy::on_streams(server.addr, move |_| Fate::fine().flips_in_file(at));
    // The offer on the first stream is how the proxy knows the size of a block.
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

/// Whether an invalid frame must show among the streams lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cost {
    OneStream,
    /// The frame is not one without which the transfer cannot end, or comes before there is a stream.
    Nothing,
}

/// Flips one bit of one frame or hello between the server and a client, whose transfer must complete.
fn check_flip(what: &str, server: SocketAddr, content: &[u8], fate: &Fate, cost: Cost) {
    let workspace = Workspace::new();
    let plan = fate.clone();
    let proxy = Proxy::on_streams(server, move |_: &Connection| plan.clone());
    proxy.flip_at_most(1);
    let options = ["--stall-timeout", "5s", "--md5", "--no-resume"];
    let outcome = fetch(proxy.addr, 4, &workspace).options(options).run();
    let finished = assert_fetched(&outcome, &workspace.output("out"), content, what);
    assert_eq!(proxy.flips(), 1, "{what}: the frame did not pass: {:?}", proxy.connections());
    if cost == Cost::OneStream {
        assert!(number(&finished, "streams_lost") >= 1, "{what}: {finished}");
        assert!(Events::of(&outcome).count("stream_lost") >= 1, "{what}: {outcome}");
    }
}

/// One byte of each field of a header, and the last one of those that have several.
const HEADER_FIELDS: [(&str, u64); 10] = [
    ("the kind", 0),
    ("the code", 1),
    ("the check", 2),
    ("the check's end", 3),
    ("the count", 4),
    ("the count's end", 7),
    ("the first block", 8),
    ("the first block's end", 15),
    ("the length", 16),
    ("the length's end", 23),
];

/// Flips a bit of each field of the header of the first frame of a kind, and of `places` after it. Each transfer is from a
/// server of its own, which does not know the file's digests yet.
fn check_kind<S>(
    name: &str,
    kind: u8,
    places: &[Place],
    cost: Cost,
    start: impl Fn() -> (S, SocketAddr, Vec<u8>),
) {
    let headers = HEADER_FIELDS.map(|(field, at)| (format!("{field} of {name}"), Place::Header(at)));
    let others = places.iter().map(|place| (format!("{place:?} of {name}"), *place));
    for (what, place) in headers.into_iter().chain(others) {
        let (_server, addr, content) = start();
        check_flip(&what, addr, &content, &Fate::fine().flips_in_frame(kind, place), cost);
    }
}

fn dtserver() -> ((Workspace, Server), SocketAddr, Vec<u8>) {
    let (workspace, server, content) = served(3 * MIB);
    let addr = server.addr;
    ((workspace, server), addr, content)
}

/// The places of a payload check.
const PAYLOAD_CHECK: [Place; 2] = [Place::Trailer(0), Place::Trailer(7)];

#[test]
fn invalid_frame_of_the_sender_costs_one_stream() {
    let fixed_part = [0, 1, 2, 3, 4, 7].map(Place::Trailer);
    check_kind("DATA", kind::DATA, &fixed_part, Cost::OneStream, dtserver);
    let digests = [Place::Payload(0), Place::Payload(31), Place::Payload(32), Place::Payload(47)];
    let digests = [&digests[..], &PAYLOAD_CHECK].concat();
    check_kind("DIGESTS", kind::DIGESTS, &digests, Cost::OneStream, dtserver);
}

#[test]
fn invalid_offer_is_requested_again() {
    let json = [0, 1, 20, 100, 200].map(Place::Payload);
    let places = [&json[..], &PAYLOAD_CHECK].concat();
    check_kind("OFFER", kind::OFFER, &places, Cost::Nothing, dtserver);
}

#[test]
fn invalid_wait_costs_one_stream() {
    check_kind("WAIT", kind::WAIT, &[], Cost::OneStream, || {
        let content = pattern(1, MIB);
        // It takes a second to compute the digests, and sends WAIT ten times.
        let server = RangeServer::start(content.clone(), BLOCK, Lie::ClosesIdle);
        let addr = server.addr;
        (server, addr, content)
    });
}

#[test]
fn invalid_farewell_costs_one_stream() {
    let content = pattern(1, MIB);
    let drains = || RangeServer::start(content.clone(), BLOCK, Lie::InsteadOnce(5 * BLOCK, frame::drain()));
    let refusal = frame::refused(6, "too many");
    let refuses = || RangeServer::start(content.clone(), BLOCK, Lie::InsteadOnce(5 * BLOCK, refusal.clone()));
    for (field, at) in HEADER_FIELDS {
        let fate = Fate::fine().flips_in_frame(kind::DRAIN, Place::Header(at));
        check_flip(&format!("{field} of DRAIN"), drains().addr, &content, &fate, Cost::OneStream);
        let fate = Fate::fine().flips_in_frame(kind::REFUSED, Place::Header(at));
        check_flip(&format!("{field} of REFUSED"), refuses().addr, &content, &fate, Cost::OneStream);
    }
    for place in [&[Place::Payload(0), Place::Payload(7)][..], &PAYLOAD_CHECK].concat() {
        let fate = Fate::fine().flips_in_frame(kind::REFUSED, place);
        check_flip(&format!("{place:?} of REFUSED"), refuses().addr, &content, &fate, Cost::OneStream);
    }
}

#[test]
fn invalid_frame_of_the_receiver_costs_one_stream() {
    check_kind("RUN", kind::RUN, &[], Cost::OneStream, dtserver);
    check_kind("DIGEST", kind::DIGEST, &[], Cost::OneStream, dtserver);
    // Every byte has arrived by then.
    check_kind("END", kind::END, &[], Cost::Nothing, dtserver);
}

#[test]
fn invalid_hello_costs_one_stream() {
    let (_workspace, server, content) = served(3 * MIB);
    for (field, at, cost) in [
        ("the stream", 0, Cost::OneStream),
        // Answered as HTTP, so that the streams are opened with an upgrade, as through a reverse proxy.
        ("the mark", 1, Cost::Nothing),
        ("the version", 2, Cost::OneStream),
        ("the flags", 3, Cost::OneStream),
        ("the session", 4, Cost::OneStream),
        ("the session's end", 11, Cost::OneStream),
        ("the secret", 12, Cost::OneStream),
        ("the secret's end", 27, Cost::OneStream),
    ] {
        let what = format!("{field} of the hello");
        check_flip(&what, server.addr, &content, &Fate::fine().flips_in_hello(at), cost);
    }
}

/// An answer that is not upgraded has no check: what is damaged anywhere is refused, or harmless.
#[test]
fn damaged_answer_never_leads_to_wrong_bytes() {
    let workspace = Workspace::new();
    let content = pattern(1, 300_000);
    let server = RangeServer::start(content.clone(), BLOCK, Lie::NoUpgrade);
    for at in (0..420).step_by(7) {
        let proxy = Proxy::start(server.addr, move |connection| match connection.carries {
            Carries::Request => Fate::fine().flips(at),
            Carries::First | Carries::Stream | Carries::Upgraded | Carries::Upload | Carries::Legacy => {
                Fate::fine()
            }
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
