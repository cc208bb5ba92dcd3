//! The proxy before the reference server: every kind of damage, seen from the client's side.

use std::io::Read;
use std::time::{Duration, Instant};

use super::{Carries, Connection, Ending, Fate, Proxy};
use crate::original_client::Ask;
use crate::original_server::{OriginalServer, Script};
use crate::sockets::{End, read_to_end};
use crate::workspace::Workspace;

const MIB: usize = 1 << 20;

fn served(len: usize) -> (Workspace, OriginalServer, Vec<u8>) {
    let workspace = Workspace::new();
    let content = workspace.serve_pattern("f", 1, len);
    let server = OriginalServer::start(&workspace.root().join("f"), Script::swift());
    (workspace, server, content)
}

fn ask(proxy: &Proxy, streams: u8) -> Ask {
    Ask::new(proxy.addr, "f", streams).patient()
}

#[test]
fn undisturbed_transfers_pass() {
    let (_workspace, server, content) = served(3 * MIB);
    for delay in [0, 30].map(Duration::from_millis) {
        let proxy = Proxy::on_streams(server.addr, move |_| Fate::fine().delay(delay));
        assert!(ask(&proxy, 8).offer().download() == content);
        let mut streams: Vec<u8> = proxy.connections().iter().map(|connection| connection.stream).collect();
        streams.sort_unstable();
        assert_eq!(streams, [0, 0, 1, 2, 3, 4, 5, 6, 7], "one request and the streams");
        assert_eq!((proxy.count(Carries::Request), proxy.count(Carries::Legacy)), (1, 8));
        assert_eq!(proxy.carried(), 3 << 20);
    }
}

/// What one stream of two gets, that of an undisturbed one, and how it ends.
fn check_stream(fate: &Fate, expected: &dyn Fn(&[u8]) -> Vec<u8>, end: Option<End>) {
    let (_workspace, server, content) = served(3 * MIB);
    let hit = fate.clone();
    let proxy = Proxy::on_streams(server.addr, move |connection| match connection.stream {
        1 => hit.clone(),
        _ => Fate::fine(),
    });
    let offer = ask(&proxy, 2).offer();
    let half = 3 * MIB / 2 + 1;
    let stream = offer.open(1);
    assert!(offer.stream(0).bytes == content[..half], "{fate:?} hits the other stream");
    let expected = expected(&content[half..]);
    let Some(end) = end else {
        let mut received = vec![0; expected.len()];
        (&stream).read_exact(&mut received).expect("what comes before the silence");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout is set");
        assert!((&stream).read(&mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        assert!(received == expected, "{fate:?}");
        return;
    };
    let received = read_to_end(&stream);
    assert_eq!(received.end, end, "{fate:?}");
    if end == End::Reset {
        // A reset may overtake what was sent before it.
        assert!(expected.starts_with(&received.bytes), "{fate:?}");
    } else {
        assert!(received.bytes == expected, "{fate:?}: {} bytes", received.bytes.len());
    }
}

#[test]
fn every_ending_is_what_it_says() {
    for n in [0, 1, 70_000] {
        let first = usize::try_from(n).expect("small");
        let cut = |bytes: &[u8]| bytes[..first].to_vec();
        for (ending, end) in [
            (Ending::Reset, Some(End::Reset)),
            (Ending::Close, Some(End::Closed)),
            (Ending::Truncate, Some(End::Closed)),
            (Ending::Stall, None),
        ] {
            check_stream(&Fate::fine().ends(n, ending), &cut, end);
        }
    }
}

#[test]
fn flipped_bits_are_exact() {
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[0] ^= 0x10;
        bytes[400_000] ^= 0x10;
        bytes
    };
    check_stream(&Fate::fine().flips(0).flips(400_000).flips(9 << 20), &flipped, Some(End::Closed));
}

#[test]
fn rates_and_delays_are_kept() {
    let (_workspace, server, content) = served(MIB);
    let took = |plan: fn(&Connection) -> Fate, whole: Option<u64>| {
        let proxy = Proxy::on_streams(server.addr, plan);
        proxy.set_rate(whole);
        let begin = Instant::now();
        assert!(ask(&proxy, 4).offer().download() == content);
        begin.elapsed().as_millis()
    };
    // A quarter of the file at that rate on one stream, the whole file on all, and the way there.
    let one = took(
        |connection| if connection.stream == 2 { Fate::fine().rate(512 << 10) } else { Fate::fine() },
        None,
    );
    assert!((400..5000).contains(&one), "{one} ms");
    let all = took(|_| Fate::fine(), Some(2 << 20));
    assert!((400..5000).contains(&all), "{all} ms");
    let late = took(|_| Fate::fine().delay(Duration::from_millis(300)), None);
    assert!((300..5000).contains(&late), "{late} ms");
}

#[test]
fn cuts_reset_the_open_streams() {
    let (_workspace, server, _) = served(8 * MIB);
    let proxy = Proxy::plain(server.addr);
    proxy.set_rate(Some(32 << 20));
    proxy.cut_all_at(4 << 20);
    let offer = ask(&proxy, 4).offer();
    assert!(offer.streams_with(&[]).iter().all(|stream| stream.end == End::Reset));
    let carried = proxy.carried();
    assert!((4 << 20..6 << 20).contains(&carried), "{carried}");

    let mut proxy = Proxy::plain(server.addr);
    proxy.set_rate(Some(16 << 20));
    proxy.cut_one_every(Duration::from_millis(100), 7);
    let offer = ask(&proxy, 4).offer();
    let ends: Vec<End> = offer.streams_with(&[]).iter().map(|stream| stream.end).collect();
    assert!(ends.contains(&End::Reset), "{ends:?}");
}

/// A second connection of a stream is distinguished from its first.
#[test]
fn attempts_are_counted() {
    let (_workspace, server, _) = served(MIB);
    let proxy = Proxy::on_streams(server.addr, |connection| match (connection.stream, connection.attempt) {
        (0, 0) => Fate::fine().ends(0, Ending::Reset),
        _ => Fate::fine(),
    });
    let offer = ask(&proxy, 2).offer();
    assert_eq!(offer.stream(0).bytes, b"");
    assert_eq!(offer.stream(0).bytes.len(), MIB / 2 + 1);
}
