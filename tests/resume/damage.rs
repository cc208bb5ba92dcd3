//! Journals and part files that are damaged between two runs: the output is right all the same, and undamaged blocks
//! are used.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use dt_testkit::content::pattern;
use dt_testkit::events::{Events, number};
use dt_testkit::frame::block_digest;
use dt_testkit::journal::{HEADER, Journal, RECORD};
use dt_testkit::messages::SAVED;
use dt_testkit::wait::{PATIENCE, until_true};

use crate::{ENGINES, MIB, Scene};

pub(super) fn write(path: &std::path::Path, bytes: &[u8]) {
    // The same file, as damage would have it, not another in its place.
    let file = File::options().write(true).truncate(true).open(path).expect("it opens");
    file.write_all_at(bytes, 0).expect("it is written");
}

fn records(len: usize) -> u64 {
    u64::try_from(len.saturating_sub(HEADER) / RECORD).expect("it fits")
}

#[test]
fn cut_journal_loses_only_its_end() {
    let scene = Scene::new(6 * MIB);
    for (round, random) in pattern(21, 10).into_iter().enumerate() {
        scene.interrupted();
        let journal = fs::read(scene.journal_path()).expect("it is there");
        let len = match round {
            0 => 0,
            1 => HEADER - 1,
            2 => HEADER,
            3 => HEADER + RECORD - 1,
            _ => journal.len() * usize::from(random) / 256,
        };
        write(&scene.journal_path(), &journal[..len]);
        let finished = scene.resume(records(len), &format!("cut to {len} of {}", journal.len()));
        let most = records(len) * scene.block;
        assert!(number(&finished, "resumed") <= most, "more than was known after {len} bytes: {finished}");
    }
}

#[test]
fn appended_garbage_is_ignored() {
    let scene = Scene::new(6 * MIB);
    let zeros = [0; 3 * RECORD].to_vec();
    for (what, rubbish) in [("a byte", vec![7]), ("noise", pattern(3, 1000)), ("zeros", zeros)] {
        let known = scene.interrupted();
        let mut journal = File::options().append(true).open(scene.journal_path()).expect("it opens");
        journal.write_all(&rubbish).expect("it is written");
        drop(journal);
        // Twice: the tail that was cut off must not hide the records that follow.
        let more = scene.interrupted_after(known + 10, scene.slowly());
        scene.resume(more, what);
    }
}

#[test]
fn flipped_bits_of_the_journal_are_found() {
    let scene = Scene::new(6 * MIB);
    for (round, random) in pattern(22, 12).into_iter().enumerate() {
        scene.interrupted();
        let mut journal = fs::read(scene.journal_path()).expect("it is there");
        let at = match round {
            // The magic, the block size, the version, the boot, the remote, the inode, the nonce, the check.
            0..8 => [0, 12, 40, 50, 70, 110, 120, 150][round],
            _ => HEADER + (journal.len() - HEADER) * usize::from(random) / 256,
        };
        journal[at] ^= 1 << (random % 8);
        write(&scene.journal_path(), &journal);
        let known = if at < HEADER { 0 } else { records(at) };
        let finished = scene.resume(known, &format!("byte {at} of {}", journal.len()));
        if at < HEADER {
            assert_eq!(number(&finished, "resumed"), 0, "byte {at}: {finished}");
        }
    }
}

/// A record that names a block which the file does not have, with a right check.
#[test]
fn record_of_no_block_is_ignored() {
    let scene = Scene::new(6 * MIB);
    for block in [scene.size() / scene.block, u64::from(u32::MAX) + 1, u64::MAX] {
        let known = scene.interrupted();
        let header = scene.journal().expect("it is there").header();
        let mut journal = File::options().append(true).open(scene.journal_path()).expect("it opens");
        journal.write_all(&header.record(block, &[1; 32])).expect("it is written");
        scene.resume(known, &format!("block {block}"));
    }
}

