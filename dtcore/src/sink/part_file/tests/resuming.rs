//! Transfers that are gone on with, and those that cannot be.

use super::kill;
use crate::manifest::{BlockSize, Manifest};
use crate::sink::Engine;
use crate::sink::journal::{Checked, HEADER_LEN, Header, Outcome, RECORD_LEN, Recovered, SourceIdentity};
use crate::sink::part_file::tests::publishing::*;
use crate::sink::part_file::*;
use std::fs::OpenOptions;
use std::ops::ControlFlow;

#[test]
fn a_killed_transfer_is_gone_on_with() {
    for (first, second) in
        [(Engine::Map, Engine::Map), (Engine::Map, Engine::Write), (Engine::Write, Engine::Map)]
    {
        let place = Place::new();
        let (part, recovered) = place.received(first, &[2, 0]);
        assert_eq!((recovered.outcome, recovered.bytes), (Outcome::Fresh, 0));
        kill(part);
        let (part, recovered) = place.received(second, &[3]);
        assert_eq!((recovered.outcome, indices(&recovered.done)), (Outcome::Continued, vec![0, 2]));
        assert_eq!(recovered.bytes, 2 * BLOCK);
        let manifest = source_identity().manifest;
        let known = manifest
            .blocks()
            .map(|block| recovered.done.contains(block).then(|| digest_of(block)))
            .collect::<Vec<_>>();
        assert_eq!(recovered.digests, known);
        kill(part);
        assert_eq!(place.finish(), (vec![0, 2, 3], Outcome::Continued));
    }
}

#[test]
fn what_a_transfer_leaves_behind_is_what_is_of_use() {
    let nothing: [&str; 0] = [];
    let place = Place::new();
    drop(place.received(Engine::Map, &[]).0);
    assert_eq!(place.names(), nothing, "no block was complete");
    assert!(!place.received(Engine::Map, &[]).0.is_resumable());
    let (part, _) = place.received(Engine::Map, &[1]);
    assert!(part.is_resumable());
    drop(part);
    let both = ["out.dtjournal", "out.dtpart"];
    assert_eq!(place.names(), both);
    assert!(place.claim().is_resumable());
    assert_eq!(place.names(), both, "nothing has begun");
    drop(place.received(Engine::Map, &[]).0);
    assert_eq!(place.names(), both, "nothing has come");
    place.received(Engine::Map, &[]).0.discard().unwrap();
    assert_eq!(place.names(), nothing);
    drop(place.received(Engine::Map, &[1]).0);
    place.claim().discard().unwrap();
    assert_eq!(place.names(), nothing, "not even looked at");
}

#[test]
fn who_refuses_to_go_on_begins_empty() {
    for refuse in [
        |output: &Path| PartFile::create(output, Clobber::Replace),
        |output: &Path| PartFile::claim(output, Clobber::Replace, Resume::Refused),
        |output: &Path| {
            let mut part = PartFile::claim(output, Clobber::Replace, Resume::Allowed)?;
            part.start_over()?;
            Ok(part)
        },
    ] {
        let place = Place::after_death();
        let mut part = refuse(&place.output).unwrap();
        assert_eq!(part.file().metadata().unwrap().len(), 0);
        assert_eq!(place.names(), ["out.dtpart"]);
        assert_eq!(
            begin(&mut part, &source_identity()).unwrap().1,
            Recovered::nothing(&source_identity().manifest, Outcome::Fresh)
        );
        drop(part);
        assert!(place.names().is_empty());
    }
}

#[test]
fn a_file_of_one_block_has_no_journal() {
    let place = Place::new();
    let mut source_identity = source_identity();
    source_identity.manifest = Manifest::new(BLOCK, source_identity.manifest.block_size()).unwrap();
    let mut part = place.claim();
    assert!(begin(&mut part, &source_identity).unwrap().0.is_none());
    assert_eq!(place.names(), ["out.dtpart"]);
    assert!(!part.is_resumable());
    drop(part);
    assert!(place.names().is_empty());
}

