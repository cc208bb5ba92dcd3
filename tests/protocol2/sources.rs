//! Files that change while they are fetched: a distinct error, never a mix of two versions.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use dt_testkit::content::{pattern, write_pattern};

use crate::{ENGINES, MIB, PROGRAMS, fetch, served, until_verified};

const LEN: usize = 12 * MIB;

/// Changes the file in the middle of a transfer; gives the exit code and whether the old content was published.
fn change(what: &str, options: &[&str], change: &dyn Fn(&Path)) -> (Option<i32>, bool) {
    let (workspace, server, content) = served(LEN);
    let run = fetch(server.addr, 4, &workspace).options(["--limit-rate", "8M"]).options(options);
    let mut client = run.start();
    until_verified(&mut client, 1 << 20);
    change(&workspace.root().join("f"));
    let outcome = client.finish_within(Duration::from_secs(30));
    let published = fs::read(workspace.output("out")).ok();
    if let Some(published) = &published {
        assert!(*published == content, "{what}: a mix of two versions was published: {outcome}");
    }
    assert_eq!(published.is_some(), outcome.code == Some(0), "{what}: {outcome}");
    if outcome.code != Some(0) {
        outcome.assert_one_line("dtclient: ");
        let says = ["chang", "digest"].iter().any(|word| outcome.error().contains(word));
        assert!(says, "{what}: {outcome}");
    }
    (outcome.code, published.is_some())
}

fn overwrite_the_end(path: &Path) {
    let file = File::options().write(true).open(path).expect("it opens");
    file.write_all_at(b"other", 12 * (1 << 20) - 5).expect("it is written");
}

#[test]
fn source_modified_in_place_ends_the_transfer() {
    for engine in ENGINES {
        let check = |what: &str, how: &dyn Fn(&Path)| {
            let options = ["--engine", engine, "--no-growth"];
            assert_eq!(change(what, &options, how), (Some(11), false), "{what}, {engine}");
        };
        check("overwritten with as many bytes", &overwrite_the_end);
        check("written again", &|path| drop(write_pattern(path, 2, LEN)));
        check("appended to", &|path| {
            let mut file = File::options().append(true).open(path).expect("it opens");
            file.write_all(b"more").expect("it is written");
        });
        check("cut short", &|path| {
            File::options().write(true).open(path).expect("it opens").set_len(5000).expect("it is cut");
        });
    }
    let (code, _) = change("with MD5", &["--md5"], &overwrite_the_end);
    assert_eq!(code, Some(11));
}

/// Bytes at the end do not hide that others have changed.
#[test]
fn source_that_grows_and_changes_is_never_published() {
    let check = |what: &str, how: &dyn Fn(&Path)| {
        let (code, is_published) = change(what, &[], how);
        // 6 where only the digest of the complete file shows it.
        assert!(!is_published && matches!(code, Some(11 | 6)), "{what}: {code:?}");
    };
    // These bytes have arrived already.
    check("overwritten and appended to", &|path| {
        let file = File::options().write(true).open(path).expect("it opens");
        file.write_all_at(b"other", 0).expect("it is written");
        let mut file = File::options().append(true).open(path).expect("it opens");
        file.write_all(b"more").expect("it is written");
    });
    check("written again, and longer", &|path| drop(write_pattern(path, 2, LEN + MIB)));
    check("cut short and appended to", &|path| {
        let file = File::options().write(true).open(path).expect("it opens");
        file.set_len(5000).expect("it is cut");
        file.set_len(u64::try_from(LEN + MIB).expect("it fits")).expect("it grows");
    });
}

/// A stream that has the old file open may finish with it; one that opens it again must notice.
#[test]
fn replaced_source_is_never_mixed() {
    let replace = |path: &Path| {
        let next = path.with_extension("next");
        fs::write(&next, pattern(7, LEN)).expect("it is written");
        fs::rename(next, path).expect("it is replaced");
    };
    let (code, published) = change("replaced", &[], &replace);
    assert!(matches!((code, published), (Some(0), true) | (Some(11), false)), "{code:?}");
}

/// Reading does not change the file.
#[test]
fn reading_the_source_is_not_a_change() {
    let read = |path: &Path| drop(fs::read(path).expect("it is read"));
    assert_eq!(change("read", &[], &read), (Some(0), true));
}

#[test]
fn piped_source_modified_in_place_ends_the_transfer() {
    let (workspace, server, content) = served(LEN);
    let run = PROGRAMS.fetch(server.addr, 4, "f", "-").options(["--limit-rate", "8M", "--protocol", "2"]);
    let client = run.start();
    dt_testkit::wait::until_true("the first bytes", || client.stdout().len() > MIB);
    overwrite_the_end(&workspace.root().join("f"));
    let outcome = client.finish_within(Duration::from_secs(30));
    assert_eq!(outcome.code, Some(11), "{}", outcome.stderr);
    let len = outcome.stdout.len();
    assert!(len < LEN && outcome.stdout[..] == content[..len], "a mix of two versions: {len} bytes");
}