#[test]
fn missing_or_foreign_files_start_over() {
    let scene = Scene::new(6 * MIB);
    let check = |what: &str, damage: &dyn Fn()| {
        scene.interrupted();
        damage();
        scene.start_over(what);
    };
    check("no journal", &|| fs::remove_file(scene.journal_path()).expect("it is removed"));
    check("no part file", &|| fs::remove_file(scene.part()).expect("it is removed"));
    check("neither", &|| {
        fs::remove_file(scene.journal_path()).expect("it is removed");
        fs::remove_file(scene.part()).expect("it is removed");
    });
    let with_header = |change: &dyn Fn(&mut dt_testkit::journal::Header)| {
        let journal = fs::read(scene.journal_path()).expect("it is there");
        let mut header = Journal::read(&scene.journal_path()).expect("it is there").header();
        change(&mut header);
        write(&scene.journal_path(), &[&header.encode(), &journal[HEADER..]].concat());
    };
    check("a later format", &|| with_header(&|header| header.format = 2));
    check("another block size", &|| with_header(&|header| header.block *= 2));
    // Device and inode may have other numbers after it was mounted again: then the bytes themselves decide.
    for at in [0, 1] {
        let known = scene.interrupted();
        with_header(&|header| header.part[at] += 1);
        scene.resume(known, "another device or inode");
    }
    // The same file by another name of the server.
    let known = scene.interrupted();
    with_header(&|header| header.remote = [3; 32]);
    scene.resume(known, "another spelling");
    // Another file as far as the journal shows, with the same bytes.
    let known = scene.interrupted();
    with_header(&|header| (header.remote, header.version) = ([3; 32], [3; 16]));
    scene.resume(known, "another version of another remote file");
}

/// A file under the part file's name that does not show that it is one stays as it is, and nothing is put in its place.
#[test]
fn replaced_part_file_starts_over() {
    let scene = Scene::new(6 * MIB);
    scene.interrupted();
    let other = scene.workspace.output("other");
    fs::write(&other, vec![7; scene.content.len()]).expect("it is written");
    fs::rename(other, scene.part()).expect("it is replaced");
    let outcome = scene.fetch().run();
    assert_eq!(outcome.code, Some(8), "{outcome}");
    assert!(fs::read(scene.part()).expect("it is there") == vec![7; scene.content.len()], "it was changed");
    assert!(!scene.output().exists());
}

/// The bytes of a part file that was cut are not there, whatever the journal says.
#[test]
fn cut_part_file_is_completed() {
    let scene = Scene::new(6 * MIB);
    for len in [0, 1, 300_000, scene.size() - 1] {
        scene.interrupted();
        let part = File::options().write(true).open(scene.part()).expect("it opens");
        part.set_len(len).expect("it is cut");
        scene.resume(0, &format!("cut to {len}"));
    }
    scene.interrupted();
    let part = File::options().write(true).open(scene.part()).expect("it opens");
    part.set_len(scene.size() + 5).expect("it is longer");
    scene.resume(0, "longer than it should be");
}

/// A part file that was cut and has grown again has the right length, and zeros where its bytes were.
#[test]
fn part_file_cut_and_grown_again_is_verified() {
    let scene = Scene::new(6 * MIB);
    for len in [0, 99, 300_000, 17 * scene.block - 1] {
        for engine in ENGINES {
            scene.interrupted_after(20, scene.slowly().options(["--engine", engine]));
            let part = File::options().write(true).open(scene.part()).expect("it opens");
            part.set_len(len).expect("it is cut");
            part.set_len(scene.size()).expect("it grows");
            scene.resume(0, &format!("{engine}, cut to {len} and grown"));
        }
    }
}

/// Another process cuts the part file while it is written: an error, not a crash, and no wrong file, in this run or the next.
#[test]
fn part_file_cut_during_the_transfer_is_noticed() {
    let scene = Scene::new(12 * MIB);
    for engine in ENGINES {
        for (len, grows) in [(0, false), (3 << 20, false), (99, true), (3 << 20, true)] {
            let what = format!("{engine}, cut to {len}, grows: {grows}");
            let mut client = scene.slowly().options(["--engine", engine]).start();
            scene.until_recorded(&mut client, 20);
            let part = File::options().write(true).open(scene.part()).expect("it opens");
            part.set_len(len).expect("it is cut");
            if grows {
                part.set_len(scene.size()).expect("it grows");
            }
            drop(part);
            let outcome = client.finish_within(PATIENCE);
            assert_eq!(outcome.signal, None, "{what}: {outcome}");
            assert!(!outcome.stderr.contains("panicked"), "{what}: {outcome}");
            if outcome.code == Some(0) {
                let published = fs::read(scene.output()).expect("it is there");
                assert!(published == scene.content, "{what}: wrong bytes were published");
                fs::remove_file(scene.output()).expect("it is ours");
            } else {
                assert_eq!(outcome.code, Some(8), "{what}: {outcome}");
                assert_eq!(Events::of(&outcome).count("notice"), 0, "{what}: {outcome}");
                assert!(!outcome.stderr.contains(SAVED), "{what}: {outcome}");
                scene.resume(0, &format!("{what}, again"));
            }
        }
    }
}

