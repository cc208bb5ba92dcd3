//! Names and phrases for which the field has others.
//!
//! Names are looked for in the code of the product, phrases in everything that people read: code with its comments and
//! messages, README and docs. A phrase matches whole words in any case, also across the end of a line.

use std::collections::BTreeSet;

use dt_testkit::source::{Source, code_of, line_of, tokens};

use crate::{about_each, check_rule, check_tree, module};

/// Names of types, functions and modules, and what the field says instead.
const NAMES: &[(&str, &str)] = &[
    ("Access", "DialledSource"),
    ("Admission", "Permit"),
    ("Answer", "SessionOffer"),
    ("Asked", "RequestContext"),
    ("BlockFile", "FileSink"),
    ("Claim", "StreamGuard"),
    ("Conversation", "StreamDriver"),
    ("Demand", "Request"),
    ("Desk", "SingleFlight"),
    ("Destination", "Sink"),
    ("Elsewhere", "no such thing"),
    ("Ending", "SessionEnd"),
    ("FAREWELL", "LINGER_TIMEOUT"),
    ("FairTurns", "FairQueue"),
    ("Flight", "InFlight"),
    ("Flow", "OutageDetector"),
    ("Follower", "InOrderReader"),
    ("Greeting", "Hello"),
    ("Halt", "ReadInterrupt"),
    ("Hold", "Assignment"),
    ("Inlet", "FrameReader"),
    ("Kept", "Resumable"),
    ("LOOK", "NAME_CHECK_INTERVAL"),
    ("Lane", "StreamState"),
    ("Ledger", "BlockTable or RangeLock"),
    ("Leftover", "StalePartFile"),
    ("Line", "Wake"),
    ("Mapped", "MmapStore"),
    ("Md5Wish", "ComputeMd5"),
    ("Meter", "ThroughputEstimator"),
    ("Origin", "SourceIdentity"),
    ("Outlet", "BodySender"),
    ("Positioned", "PwriteStore"),
    ("Problem", "ErrorCode"),
    ("Receiving", "Requester"),
    ("Reply", "Response"),
    ("Residency", "Prefetcher"),
    ("Rewound", "Rewind"),
    ("Rota", "RoundRobin"),
    ("Route", "no such thing"),
    ("SURPLUS", "LINGER_BYTES"),
    ("Sending", "Responder"),
    ("Shared", "what it is: Transfer, BlockTable, StreamSet, ServerContext"),
    ("Sums", "LogThrottle"),
    ("TELL", "PROGRESS_INTERVAL"),
    ("Terms", "SessionOffer"),
    ("Trouble", "RecoveryStats"),
    ("Unheard", "no such thing"),
    ("Verdict", "ResumeDecision"),
    ("WATCH", "TICK"),
    ("Wanted", "TransferRequest"),
    ("Way", "no such thing"),
    ("Window", "ReorderBuffer"),
    ("Worth", "PartState"),
    ("asker", "client_ip"),
    ("begin_over", "restart"),
    ("beside", "sidecar"),
    ("course", "negotiate"),
    ("crawler", "chronically_slow"),
    ("distrust", "require_rehash"),
    ("door", "listener or http"),
    ("excuse", "reset_timers"),
    ("go_on", "resume"),
    ("grant", "create_session"),
    ("hand_out", "assign"),
    ("poke", "wake"),
    ("protocol1", "legacy"),
    ("share_of", "client_key"),
    ("spoil", "record_corruption"),
    ("strikes", "slow_count"),
    ("thief", "hedging_stream"),
    ("turn_away", "reject"),
    ("unasked", "unassigned"),
    ("ungreeted", "pending_handshakes"),
    ("vacate", "Drop"),
];

