//! Servers that lie, violate the protocol or refuse, and the exit code for each.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::time::Duration;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::frame;
use dt_testkit::process::Outcome;
use dt_testkit::range_server::{Lie, RangeServer};
use dt_testkit::wait::{PATIENCE, until_true};
use dt_testkit::workspace::Workspace;
use rustix::process::Signal;

use crate::{ENGINES, MIB, PROGRAMS, fetch, until_verified};

const BLOCK: u64 = 64 << 10;
const BEFORE: &[u8] = b"what was there before";

/// Few retries, and a short stall timeout only where it is what ends the transfer: on a busy machine it is over before
/// the retries are.
fn patience(is_to_stall: bool) -> [&'static str; 6] {
    let stall_timeout = if is_to_stall { "500ms" } else { "20s" };
    ["--stall-timeout", stall_timeout, "--retries", "2", "--connect-timeout", "2s"]
}

/// Fetches from a server with that lie, which must end with one of `codes` and leave what was there before.
fn check_lie(what: &str, lie: &Lie, codes: &[i32], words: &[&str]) {
    let patience = patience(codes == [10]);
    for engine in ENGINES {
        let workspace = Workspace::new();
        fs::write(workspace.output("out"), BEFORE).expect("it is written");
        let server = RangeServer::start(pattern(1, MIB + 5), BLOCK, lie.clone());
        let run = fetch(server.addr, 4, &workspace).options(["--engine", engine]).options(patience);
        let outcome = run.limit(Duration::from_secs(30)).run();
        assert!(outcome.code.is_some_and(|code| codes.contains(&code)), "{what}, {engine}: {outcome}");
        outcome.assert_one_line("dtclient: ");
        for word in words {
            assert!(outcome.error().contains(word), "{what}: {word:?} is missing in {outcome}");
        }
        let failed = Events::of(&outcome);
        failed.only("failed", &["exit", "error"]);
        assert_eq!(fs::read(workspace.output("out")).expect("it is there"), BEFORE, "{what}, {engine}");
        let piped = PROGRAMS.fetch(server.addr, 4, "f", "-").options(patience).run();
        let expected = piped.code.is_some_and(|code| codes.contains(&code));
        assert!(expected, "{what}, to standard output: {:?}, {}", piped.code, piped.stderr);
    }
}

#[test]
fn honest_server_is_used_sparingly() {
    for size in [0, 1, 1024, MIB, 3 * MIB + 1] {
        let workspace = Workspace::new();
        let content = pattern(1, size);
        let server = RangeServer::start(content.clone(), BLOCK, Lie::Nothing);
        let outcome = fetch(server.addr, 4, &workspace).options(["--md5"]).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &format!("{size} bytes"));
        assert_sent(&server.sent(), u64::try_from(size).expect("it fits"));
        assert_eq!(server.sessions(), 1);
        // An empty file has no streams on which it could be sent.
        until_true("the server receives END", || size == 0 || server.ended() == 1);
    }
}

/// The blocks of a file above 1 TiB, larger than what a mapping takes pages for at once.
#[test]
fn blocks_of_16_mib() {
    let content = pattern(1, 33 * MIB + 5);
    let server = RangeServer::start(content.clone(), 16 << 20, Lie::Nothing);
    for engine in ENGINES {
        let workspace = Workspace::new();
        let outcome = fetch(server.addr, 2, &workspace).options(["--engine", engine]).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, engine);
    }
}

/// The server chooses how large blocks are: where they are received into memory, the number in flight is limited.
#[test]
fn blocks_of_16_mib_take_bounded_memory() {
    const LARGEST: usize = 16 * MIB;
    let workspace = Workspace::new();
    let content = pattern(1, 10 * LARGEST);
    let server = RangeServer::start(content.clone(), LARGEST.try_into().expect("it fits"), Lie::Nothing);
    let outcome = fetch(server.addr, 255, &workspace).options(["--engine", "write"]).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "ten blocks of 16 MiB");
    let streams: BTreeSet<u8> = server.streams().into_iter().collect();
    assert!(streams.len() <= 8, "streams with 16 MiB each: {streams:?}");
}

