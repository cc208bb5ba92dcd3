//! Which module of `dtcore` may use which: imports point down only, and each layer knows only what it is about.

use dt_testkit::source::{Source, code_of, paths, text_files, workspace_root};

use crate::{about_each, check_rule, check_tree, is_test, module, without_tests};

/// What each module may use of the others, lowest first; ARCHITECTURE.md describes them.
///
/// `receive` and `send` do not know each other, nor do `client` and `server`; what stores files knows no network, and what
/// moves bytes over it knows no files.
const LAYERS: [(&str, &[&str]); 20] = [
    ("num", &[]),
    ("sync", &[]),
    ("manifest", &["num"]),
    ("digest", &["num", "manifest"]),
    ("proto", &["num", "manifest", "digest"]),
    ("schedule", &["num", "manifest", "digest"]),
    ("failure", PURE),
    ("error", &["num", "manifest", "digest", "proto", "schedule", "failure"]),
    ("event", &["num", "sync", "manifest", "digest", "proto", "schedule", "failure", "error"]),
    ("sys", &["num", "sync", "manifest"]),
    ("sink", &["num", "sync", "manifest", "digest", "proto", "schedule", "failure", "error", "sys"]),
    ("backend", &["num", "sync", "manifest", "digest", "proto", "schedule", "failure", "error", "sys"]),
    ("transport", &["num", "sync", "manifest", "digest", "proto", "schedule", "failure", "error", "sys"]),
    (
        "receive",
        &[
            "num",
            "sync",
            "manifest",
            "digest",
            "proto",
            "schedule",
            "failure",
            "error",
            "event",
            "sys",
            "sink",
            "transport",
        ],
    ),
    (
        "send",
        &[
            "num",
            "sync",
            "manifest",
            "digest",
            "proto",
            "schedule",
            "failure",
            "error",
            "event",
            "sys",
            "backend",
            "transport",
        ],
    ),
    ("client", BELOW_THE_ROLES),
    ("server", BELOW_THE_ROLES),
    ("fuzzing", BELOW_THE_ROLES),
    ("prelude", &["client", "server", "error", "event"]),
    // Both roles in one process.
    ("tests", BELOW_THE_ROLES),
];

/// The modules without sockets, files, threads and clocks.
const PURE: &[&str] = &["num", "manifest", "digest", "proto", "schedule"];

const BELOW_THE_ROLES: &[&str] = &[
    "num",
    "sync",
    "manifest",
    "digest",
    "proto",
    "schedule",
    "failure",
    "error",
    "event",
    "sys",
    "sink",
    "backend",
    "transport",
    "receive",
    "send",
];

/// What some modules must not name: a path, or anything below it. Tests are free to.
const UNKNOWN: [(&[&str], &[&str], &str); 4] = [
    (
        PURE,
        &[
            "std::net",
            "std::fs",
            "std::thread",
            "std::process",
            "std::time::Instant",
            "std::time::SystemTime",
            "tokio",
            "hyper",
            "rustix",
            "socket2",
            "memmap2",
        ],
        "a pure module",
    ),
    (&["sink", "backend"], &["std::net", "tokio", "socket2", "hyper"], "what stores files"),
    (
        &["receive"],
        &["std::net", "tokio::net", "socket2", "hyper", "crate::transport::connect"],
        "the receiving engine, which knows no address and dials nothing,",
    ),
    (
        &["send"],
        &["hyper", "http", "httparse", "http_body_util", "crate::proto::http"],
        "the sending engine, which knows no HTTP,",
    ),
];

/// What the code of a module of `dtcore` names right below the crate's root, tests included.
fn uses_of_the_crate(module: &[&str], code: &str) -> Vec<String> {
    let (product, tests) = without_tests(code);
    let mut uses = Vec::new();
    for (code, depth) in [(product, module.len()), (tests, module.len() + 1)] {
        for path in paths(code) {
            let ups = path.iter().take_while(|name| *name == "super").count();
            let from_root = match path.first().map(String::as_str) {
                Some("crate") => 1,
                Some("super") if ups == depth => ups,
                _ => continue,
            };
            uses.extend(path.into_iter().nth(from_root));
        }
    }
    uses
}

/// The module below the root of `dtcore`; `None` for the root itself and for other packages.
fn layer(path: &str) -> Option<Vec<&str>> {
    let module = module(path)?;
    let (package, module) = module.split_first()?;
    (*package == "dtcore" && !module.is_empty()).then(|| module.to_vec())
}

fn check_layers(file: &Source) -> Vec<String> {
    // The crate's root puts all together.
    let Some(module) = layer(&file.path) else { return vec![] };
    let own = module[0];
    let Some((_, below)) = LAYERS.iter().find(|(name, _)| *name == own) else {
        return vec![format!("module {own} has no layer")];
    };
    uses_of_the_crate(&module, &code_of(&file.text))
        .into_iter()
        .filter(|used| used != own && !below.contains(&used.as_str()))
        .map(|used| format!("{own} must not use {used}"))
        .collect()
}

fn check_knowledge(file: &Source) -> Vec<String> {
    let Some(own) = layer(&file.path).map(|module| module[0]).filter(|_| !is_test(&file.path)) else {
        return vec![];
    };
    let code = code_of(&file.text);
    let used: Vec<String> = paths(without_tests(&code).0).into_iter().map(|path| path.join("::")).collect();
    let is_used = |what: &str| {
        used.iter().any(|path| path == what || path.strip_prefix(what).is_some_and(|p| p.starts_with("::")))
    };
    let rules = UNKNOWN.iter().filter(|(modules, ..)| modules.contains(&own));
    rules
        .flat_map(|(_, unknown, who)| unknown.iter().map(move |what| (what, who)))
        .filter(|(what, _)| is_used(what))
        .map(|(what, who)| format!("{who} must not use {what}"))
        .collect()
}

