//! Rules that hold for the source tree as text: sizes, module texts, layers, and what must not be written anywhere.
//!
//! Every rule is a function from a file to its complaints, and has a case below that it must complain about.

use dt_testkit::source::{Source, code_of, paths, text_files, tokens, workspace_root};

/// More than this is not read top-down any more.
const MOST_LINES: usize = 400;

/// What each module of `dtcore` may use of the others: imports point down only, as ARCHITECTURE.md shows.
///
/// The roles do not know each other, the network knows no files, and files know no network.
const LAYERS: [(&str, &[&str]); 13] = [
    ("plan", PURE),
    ("wire", PURE),
    ("integrity", PURE),
    ("schedule", PURE),
    ("session", PURE),
    ("error", PURE),
    ("event", PURE),
    ("sys", &[]),
    ("storage", &["plan", "wire", "integrity", "error", "sys"]),
    ("net", &["plan", "wire", "integrity", "error"]),
    ("receiver", BELOW_THE_ROLES),
    ("sender", BELOW_THE_ROLES),
    ("fuzzing", &["plan", "wire", "integrity", "storage"]),
];
const PURE: &[&str] = &["plan", "wire", "integrity", "schedule", "session"];
const BELOW_THE_ROLES: &[&str] =
    &["plan", "wire", "integrity", "schedule", "session", "error", "event", "sys", "storage", "net"];

/// What a pure module must not name: sockets, files, threads and clocks, and the crates that bring them.
const IMPURE: [&str; 11] = [
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
];

fn check_module_text(file: &Source) -> Vec<String> {
    let purpose = file.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    match purpose {
        Some(purpose) if !purpose.trim().is_empty() => vec![],
        Some(_) | None => vec!["does not begin with a module text".to_owned()],
    }
}

fn check_length(file: &Source) -> Vec<String> {
    match file.text.lines().count() {
        n if n > MOST_LINES => vec![format!("has {n} lines, {MOST_LINES} are the most")],
        _ => vec![],
    }
}

/// The path of a file's module in `dtcore`; empty for the crate itself, `None` for files of other crates.
fn module(path: &str) -> Option<Vec<&str>> {
    let path = path.strip_prefix("dtcore/src/")?.strip_suffix(".rs")?;
    let mut names: Vec<&str> = path.split('/').collect();
    if names.last().is_some_and(|name| ["mod", "lib"].contains(name)) {
        names.pop();
    }
    Some(names)
}

