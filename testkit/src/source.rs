//! The source tree as text: its files, its code without comments and literals, and the paths that the code names.
//!
//! This is no Rust parser. It knows just enough of the language for rules that a word or a path can break.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the workspace.
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests are a member of it").to_owned()
}

/// A text file of the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its path below the root.
    pub path: String,
    /// Its content.
    pub text: String,
}

/// The text files of the tree at `root`, sorted: those that git tracks, or all of them where there is no repository.
pub fn text_files(root: &Path) -> Vec<Source> {
    let mut paths = tracked(root).unwrap_or_else(|| {
        let mut paths = Vec::new();
        walk(root, "", &mut paths);
        paths
    });
    paths.sort();
    // A file that is not UTF-8 is not text, and a tracked file may be missing in the working tree.
    let read = |path: String| fs::read_to_string(root.join(&path)).ok().map(|text| Source { path, text });
    paths.into_iter().filter_map(read).collect()
}

fn tracked(root: &Path) -> Option<Vec<String>> {
    let output = Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).output().ok()?;
    let list = String::from_utf8(output.stdout).ok()?;
    let paths: Vec<_> = list.split_terminator('\0').map(str::to_owned).collect();
    (output.status.success() && !paths.is_empty()).then_some(paths)
}

fn walk(root: &Path, below: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(below)).expect("the folder is read") {
        let entry = entry.expect("an entry is read");
        let Ok(name) = entry.file_name().into_string() else { continue };
        let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
        let kind = entry.file_type().expect("its kind is known");
        if kind.is_file() {
            paths.push(path);
        } else if kind.is_dir() && ![".git", "target"].contains(&name.as_str()) {
            walk(root, &path, paths);
        }
    }
}

/// `text` with its comments and the contents of its literals gone; lines stay where they are.
pub fn code_of(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let identifier = code.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if first == '"' {
            quoted(rest, '"')
        } else if first == '\'' && is_character(rest) {
            quoted(rest, '\'')
        } else if !identifier {
            raw_string(rest).unwrap_or(0)
        } else {
            0
        };
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].chars().filter(|c| *c == '\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

/// The length of the comment that `text` begins with; comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        let step = match rest {
            [b'/', b'*', ..] => 1,
            [b'*', b'/', ..] => -1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if c == quote && !escaped {
            return at + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Distinguishes a character from a lifetime, which has no second quote.
fn is_character(text: &str) -> bool {
    text.starts_with("'\\") || text.chars().nth(2) == Some('\'')
}

/// The length of the raw string that `text` begins with, of bytes or for C as well.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let hashes = body.bytes().take_while(|byte| *byte == b'#').count();
    let body = body[hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(body.find(&end).map_or(text.len(), |at| text.len() - body.len() + at + end.len()))
}

/// The words and signs of `code`, which has been through [`code_of`].
pub fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let len = match word {
            0 if rest.starts_with("::") => 2,
            0 => first.len_utf8(),
            len => len,
        };
        let (token, after) = rest.split_at(len);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

/// The line of a token of `code`, counted from 0.
pub fn line_of(code: &str, token: &str) -> usize {
    let at =
        token.as_ptr().addr().checked_sub(code.as_ptr().addr()).expect("the token is a part of the code");
    code[..at].matches('\n').count()
}

/// Every path that `code` names, with nested imports taken apart: `a::{b, c::d}` is `[a, b]` and `[a, c, d]`.
pub fn paths(code: &str) -> Vec<Vec<String>> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        at = if is_word(tokens[at]) { path(&tokens, at, &[], &mut found) } else { at + 1 };
    }
    found
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

fn path(tokens: &[&str], mut at: usize, prefix: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let token = |at: usize| tokens.get(at).copied().unwrap_or_default();
    let mut path = prefix.to_vec();
    while is_word(token(at)) {
        path.push(token(at).to_owned());
        at += 1;
        if token(at) != "::" {
            break;
        }
        at += 1;
        if token(at) == "{" {
            at += 1;
            while !["}", ""].contains(&token(at)) {
                at = if is_word(token(at)) { self::path(tokens, at, &path, found) } else { at + 1 };
                // What follows a path is a comma or another name for it.
                while !["}", ",", ""].contains(&token(at)) {
                    at += 1;
                }
                at += usize::from(token(at) == ",");
            }
            return at + 1;
        }
    }
    found.push(path);
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_removed() {
        for (text, code) in [
            ("a // b\nc", "a  \nc"),
            ("a /* b /* c */ d\n */ e", "a  \n e"),
            (r#"a("b // \" c", d)"#, "a( , d)"),
            ("a(r#\"b\" c\"#, d)", "a( , d)"),
            ("a(br#\"b\" c\"#, b\"d\", r\"\\\", e)", "a( , b ,  , e)"),
            ("bar(r, car)", "bar(r, car)"),
            (r"['\'', '\\', '/', a]", "[ ,  ,  , a]"),
            ("fn a<'b>(c: &'b str) {}", "fn a<'b>(c: &'b str) {}"),
            ("\"open", " "),
            ("/* open", " "),
        ] {
            assert_eq!(code_of(text), code, "{text}");
        }
    }

    #[test]
    fn nested_paths_are_taken_apart() {
        for (code, expected) in [
            ("use a;", "use a"),
            ("use a::b; c::d()", "use a::b c::d"),
            ("use a::{self, b as x, c::{d, e}}; f", "use a::self a::b a::c::d a::c::e f"),
            ("a::{b::*, c}", "a::b a::c"),
            ("pub(crate) fn a(b: &c::D<e::F>)", "pub crate fn a b c::D e::F"),
            ("$crate::a {}", "crate::a"),
            ("a::<b>::c", "a b c"),
            ("a::{b", "a::b"),
        ] {
            let found: Vec<String> = paths(code).iter().map(|path| path.join("::")).collect();
            assert_eq!(found.join(" "), expected, "{code}");
        }
    }

    /// An exported tree has no repository: the files that git would have listed are found all the same.
    #[test]
    fn tree_without_a_repository_is_listed() {
        let folder = tempfile::tempdir().expect("a folder is made");
        for path in ["b/c.rs", "a", ".ci/run", "target/out.rs", ".git/config"] {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder is made");
            fs::write(path, "text").expect("it is written");
        }
        fs::write(folder.path().join("binary"), b"\xFF\0").expect("it is written");
        let mut paths = Vec::new();
        walk(folder.path(), "", &mut paths);
        paths.sort();
        assert_eq!(paths, [".ci/run", "a", "b/c.rs", "binary"]);
        let texts = text_files(folder.path());
        assert_eq!(texts.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), paths[..3]);
    }
}
