//! Rules that hold for the source tree as text: sizes, layers, circles, names, and what must not be written anywhere.
//!
//! Every rule is a function from the tree to its complaints, and has cases that it must complain about.

mod circles;
mod layers;
mod text;
mod types;
mod words;

use dt_testkit::source::{Source, text_files, workspace_root};

/// The packages that are the product.
const PRODUCT: [&str; 4] = ["dtcore", "dtcli", "dtserver", "dtclient"];

/// The path of a file's module in a package of the product, package first; `None` for all other files.
fn module(path: &str) -> Option<Vec<&str>> {
    let (package, path) = path.strip_suffix(".rs")?.split_once("/src/")?;
    let mut names: Vec<&str> = std::iter::once(package).chain(path.split('/')).collect();
    if names.last().is_some_and(|name| ["mod", "lib", "main"].contains(name)) {
        names.pop();
    }
    PRODUCT.contains(&package).then_some(names)
}

/// Whether a file of the product holds tests and nothing else.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// Code before the module with the tests of its file, which stands at the end, and that module.
fn without_tests(code: &str) -> (&str, &str) {
    code.split_once("#[cfg(test)]\nmod tests {").unwrap_or((code, ""))
}

/// Fails unless a rule has no complaints about the tree.
#[track_caller]
fn check_tree(rule: fn(&[Source]) -> Vec<String>) {
    let files = text_files(&workspace_root());
    // A tree that is not found has no faults.
    for known in ["dtcore/src/lib.rs", "dtcore/src/sys/map.rs", "testkit/src/source.rs", "README.md"] {
        assert!(files.iter().any(|file| file.path == known), "{known} is not in the tree");
    }
    let complaints = rule(&files);
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

/// The complaints of a rule for single files, about all files with that ending.
fn about_each(files: &[Source], ending: &str, rule: fn(&Source) -> Vec<String>) -> Vec<String> {
    let files = files.iter().filter(|file| file.path.ends_with(ending));
    files
        .flat_map(|file| rule(file).into_iter().map(|complaint| format!("{}: {complaint}", file.path)))
        .collect()
}

/// The rule must find so many faults in such a file.
#[track_caller]
fn check_rule(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, faults: usize) {
    let complaints = rule(&source(path, text));
    assert_eq!(complaints.len(), faults, "{path}, {text:?}: {complaints:?}");
}

/// The rule must find exactly these faults in such a tree.
#[track_caller]
fn check_rule_of_tree(rule: fn(&[Source]) -> Vec<String>, files: &[(&str, &str)], faults: &[&str]) {
    let files: Vec<Source> = files.iter().map(|(path, text)| source(path, text)).collect();
    assert_eq!(rule(&files), faults, "{files:?}");
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

#[test]
fn modules_are_found() {
    for (path, expected) in [
        ("dtcore/src/lib.rs", Some(vec!["dtcore"])),
        ("dtcore/src/sink/mod.rs", Some(vec!["dtcore", "sink"])),
        ("dtcore/src/sink/file/a.rs", Some(vec!["dtcore", "sink", "file", "a"])),
        ("dtclient/src/main.rs", Some(vec!["dtclient"])),
        ("testkit/src/wait.rs", None),
        ("dtcore/Cargo.toml", None),
    ] {
        assert_eq!(module(path), expected, "{path}");
    }
}
