//! What a transfer finds that died or that others made.

use crate::sink::journal::Outcome;
use crate::sink::part_file::tests::publishing::*;
use crate::sink::part_file::*;
use crate::sink::{Engine, open, sidecar};
use rustix::fs::fremovexattr;
use std::fs::OpenOptions;

const HEADER: u64 = 160;
const RECORD: u64 = 56;

/// Cuts the journal off.
fn cut(place: &Place, len: u64) {
    OpenOptions::new().write(true).open(place.journal()).unwrap().set_len(len).unwrap();
}

/// Every state that a death between two steps can leave, as the table of `docs/journal.md` has them: how to make it, which
/// blocks are found, and how the transfer begins.
#[test]
fn a_death_anywhere_leaves_something_to_begin_with() {
    type State<'a> = (&'a str, fn(&Place), &'a [u64], fn(Outcome) -> bool);
    let fresh: fn(Outcome) -> bool = |outcome| outcome == Outcome::Fresh;
    let over: fn(Outcome) -> bool = is_over;
    let goes_on: fn(Outcome) -> bool = |outcome| outcome == Outcome::Continued;
    let states: [State<'_>; 11] = [
        ("a part file alone", only_a_part_file, &[], fresh),
        ("a new part file, the journal of another", a_new_part_file, &[], over),
        ("an empty journal", |place| cut(place, 0), &[], over),
        ("half a header", |place| cut(place, HEADER / 2), &[], over),
        ("the header alone", |place| cut(place, HEADER), &[], over),
        ("half the first record", |place| cut(place, HEADER + RECORD / 2), &[], over),
        ("half the second record", |place| cut(place, HEADER + RECORD + RECORD / 2), &[0], goes_on),
        ("bytes without a record", |place| place.flip_byte(BLOCK + 7), &[0, 2], goes_on),
        ("a journal alone", |place| fs::remove_file(place.part()).unwrap(), &[], fresh),
        ("half a journal that takes another's place", half_a_new_journal, &[0, 2], goes_on),
        ("the output, and the journal", |place| fs::rename(place.part(), &place.output).unwrap(), &[], fresh),
    ];
    for (name, make, done, expected) in states {
        let place = Place::after_death();
        make(&place);
        let (found, outcome) = place.finish();
        assert_eq!(found, done, "{name}");
        assert!(expected(outcome), "{name}: {outcome:?}");
    }
}

fn only_a_part_file(place: &Place) {
    fs::remove_file(place.journal()).unwrap();
}

fn a_new_part_file(place: &Place) {
    // As long as both are there, they have different numbers.
    let old = place.folder.path().join("old");
    fs::rename(place.part(), &old).unwrap();
    File::create(place.part()).unwrap();
    fs::remove_file(old).unwrap();
}

fn half_a_new_journal(place: &Place) {
    place.edit_header(|header| header.boot[3] ^= 1);
    let new = sidecar::create(&place.journal().with_extension("dtjournew"), 0o600).unwrap();
    mark(&new);
    new.set_len(HEADER - 1).unwrap();
}

/// The system gives a new file the number of one that was removed: the journal of that one must not be about this one.
#[test]
fn a_new_part_file_with_an_old_number_has_nothing_to_go_on_with() {
    let place = Place::after_death();
    File::create(place.part()).unwrap();
    let (done, _) = place.finish();
    assert!(done.is_empty());
}

#[test]
fn a_disk_too_small_leaves_what_is_there() {
    let place = Place::after_death();
    for engine in [Engine::Map, Engine::Write] {
        let part = place.claim();
        assert!(open(part.file(), engine, 1 << 50).is_err());
    }
    assert_eq!(place.finish(), (vec![0, 2], Outcome::Continued));
}

#[test]
fn a_transfer_that_is_gone_on_with_is_locked() {
    let place = Place::after_death();
    let part = place.claim();
    for resume in [Resume::Allowed, Resume::Refused] {
        let second = PartFile::claim(&place.output, Clobber::Replace, resume).unwrap_err();
        assert!(matches!(second, TransferError::OutputInUse { .. }));
    }
    // As long as somebody writes.
    let writer = part.file().try_clone().unwrap();
    drop(part);
    assert!(PartFile::claim(&place.output, Clobber::Replace, Resume::Allowed).is_err());
    drop(writer);
    assert_eq!(place.finish(), (vec![0, 2], Outcome::Continued));
}

#[test]
fn what_others_call_a_journal_stays_as_it_is() {
    let make: [fn(&Path); 4] = [
        |path| fs::write(path, "precious").unwrap(),
        |path| std::os::unix::fs::symlink("elsewhere", path).unwrap(),
        |path| fs::create_dir(path).unwrap(),
        |path| {
            // Ours, and under another name as well.
            mark(&sidecar::create(path, 0o600).unwrap());
            fs::hard_link(path, path.with_extension("second")).unwrap();
        },
    ];
    for make in make {
        for resume in [Resume::Allowed, Resume::Refused] {
            let place = Place::new();
            make(&place.journal());
            let before = place.names();
            assert!(PartFile::claim(&place.output, Clobber::Replace, resume).is_err());
            assert_eq!(place.names(), before);

            let place = Place::after_death();
            fs::remove_file(place.journal()).unwrap();
            make(&place.journal());
            let before = place.names();
            assert!(PartFile::claim(&place.output, Clobber::Replace, resume).is_err());
            assert_eq!(place.names(), before, "nor is the part file removed");
        }
    }
}

#[test]
fn a_link_where_the_part_file_belongs_is_called_one() {
    let place = Place::new();
    std::os::unix::fs::symlink("elsewhere", place.part()).unwrap();
    let before = place.names();
    let error = PartFile::claim(&place.output, Clobber::Replace, Resume::Allowed).unwrap_err();
    let TransferError::LocalFile { source, .. } = error else { panic!("{error}") };
    assert_eq!(source.to_string(), "it is a symbolic link; remove it");
    assert_eq!(place.names(), before);
}

#[test]
fn a_file_system_that_keeps_no_marks_can_be_gone_on_with() {
    let place = Place::after_death();
    for path in [place.part(), place.journal()] {
        let _ = fremovexattr(File::open(path).unwrap(), "user.dt.part");
    }
    assert_eq!(place.finish(), (vec![0, 2], Outcome::Continued));
}

#[test]
fn an_output_that_nobody_may_write_is_gone_on_with() {
    let place = Place::new();
    fs::write(&place.output, "before").unwrap();
    fs::set_permissions(&place.output, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    drop(place.received(Engine::Map, &[1]).0);
    assert_eq!(place.finish(), (vec![1], Outcome::Continued));
    assert!(fs::metadata(&place.output).unwrap().permissions().readonly());
}