/// Once it is noticed, nothing that is there is taken for right, wherever the cut was.
#[test]
fn noticed_cut_verifies_every_block() {
    let scene = Scene::new(6 * MIB);
    let mut client = scene.slowly().options(["--engine", "write"]).start();
    scene.until_recorded(&mut client, 20);
    let part = File::options().write(true).open(scene.part()).expect("it opens");
    part.set_len(scene.size() - 1).expect("it is cut");
    client.finish_within(PATIENCE).assert_failure(8);
    part.set_len(scene.size()).expect("it grows");
    part.write_all_at(b"no hole", 99).expect("it is written");
    drop(part);
    scene.resume(0, "cut, noticed, and written to");
}

/// A part file whose name is gone is noticed at once, is not reported as saved, and leaves no journal.
#[test]
fn part_file_removed_during_the_transfer_is_noticed() {
    let scene = Scene::new(24 * MIB);
    for engine in ENGINES {
        let mut client = scene.fetch().options(["--limit-rate", "2M", "--engine", engine]).start();
        scene.until_recorded(&mut client, 1);
        fs::remove_file(scene.part()).expect("it is there");
        let outcome = client.finish_within(Duration::from_secs(8));
        outcome.assert_failure(8);
        assert!(outcome.error().contains("removed") && !outcome.error().contains(SAVED), "{outcome}");
        scene.workspace.assert_outputs(&[]);
    }
}

/// After another boot every block is read and verified, and one that lost its bytes is fetched again.
#[test]
fn another_boot_verifies_every_block() {
    let scene = Scene::new(6 * MIB);
    for lost in [0, 1, 3] {
        let known = scene.interrupted();
        let journal = scene.journal().expect("it is there");
        let mut header = journal.header();
        header.boot[5] ^= 1;
        let bytes = fs::read(scene.journal_path()).expect("it is there");
        write(&scene.journal_path(), &[&header.encode(), &bytes[HEADER..]].concat());
        let part = File::options().write(true).open(scene.part()).expect("it opens");
        for record in &journal.records[..lost] {
            part.write_all_at(b"lost by a power cut", record.block * scene.block + 99)
                .expect("it is written");
        }
        let lost = u64::try_from(lost).expect("it fits");
        let finished = scene.resume(known - lost, &format!("{lost} blocks lost"));
        let resumed = number(&finished, "resumed");
        assert!(resumed <= (known - lost) * scene.block, "{lost} blocks lost: {finished}");
    }
}

/// The journal agrees with the part file.
#[test]
fn journal_is_as_documented() {
    let scene = Scene::new(6 * MIB);
    let known = scene.interrupted();
    let journal = scene.journal().expect("it is there");
    assert_eq!((journal.blocks(), journal.tail), (known, 0));
    for record in &journal.records {
        let start = record.block * scene.block;
        let end = scene.size().min(start + scene.block);
        let [from, to] = [start, end].map(|n| usize::try_from(n).expect("it fits"));
        let bytes = &scene.content[from..to];
        assert_eq!(record.digest, block_digest(scene.size(), start, bytes), "block {}", record.block);
        let mut kept = vec![0; bytes.len()];
        File::open(scene.part()).expect("it opens").read_exact_at(&mut kept, start).expect("it is read");
        assert!(kept == bytes, "block {} is recorded, and not there", record.block);
    }
}

/// Names beside the output that lead elsewhere: nothing is written through them.
#[test]
fn links_next_to_the_output_are_not_followed() {
    let scene = Scene::new(MIB);
    let precious = scene.workspace.path().join("precious");
    fs::write(&precious, "precious").expect("it is written");
    std::os::unix::fs::symlink(&precious, scene.journal_path()).expect("a link is made");
    let outcome = scene.fetch().run();
    assert!(matches!(outcome.code, Some(0 | 8)), "{outcome}");
    assert_eq!(fs::read(&precious).expect("it is there"), b"precious");
    until_true("the end", || !scene.part().exists());
}