#[test]
fn another_version_of_the_source_touches_nothing() {
    for change in [
        |source_identity: &mut SourceIdentity| source_identity.modified += 1,
        |source_identity: &mut SourceIdentity| source_identity.version = [3; 16].into(),
        |source_identity: &mut SourceIdentity| {
            source_identity.manifest =
                Manifest::new(source_identity.manifest.size() + 1, source_identity.manifest.block_size())
                    .unwrap();
        },
        // Other blocks as well.
        |source_identity: &mut SourceIdentity| {
            let block = BlockSize::new(2 * BLOCK).unwrap();
            source_identity.manifest = Manifest::new(source_identity.manifest.size() - 1, block).unwrap();
        },
    ] {
        let place = Place::after_death();
        let mut changed = source_identity();
        change(&mut changed);
        let mut part = place.claim();
        assert!(matches!(begin(&mut part, &changed), Err(BeginError::SourceChanged)));
        drop(part);
        assert_eq!(place.finish(), (vec![0, 2], Outcome::Continued));

        // Without a record there is nothing that could be of another version.
        let (part, _) = place.received(Engine::Map, &[]);
        kill(part);
        let mut part = place.claim();
        assert!(is_over(begin(&mut part, &changed).unwrap().1.outcome));
    }
}

#[test]
fn what_is_of_something_else_is_begun_anew() {
    for change in [
        |source_identity: &mut SourceIdentity| {
            source_identity.remote = SourceIdentity::remote("host:1", b"other")
        },
        |source_identity: &mut SourceIdentity| {
            let block = BlockSize::new(2 * BLOCK).unwrap();
            source_identity.manifest = Manifest::new(source_identity.manifest.size(), block).unwrap();
        },
    ] {
        let place = Place::after_death();
        let mut changed = source_identity();
        change(&mut changed);
        let mut part = place.claim();
        let (_, recovered) = begin(&mut part, &changed).unwrap();
        assert!(is_over(recovered.outcome));
        assert_eq!((recovered.bytes, recovered.done.len()), (0, 0));
        assert_eq!(part.file().metadata().unwrap().len(), 0);
    }

    let place = Place::after_death();
    fs::rename(place.part(), place.folder.path().join("kept")).unwrap();
    fs::copy(place.folder.path().join("kept"), place.part()).unwrap();
    mark(&File::open(place.part()).unwrap());
    fs::remove_file(place.folder.path().join("kept")).unwrap();
    let (done, outcome) = place.finish();
    assert!(done.is_empty() && is_over(outcome), "a journal is about one file, whatever the name says");
}

#[test]
fn after_another_boot_or_mount_every_block_is_proven() {
    for edit in [|header: &mut Header| header.boot[0] ^= 1, |header: &mut Header| header.part.device += 1] {
        let place = Place::after_death();
        place.edit_header(edit);
        place.flip_byte(2 * BLOCK + 5);
        let (part, recovered) = place.received(Engine::Map, &[]);
        assert_eq!(indices(&recovered.done), [0]);
        kill(part);
        assert_eq!(fs::read(place.journal()).unwrap().len(), HEADER_LEN + RECORD_LEN, "it was written anew");
        // It is of this boot now, so that nothing is read again.
        let header = Header::decode(&fs::read(place.journal()).unwrap()).unwrap();
        assert_eq!(Some(header.boot), journal::boot_id());
        assert_eq!(place.finish(), (vec![0], Outcome::Continued));
    }
}