/// A phrase, the words that make it another one before or after it, and what to write instead.
type Phrase = (&'static str, &'static [&'static str], &'static str);

const PHRASES: &[Phrase] = &[
    ("anew", &[], "again, or starting over"),
    ("are none", &["there"], "are invalid, or do not exist"),
    (
        "behind",
        &["a firewall", "a proxy", "a reverse proxy", "leaves", "left", "nat", "nginx", "the feature"],
        "after",
    ),
    ("broke the protocol", &[], "protocol error"),
    ("came", &[], "arrived, was received"),
    ("come", CAUSE_AND_ORDER, "arrive"),
    ("comes", CAUSE_AND_ORDER, "arrives"),
    ("coming", CAUSE_AND_ORDER, "arriving"),
    ("for ever", &[], "indefinitely"),
    ("go on with", &[], "resume"),
    ("goes on with", &[], "resumes"),
    ("going on with", &[], "resuming"),
    ("in vain", &[], "for nothing, without success"),
    ("is none", &["there"], "is invalid, or does not exist"),
    ("let you in", &[], "authentication required"),
    ("mended", &[], "repaired, retried"),
    ("mends", &[], "repairs"),
    ("nobody is asked", &[], "there is no authentication"),
    ("proven", &[], "verified"),
    ("shall", &[], "must, or should"),
    ("tell", TO_DISTINGUISH, "report, print"),
    ("telling", TO_DISTINGUISH, "reporting"),
    ("tells", TO_DISTINGUISH, "reports, prints"),
    ("to go on", &[], "to resume"),
    ("told", TO_DISTINGUISH, "reported, by default"),
    ("were none", &["there"], "did not exist"),
    ("whoever", &[], "a client that, a peer that"),
];

const CAUSE_AND_ORDER: &[&str] = &["after", "before", "close", "first", "from", "last"];
const TO_DISTINGUISH: &[&str] = &["apart", "connections apart", "them apart"];

fn check_names(file: &Source) -> Vec<String> {
    if module(&file.path).is_none() {
        return vec![];
    }
    let code = code_of(&file.text);
    let mut found = BTreeSet::new();
    for token in tokens(&code) {
        if let Ok(at) = NAMES.binary_search_by_key(&token, |(name, _)| name) {
            let (name, instead) = NAMES[at];
            found.insert((line_of(&code, token) + 1, name, instead));
        }
    }
    found.into_iter().map(|(line, name, instead)| format!("line {line}: {name}; better {instead}")).collect()
}

/// The words of a text with their lines, in lower case, without the marks of comments and the line breaks in literals.
fn words(text: &str) -> Vec<(usize, String)> {
    let mut words = Vec::new();
    for (line, content) in (1..).zip(text.lines()) {
        let is_word = |c: char| c.is_alphanumeric() || "_'".contains(c);
        let split = content.split(|c| !is_word(c)).filter(|word| !word.is_empty());
        words.extend(split.map(|word| (line, word.to_lowercase())));
    }
    words
}

fn check_phrases(file: &Source) -> Vec<String> {
    let is_prose = [".rs", ".md", ".sh", ".toml"].iter().any(|ending| file.path.ends_with(ending));
    // This file is the one that names them.
    if !is_prose || file.path == "tests/tidy/words.rs" {
        return vec![];
    }
    let words = words(&file.text);
    let begins_with = |at: usize, phrase: &str| {
        let mut expected = phrase.split(' ');
        let mut rest = words[at.min(words.len())..].iter();
        expected.all(|word| rest.next().is_some_and(|(_, found)| found == word))
    };
    let mut complaints = Vec::new();
    for (at, (line, _)) in words.iter().enumerate() {
        for (phrase, allowed, instead) in PHRASES {
            let after = at + phrase.split(' ').count();
            let is_around = |allowed: &&str| {
                begins_with(after, allowed)
                    || at.checked_sub(1).is_some_and(|before| begins_with(before, allowed))
            };
            if begins_with(at, phrase) && !allowed.iter().any(is_around) {
                complaints.push(format!("line {line}: {phrase:?}; better {instead}"));
            }
        }
    }
    complaints
}

#[test]
fn names_are_those_of_the_field() {
    check_tree(|files| about_each(files, ".rs", check_names));
}

#[test]
fn phrases_are_plain_english() {
    check_tree(|files| about_each(files, "", check_phrases));
}

#[test]
fn names_are_in_order() {
    assert!(NAMES.is_sorted_by_key(|(name, _)| name), "they are looked up by bisection");
}

#[test]
fn name_that_has_a_better_one_is_found() {
    for (text, faults) in [
        ("struct Inlet; fn poke() {}", 2),
        ("let course = a.course::<Lane>();", 2),
        ("// of course\nfn a() { \"the course\" }", 0),
        ("struct InletOf; fn pokes() {} InLine", 0),
    ] {
        check_rule(check_names, "dtcore/src/receive/a.rs", text, faults);
        check_rule(check_names, "dtclient/src/tests/a.rs", text, faults);
        check_rule(check_names, "testkit/src/a.rs", text, 0);
    }
    for (name, instead) in NAMES {
        check_rule(check_names, "dtcore/src/a.rs", &format!("fn {name}() {{}}"), 1);
        assert!(!instead.is_empty(), "{name}");
    }
}

#[test]
fn phrase_that_has_a_better_one_is_found() {
    for (text, faults) in [
        ("/// What shall be told to Whoever comes behind it.", 5),
        ("/// It is there for\n    /// ever.", 1),
        ("fn a() { \"to go on, run\" }", 1),
        ("It tells connections apart; a run comes before all; behind a proxy; if there is none.", 0),
        ("He tells; it came from there; it comes to pass.", 3),
        ("They became forever shallow. proven_by(telling_of)", 0),
        ("fn what_is_none() {}", 0),
    ] {
        check_rule(check_phrases, "docs/a.md", text, faults);
        check_rule(check_phrases, "tests/a.rs", text, faults);
        check_rule(check_phrases, "fuzz/corpus/a", text, 0);
    }
    for (phrase, ..) in PHRASES {
        let complaints = check_phrases(&crate::source("README.md", phrase));
        assert!(!complaints.is_empty(), "{phrase}");
    }
}
