//! Sibling files of one folder use each other in one direction only.
//!
//! A folder counts with all that is in it. Its `mod.rs` is not one of the siblings: it puts them together, and they may use
//! what it defines. What it only re-exports belongs to the sibling that it is from.

use std::collections::{BTreeMap, BTreeSet};

use dt_testkit::source::{Source, code_of, paths};

use crate::{check_rule_of_tree, check_tree, is_test, module, without_tests};

type Path = Vec<String>;

/// The modules of the product with the paths that each names, made absolute.
struct Modules {
    uses: BTreeMap<Path, BTreeSet<Path>>,
}

impl Modules {
    fn of(files: &[Source]) -> Self {
        let mut uses: BTreeMap<Path, BTreeSet<Path>> = BTreeMap::new();
        for file in files.iter().filter(|file| !is_test(&file.path)) {
            let Some(own) = module(&file.path) else { continue };
            let own: Path = own.into_iter().map(str::to_owned).collect();
            let code = code_of(&file.text);
            let named = paths(without_tests(&code).0);
            uses.entry(own.clone())
                .or_default()
                .extend(named.into_iter().filter_map(|path| absolute(&own, path)));
        }
        Self { uses }
    }

    fn is_module(&self, path: &[String]) -> bool {
        self.uses.keys().any(|module| module.starts_with(path))
    }

    /// Replaces a name that a folder only re-exports by the path that it is from.
    fn resolve(&self, path: Path) -> Path {
        for at in 1..path.len() {
            let (folder, name) = (&path[..at], &path[at]);
            if self.is_module(&path[..=at]) {
                continue;
            }
            let Some(named) = self.uses.get(folder) else { break };
            let origin = |named: &&Path| {
                named.len() > at + 1
                    && named.starts_with(folder)
                    && named.last() == Some(name)
                    && self.is_module(&named[..=at])
            };
            return named.iter().find(origin).cloned().unwrap_or(path);
        }
        path
    }

    /// Which sibling uses which, for each folder.
    fn edges(&self) -> BTreeMap<Path, BTreeSet<(String, String)>> {
        let mut edges: BTreeMap<Path, BTreeSet<(String, String)>> = BTreeMap::new();
        for (user, used) in &self.uses {
            for used in used {
                let used = self.resolve(used.clone());
                let common = user.iter().zip(&used).take_while(|(left, right)| left == right).count();
                if let (Some(from), Some(to)) = (user.get(common), used.get(common))
                    && self.is_module(&used[..=common])
                {
                    let folder = edges.entry(user[..common].to_vec()).or_default();
                    folder.insert((from.clone(), to.clone()));
                }
            }
        }
        edges
    }
}

/// The path from the package's root that `path` means in the module `own`; `None` if it is of another crate.
fn absolute(own: &[String], path: Path) -> Option<Path> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    let (base, rest) = match path.first()?.as_str() {
        "crate" => (1, 1),
        "self" => (own.len(), 1),
        "super" => (own.len().checked_sub(ups).filter(|depth| *depth > 0)?, ups),
        // A module of its own, in a mod.rs.
        _ => (own.len(), 0),
    };
    Some(own[..base].iter().cloned().chain(path.into_iter().skip(rest)).collect())
}

fn check_circles(files: &[Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (folder, edges) in Modules::of(files).edges() {
        let mut reached = edges.clone();
        // As many rounds as there are edges reach everything.
        for _ in 0..edges.len() {
            let further: Vec<_> = reached
                .iter()
                .flat_map(|(a, b)| {
                    edges.iter().filter(move |(from, _)| from == b).map(move |(_, c)| (a.clone(), c.clone()))
                })
                .collect();
            reached.extend(further);
        }
        let mut names: BTreeSet<&String> = reached.iter().filter(|(a, b)| a == b).map(|(a, _)| a).collect();
        while let Some(first) = names.pop_first() {
            let leads = |a: &String, b: &String| reached.contains(&(a.clone(), b.clone()));
            let circle: Vec<&String> =
                names.iter().copied().filter(|name| leads(first, name) && leads(name, first)).collect();
            names.retain(|name| !circle.contains(name));
            let all: Vec<&str> = std::iter::once(first).chain(circle).map(String::as_str).collect();
            complaints.push(format!("{}: {} use each other", folder.join("/"), all.join(", ")));
        }
    }
    complaints
}

#[test]
fn siblings_use_each_other_in_one_direction() {
    check_tree(check_circles);
}

#[test]
fn circle_of_siblings_is_found() {
    let parent = ("dtcore/src/a/mod.rs", "mod b; mod c; mod d; pub use c::Cat; pub struct Own;");
    for (b, c, faults) in [
        ("use super::c::X;", "use super::Own;", vec![]),
        ("use super::c::X;", "use super::b::Y;", vec!["dtcore/a: b, c use each other"]),
        ("use crate::a::c;", "crate::a::b::Y::new()", vec!["dtcore/a: b, c use each other"]),
        ("use super::Cat;", "use super::b::Y;", vec!["dtcore/a: b, c use each other"]),
        ("use super::c::X;", "// super::b\n#[cfg(test)]\nmod tests {\n    use super::super::b::Y; }", vec![]),
        ("use super::c::X;", "use super::d::e::Z;", vec!["dtcore/a: b, c, d use each other"]),
    ] {
        let files = [
            parent,
            ("dtcore/src/a/b.rs", b),
            ("dtcore/src/a/c.rs", c),
            ("dtcore/src/a/d/mod.rs", "mod e;"),
            ("dtcore/src/a/d/e.rs", "use super::super::b::Y;"),
            ("dtcore/src/a/d/tests.rs", "use super::super::c::X; use super::e::Z;"),
        ];
        check_rule_of_tree(check_circles, &files, &faults);
    }
    let between_folders = [
        ("dtserver/src/a/mod.rs", "use crate::b::X;"),
        ("dtserver/src/b.rs", "use crate::a::Y;"),
        ("dtserver/src/lib.rs", "mod a; mod b; use a::Y;"),
        ("testkit/src/a.rs", "use crate::b::X;"),
        ("testkit/src/b.rs", "use crate::a::X;"),
    ];
    check_rule_of_tree(check_circles, &between_folders, &["dtserver: a, b use each other"]);
}