#[test]
fn imports_point_down() {
    check_tree(|files| about_each(files, ".rs", check_layers));
}

#[test]
fn layers_know_only_what_they_are_about() {
    check_tree(|files| about_each(files, ".rs", check_knowledge));
}

/// A table with a circle, or without one of the modules, would let anything pass.
#[test]
fn layers_are_in_order() {
    let place = |name: &str| LAYERS.iter().position(|(known, _)| *known == name);
    for (at, (name, below)) in LAYERS.iter().enumerate() {
        for used in *below {
            let known = place(used).unwrap_or_else(|| panic!("{used}, which {name} may use, has no layer"));
            assert!(known < at, "{name} stands below {used}");
        }
    }
    for file in text_files(&workspace_root()) {
        if let Some(module) = layer(&file.path) {
            assert!(place(module[0]).is_some(), "{}: module {} has no layer", file.path, module[0]);
        }
    }
}

#[test]
fn import_that_points_up_is_found() {
    for (path, text, faults) in [
        ("proto/v1.rs", "use crate::digest::Md5Digest; use super::range;", 0),
        ("manifest/range.rs", "use crate::digest::Md5Digest;", 1),
        ("manifest/mod.rs", "use super::num;", 0),
        ("manifest/mod.rs", "use super::transport;", 1),
        ("manifest/mod.rs", "\n#[cfg(test)]\nmod tests {\n    use super::Net; }", 0),
        ("manifest/range.rs", "use super::super::transport;", 1),
        ("manifest/range.rs", "\n#[cfg(test)]\nmod tests {\n    use super::super::range;", 0),
        ("manifest/range.rs", "\n#[cfg(test)]\nmod tests {\n    use super::super::super::transport;", 1),
        ("error.rs", "use crate::{digest::Checksum, manifest};", 0),
        ("error.rs", "use crate::{digest::Checksum, sink::{Store, Engine}};", 2),
        ("error.rs", "use crate::event;", 1),
        ("sys/map.rs", "use super::range_lock; use crate::sys::range_lock;", 0),
        ("sys/map.rs", "use crate::manifest::ByteRange; use crate::error::Failure;", 1),
        ("sink/mod.rs", "use crate::sys; use crate::error;", 0),
        ("sink/mod.rs", "fn a() { crate::transport::connect() }", 1),
        ("sink/mod.rs", "#[cfg(test)]\nmod tests { fn a() { crate::receive::fetch() } }", 1),
        (
            "sink/mod.rs",
            "//! See crate::transport.\n/* crate::transport */ fn a() { \"crate::transport\" }",
            0,
        ),
        ("transport/connect.rs", "use crate::sink::Store;", 1),
        ("receive/mod.rs", "use crate::{transport, sink, event, manifest};", 0),
        (
            "receive/mod.rs",
            "use crate::send::Stream; use crate::backend::Root; use crate::client::Options;",
            3,
        ),
        ("send/mod.rs", "use crate::sink::Sink;", 1),
        ("client/mod.rs", "use crate::{receive, send, sink, backend, transport};", 0),
        ("client/mod.rs", "use crate::server::Server;", 1),
        ("server/mod.rs", "use crate::client;", 1),
        // A name that the crate's root re-exports hides the module it is from.
        ("sink/mod.rs", "use crate::TransferError;", 1),
        ("shelf/mod.rs", "", 1),
        ("lib.rs", "pub use crate::transport::Anything;", 0),
    ] {
        check_rule(check_layers, &format!("dtcore/src/{path}"), text, faults);
    }
    check_rule(check_layers, "dtserver/src/lib.rs", "use crate::args;", 0);
}

#[test]
fn knowledge_of_another_layer_is_found() {
    for (text, faults) in [
        ("use std::time::Duration; use std::fmt; let thread = network;", 0),
        ("use std::{fmt, fs::File, net};", 2),
        ("std::thread::spawn(f)", 1),
        ("use std::time::{Duration, Instant, SystemTime};", 2),
        ("async fn a(b: tokio::net::TcpStream) {}", 1),
        ("// std::fs is for others\n", 0),
        ("\n#[cfg(test)]\nmod tests {\n    use std::fs;", 0),
    ] {
        check_rule(check_knowledge, "dtcore/src/proto/v1.rs", text, faults);
        check_rule(check_knowledge, "dtcore/src/proto/tests/v1.rs", text, 0);
        check_rule(check_knowledge, "dtcore/src/transport/head.rs", text, 0);
    }
    for (path, text, faults) in [
        ("sink/file.rs", "use std::fs::File; use rustix::fs;", 0),
        ("sink/file.rs", "use tokio::sync::mpsc; use std::net::SocketAddr;", 2),
        ("backend/fs/mod.rs", "use tokio::fs;", 1),
        ("receive/mod.rs", "use tokio::sync::mpsc; use crate::transport::Connection;", 0),
        ("receive/mod.rs", "use std::net::SocketAddr; use tokio::net::TcpStream;", 2),
        ("receive/mod.rs", "crate::transport::connect::dial()", 1),
        ("send/mod.rs", "use tokio::net::TcpStream; use crate::proto::v2::Hello;", 0),
        ("send/mod.rs", "use hyper::Request; use crate::proto::http::Target; http::Uri", 3),
    ] {
        check_rule(check_knowledge, &format!("dtcore/src/{path}"), text, faults);
    }
}
