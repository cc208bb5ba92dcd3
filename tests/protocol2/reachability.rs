//! Data ports that cannot be reached: streams over the control port, and one word about it.

use std::time::Duration;

use dt_testkit::events::Events;
use dt_testkit::fetched::assert_fetched;
use dt_testkit::proxy::{Carries, DataPort, Ending, Fate, Foreign, Proxy};

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

/// What accepts connections there is something else: a proxy with nobody behind it, a tunnel, another service.
#[test]
fn a_data_port_at_which_somebody_else_listens() {
    let (workspace, server, content) = served(6 * MIB);
    for foreign in [
        Foreign::Closes,
        Foreign::Resets,
        Foreign::IsMute,
        // Less than a frame, and more.
        Foreign::Says("SSH-2.0-OpenSSH\r\n"),
        Foreign::Says("220 mail.example.org ESMTP Postfix at your service\r\n"),
    ] {
        for (streams, retries) in [(1, "0"), (8, "0"), (8, "10")] {
            let what = format!("{foreign:?}, {streams} streams, {retries} retries");
            let proxy = Proxy::start_with(server.addr, DataPort::Foreign(foreign), |_| Fate::fine());
            let options = ["--connect-timeout", "2s", "--retries", retries];
            let run = fetch(proxy.addr, streams, &workspace).options(options);
            let outcome = run.limit(Duration::from_secs(20)).run();
            assert_fetched(&outcome, &workspace.output("out"), &content, &what);
            assert_eq!(Events::of(&outcome).count("notice"), 1, "{what}: {outcome}");
            assert!((1..=usize::from(streams)).contains(&proxy.count(Carries::Upgraded)), "{what}");
        }
    }
}

/// Where the control port is of no use either, the error is that of the data port.
#[test]
fn somebody_else_listens_and_the_control_port_carries_no_streams() {
    let (workspace, server, _) = served(MIB);
    for (foreign, code, words) in [
        (Foreign::Resets, 4, "ended early, after 0 bytes"),
        (Foreign::IsMute, 10, "while the streams were open"),
        (Foreign::Says("HTTP/1.1 400 Bad Request\r\n\r\n"), 12, "no frame"),
    ] {
        let proxy = Proxy::start_with(server.addr, DataPort::Foreign(foreign), |_| Fate::fine());
        proxy.refuse_upgrades();
        let options = ["--stall-timeout", "2s", "--retries", "1"];
        let run = fetch(proxy.addr, 4, &workspace).options(options);
        let outcome = run.limit(Duration::from_secs(20)).run();
        outcome.assert_failure(code);
        assert!(outcome.error().contains(words), "{foreign:?}: {words:?} is missing in {outcome}");
        assert_eq!(Events::of(&outcome).count("notice"), 0, "{foreign:?}: {outcome}");
    }
}

/// A data port that accepts everything and says nothing is given up before the user gives up.
#[test]
fn a_black_hole_behind_the_data_port() {
    let (workspace, server, content) = served(MIB);
    let proxy = Proxy::start(server.addr, |connection| match connection.carries {
        Carries::Data => Fate::fine().ends(0, Ending::Stall),
        Carries::Control | Carries::Upgraded => Fate::fine(),
    });
    let run = fetch(proxy.addr, 4, &workspace).options(["--stall-timeout", "3s", "--retries", "0"]);
    let outcome = run.limit(Duration::from_secs(20)).run();
    assert_fetched(&outcome, &workspace.output("out"), &content, "a black hole");
    assert_eq!(Events::of(&outcome).count("notice"), 1, "{outcome}");
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