/// Every run consists of complete blocks, together they are the file, and hardly a byte is requested twice.
fn assert_sent(sent: &[Range<u64>], size: u64) {
    for run in sent {
        let is_aligned = run.start % BLOCK == 0 && (run.end % BLOCK == 0 || run.end == size);
        assert!(run.start < run.end && run.end - run.start <= 16 << 20 && is_aligned, "{run:?}");
    }
    let mut sorted = sent.to_vec();
    sorted.sort_by_key(|run| run.start);
    let reached = sorted.iter().fold(0, |reached, run| {
        assert!(run.start <= reached, "nothing requested {reached}..{}", run.start);
        run.end.max(reached)
    });
    assert_eq!(reached, size);
    let total: u64 = sent.iter().map(|run| run.end - run.start).sum();
    // A fiftieth may be requested twice, or what a stream may always have in flight.
    let twice = (size / 50).max(1 << 20);
    assert!(total <= size + twice, "{total} bytes requested of {size}");
}

#[test]
fn wrong_digest_ends_the_transfer() {
    let at = 5 * BLOCK + 17;
    check_lie("a wrong digest of a block", &Lie::Digest(at), &[6], &["block 5"]);
    check_lie("a wrong digest of the last block", &Lie::Digest(16 * BLOCK), &[6], &["block 16"]);
    check_lie("wrong bytes with a right digest", &Lie::Consistent(at), &[6], &[]);
    check_lie("a wrong digest of the file", &Lie::FileDigests, &[6], &[]);
}

/// A server whose digests differ gets no END, and the failed verification is reported rather than the journal that cannot be
/// removed.
#[test]
fn failed_verification_is_not_reported_as_complete() {
    let workspace = Workspace::new();
    let server = RangeServer::start(pattern(1, 4 * MIB), BLOCK, Lie::FileDigests);
    let mut client = fetch(server.addr, 4, &workspace).options(["--limit-rate", "4M"]).start();
    until_verified(&mut client, 1 << 20);
    let journal = workspace.output("out.dtjournal");
    fs::remove_file(&journal).expect("it is there");
    fs::create_dir(&journal).expect("it is made");
    let outcome = client.finish_within(Duration::from_secs(30));
    outcome.assert_failure(6);
    assert!(!workspace.output("out").exists(), "{outcome}");
    assert_eq!(server.ended(), 0);
}

/// No data arrives that could be wrong, so only the digests in the offer can be compared.
#[test]
fn digests_of_an_empty_file_are_compared() {
    const OTHER: &str = "\"0123456789abcdef0123456789abcdef\"";
    const OTHER_BLAKE3: &str = "\"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"";
    for (key, value, option) in
        [("blake3", OTHER_BLAKE3, "-v"), ("hash", OTHER, "--md5"), ("hash", OTHER, "-v")]
    {
        let workspace = Workspace::new();
        let server = RangeServer::start(Vec::new(), BLOCK, Lie::Offer(key, value));
        let outcome = fetch(server.addr, 4, &workspace).options([option]).run();
        outcome.assert_failure(6);
        assert!(outcome.error().contains("0123456789abcdef"), "{outcome}");
        workspace.assert_outputs(&[]);
        PROGRAMS.fetch(server.addr, 4, "f", "-").options([option]).run().assert_failure(6);
    }
    for (key, value) in [
        ("blake3", "\"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262\""),
        ("hash", "\"d41d8cd98f00b204e9800998ecf8427e\""),
    ] {
        let workspace = Workspace::new();
        let server = RangeServer::start(Vec::new(), BLOCK, Lie::Offer(key, value));
        let outcome = fetch(server.addr, 4, &workspace).options(["--md5"]).run();
        assert_fetched(&outcome, &workspace.output("out"), &[], key);
    }
}

#[test]
fn fault_of_the_source_has_its_exit_code() {
    check_lie("the source changed", &Lie::Trailer(3 * BLOCK, 3), &[11], &["chang"]);
    check_lie("the source cannot be read", &Lie::Trailer(3 * BLOCK, 4), &[3], &["cannot read \"f\";"]);
    check_lie("every stream is refused because it changed", &Lie::Refuses(3), &[11], &["chang"]);
    let words = ["cannot read \"f\": the test says so"];
    check_lie("every stream is refused because it cannot be read", &Lie::Refuses(4), &[3], &words);
}

#[test]
fn silent_server_times_out() {
    check_lie("streams are accepted and nothing is sent", &Lie::Mute, &[10], &[]);
}

#[test]
fn refusals_have_their_exit_codes() {
    let words = ["after 0 bytes", "the test says so; run"];
    check_lie("no capacity, every time", &Lie::Refuses(6), &[4], &words);
    check_lie("no such stream, every time", &Lie::Refuses(2), &[4], &words);
    check_lie("no such session, every time", &Lie::Refuses(1), &[4], &["session"]);
    check_lie("a broken protocol", &Lie::Refuses(5), &[12], &[]);
    for code in [1, 2, 6] {
        let workspace = Workspace::new();
        let content = pattern(1, MIB);
        let server = RangeServer::start(content.clone(), BLOCK, Lie::RefusesOnce(code));
        let outcome = fetch(server.addr, 4, &workspace).options(["--retries", "8"]).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &format!("refused once with {code}"));
        assert_eq!(server.sessions() > 1, code == 1, "a new session, and only when the old one is gone");
    }
}

