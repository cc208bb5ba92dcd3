//! Transfers that resume, and transfers that cannot.

use super::kill;
use crate::manifest::{BlockSize, Manifest};
use crate::sink::Engine;
use crate::sink::journal::{
    Checked, HEADER_LEN, JournalHeader, Outcome, RECORD_LEN, Recovered, SourceIdentity,
};
use crate::sink::part_file::tests::publishing::*;
use crate::sink::part_file::*;
use std::fs::OpenOptions;
use std::ops::ControlFlow;

#[test]
fn killed_transfer_resumes() {
    for (first, second) in
        [(Engine::Map, Engine::Map), (Engine::Map, Engine::Write), (Engine::Write, Engine::Map)]
    {
        let folder = Folder::new();
        let (part, recovered) = folder.received(first, &[2, 0]);
        assert_eq!((recovered.outcome, recovered.bytes), (Outcome::Fresh, 0));
        kill(part);
        let (part, recovered) = folder.received(second, &[3]);
        assert_eq!((recovered.outcome, indices(&recovered.done)), (Outcome::Resumed, vec![0, 2]));
        assert_eq!(recovered.bytes, 2 * BLOCK);
        let manifest = source_identity().manifest;
        let known = manifest
            .blocks()
            .map(|block| recovered.done.contains(block).then(|| digest_of(block)))
            .collect::<Vec<_>>();
        assert_eq!(recovered.digests, known);
        kill(part);
        assert_eq!(folder.finish(), (vec![0, 2, 3], Outcome::Resumed));
    }
}

#[test]
fn part_file_stays_only_if_a_block_is_complete() {
    let nothing: [&str; 0] = [];
    let folder = Folder::new();
    drop(folder.received(Engine::Map, &[]).0);
    assert_eq!(folder.names(), nothing, "no block was complete");
    assert!(!folder.received(Engine::Map, &[]).0.is_resumable());
    let (part, _) = folder.received(Engine::Map, &[1]);
    assert!(part.is_resumable());
    drop(part);
    let both = ["out.dtjournal", "out.dtpart"];
    assert_eq!(folder.names(), both);
    assert!(folder.lock().is_resumable());
    assert_eq!(folder.names(), both, "not started");
    drop(folder.received(Engine::Map, &[]).0);
    assert_eq!(folder.names(), both, "no block received");
    folder.received(Engine::Map, &[]).0.discard().unwrap();
    assert_eq!(folder.names(), nothing);
    drop(folder.received(Engine::Map, &[1]).0);
    folder.lock().discard().unwrap();
    assert_eq!(folder.names(), nothing, "not inspected");
}

#[test]
fn refused_resume_starts_empty() {
    for refuse in [
        |output: &Path| PartFile::create(output, Clobber::Replace),
        |output: &Path| PartFile::lock(output, Links::Followed, Clobber::Replace, Resume::Refused),
        |output: &Path| {
            let mut part = PartFile::lock(output, Links::Followed, Clobber::Replace, Resume::Allowed)?;
            part.clear()?;
            Ok(part)
        },
    ] {
        let folder = Folder::after_kill();
        let mut part = refuse(&folder.output).unwrap();
        assert_eq!(part.file.metadata().unwrap().len(), 0);
        assert_eq!(folder.names(), ["out.dtpart"]);
        assert_eq!(
            begin(&mut part, &source_identity()).unwrap().1,
            Recovered::empty(&source_identity().manifest, Outcome::Fresh)
        );
        drop(part);
        assert!(folder.names().is_empty());
    }
}

#[test]
fn file_of_one_block_has_no_journal() {
    let folder = Folder::new();
    let mut source_identity = source_identity();
    source_identity.manifest = Manifest::new(BLOCK, source_identity.manifest.block_size()).unwrap();
    let mut part = folder.lock();
    assert!(begin(&mut part, &source_identity).unwrap().0.is_none());
    assert_eq!(folder.names(), ["out.dtpart"]);
    assert!(!part.is_resumable());
    drop(part);
    assert!(folder.names().is_empty());
}

#[test]
fn part_file_of_another_remote_file_or_block_size_restarts() {
    for change in [
        |source_identity: &mut SourceIdentity| {
            source_identity.remote = SourceIdentity::remote("host:1", b"other");
            source_identity.manifest =
                Manifest::new(source_identity.manifest.size() - 1, source_identity.manifest.block_size())
                    .unwrap();
        },
        |source_identity: &mut SourceIdentity| {
            let block = BlockSize::new(2 * BLOCK).unwrap();
            source_identity.manifest = Manifest::new(source_identity.manifest.size(), block).unwrap();
        },
    ] {
        let folder = Folder::after_kill();
        let mut changed = source_identity();
        change(&mut changed);
        let old = File::open(folder.part()).unwrap();
        let before = fs::read(folder.part()).unwrap();
        let mut part = folder.lock();
        let (_, recovered) = begin(&mut part, &changed).unwrap();
        assert!(is_restarted(recovered.outcome));
        // A process that still has the old file open neither writes into the new one nor finds its bytes changed.
        assert_ne!(old.metadata().unwrap().ino(), part.file.metadata().unwrap().ino());
        let mut kept = vec![0; before.len()];
        std::os::unix::fs::FileExt::read_exact_at(&old, &mut kept, 0).unwrap();
        assert_eq!(kept, before);
        assert_eq!((recovered.bytes, recovered.done.len()), (0, 0));
        assert_eq!(part.file.metadata().unwrap().len(), 0);
    }
}

