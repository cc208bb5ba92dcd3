//! Stale and foreign files that a transfer finds.

use crate::sink::journal::Outcome;
use crate::sink::part_file::tests::publishing::*;
use crate::sink::part_file::*;
use crate::sink::{Engine, open, sidecar};
use rustix::fs::fremovexattr;
use std::fs::OpenOptions;

const HEADER: u64 = 160;
const RECORD: u64 = 56;

/// Truncates the journal.
fn truncate(folder: &Folder, len: u64) {
    OpenOptions::new().write(true).open(folder.journal()).unwrap().set_len(len).unwrap();
}

/// Every state after a crash between two steps, as in the table of `docs/journal.md`: how to make it, which blocks are
/// found, and how the transfer starts.
#[test]
fn transfer_starts_after_a_crash_at_any_step() {
    type State<'a> = (&'a str, fn(&Folder), &'a [u64], fn(Outcome) -> bool);
    let fresh: fn(Outcome) -> bool = |outcome| outcome == Outcome::Fresh;
    let restarted: fn(Outcome) -> bool = is_restarted;
    let resumed: fn(Outcome) -> bool = |outcome| outcome == Outcome::Resumed;
    let states: [State<'_>; 11] = [
        ("a part file alone", only_a_part_file, &[], fresh),
        ("a new part file, the journal of another", a_new_part_file, &[], restarted),
        ("an empty journal", |folder| truncate(folder, 0), &[], restarted),
        ("half a header", |folder| truncate(folder, HEADER / 2), &[], restarted),
        ("the header alone", |folder| truncate(folder, HEADER), &[], restarted),
        ("half the first record", |folder| truncate(folder, HEADER + RECORD / 2), &[], restarted),
        ("half the second record", |folder| truncate(folder, HEADER + RECORD + RECORD / 2), &[0], resumed),
        ("bytes without a record", |folder| folder.flip_byte(BLOCK + 7), &[0, 2], resumed),
        ("a journal alone", |folder| fs::remove_file(folder.part()).unwrap(), &[], fresh),
        ("half a replacement of the journal", half_a_replacement, &[0, 2], resumed),
        (
            "the output, and the journal",
            |folder| fs::rename(folder.part(), &folder.output).unwrap(),
            &[],
            fresh,
        ),
    ];
    for (name, make, done, expected) in states {
        let folder = Folder::after_kill();
        make(&folder);
        let (found, outcome) = folder.finish();
        assert_eq!(found, done, "{name}");
        assert!(expected(outcome), "{name}: {outcome:?}");
    }
}

fn only_a_part_file(folder: &Folder) {
    fs::remove_file(folder.journal()).unwrap();
}

fn a_new_part_file(folder: &Folder) {
    // While both exist they have different inodes.
    let old = folder.dir.path().join("old");
    fs::rename(folder.part(), &old).unwrap();
    File::create(folder.part()).unwrap();
    fs::remove_file(old).unwrap();
}

fn half_a_replacement(folder: &Folder) {
    folder.edit_header(|header| header.boot[3] ^= 1);
    let new = sidecar::create(&folder.journal().with_extension("dtjournew"), 0o600).unwrap();
    mark(&new);
    new.set_len(HEADER - 1).unwrap();
}

/// The system may give a new file the inode of a removed one, so that its journal describes the new file.
#[test]
fn new_part_file_with_an_old_inode_has_no_blocks() {
    let folder = Folder::after_kill();
    File::create(folder.part()).unwrap();
    let (done, _) = folder.finish();
    assert!(done.is_empty());
}

#[test]
fn disk_too_small_changes_no_file() {
    let folder = Folder::after_kill();
    for engine in [Engine::Map, Engine::Write] {
        let part = folder.lock();
        assert!(open(&part.file, engine, 1 << 50).is_err());
    }
    assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));
}

#[test]
fn resumed_part_file_is_locked() {
    let folder = Folder::after_kill();
    let part = folder.lock();
    for resume in [Resume::Allowed, Resume::Refused] {
        let second = PartFile::lock(&folder.output, Links::Followed, Clobber::Replace, resume).unwrap_err();
        assert!(matches!(second, Failure::OutputInUse { .. }));
    }
    // The lock lasts until all writers have closed the file.
    let writer = part.file.try_clone().unwrap();
    drop(part);
    assert!(PartFile::lock(&folder.output, Links::Followed, Clobber::Replace, Resume::Allowed).is_err());
    drop(writer);
    assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));
}

#[test]
fn foreign_file_with_the_name_of_a_journal_is_not_changed() {
    let make: [fn(&Path); 4] = [
        |path| fs::write(path, "precious").unwrap(),
        |path| std::os::unix::fs::symlink("elsewhere", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| {
            // Marked, but with a second name.
            mark(&sidecar::create(path, 0o600).unwrap());
            fs::hard_link(path, path.with_extension("second")).unwrap();
        },
    ];
    for make in make {
        for resume in [Resume::Allowed, Resume::Refused] {
            let folder = Folder::new();
            make(&folder.journal());
            let before = folder.names();
            assert!(PartFile::lock(&folder.output, Links::Followed, Clobber::Replace, resume).is_err());
            assert_eq!(folder.names(), before);

            let folder = Folder::after_kill();
            fs::remove_file(folder.journal()).unwrap();
            make(&folder.journal());
            let before = folder.names();
            assert!(PartFile::lock(&folder.output, Links::Followed, Clobber::Replace, resume).is_err());
            assert_eq!(folder.names(), before, "the part file is not removed");
        }
    }
}

#[test]
fn symbolic_link_with_the_name_of_the_part_file_is_reported() {
    let folder = Folder::new();
    std::os::unix::fs::symlink("elsewhere", folder.part()).unwrap();
    let before = folder.names();
    let error =
        PartFile::lock(&folder.output, Links::Followed, Clobber::Replace, Resume::Allowed).unwrap_err();
    let Failure::LocalFile { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.to_string(), "it is a symbolic link; remove it");
    assert_eq!(folder.names(), before);
}

#[test]
fn transfer_resumes_without_extended_attributes() {
    let folder = Folder::after_kill();
    for path in [folder.part(), folder.journal()] {
        let _ = fremovexattr(File::open(path).unwrap(), "user.dt.part");
    }
    assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));
}

#[test]
fn transfer_to_a_read_only_output_resumes() {
    let folder = Folder::new();
    fs::write(&folder.output, "before").unwrap();
    fs::set_permissions(&folder.output, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    drop(folder.received(Engine::Map, &[1]).0);
    assert_eq!(folder.finish(), (vec![1], Outcome::Resumed));
    assert!(fs::metadata(&folder.output).unwrap().permissions().readonly());
}
