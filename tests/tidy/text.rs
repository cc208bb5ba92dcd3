//! Rules for single files: a module text, a length, no unsafe code, no path of a machine.

use dt_testkit::source::{Source, code_of, tokens};

use crate::{about_each, check_rule, check_tree};

/// A longer file is not read from top to bottom any more.
const MAX_LINES: usize = 400;

fn check_module_text(file: &Source) -> Vec<String> {
    let purpose = file.text.lines().next().and_then(|line| line.strip_prefix("//! "));
    match purpose {
        Some(purpose) if !purpose.trim().is_empty() => vec![],
        Some(_) | None => vec!["does not begin with a module text".to_owned()],
    }
}

fn check_length(file: &Source) -> Vec<String> {
    match file.text.lines().count() {
        n if n > MAX_LINES => vec![format!("has {n} lines, at most {MAX_LINES} are allowed")],
        _ => vec![],
    }
}

fn check_safety(file: &Source) -> Vec<String> {
    if file.path.starts_with("dtcore/src/sys/") || !tokens(&code_of(&file.text)).contains(&"unsafe") {
        return vec![];
    }
    vec!["unsafe code belongs into dtcore's sys".to_owned()]
}

/// Folders of one machine, which nobody else has.
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

#[test]
fn every_file_states_its_purpose() {
    check_tree(|files| about_each(files, ".rs", check_module_text));
}

#[test]
fn no_file_is_too_long() {
    check_tree(|files| about_each(files, ".rs", check_length));
}

#[test]
fn unsafe_code_is_in_one_place() {
    check_tree(|files| about_each(files, ".rs", check_safety));
}

#[test]
fn no_machine_is_named() {
    check_tree(|files| about_each(files, "", check_machine_paths));
}

#[test]
fn missing_module_text_is_found() {
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
fn long_file_is_found() {
    check_rule(check_length, "a.rs", &"\n".repeat(MAX_LINES), 0);
    check_rule(check_length, "a.rs", &"\n".repeat(MAX_LINES + 1), 1);
}

#[test]
fn unsafe_code_is_found() {
    for (text, faults) in [
        ("unsafe { a() }", 1),
        ("pub unsafe fn a() {}", 1),
        ("#![forbid(unsafe_code)] // unsafe\nfn a() { \"unsafe\" }", 0),
    ] {
        check_rule(check_safety, "dtcore/src/sink/store/mmap.rs", text, faults);
        check_rule(check_safety, "dtcore/src/system.rs", text, faults);
        check_rule(check_safety, "dtcore/src/sys/map.rs", text, 0);
    }
}

#[test]
fn machine_path_is_found() {
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
