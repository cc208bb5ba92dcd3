//! Data ports that cannot be reached: streams over the control port, and one word about it.

use std::time::Duration;

use dt_tests::events::Events;
use dt_tests::fetched::assert_fetched;
use dt_tests::proxy::{Carries, DataPort, Ending, Fate, Proxy};

use crate::{MIB, PROGRAMS, fetch, served};

#[test]
fn a_data_port_that_cannot_be_reached() {
    let (workspace, server, content) = served(6 * MIB);
    for data_port in [DataPort::Refusing, DataPort::Silent] {
        for streams in [1, 8] {
            let what = format!("{data_port:?}, {streams} streams");
            let proxy = Proxy::start_with(server.addr, data_port, |_| Fate::fine());
            let outcome =
                fetch(proxy.addr, streams, &workspace).options(["--connect-timeout", "500ms"]).run();
            assert_fetched(&outcome, &workspace.output("out"), &content, &what);
            let events = Events::of(&outcome);
            let notice = events.only("notice", &["what"]);
            assert!(notice["what"].as_str().is_some_and(|words| !words.is_empty()), "{what}: {notice}");
            assert_eq!(proxy.count(Carries::Data), 0, "{what}");
            assert!((1..=usize::from(streams)).contains(&proxy.count(Carries::Upgraded)), "{what}");
            let plain = PROGRAMS.fetch(proxy.addr, streams, "f", workspace.output("out"));
            let outcome = plain.options(["--connect-timeout", "500ms", "--protocol", "2"]).run();
            outcome.assert_success();
            let words = outcome.stderr.to_lowercase();
            let port = words.lines().filter(|line| line.contains("data port")).count();
            assert_eq!(port, 1, "{what}: said once to people: {outcome}");
        }
    }
}

/// Streams over the control port are as good as others: they break, and come back.
#[test]
fn streams_over_the_control_port_break_too() {
    let (workspace, server, content) = served(6 * MIB);
    for ending in [Ending::Reset, Ending::Stall] {
        let proxy = Proxy::start_with(server.addr, DataPort::Refusing, move |connection| {
            match (connection.carries, connection.attempt) {
                (Carries::Upgraded, 0) => Fate::fine().ends(200_000, ending),
                _ => Fate::fine(),
            }
        });
        let outcome = fetch(proxy.addr, 4, &workspace).options(["--stall-timeout", "1s"]).run();
        assert_fetched(&outcome, &workspace.output("out"), &content, &format!("{ending:?}"));
        assert_eq!(Events::of(&outcome).count("notice"), 1, "{outcome}");
    }
}

/// A data port that accepts everything and says nothing is no reason to wait for ever.
#[test]
fn a_black_hole_behind_the_data_port() {
    let (workspace, server, _) = served(MIB);
    let proxy = Proxy::start(server.addr, |connection| match connection.carries {
        Carries::Data => Fate::fine().ends(0, Ending::Stall),
        Carries::Control | Carries::Upgraded => Fate::fine(),
    });
    let run = fetch(proxy.addr, 4, &workspace).options(["--stall-timeout", "500ms", "--retries", "1"]);
    let outcome = run.limit(Duration::from_secs(20)).run();
    // Whether it looks for another way or gives up, it does so soon.
    assert!(matches!(outcome.code, Some(0 | 10)), "{outcome}");
}

/// A path that is reached, with streams on it that are not disturbed: no notice.
#[test]
fn nothing_is_said_when_nothing_is_wrong() {
    let (workspace, server, content) = served(6 * MIB);
    let proxy = Proxy::plain(server.addr);
    let outcome = fetch(proxy.addr, 4, &workspace).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "undisturbed");
    let events = Events::of(&outcome);
    for name in ["notice", "stream_lost", "block_corrupt"] {
        assert_eq!(events.count(name), 0, "{name}: {outcome}");
    }
    assert_eq!((proxy.count(Carries::Control), proxy.count(Carries::Upgraded)), (1, 0));
    assert_eq!(proxy.count(Carries::Data), 4);
}
