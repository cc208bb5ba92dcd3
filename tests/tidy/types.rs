//! Types are small and have a name of their own.

use std::collections::BTreeMap;

use dt_testkit::source::{Source, code_of, line_of, tokens};

use crate::{check_rule_of_tree, check_tree, is_test, module, without_tests};

/// The most lines that all `impl` blocks of a type have together: more of them in several files are a god object still.
const MAX_IMPL_LINES: usize = 300;

/// An item at the top of a file: the keyword with which it begins, its name, and how many lines it has.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Item {
    keyword: String,
    name: String,
    n_lines: usize,
}

/// The types, traits and `impl` blocks of a file, without its tests.
fn items(code: &str) -> Vec<Item> {
    let code = without_tests(code).0;
    let tokens = tokens(code);
    let mut items: Vec<Item> = Vec::new();
    let (mut depth, mut at) = (0_usize, 0);
    while at < tokens.len() {
        match tokens[at] {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            keyword @ ("struct" | "enum" | "trait" | "type" | "impl")
                if depth == 0 && is_start(&tokens[..at]) =>
            {
                let name = if keyword == "impl" {
                    self_type(&tokens[at + 1..])
                } else {
                    tokens.get(at + 1).copied()
                };
                let n_lines = line_of(code, tokens[end(&tokens, at)]) - line_of(code, tokens[at]) + 1;
                let name = name.unwrap_or_default().to_owned();
                items.push(Item { keyword: keyword.to_owned(), name, n_lines });
            }
            _ => {}
        }
        at += 1;
    }
    items
}

/// Whether an item may begin after these tokens.
fn is_start(before: &[&str]) -> bool {
    before.last().is_none_or(|last| ["}", ";", "]", "pub", "unsafe", ")"].contains(last))
}

/// The index of the last token of the item that begins at `at`.
fn end(tokens: &[&str], at: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match *token {
            "{" => depth += 1,
            "}" if depth == 1 => return index,
            "}" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => return index,
            _ => {}
        }
    }
    tokens.len() - 1
}

/// The name of the type in the head of an `impl` block, whose tokens follow the keyword.
fn self_type<'a>(tokens: &[&'a str]) -> Option<&'a str> {
    let mut angles = 0_usize;
    let mut name = None;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "<" => angles += 1,
            // Else it is the arrow of a function's type.
            ">" if at > 0 && tokens[at - 1] != "-" => angles = angles.saturating_sub(1),
            "{" | "where" if angles == 0 => break,
            // What was named before is the trait.
            "for" if angles == 0 => name = None,
            word if angles == 0
                && word.starts_with(char::is_alphabetic)
                && !["mut", "dyn"].contains(&word) =>
            {
                name = Some(word);
            }
            _ => {}
        }
    }
    name
}

/// The items of the product with the package of each.
fn product_items(files: &[Source]) -> impl Iterator<Item = (String, Item, &Source)> {
    files.iter().filter(|file| !is_test(&file.path)).flat_map(|file| {
        let package = module(&file.path).map(|module| module[0].to_owned());
        let items = package.as_ref().map(|_| items(&code_of(&file.text))).unwrap_or_default();
        items.into_iter().map(move |item| (package.clone().unwrap_or_default(), item, file))
    })
}

fn check_impl_lines(files: &[Source]) -> Vec<String> {
    let mut lines: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (package, item, _) in product_items(files).filter(|(_, item, _)| item.keyword == "impl") {
        *lines.entry((package, item.name)).or_default() += item.n_lines;
    }
    lines
        .into_iter()
        .filter(|(_, lines)| *lines > MAX_IMPL_LINES)
        .map(|((package, name), n)| {
            format!(
                "{package}: the impl blocks of {name} have {n} lines, at most {MAX_IMPL_LINES} are allowed"
            )
        })
        .collect()
}

fn check_names(files: &[Source]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (package, item, file) in product_items(files) {
        if package == "dtcore" && item.keyword != "impl" {
            places.entry(item.name).or_default().push(&file.path);
        }
    }
    places
        .into_iter()
        .filter(|(_, places)| places.len() > 1)
        .map(|(name, places)| format!("{name} is defined in {}", places.join(" and in ")))
        .collect()
}

#[test]
fn no_type_has_too_many_lines() {
    check_tree(check_impl_lines);
}

#[test]
fn no_type_name_stands_for_two_types() {
    check_tree(check_names);
}

#[test]
fn items_are_found() {
    let item =
        |keyword: &str, name: &str, n_lines| Item { keyword: keyword.into(), name: name.into(), n_lines };
    for (code, expected) in [
        ("pub struct A;", vec![item("struct", "A", 1)]),
        (
            "pub(crate) enum A {\n B }\n#[derive(C)]\nstruct D(E);",
            vec![item("enum", "A", 2), item("struct", "D", 1)],
        ),
        ("impl<T: Fn(u8) -> u8> A<T> {\n fn b() -> impl C { { } }\n}", vec![item("impl", "A", 3)]),
        ("unsafe impl Send for super::A<'_> {}", vec![item("impl", "A", 1)]),
        ("impl From<B> for crate::c::D where B: for<'a> E<'a> {\n}", vec![item("impl", "D", 2)]),
        ("impl A {\n type B = C; struct D; }\ntype E = F;", vec![item("impl", "A", 2), item("type", "E", 1)]),
        ("fn a(b: impl C) { impl D {} }", vec![]),
        ("#[cfg(test)]\nmod tests {\n}\nstruct A;", vec![]),
    ] {
        assert_eq!(items(code), expected, "{code}");
    }
}

#[test]
fn type_with_too_many_lines_is_found() {
    let block = |n: usize| format!("impl A {{\n{}}}", "\n".repeat(n - 2));
    let check = |first: usize, second: usize, faults: &[&str]| {
        let (first, second) = (block(first), format!("impl B for A {{}}\n{}", block(second)));
        let files = [
            ("dtcore/src/a.rs", first.as_str()),
            ("dtcore/src/b.rs", second.as_str()),
            ("dtcore/src/b/tests.rs", second.as_str()),
            ("dtclient/src/a.rs", second.as_str()),
            ("tests/a.rs", first.as_str()),
        ];
        check_rule_of_tree(check_impl_lines, &files, faults);
    };
    check(150, 149, &[]);
    check(151, 149, &["dtcore: the impl blocks of A have 301 lines, at most 300 are allowed"]);
}

#[test]
fn type_name_that_stands_for_two_types_is_found() {
    let files = [
        ("dtcore/src/a.rs", "pub struct A; struct B; impl C for B { type D = E; }"),
        ("dtcore/src/b.rs", "trait A {}\n#[cfg(test)]\nmod tests {\n struct B; }"),
        ("dtcore/src/tests/c.rs", "struct B;"),
        ("dtclient/src/b.rs", "struct B; type D = E;"),
    ];
    check_rule_of_tree(check_names, &files, &["A is defined in dtcore/src/a.rs and in dtcore/src/b.rs"]);
}
