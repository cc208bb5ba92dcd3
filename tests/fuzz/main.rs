//! Fuzzing without a fuzzer: every decoder takes its corpus, and then many mutations of it, the same in every run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use dt_testkit::corpus::{self, Seed};
use dt_testkit::source::workspace_root;
use dtcore::fuzzing::{DECODERS, Decoder};

/// How many mutations each decoder takes: some seconds for all together.
const ROUNDS: usize = 500_000;

/// Inputs stay about as long as real ones.
const MAX_LEN: usize = 2048;

/// A generator of the same numbers in every run.
struct Random(u64);

impl Random {
    /// A number below `n`.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let n = u64::try_from(n.max(1)).expect("it fits");
        usize::try_from(self.0 % n).expect("it is below n")
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).expect("it is a byte")
    }
}

/// Numbers around limits, in bytes and in text.
const INTERESTING: [&[u8]; 14] = [
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\x01\0\0\0\0\0\0\0",
    b"\0\x04\0\0\0\0\0\0",
    b"\0\0\0\x01\0\0\0\0",
    b"-1",
    b"0",
    b"18446744073709551616",
    b"1e999",
    b"\"",
    b"\\u0000",
    b"null",
    b" HTTP/1.1",
];

/// Changes `input` in one to four places.
fn mutate(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 | 1 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
            2 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.byte();
                }
            }
            3 => input.insert(at, random.byte()),
            4 => {
                let end = (at + 1 + random.below(8)).min(input.len());
                input.drain(at.min(end)..end);
            }
            5 => {
                let piece = INTERESTING[random.below(INTERESTING.len())];
                let end = (at + piece.len()).min(input.len());
                input.splice(at..end, piece.iter().copied());
            }
            6 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            _ => input.truncate(at),
        }
    }
    input.truncate(MAX_LEN);
}

#[track_caller]
fn check(name: &str, decoder: Decoder, input: &[u8]) {
    let outcome = catch_unwind(AssertUnwindSafe(|| decoder(input)));
    assert!(outcome.is_ok(), "{name} panics on \"{}\"", input.escape_ascii());
}

/// The committed inputs, by decoder and name.
fn committed() -> BTreeMap<(String, String), Vec<u8>> {
    let mut all = BTreeMap::new();
    for folder in fs::read_dir(workspace_root().join("fuzz/corpus")).expect("the corpus is there") {
        let folder = folder.expect("an entry is read");
        for file in fs::read_dir(folder.path()).expect("the folder is read") {
            let file = file.expect("an entry is read");
            let [decoder, name] =
                [folder.file_name(), file.file_name()].map(|name| name.to_string_lossy().into_owned());
            all.insert((decoder, name), fs::read(file.path()).expect("an input is read"));
        }
    }
    all
}

/// `cargo run -p dt-tests --bin dt-corpus` writes them; inputs that a fuzzer found may be added.
#[test]
fn committed_corpus_equals_generated_seeds() {
    let committed = committed();
    for Seed { decoder, name, bytes } in corpus::seeds() {
        let there = committed.get(&(decoder.to_owned(), name.clone()));
        assert_eq!(there, Some(&bytes), "{decoder}/{name}");
    }
    let size: usize = committed.values().map(Vec::len).sum();
    assert!(size < 200_000, "the corpus has {size} bytes");
}

#[test]
fn decoders_and_corpora_have_the_same_names() {
    let of_corpus: BTreeSet<String> = committed().into_keys().map(|(decoder, _)| decoder).collect();
    let of_decoders: BTreeSet<String> = DECODERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(of_corpus, of_decoders);
}

#[test]
fn decoders_take_the_corpus_and_its_mutations() {
    let committed = committed();
    std::thread::scope(|scope| {
        for (n, (name, decoder)) in (1..).zip(DECODERS.iter().copied()) {
            let own = committed.iter().filter(|((of, _), _)| of == name).map(|(_, bytes)| bytes.clone());
            let corpus: Vec<Vec<u8>> = own.collect();
            scope.spawn(move || {
                for input in &corpus {
                    check(name, decoder, input);
                }
                let mut random = Random(0x9E37_79B9_7F4A_7C15 ^ n);
                for _ in 0..ROUNDS {
                    let mut input = corpus[random.below(corpus.len())].clone();
                    mutate(&mut input, &corpus, &mut random);
                    check(name, decoder, &input);
                }
            });
        }
    });
}
