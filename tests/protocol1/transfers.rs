//! The life of a transfer: its port, its expiry, its place among many, and its end with the server.

use std::io::Read;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use dt_testkit::content::md5;
use dt_testkit::original_client::{Ask, Offer, join};
use dt_testkit::sockets::{is_refused, local, try_connect};
use dt_testkit::wait::{PATIENCE, until, until_true};

use crate::{MIB, bytes_of, served};

#[test]
fn unfetched_transfer_expires() {
    let (_workspace, mut server, content) = served(MIB, &["--transfer-expiry", "1s"]);
    let begin = Instant::now();
    let offer = Ask::new(server.addr, "f", 2).offer();
    assert!(!is_refused(offer.data), "it listens at first");
    until_true("the port is closed", || is_refused(offer.data));
    assert!(begin.elapsed() >= Duration::from_millis(900), "it closed after {:?}", begin.elapsed());
    assert!(Ask::new(server.addr, "f", 2).offer().download() == content);
    server.assert_alive();
}

#[test]
fn transfer_with_a_missing_stream_expires() {
    let (_workspace, mut server, content) = served(MIB, &["--transfer-expiry", "1s"]);
    let offer = Ask::new(server.addr, "f", 2).offer();
    assert!(offer.stream(1).bytes == bytes_of(&content, 2, 1));
    until_true("the port is closed", || is_refused(offer.data));
    server.assert_alive();
}

/// A client that is slow but alive: neither the expiry nor the stall timeout ends it, and it delays no other.
#[test]
fn slow_client_gets_everything() {
    let timeouts = ["--transfer-expiry", "500ms", "--stall-timeout", "2s"];
    let (_workspace, mut server, content) = served(60 * MIB, &timeouts);
    let offer = Ask::new(server.addr, "f", 1).offer();
    let mut stream = offer.open(0);
    let mut received = Vec::new();
    let mut buffer = vec![0; 2 * MIB];
    let begin = Instant::now();
    let mut others = 0;
    while let n @ 1.. = stream.read(&mut buffer).expect("the slow stream goes on") {
        received.extend_from_slice(&buffer[..n]);
        if others < 20 {
            // The other transfers are what slows this one down.
            let other = Ask::new(server.addr, "f", 8).offer();
            assert!(other.stream(7).bytes == bytes_of(&content, 8, 7));
            others += 1;
        }
        if begin.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    assert!(received == content, "{} bytes after {:?}", received.len(), begin.elapsed());
    assert!(begin.elapsed() > Duration::from_secs(1), "it was not slow");
    server.assert_alive();
}

#[test]
fn limits_are_refused_with_503() {
    let (_workspace, mut server, content) =
        served(1000, &["--max-transfers", "6", "--transfer-expiry", "1s"]);
    // Half of them for one address.
    let offers: Vec<Offer> = (0..3).map(|_| Ask::new(server.addr, "f", 2).offer()).collect();
    Ask::new(server.addr, "f", 2).answer().assert_refusal(&[503], "a fourth transfer of one address");
    assert!(offers[0].download() == content, "those that are granted go on");
    let next = until("a free place", || {
        let answer = Ask::new(server.addr, "f", 2).answer();
        (answer.status == 200).then_some(answer)
    });
    assert!(next.body.contains(&md5(&content)));
    server.assert_alive();
}

/// The limit is on what is sent at once: the streams beyond it wait for their turn.
#[test]
fn streams_beyond_the_limit_take_turns() {
    let (_workspace, server, content) = served(10 * MIB, &["--max-streams", "2"]);
    assert!(Ask::new(server.addr, "f", 1).offer().download() == content);
    assert!(Ask::new(server.addr, "f", 40).offer().download() == content);
}

#[test]
fn transfer_ports_are_from_the_range() {
    // Free at this moment; another process may take them, so several ranges are tried.
    for first in (20_000_u16..30_000).step_by(997) {
        let last = first + 1;
        if [first, last].iter().any(|port| !is_refused(local(*port))) {
            continue;
        }
        let range = format!("{first}-{last}");
        let (_workspace, server, content) = served(1000, &["--transfer-ports", &range]);
        let [one, two] = [(); 2].map(|()| Ask::new(server.addr, "f", 2).offer());
        let mut ports = [one.data.port(), two.data.port()];
        ports.sort_unstable();
        assert_eq!(ports, [first, last]);
        Ask::new(server.addr, "f", 2).answer().assert_refusal(&[503], "no port is left");
        assert!(one.download() == content && two.download() == content);
        // Ports are reused, also while the ended connections are remembered by the system.
        until("a port is free again", || {
            (Ask::new(server.addr, "f", 2).answer().status == 200).then_some(())
        });
        return;
    }
    panic!("no two free ports side by side");
}

#[test]
fn many_transfers_at_once() {
    let (_workspace, server, content) = served(MIB, &[]);
    let offers: Vec<Offer> = (0..10).map(|_| Ask::new(server.addr, "f", 4).offer()).collect();
    let mut ports: Vec<SocketAddr> = offers.iter().map(|offer| offer.data).collect();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 10, "each has its own port");
    // Stream by stream over all transfers, so that each waits for the others.
    let mut files = vec![vec![]; offers.len()];
    for id in 0..4 {
        for (offer, file) in offers.iter().zip(&mut files) {
            file.push(offer.stream(id));
        }
    }
    assert!(files.iter().all(|streams| join(streams) == content));
}

#[test]
fn stopped_server_closes_its_port() {
    let (_workspace, server, _) = served(1000, &[]);
    let (addr, offer) = (server.addr, Ask::new(server.addr, "f", 2).offer());
    server.stop(rustix::process::Signal::TERM, PATIENCE).assert_success();
    for port in [addr, offer.data] {
        assert!(try_connect(port).is_err(), "{port} still listens");
    }
}