/// No block is complete for two seconds, in which the retries of the refused stream would be used up.
#[test]
fn always_refused_stream_does_not_end_the_transfer() {
    let workspace = Workspace::new();
    let content = pattern(1, 300_000);
    let server = RangeServer::start(content.clone(), BLOCK, Lie::RefusesOne(2, 6));
    let options = ["--retries", "2", "--limit-rate", "100K"];
    let outcome = fetch(server.addr, 4, &workspace).options(options).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "one stream is always refused");
}

/// As behind a proxy that removes the headers: all streams are dialled.
#[test]
fn offer_without_an_upgrade_is_enough() {
    for size in [0, 1, MIB] {
        let workspace = Workspace::new();
        let content = pattern(1, size);
        let server = RangeServer::start(content.clone(), BLOCK, Lie::NoUpgrade);
        let outcome = fetch(server.addr, 4, &workspace).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &format!("{size} bytes"));
        assert_eq!(server.sessions(), 1);
    }
}

#[test]
fn digests_may_overtake_runs() {
    let workspace = Workspace::new();
    let content = pattern(1, 3 * MIB + 1);
    let server = RangeServer::start(content.clone(), BLOCK, Lie::DigestsFirst);
    for streams in [1, 4] {
        let outcome = fetch(server.addr, streams, &workspace).options(["--md5"]).run();
        let finished = assert_fetched(&outcome, &workspace.output("out"), &content, "digests first");
        assert_eq!(number(&finished, "streams_lost"), 0, "{finished}");
    }
}

/// While the server computes the digests for a second, three of four streams have nothing to do.
#[test]
fn closed_idle_streams_are_not_reopened_endlessly() {
    let workspace = Workspace::new();
    let content = pattern(1, MIB);
    let server = RangeServer::start(content.clone(), BLOCK, Lie::ClosesIdle);
    let outcome = fetch(server.addr, 4, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "idle streams are closed");
    let streams = server.streams();
    assert!(streams.len() <= 24, "{} connections: {streams:?}", streams.len());
}

#[test]
fn offer_out_of_bounds_is_a_protocol_error() {
    for (key, value) in [
        ("protocol", "3"),
        ("size", "-1"),
        ("size", "9223372036854775808"),
        ("size", "\"1\""),
        ("size", ""),
        ("block", "0"),
        ("block", "8192"),
        ("block", "100000"),
        ("block", "33554432"),
        ("session", "\"a7\""),
        ("session", "7"),
        ("secret", "\"53\""),
        ("secret", ""),
        ("version", "\"zz\""),
        ("version", ""),
        ("modified", "\"now\""),
        ("hash", "\"12\""),
        ("blake3", "\"12\""),
    ] {
        let workspace = Workspace::new();
        let server = RangeServer::start(pattern(1, MIB), BLOCK, Lie::Offer(key, value));
        let outcome = fetch(server.addr, 4, &workspace).options(patience(false)).run();
        assert_eq!(outcome.code, Some(12), "{key}: {value}: {outcome}");
        outcome.assert_failure(12);
        workspace.assert_outputs(&[]);
    }
    // A size that no disk holds is an error of the disk or of the answer, not a crash.
    for size in ["9223372036854775807", "1099511627776000"] {
        let workspace = Workspace::new();
        let server = RangeServer::start(pattern(1, MIB), BLOCK, Lie::Offer("size", size));
        let outcome = fetch(server.addr, 4, &workspace).options(patience(false)).run();
        assert!(matches!(outcome.code, Some(7 | 8 | 12)), "{size}: {outcome}");
        outcome.assert_one_line("dtclient: ");
        workspace.assert_outputs(&[]);
    }
}