#[test]
fn who_watches_is_told_of_every_block_and_can_end_it() {
    for n_allowed in 0..2 {
        let place = Place::after_death();
        place.edit_header(|header| header.boot[0] ^= 1);
        let journal = fs::read(place.journal()).unwrap();
        let mut told = Vec::new();
        let mut watch = |checked: Checked| {
            told.push((checked.bytes, checked.of));
            if told.len() > n_allowed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut part = place.claim();
        assert!(matches!(part.begin(&source_identity(), &mut watch), Err(BeginError::Stopped)));
        assert_eq!(told, [(0, 2 * BLOCK), (BLOCK, 2 * BLOCK)][..=n_allowed]);
        drop(part);
        assert_eq!(fs::read(place.journal()).unwrap(), journal, "nothing of it is proven yet");
        assert_eq!(place.finish(), (vec![0, 2], Outcome::Continued));
    }
}

#[test]
fn in_the_same_boot_nothing_is_read_back() {
    let place = Place::after_death();
    place.flip_byte(5);
    let mut part = place.claim();
    assert_eq!(indices(&begin(&mut part, &source_identity()).unwrap().1.done), [0, 2]);
}

#[test]
fn blocks_that_a_shorter_file_lost_are_forgotten_for_good() {
    let place = Place::after_death();
    OpenOptions::new().write(true).open(place.part()).unwrap().set_len(3 * BLOCK - 1).unwrap();
    let (part, recovered) = place.received(Engine::Map, &[]);
    assert_eq!(indices(&recovered.done), [0]);
    // The file has its length again, with zeros where the block was.
    kill(part);
    assert_eq!(place.finish(), (vec![0], Outcome::Continued));
}

#[test]
fn what_was_cut_and_has_grown_again_is_proven() {
    let place = Place::after_death();
    let part = OpenOptions::new().write(true).open(place.part()).unwrap();
    part.set_len(2 * BLOCK + 1).unwrap();
    part.set_len(source_identity().manifest.size()).unwrap();
    assert_eq!(place.finish(), (vec![0], Outcome::Continued));
}

#[test]
fn a_complete_file_that_was_cut_is_not_whole() {
    let place = Place::new();
    let (part, _) = place.received(Engine::Write, &[0, 1, 2, 3]);
    let digests: Vec<_> = source_identity().manifest.blocks().map(|block| Some(digest_of(block))).collect();
    part.check_whole(&source_identity().manifest, &digests).unwrap();
    part.file().set_len(BLOCK + 1).unwrap();
    part.file().set_len(source_identity().manifest.size()).unwrap();
    part.check_whole(&source_identity().manifest, &digests).unwrap_err();
}

#[test]
fn a_part_file_without_a_name_leaves_no_journal_and_one_that_was_moved_away_does() {
    let place = Place::new();
    let (part, _) = place.received(Engine::Map, &[1]);
    part.check_name().unwrap();
    let elsewhere = place.part().with_file_name("elsewhere");
    fs::rename(place.part(), &elsewhere).unwrap();
    part.check_name().unwrap_err();
    assert!(!part.is_resumable());
    drop(part);
    assert_eq!(place.names(), ["elsewhere", "out.dtjournal"]);
    fs::rename(&elsewhere, place.part()).unwrap();
    let (part, recovered) = place.received(Engine::Map, &[]);
    assert_eq!(indices(&recovered.done), [1]);
    fs::remove_file(place.part()).unwrap();
    drop(part);
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_longer_file_is_cut() {
    let place = Place::after_death();
    OpenOptions::new().write(true).open(place.part()).unwrap().set_len(10 * BLOCK).unwrap();
    let mut part = place.claim();
    begin(&mut part, &source_identity()).unwrap();
    assert_eq!(part.file().metadata().unwrap().len(), source_identity().manifest.size());
    drop(part);
    assert_eq!(place.finish(), (vec![0, 2], Outcome::Continued));
}

#[test]
fn a_torn_tail_is_cut_off_and_written_over() {
    for tail in [&b"x"[..], &[0; RECORD_LEN], &[7; 1000]] {
        let place = Place::after_death();
        let mut bytes = fs::read(place.journal()).unwrap();
        bytes.extend_from_slice(tail);
        fs::write(place.journal(), bytes).unwrap();
        let (part, recovered) = place.received(Engine::Map, &[1]);
        assert_eq!(indices(&recovered.done), [0, 2]);
        kill(part);
        assert_eq!(fs::read(place.journal()).unwrap().len(), HEADER_LEN + 3 * RECORD_LEN);
        assert_eq!(place.finish(), (vec![0, 1, 2], Outcome::Continued));
    }
}
