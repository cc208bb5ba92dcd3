//! Port mapping and reverse proxies between client and server.

use std::time::Duration;

use dt_testkit::events::Events;
use dt_testkit::fetched::assert_fetched;
use dt_testkit::forwarder::Forwarder;
use dt_testkit::proxy::{Carries, Ending, Fate, Proxy};
use dt_testkit::reverse_proxy::{ReverseProxy, Upgrades};

use crate::{MIB, PROGRAMS, fetch, served};

#[test]
fn mapped_port_is_all_that_a_transfer_needs() {
    let (workspace, server, content) = served(6 * MIB);
    let outside = Forwarder::start(server.addr);
    for streams in [1, 8, 255] {
        outside.begin(None);
        let what = format!("{streams} streams through a mapped port");
        let outcome = fetch(outside.addr, streams, &workspace).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &what);
        assert_eq!(Events::of(&outcome).count("notice"), 0, "{what}: {outcome}");
        let n = outside.n_connections();
        assert!((1..=u64::from(streams)).contains(&n), "{what}: {n} connections");
        let piped = PROGRAMS.fetch(outside.addr, streams, "f", "-").options(["--protocol", "2"]).run();
        piped.assert_success();
        assert!(piped.stdout == content, "{what}, to standard output");
    }
}

#[test]
fn reverse_proxy_that_upgrades_carries_the_streams() {
    let (workspace, server, content) = served(6 * MIB);
    for upgrades in [Upgrades::Carried, Upgrades::CarriedWithoutBody] {
        for streams in [1, 8] {
            let what = format!("{upgrades:?}, {streams} streams");
            let proxy = ReverseProxy::start(server.addr, upgrades);
            let outcome = fetch(proxy.addr, streams, &workspace).run();
            assert_fetched(&outcome, &workspace.output("out"), &content, &what);
            assert!((1..=usize::from(streams)).contains(&proxy.n_upgraded()), "{what}");
            // After the first answer in HTTP no hello is tried again, but several may be on their way by then.
            assert!(proxy.n_rejected() <= usize::from(streams), "{what}: {} hellos", proxy.n_rejected());
            assert!(Events::of(&outcome).count("notice") <= 1, "{what}: {outcome}");
        }
    }
}

/// Streams through a reverse proxy are as good as others: they break, and are opened again.
#[test]
fn streams_through_a_reverse_proxy_break_too() {
    let (workspace, server, content) = served(6 * MIB);
    let reverse = ReverseProxy::start(server.addr, Upgrades::CarriedWithoutBody);
    for ending in [Ending::Reset, Ending::Stall] {
        let proxy = Proxy::start(reverse.addr, move |connection| {
            // The hellos that are answered in HTTP were the first attempts.
            match (connection.carries, connection.attempt) {
                (Carries::Upgraded, 0..=1) => Fate::fine().ends(200_000, ending),
                _ => Fate::fine(),
            }
        });
        let outcome = fetch(proxy.addr, 4, &workspace).options(["--stall-timeout", "1s"]).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &format!("{ending:?}"));
    }
}

#[test]
fn one_stream_that_a_proxy_carries_is_enough() {
    let (workspace, server, content) = served(6 * MIB);
    let proxy = ReverseProxy::start(server.addr, Upgrades::CarriedWithBody);
    let outcome = fetch(proxy.addr, 4, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "one of four");
    assert_eq!(proxy.n_upgraded(), 1);
}

#[test]
fn reverse_proxy_that_does_not_upgrade_is_named_in_the_error() {
    let (workspace, server, _) = served(6 * MIB);
    for streams in [1, 8] {
        let proxy = ReverseProxy::start(server.addr, Upgrades::Removed);
        let run = fetch(proxy.addr, streams, &workspace).options(["--retries", "2"]);
        let outcome = run.limit(Duration::from_secs(20)).run();
        outcome.assert_failure(4);
        assert!(outcome.error().contains("proxy"), "{outcome}");
        assert_eq!(proxy.n_upgraded(), 0);
        assert!(proxy.n_rejected() > 0, "no stream was tried without an upgrade");
        workspace.assert_outputs(&[]);
    }
}

/// A path that is not disturbed: one request, whose connection is the first stream, and the other streams.
#[test]
fn undisturbed_transfer_uses_each_connection_once() {
    let (workspace, server, content) = served(6 * MIB);
    let proxy = Proxy::plain(server.addr);
    let outcome = fetch(proxy.addr, 4, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "undisturbed");
    let events = Events::of(&outcome);
    for name in ["notice", "stream_lost", "block_corrupt"] {
        assert_eq!(events.count(name), 0, "{name}: {outcome}");
    }
    let counts = [Carries::First, Carries::Request, Carries::Upgraded].map(|carries| proxy.count(carries));
    assert_eq!(counts, [1, 0, 0], "{:?}", proxy.connections());
    assert!(proxy.count(Carries::Stream) <= 3, "{:?}", proxy.connections());
}

/// A file that fits into the push needs one connection, and one round trip after it stands.
#[test]
fn small_file_needs_one_connection() {
    const DELAY: Duration = Duration::from_millis(400);
    for size in [0, 1, 1000, 100_000] {
        let (workspace, server, content) = served(size);
        let proxy = Proxy::plain(server.addr);
        let outcome = fetch(proxy.addr, 8, &workspace).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &format!("{size} bytes"));
        let connections = proxy.connections();
        assert_eq!((connections.len(), proxy.count(Carries::First)), (1, 1), "{size} bytes: {connections:?}");
        let far = Proxy::start(server.addr, |_| Fate::fine().delay(DELAY));
        let outcome = fetch(far.addr, 8, &workspace).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &format!("{size} bytes, far away"));
        assert!(outcome.took < 2 * DELAY, "{size} bytes took {:?}", outcome.took);
    }
}