#[test]
fn repeated_invalid_frames_are_a_protocol_error() {
    // The bytes are those of the block, and the digest that of another.
    let block = pattern(1, 64 << 10);
    let digest = frame::block_digest((1 << 20) + 5, 0, &block);
    let unchecked = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[2] ^= 1;
        bytes
    };
    let mut refused = frame::refused(2, "what");
    refused[25] ^= 1;
    let instead: [(&str, Vec<u8>); 16] = [
        ("an unknown kind", frame::header(0x85, 0, 0, 0, 0)),
        ("a kind of the receiver", frame::run(&(0..1), 1024)),
        ("a wrong check", unchecked(&frame::wait(1))),
        ("another run than was requested", frame::data(3, &block, 0, &[digest])),
        ("no blocks", frame::header(0x81, 0, 0, 0, 0)),
        ("another length", frame::data(0, &block[..1024], 0, &[digest])),
        ("an endless run", frame::header(0x81, 0, u32::MAX, 0, u64::MAX)),
        ("a larger run", frame::header(0x81, 0, 17, 0, (1 << 20) + 5)),
        ("a run with a code", frame::header(0x81, 3, 1, 1, BLOCK)),
        ("digests that were not requested", frame::digests(&digest, None)),
        ("digests of another length", frame::header(0x82, 1, 0, 0, 64)),
        ("a wait with a length", frame::header(0x83, 0, 0, 1, 1)),
        ("an offer in the middle", frame::offer("{}")),
        ("a refusal with an endless reason", frame::header(0x8f, 2, 0, 0, 1 << 40)),
        ("a refusal with an unknown code", frame::refused(77, "what")),
        ("a refusal with a wrong payload check", refused),
    ];
    for (what, bytes) in instead {
        check_lie(what, &Lie::Instead(BLOCK, bytes), &[12], &[]);
    }
    // In answer to a hello it is taken for that of a proxy.
    let http = b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec();
    check_lie("HTTP", &Lie::Instead(BLOCK, http), &[4, 12], &[]);
    for (what, lie) in [
        ("a trailer with an unknown code", Lie::Trailer(BLOCK, 9)),
        ("a trailer with a code and digests", Lie::TrailerByte(BLOCK, 0, 3)),
        ("a trailer with a byte that must be 0 or 1", Lie::TrailerByte(BLOCK, 1, 2)),
        ("a trailer with another count", Lie::TrailerByte(BLOCK, 4, 17)),
    ] {
        check_lie(what, &lie, &[12], &[]);
    }
}

/// One invalid frame costs the stream on which it arrives, and nothing else.
#[test]
fn single_invalid_frame_costs_one_stream() {
    for (what, bytes) in [
        ("an unknown kind", frame::header(0x85, 0, 0, 0, 0)),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("digests that were not requested", frame::digests(&[7; 32], None)),
    ] {
        for streams in [1, 4] {
            let workspace = Workspace::new();
            let content = pattern(1, MIB);
            let lie = Lie::InsteadOnce(5 * BLOCK, bytes.clone());
            let server = RangeServer::start(content.clone(), BLOCK, lie);
            let outcome = fetch(server.addr, streams, &workspace).run();
            let finished = assert_fetched(&outcome, &workspace.output("out"), &content, what);
            assert_eq!(number(&finished, "streams_lost"), 1, "{what}: {finished}");
        }
    }
}

/// A peer's words are shown without what would move a terminal's cursor.
#[test]
fn reason_of_a_peer_is_printed_without_control_characters() {
    let reason = "gone\u{1b}[2J\r\nforged: line".to_owned();
    let lie = Lie::Instead(0, frame::refused(5, &reason));
    let workspace = Workspace::new();
    let server = RangeServer::start(pattern(1, MIB), BLOCK, lie);
    let outcome: Outcome = fetch(server.addr, 1, &workspace).options(patience(false)).run();
    outcome.assert_failure(12);
    assert!(!outcome.stderr.contains(['\u{1b}', '\r']), "{outcome}");
}

/// The server still sends WAIT, but its count does not grow.
#[test]
fn digests_without_progress_time_out() {
    check_lie("the digests get no further", &Lie::Hangs, &[10], &["file digest"]);
}

/// Digests that are never done hold the end up; the user can still go.
#[test]
fn endless_digests_can_be_interrupted() {
    let workspace = Workspace::new();
    let server = RangeServer::start(pattern(1, MIB), BLOCK, Lie::Waits);
    let client = fetch(server.addr, 4, &workspace).options(["--stall-timeout", "1s"]).start();
    until_true("everything is requested", || {
        server.sent().iter().map(|bytes| bytes.end - bytes.start).sum::<u64>() >= 1 << 20
    });
    // Waits that say more and more are no silence.
    std::thread::sleep(Duration::from_secs(2));
    client.signal(Signal::INT);
    let outcome = client.finish_within(PATIENCE);
    outcome.assert_failure(130);
    let verified = Events::of(&outcome).last("progress").map(|progress| number(progress, "verified"));
    assert_eq!(verified, Some(1 << 20), "{outcome}");
    workspace.assert_outputs(&["out.dtjournal", "out.dtpart"]);
}