/// A file system may give a file another inode number each time it is mounted: then the bytes decide.
#[test]
fn part_file_with_another_inode_number_is_rehashed() {
    let replaced_by = |change: &dyn Fn(&Path)| {
        let folder = Folder::after_kill();
        let copy = folder.dir.path().join("copy");
        fs::copy(folder.part(), &copy).unwrap();
        // It is not marked, as on a file system without extended attributes.
        let _ = rustix::fs::fremovexattr(File::open(&copy).unwrap(), "user.dt.part");
        change(&copy);
        fs::rename(copy, folder.part()).unwrap();
        folder
    };
    assert_eq!(replaced_by(&|_| {}).finish(), (vec![0, 2], Outcome::Resumed));
    let damaged = replaced_by(&|copy| {
        let copy = OpenOptions::new().write(true).open(copy).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&copy, b"damaged", 9).unwrap();
    });
    assert_eq!(damaged.finish(), (vec![2], Outcome::Resumed));
    let folder = replaced_by(&|_| {});
    assert!(
        PartFile::lock(&folder.output, Links::Followed, Clobber::Replace, Resume::Refused).is_ok(),
        "it is ours to remove"
    );
    let foreign = replaced_by(&|copy| fs::write(copy, vec![7; 3 << 16]).unwrap());
    assert!(PartFile::lock(&foreign.output, Links::Followed, Clobber::Replace, Resume::Refused).is_err());
}

/// Where locks exclude nobody, a resumed transfer gets a file of its own, and each publishes only its own.
#[test]
fn file_that_is_not_locked_has_one_writer() {
    let folder = Folder::new();
    let (first, _) = folder.received(Engine::Map, &[0, 2]);
    rustix::fs::flock(&first.file, rustix::fs::FlockOperation::Unlock).unwrap();
    let mut second = folder.lock();
    second.exclusion = Exclusion::Absent;
    let (_, recovered) = begin(&mut second, &source_identity()).unwrap();
    assert_eq!(indices(&recovered.done), [0, 2]);
    assert_ne!(first.file.metadata().unwrap().ino(), second.file.metadata().unwrap().ino());
    first.check_name().unwrap_err();
    assert!(!first.is_resumable());
    crate::sink::part_file::publish(first, 1, Durability::Cached, Attributes::default()).unwrap_err();
    assert_eq!(folder.names(), ["out.dtjournal", "out.dtpart"]);
    drop(second);
    assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));
}

/// A lock that another machine does not see: the part file is shared, and read back before it is published.
#[test]
fn part_file_taken_over_by_another_transfer_is_verified() {
    let folder = Folder::new();
    let manifest = source_identity().manifest;
    let digests: Vec<_> = manifest.blocks().map(|block| Some(digest_of(block))).collect();
    let (first, _) = folder.received(Engine::Write, &[0, 1, 2, 3]);
    first.check_intact(&manifest, &digests).unwrap();
    rustix::fs::flock(&first.file, rustix::fs::FlockOperation::Unlock).unwrap();
    let (second, _) = folder.received(Engine::Write, &[]);
    first.check_intact(&manifest, &digests).unwrap();
    folder.flip_byte(BLOCK + 3);
    first.check_intact(&manifest, &digests).unwrap_err();
    drop((first, second));
}

#[test]
fn blocks_are_rehashed_after_reboot_or_remount() {
    for edit in [
        |header: &mut JournalHeader| header.boot[0] ^= 1,
        |header: &mut JournalHeader| header.part.device += 1,
    ] {
        let folder = Folder::after_kill();
        folder.edit_header(edit);
        folder.flip_byte(2 * BLOCK + 5);
        let (part, recovered) = folder.received(Engine::Map, &[]);
        assert_eq!(indices(&recovered.done), [0]);
        kill(part);
        assert_eq!(fs::read(folder.journal()).unwrap().len(), HEADER_LEN + RECORD_LEN, "it was replaced");
        // It belongs to this boot now, so no block is rehashed again.
        let header = JournalHeader::decode(&fs::read(folder.journal()).unwrap()).unwrap();
        assert_eq!(Some(header.boot), journal::boot_id());
        assert_eq!(folder.finish(), (vec![0], Outcome::Resumed));
    }
}