/// What the code of a module names right below the crate's root, tests included.
fn uses_of_the_crate(module: &[&str], code: &str) -> Vec<String> {
    // Modules within a file hold its tests, and stand at its end.
    let (product, tests) = code.split_once("#[cfg(test)]\nmod tests {").unwrap_or((code, ""));
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

fn check_layers(file: &Source) -> Vec<String> {
    let Some(module) = module(&file.path) else { return vec![] };
    // The crate's root puts all together.
    let Some(own) = module.first() else { return vec![] };
    let Some((_, below)) = LAYERS.iter().find(|(name, _)| name == own) else {
        return vec![format!("module {own} has no layer")];
    };
    uses_of_the_crate(&module, &code_of(&file.text))
        .into_iter()
        .filter(|used| used != own && !below.contains(&used.as_str()))
        .map(|used| format!("{own} must not use {used}"))
        .collect()
}

fn check_purity(file: &Source) -> Vec<String> {
    if !module(&file.path).is_some_and(|module| module.first().is_some_and(|own| PURE.contains(own))) {
        return vec![];
    }
    let used: Vec<String> = paths(&code_of(&file.text)).into_iter().map(|path| path.join("::")).collect();
    let is_used = |what: &str| {
        used.iter().any(|path| path == what || path.strip_prefix(what).is_some_and(|p| p.starts_with("::")))
    };
    IMPURE
        .iter()
        .filter(|what| is_used(what))
        .map(|what| format!("a pure module must not use {what}"))
        .collect()
}

fn check_safety(file: &Source) -> Vec<String> {
    if file.path.starts_with("dtcore/src/sys/") || !tokens(&code_of(&file.text)).contains(&"unsafe") {
        return vec![];
    }
    vec!["unsafe code belongs into dtcore's sys".to_owned()]
}

/// Folders of somebody's machine; whoever reads the tree elsewhere has none of them.
fn check_machine_paths(file: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in ["work", "root", "home", "Users", "mnt"].map(|name| format!("/{name}")) {
        for (at, _) in file.text.match_indices(&folder) {
            let (before, after) = (&file.text[..at], &file.text[at + folder.len()..]);
            // Else it is the end or the middle of another path, or the beginning of a longer name.
            let begins = !before.ends_with(|c: char| c.is_alphanumeric() || "_-.~})>]".contains(c));
            let ends = !after.starts_with(|c: char| c.is_alphanumeric() || "_-".contains(c));
            if begins && ends {
                let line = before.matches('\n').count() + 1;
                complaints.push(format!("line {line} names {folder}, a folder of one machine"));
            }
        }
    }
    complaints
}

/// Holds all files with that ending to a rule.
fn check_tree(ending: &str, rule: fn(&Source) -> Vec<String>) {
    let files = text_files(&workspace_root());
    // A tree that is not found has no faults.
    for known in ["dtcore/src/lib.rs", "dtcore/src/sys/map.rs", "testkit/src/source.rs"] {
        assert!(files.iter().any(|file| file.path == known), "{known} is not in the tree");
    }
    let complaints: Vec<String> = files
        .iter()
        .filter(|file| file.path.ends_with(ending))
        .flat_map(|file| rule(file).into_iter().map(|complaint| format!("{}: {complaint}", file.path)))
        .collect();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    check_tree(".rs", check_module_text);
}

#[test]
fn no_file_is_too_long() {
    check_tree(".rs", check_length);
}

#[test]
fn imports_point_down() {
    check_tree(".rs", check_layers);
}

#[test]
fn pure_modules_are_pure() {
    check_tree(".rs", check_purity);
}

#[test]
fn unsafe_code_is_in_one_place() {
    check_tree(".rs", check_safety);
}

#[test]
fn no_machine_is_named() {
    check_tree("", check_machine_paths);
}

/// A table that allowed a circle, or did not know a module, would let anything pass.
#[test]
fn the_layers_are_layers() {
    let place = |name: &str| LAYERS.iter().position(|(known, _)| *known == name);
    for (at, (name, below)) in LAYERS.iter().enumerate() {
        for used in *below {
            let known = place(used).unwrap_or_else(|| panic!("{used}, which {name} may use, has no layer"));
            assert!(known < at || PURE.contains(name), "{name} stands below {used}");
        }
    }
    for file in text_files(&workspace_root()) {
        let Some(module) = module(&file.path) else { continue };
        let Some(own) = module.first() else { continue };
        assert!(place(own).is_some(), "{}: module {own} has no layer", file.path);
    }
}

/// The rule must find so many faults in such a file.
#[track_caller]
fn check_rule(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, faults: usize) {
    let complaints = rule(&Source { path: path.to_owned(), text: text.to_owned() });
    assert_eq!(complaints.len(), faults, "{path}, {text:?}: {complaints:?}");
}

#[test]
fn module_texts_are_missed() {
    for (text, faults) in [
        ("//! What it is for.\n", 0),
        ("", 1),
        ("use a;\n//! Late.", 1),
        ("//!\n//! Late.", 1),
        ("// No.", 1),
    ] {
        check_rule(check_module_text, "dtcore/src/new.rs", text, faults);
    }
}

#[test]
fn long_files_are_seen() {
    check_rule(check_length, "a.rs", &"\n".repeat(MOST_LINES), 0);
    check_rule(check_length, "a.rs", &"\n".repeat(MOST_LINES + 1), 1);
}

#[test]
fn imports_that_point_up_are_seen() {
    for (path, text, faults) in [
        ("plan/split.rs", "use crate::wire::v1; use super::range;", 0),
        ("plan/split.rs", "use crate::error::TransferError;", 1),
        ("plan/mod.rs", "use super::wire;", 0),
        ("plan/mod.rs", "use super::net;", 1),
        ("plan/mod.rs", "\n#[cfg(test)]\nmod tests {\n    use super::Net; }", 0),
        ("plan/split.rs", "use super::super::net;", 1),
        ("plan/split.rs", "\n#[cfg(test)]\nmod tests {\n    use super::super::range;", 0),
        ("plan/split.rs", "\n#[cfg(test)]\nmod tests {\n    use super::super::super::net;", 1),
        ("error.rs", "use crate::{integrity::Checksum, plan};", 0),
        ("error.rs", "use crate::{integrity::Checksum, storage::{Store, Engine}};", 2),
        ("error.rs", "use crate::event;", 1),
        ("sys/map.rs", "use super::ledger; use crate::sys::ledger;", 0),
        ("sys/map.rs", "use crate::plan::ByteRange;", 1),
        ("storage/mod.rs", "use crate::sys; use crate::error;", 0),
        ("storage/mod.rs", "fn a() { crate::net::connect() }", 1),
        ("storage/mod.rs", "#[cfg(test)]\nmod tests { fn a() { crate::receiver::fetch() } }", 1),
        ("storage/mod.rs", "//! See crate::net.\n/* crate::net */ fn a() { \"crate::net\" }", 0),
        ("net/connect.rs", "use crate::storage::Store;", 1),
        ("receiver/mod.rs", "use crate::{net, storage, event, plan};", 0),
        ("receiver/mod.rs", "use crate::sender::Server;", 1),
        ("sender/mod.rs", "use crate::receiver;", 1),
        // What the crate's root gives to others hides the module it is from.
        ("storage/mod.rs", "use crate::TransferError;", 1),
        ("shelf/mod.rs", "", 1),
        ("lib.rs", "pub use crate::net::Anything;", 0),
    ] {
        check_rule(check_layers, &format!("dtcore/src/{path}"), text, faults);
    }
    check_rule(check_layers, "dtserver/src/lib.rs", "use crate::args;", 0);
}

#[test]
fn impure_modules_are_seen() {
    for (text, faults) in [
        ("use std::time::Duration; use std::fmt; let thread = network;", 0),
        ("use std::{fmt, fs::File, net};", 2),
        ("std::thread::spawn(f)", 1),
        ("use std::time::{Duration, Instant, SystemTime};", 2),
        ("async fn a(b: tokio::net::TcpStream) {}", 1),
        ("// std::fs is for others\n", 0),
    ] {
        check_rule(check_purity, "dtcore/src/wire/v1.rs", text, faults);
        check_rule(check_purity, "dtcore/src/net/head.rs", text, 0);
    }
}

#[test]
fn unsafe_code_is_seen() {
    for (text, faults) in [
        ("unsafe { a() }", 1),
        ("pub unsafe fn a() {}", 1),
        ("#![forbid(unsafe_code)] // unsafe\nfn a() { \"unsafe\" }", 0),
    ] {
        check_rule(check_safety, "dtcore/src/storage/mapped.rs", text, faults);
        check_rule(check_safety, "dtcore/src/system.rs", text, faults);
        check_rule(check_safety, "dtcore/src/sys/map.rs", text, 0);
    }
}

#[test]
fn machine_paths_are_seen() {
    let (mine, other) = (["", "home", "me", "src"].join("/"), ["", "work"].join("/"));
    for (text, faults) in [
        (format!("built in {mine}"), 1),
        (format!("`{mine}` and \"{other}\""), 2),
        (format!("file://{mine}"), 1),
        (other.clone(), 1),
        (format!("{other}shop {other}_1"), 0),
        (format!("a{other} ..{other} {{root}}{other}"), 0),
    ] {
        check_rule(check_machine_paths, "docs/protocol.md", &text, faults);
    }
}
