//! Power cuts: what was written and not yet on the disk is there in part, in any order, and the boot is another one.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use dt_testkit::content::pattern;
use dt_testkit::events::number;
use dt_testkit::journal::{HEADER, RECORD};
use rustix::process::Signal;

use crate::{MIB, Scene};

/// The units in which a disk and a file system write.
const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// Random choices, the same in every run.
struct Dice(std::vec::IntoIter<u8>);

impl Dice {
    fn new(round: u64) -> Self {
        Self(pattern(1000 + round, 1 << 16).into_iter())
    }

    /// True in `n` of 256 cases.
    fn throws_below(&mut self, n: u8) -> bool {
        self.0.next().expect("there are enough") < n
    }

    fn below(&mut self, n: usize) -> usize {
        let [high, low] =
            [self.0.next(), self.0.next()].map(|byte| usize::from(byte.expect("there are enough")));
        ((high << 8) | low) * n / (1 << 16)
    }
}

/// Loses some of the pieces: in `part` of 256 cases.
fn lose(bytes: &mut [u8], piece: usize, part: u8, dice: &mut Dice) {
    for piece in bytes.chunks_mut(piece) {
        if dice.throws_below(part) {
            piece.fill(0);
        }
    }
}

#[test]
fn lost_writes_are_fetched_again() {
    let scene = Scene::new(6 * MIB);
    for round in 0..20 {
        let mut dice = Dice::new(round);
        let mut client = scene.slowly().start();
        scene.until_recorded(&mut client, 10 + round);
        client.signal(Signal::KILL);
        client.finish_within(dt_testkit::wait::PATIENCE);

        let journal = scene.journal().expect("it is there");
        let mut header = journal.header();
        header.boot[0] ^= 0xff;
        let bytes = fs::read(scene.journal_path()).expect("it is there");
        let mut damaged = [&header.encode(), &bytes[HEADER..]].concat();
        // Only sometimes the header, without which everything starts over.
        let from = if dice.throws_below(20) { 0 } else { HEADER };
        let mut tail = damaged.split_off(from);
        lose(&mut tail, SECTOR, 20, &mut dice);
        if dice.throws_below(128) {
            tail.truncate(dice.below(tail.len() + 1));
        }
        damaged.extend(tail);
        super::damage::write(&scene.journal_path(), &damaged);

        let mut content = fs::read(scene.part()).expect("it is there");
        lose(&mut content, PAGE, 4, &mut dice);
        let part = File::options().write(true).open(scene.part()).expect("it opens");
        part.write_all_at(&content, 0).expect("it is written");
        drop(part);

        // A complete block that is recorded before all damage to the journal is not fetched again.
        let n_whole = damaged.get(HEADER..).map_or(0, |records| {
            let intact = records.chunks(RECORD).zip(bytes[HEADER..].chunks(RECORD));
            intact.take_while(|(now, before)| now == before).count()
        });
        let has_header = damaged.get(..HEADER) == Some(header.encode().as_slice());
        let known = journal.records.iter().take(if has_header { n_whole } else { 0 });
        let is_there = |block: u64| {
            let [from, to] = [block, block + 1]
                .map(|block| usize::try_from((block * scene.block).min(scene.size())).expect("it fits"));
            content[from..to] == scene.content[from..to]
        };
        let known = u64::try_from(known.filter(|record| is_there(record.block)).count()).expect("it fits");
        let finished = scene.resume(known, &format!("round {round}"));
        let resumed = number(&finished, "resumed");
        assert!(resumed <= known * scene.block, "round {round}: bytes that were not there: {finished}");
    }
}