#[test]
fn rehash_reports_every_block_and_can_be_cancelled() {
    for n_allowed in 0..2 {
        let folder = Folder::after_kill();
        folder.edit_header(|header| header.boot[0] ^= 1);
        let journal = fs::read(folder.journal()).unwrap();
        let mut reported = Vec::new();
        let mut watch = |checked: Checked| {
            reported.push((checked.bytes, checked.of));
            if reported.len() > n_allowed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let mut part = folder.lock();
        assert!(matches!(
            part.begin(&source_identity(), Proof::Pending, &mut watch),
            Err(BeginError::Local(Failure::Cancelled))
        ));
        assert_eq!(reported, [(0, 2 * BLOCK), (BLOCK, 2 * BLOCK)][..=n_allowed]);
        drop(part);
        assert_eq!(fs::read(folder.journal()).unwrap(), journal, "it is not replaced yet");
        assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));
    }
}

#[test]
fn no_block_is_rehashed_in_the_same_boot() {
    let folder = Folder::after_kill();
    folder.flip_byte(5);
    let mut part = folder.lock();
    assert_eq!(indices(&begin(&mut part, &source_identity()).unwrap().1.done), [0, 2]);
}

#[test]
fn blocks_beyond_a_truncated_end_are_forgotten() {
    let folder = Folder::after_kill();
    OpenOptions::new().write(true).open(folder.part()).unwrap().set_len(3 * BLOCK - 1).unwrap();
    let (part, recovered) = folder.received(Engine::Map, &[]);
    assert_eq!(indices(&recovered.done), [0]);
    // The file has its full length again, with zeros instead of the block.
    kill(part);
    assert_eq!(folder.finish(), (vec![0], Outcome::Resumed));
}

#[test]
fn truncated_and_extended_blocks_are_rehashed() {
    let folder = Folder::after_kill();
    let part = OpenOptions::new().write(true).open(folder.part()).unwrap();
    part.set_len(2 * BLOCK + 1).unwrap();
    part.set_len(source_identity().manifest.size()).unwrap();
    assert_eq!(folder.finish(), (vec![0], Outcome::Resumed));
}

#[test]
fn truncation_of_a_complete_file_is_detected() {
    let folder = Folder::new();
    let (part, _) = folder.received(Engine::Write, &[0, 1, 2, 3]);
    let digests: Vec<_> = source_identity().manifest.blocks().map(|block| Some(digest_of(block))).collect();
    part.check_intact(&source_identity().manifest, &digests).unwrap();
    part.file.set_len(BLOCK + 1).unwrap();
    part.file.set_len(source_identity().manifest.size()).unwrap();
    part.check_intact(&source_identity().manifest, &digests).unwrap_err();
}

#[test]
fn removed_part_file_leaves_no_journal_and_moved_part_file_does() {
    let folder = Folder::new();
    let (part, _) = folder.received(Engine::Map, &[1]);
    part.check_name().unwrap();
    let elsewhere = folder.part().with_file_name("elsewhere");
    fs::rename(folder.part(), &elsewhere).unwrap();
    part.check_name().unwrap_err();
    assert!(!part.is_resumable());
    drop(part);
    assert_eq!(folder.names(), ["elsewhere", "out.dtjournal"]);
    fs::rename(&elsewhere, folder.part()).unwrap();
    let (part, recovered) = folder.received(Engine::Map, &[]);
    assert_eq!(indices(&recovered.done), [1]);
    fs::remove_file(folder.part()).unwrap();
    drop(part);
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn overlong_part_file_is_truncated() {
    let folder = Folder::after_kill();
    OpenOptions::new().write(true).open(folder.part()).unwrap().set_len(10 * BLOCK).unwrap();
    let mut part = folder.lock();
    begin(&mut part, &source_identity()).unwrap();
    assert_eq!(part.file.metadata().unwrap().len(), source_identity().manifest.size());
    drop(part);
    assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));
}

#[test]
fn torn_tail_is_truncated_and_overwritten() {
    for tail in [&b"x"[..], &[0; RECORD_LEN], &[7; 1000]] {
        let folder = Folder::after_kill();
        let mut bytes = fs::read(folder.journal()).unwrap();
        bytes.extend_from_slice(tail);
        fs::write(folder.journal(), bytes).unwrap();
        let (part, recovered) = folder.received(Engine::Map, &[1]);
        assert_eq!(indices(&recovered.done), [0, 2]);
        kill(part);
        assert_eq!(fs::read(folder.journal()).unwrap().len(), HEADER_LEN + 3 * RECORD_LEN);
        assert_eq!(folder.finish(), (vec![0, 1, 2], Outcome::Resumed));
    }
}
