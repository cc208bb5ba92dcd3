//! Streams that break, stall, trickle and die at random, through the proxy: the transfer completes, byte for byte.

use std::net::SocketAddr;
use std::time::Duration;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::fetched::assert_fetched;
use dt_testkit::messages::RUN_AGAIN;
use dt_testkit::proxy::{Carries, Connection, Ending, Fate, Proxy};
use dt_testkit::range_server::{Lie, RangeServer};
use dt_testkit::session::Session;
use dt_testkit::workspace::Workspace;
use serde_json::Value;

use crate::{MIB, fetch, served};

const STREAMS: u8 = 4;
const ENDINGS: [Ending; 4] = [Ending::Reset, Ending::Close, Ending::Truncate, Ending::Stall];

/// Fetches through `proxy` and gives the last event.
fn completes(what: &str, proxy: &Proxy, workspace: &Workspace, content: &[u8], options: &[&str]) -> Value {
    let outcome = fetch(proxy.addr, STREAMS, workspace).env("DT_STALL_TIMEOUT", "1s").options(options).run();
    let finished = assert_fetched(&outcome, &workspace.output("out"), content, what);
    let lost = Events::of(&outcome);
    for event in lost.named("stream_lost") {
        assert!(number(event, "stream") < u64::from(STREAMS), "{what}: {event}");
        assert!(event["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{what}: {event}");
    }
    std::fs::remove_file(workspace.output("out")).expect("it is ours");
    finished
}

/// How often streams had to connect again.
fn reconnects(proxy: &Proxy) -> usize {
    proxy
        .connections()
        .iter()
        .filter(|connection| connection.carries != Carries::Request && connection.attempt > 0)
        .count()
}

#[test]
fn transfer_survives_one_broken_stream() {
    let (workspace, server, content) = served(12 * MIB);
    for ending in ENDINGS {
        for after in [0, 1, 24, 30_000, 65 * 1024 + 30] {
            let what = format!("stream 1 has {ending:?} after {after}");
            let proxy = Proxy::on_streams(server.addr, move |connection| {
                match (connection.stream, connection.attempt) {
                    (1, 0) => Fate::fine().ends(after, ending),
                    _ => Fate::fine(),
                }
            });
            // So that every stream has its share.
            proxy.set_rate(Some(24 << 20));
            let finished = completes(&what, &proxy, &workspace, &content, &[]);
            if reconnects(&proxy) > 0 {
                assert!(number(&finished, "streams_lost") >= 1, "{what}: {finished}");
            }
        }
    }
}

#[test]
fn transfer_survives_a_stream_that_always_breaks() {
    let (workspace, server, content) = served(12 * MIB);
    for (ending, after) in [(Ending::Reset, 0), (Ending::Close, 100_000), (Ending::Stall, 50_000)] {
        let proxy = Proxy::on_streams(server.addr, move |connection| match connection.stream {
            1 => Fate::fine().ends(after, ending),
            _ => Fate::fine(),
        });
        proxy.set_rate(Some(12 << 20));
        completes(&format!("stream 1 always has {ending:?}"), &proxy, &workspace, &content, &[]);
    }
}

#[test]
fn last_working_stream_finishes_the_transfer() {
    let (workspace, server, content) = served(12 * MIB);
    let proxy = Proxy::on_streams(server.addr, |connection| match connection.stream {
        3 => Fate::fine(),
        _ => Fate::fine().ends(10_000, Ending::Reset),
    });
    completes("one survivor", &proxy, &workspace, &content, &[]);
}

#[test]
fn transfer_survives_a_break_of_every_stream() {
    let (workspace, server, content) = served(12 * MIB);
    for ending in ENDINGS {
        let proxy = Proxy::on_streams(server.addr, move |connection| match connection.attempt {
            0 => Fate::fine().ends(300_000, ending),
            _ => Fate::fine(),
        });
        proxy.set_rate(Some(24 << 20));
        let finished = completes(&format!("all have {ending:?} once"), &proxy, &workspace, &content, &[]);
        assert!(number(&finished, "streams_lost") >= 1, "{ending:?}: {finished}");
    }
}

/// Where the transfers of other programs hang indefinitely.
#[test]
fn cut_at_99_percent_costs_little() {
    let (workspace, server, content) = served(32 * MIB);
    let block = Session::request(server.addr, "f", 1).block;
    let proxy = Proxy::plain(server.addr);
    // Nothing of a run counts before its end, and a run is what arrives in 20 ms: on an unlimited path that is many blocks.
    proxy.set_rate(Some(24 << 20));
    proxy.cut_all_at((32 << 20) * 99 / 100);
    let finished = completes("all cut at 99 %", &proxy, &workspace, &content, &[]);
    let again = number(&finished, "received") - (32 << 20);
    assert!(again <= 4 * u64::from(STREAMS) * block, "{again} bytes were fetched again: {finished}");
}

/// One stream a hundred times slower than the others costs the transfer about a second, and hardly a byte.
#[test]
fn stream_at_one_percent_costs_little() {
    let (workspace, server, content) = served(32 * MIB);
    let block = Session::request(server.addr, "f", 1).block;
    let seconds = |plan: fn(&Connection) -> Fate| {
        let proxy = Proxy::on_streams(server.addr, plan);
        let finished =
            completes("one stream at 1 %", &proxy, &workspace, &content, &["--stall-timeout", "60s"]);
        let wasted = number(&finished, "wasted_bytes");
        assert!(wasted <= (32 << 20) / 50 + 4 * block, "more than 2 % wasted: {finished}");
        finished["seconds"].as_f64().expect("a number")
    };
    let all_alike = seconds(|_| Fate::fine().rate(8 << 20));
    let one_slow = seconds(|connection| match connection.stream {
        2 => Fate::fine().rate((8 << 20) / 100),
        _ => Fate::fine().rate(8 << 20),
    });
    assert!(one_slow < all_alike * 4.0 / 3.0 + 2.0, "{one_slow} s instead of {all_alike} s");
}

/// As wdt's network error simulator does: connections are killed all the time.
#[test]
fn transfer_survives_a_random_break_every_250_ms() {
    let (workspace, server, content) = served(48 * MIB);
    let mut proxy = Proxy::plain(server.addr);
    proxy.set_rate(Some(16 << 20));
    proxy.cut_one_every(Duration::from_millis(250), 42);
    let finished = completes("random deaths", &proxy, &workspace, &content, &[]);
    assert!(number(&finished, "streams_lost") >= 4, "{finished}");
    assert!(reconnects(&proxy) >= 4, "{:?}", proxy.connections());
}

/// All streams at once, again and again, each time after a little progress.
#[test]
fn transfer_survives_repeated_breaks_of_all_streams() {
    let (workspace, server, content) = served(12 * MIB);
    let proxy = Proxy::on_streams(server.addr, |_| Fate::fine().ends(700_000, Ending::Reset));
    completes("every connection dies after 700 kB", &proxy, &workspace, &content, &["--retries", "3"]);
}

#[test]
fn requests_do_not_wait_for_each_other() {
    let (workspace, server, content) = served(12 * MIB);
    let proxy = Proxy::on_streams(server.addr, |_| Fate::fine().delay(Duration::from_millis(100)));
    let finished = completes("100 ms away", &proxy, &workspace, &content, &[]);
    let seconds = finished["seconds"].as_f64().expect("a number");
    assert!(seconds < 5.0, "requests wait for each other: {finished}");
    assert_eq!(number(&finished, "streams_lost"), 0, "{finished}");
}

/// Slow altogether, but alive: no timeout ends it.
#[test]
fn slow_but_steady_transfer_is_no_stall() {
    let (workspace, server, content) = served(200_000);
    let proxy = Proxy::plain(server.addr);
    proxy.set_rate(Some(80_000));
    completes("80 kB/s on all streams", &proxy, &workspace, &content, &[]);
}

/// Fetches through a proxy with this plan, and must fail with one of `codes` within `limit`.
fn fails(what: &str, server: SocketAddr, ending: Ending, options: &[&str], codes: &[i32]) {
    let workspace = Workspace::new();
    let proxy = Proxy::on_streams(server, move |_| Fate::fine().ends(0, ending));
    let run = fetch(proxy.addr, STREAMS, &workspace).options(options);
    let outcome = run.limit(Duration::from_secs(30)).run();
    assert!(outcome.code.is_some_and(|code| codes.contains(&code)), "{what}: {outcome}");
    outcome.assert_one_line("dtclient: ");
    // Nothing was verified, so there is nothing to resume.
    workspace.assert_outputs(&[]);
}

#[test]
fn broken_network_ends_the_transfer() {
    let (_workspace, server, _) = served(MIB);
    for (ending, stall_timeout, code) in
        [(Ending::Reset, "20s", 4), (Ending::Close, "20s", 4), (Ending::Stall, "500ms", 10)]
    {
        for retries in ["0", "2"] {
            let options = ["--stall-timeout", stall_timeout, "--retries", retries];
            fails(&format!("always {ending:?}, {retries} retries"), server.addr, ending, &options, &[code]);
        }
    }
}

/// The error of the last stream says how much arrived and why that was not all.
#[test]
fn error_names_the_stream_and_what_it_received() {
    let workspace = Workspace::new();
    // Dialled, so that nothing precedes the header of the first run.
    let server = RangeServer::start(pattern(1, MIB), 64 << 10, Lie::NoUpgrade);
    let proxy = Proxy::on_streams(server.addr, |_| Fate::fine().ends(10_024, Ending::Truncate));
    let outcome = fetch(proxy.addr, 1, &workspace).options(["--retries", "1"]).run();
    outcome.assert_failure(4);
    for words in ["stream 0", "after 10000 bytes", RUN_AGAIN] {
        assert!(outcome.error().contains(words), "{words:?} is missing in {outcome}");
    }
}
