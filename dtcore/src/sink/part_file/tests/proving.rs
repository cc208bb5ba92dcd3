//! Blocks of a remote file that has changed, by its size, time or version, count when they are verified.

use super::kill;
use crate::manifest::{BlockSize, Manifest};
use crate::proto::v2::SourceVersion;
use crate::sink::Engine;
use crate::sink::journal::{JournalHeader, Outcome, Recovered, SourceIdentity};
use crate::sink::part_file::tests::publishing::*;
use crate::sink::part_file::*;

/// A change of the remote file.
type Change = fn(&mut SourceIdentity);

const TOUCHED: Change = |identity| identity.modified += 1;
const REPLACED: Change = |identity| identity.version = SourceVersion([3; 16]);
const APPENDED: Change = |identity| resize(identity, identity.manifest.size() + 3 * BLOCK, BLOCK);

fn resize(identity: &mut SourceIdentity, size: u64, block: u64) {
    identity.manifest = Manifest::new(size, BlockSize::new(block).unwrap()).unwrap();
}

fn changed(change: Change) -> SourceIdentity {
    let mut identity = source_identity();
    change(&mut identity);
    identity
}

/// What has to be verified before a transfer of `identity` can resume.
#[track_caller]
fn claimed(part: &mut PartFile, identity: &SourceIdentity) -> Recovered {
    match begin_with(part, identity, Proof::Pending) {
        Ok(Begun::Unverified(claimed)) => claimed,
        begun => panic!("{begun:?}"),
    }
}

#[test]
fn blocks_of_a_changed_file_count_when_they_are_verified() {
    for (change, of) in [(TOUCHED, "touched"), (REPLACED, "replaced"), (APPENDED, "appended to")] {
        let folder = Folder::after_kill();
        let identity = changed(change);
        let before = [folder.part(), folder.journal()].map(|path| fs::read(path).unwrap());
        let mut part = folder.lock();
        let claim = claimed(&mut part, &identity);
        assert_eq!((indices(&claim.done), claim.bytes), (vec![0, 2], 2 * BLOCK), "{of}");
        assert_eq!(claim.digests.len(), usize::try_from(identity.manifest.n_blocks()).unwrap());
        let after = [folder.part(), folder.journal()].map(|path| fs::read(path).unwrap());
        assert!(before == after, "{of}: changed before anything is verified");
        // A kill at this point loses nothing.
        kill(part);
        let mut part = folder.lock();
        assert_eq!(claimed(&mut part, &identity), claim, "{of}");
        let begun = begin_with(&mut part, &identity, Proof::Verified(claim.clone())).unwrap();
        let Begun::Ready(Some(_), recovered) = begun else { panic!("{of}: {begun:?}") };
        assert_eq!((&recovered, recovered.outcome), (&claim, Outcome::Resumed), "{of}");
        let header = JournalHeader::decode(&fs::read(folder.journal()).unwrap()).unwrap();
        assert_eq!(header.source_identity, identity, "{of}: it is the journal of the new version");
        kill(part);
        let mut part = folder.lock();
        let (_, again) = begin(&mut part, &identity).unwrap();
        assert_eq!(indices(&again.done), [0, 2], "{of}: nothing has to be verified again");
    }
}

/// The last block of the old version is a part of one of the new version, with another digest.
#[test]
fn last_block_of_a_file_that_has_grown_is_not_claimed() {
    let folder = Folder::new();
    let (part, _) = folder.received(Engine::Map, &[1, 3]);
    kill(part);
    let claim = claimed(&mut folder.lock(), &changed(APPENDED));
    let is_claimed: Vec<bool> = claim.digests.iter().map(Option::is_some).collect();
    assert_eq!(is_claimed, [false, true, false, false, false, false, false]);
    assert_eq!(claim.bytes, BLOCK);
    let claim = claimed(&mut folder.lock(), &changed(TOUCHED));
    assert_eq!((indices(&claim.done), claim.bytes), (vec![1, 3], BLOCK + 1000));
}

#[test]
fn damaged_blocks_are_not_claimed() {
    let folder = Folder::after_kill();
    folder.edit_header(|header| header.boot[0] ^= 1);
    folder.flip_byte(2 * BLOCK + 5);
    assert_eq!(indices(&claimed(&mut folder.lock(), &changed(TOUCHED)).done), [0]);
    folder.flip_byte(5);
    let begun = begin_with(&mut folder.lock(), &changed(TOUCHED), Proof::Pending);
    assert!(matches!(begun, Err(BeginError::SourceChanged)), "{begun:?}");
}

#[test]
fn refuted_blocks_change_no_file() {
    for change in [TOUCHED, REPLACED, APPENDED] {
        let folder = Folder::after_kill();
        let mut part = folder.lock();
        claimed(&mut part, &changed(change));
        let begun = begin_with(&mut part, &changed(change), Proof::Refuted);
        assert!(matches!(begun, Err(BeginError::SourceChanged)), "{begun:?}");
        drop(part);
        assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));

        // Without a record no block can belong to another version.
        let (part, _) = folder.received(Engine::Map, &[]);
        kill(part);
        let mut part = folder.lock();
        assert!(is_restarted(begin(&mut part, &changed(change)).unwrap().1.outcome));
    }
}

/// A file that has become shorter, one with other blocks, and a part file that others may write to.
#[test]
fn changes_that_cannot_be_verified_change_no_file() {
    let shorter: Change = |identity| resize(identity, identity.manifest.size() - 1, BLOCK);
    let other_blocks: Change = |identity| resize(identity, identity.manifest.size() + 1, 2 * BLOCK);
    for (change, exclusion) in
        [(shorter, Exclusion::Locked), (other_blocks, Exclusion::Locked), (TOUCHED, Exclusion::Absent)]
    {
        let folder = Folder::after_kill();
        let mut part = folder.lock();
        part.exclusion = exclusion;
        let begun = begin_with(&mut part, &changed(change), Proof::Pending);
        assert!(matches!(begun, Err(BeginError::SourceChanged)), "{begun:?}");
        drop(part);
        assert_eq!(folder.finish(), (vec![0, 2], Outcome::Resumed));
    }
}

/// Another name may be that of another file: then it starts over, unless the blocks are verified.
#[test]
fn file_of_another_name_is_verified_or_starts_over() {
    let other: Change = |identity| {
        REPLACED(identity);
        identity.remote = SourceIdentity::remote("host:1", b"other");
    };
    let folder = Folder::after_kill();
    let mut part = folder.lock();
    let claim = claimed(&mut part, &changed(other));
    let begun = begin_with(&mut part, &changed(other), Proof::Verified(claim)).unwrap();
    assert!(matches!(&begun, Begun::Ready(Some(_), recovered) if recovered.bytes == 2 * BLOCK), "{begun:?}");
    let folder = Folder::after_kill();
    let mut part = folder.lock();
    claimed(&mut part, &changed(other));
    let begun = begin_with(&mut part, &changed(other), Proof::Refuted).unwrap();
    let Begun::Ready(Some(_), recovered) = begun else { panic!("{begun:?}") };
    assert!(is_restarted(recovered.outcome));
}
