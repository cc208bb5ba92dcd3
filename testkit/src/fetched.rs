//! The checks of a successful transfer in protocol 2: its output and its last event.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::events::{Events, number};
use crate::process::Outcome;

/// The BLAKE3 hash of `bytes` in hexadecimal, as `b3sum` prints it.
pub fn blake3_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// The BLAKE3 hash of a file.
pub fn blake3_of_file(path: &Path) -> String {
    let file = fs::File::open(path).expect("the file opens");
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file).expect("the file is read");
    hasher.finalize().to_hex().to_string()
}

/// Fails unless a run with `--json` succeeded in protocol 2 and `output` holds exactly `expected`; gives its last event.
#[track_caller]
pub fn assert_fetched(outcome: &Outcome, output: &Path, expected: &[u8], context: &str) -> Value {
    assert_eq!(outcome.code, Some(0), "{context}: {outcome}");
    let received = fs::read(output).unwrap_or_else(|error| panic!("{context}: {error}, {outcome}"));
    assert_eq!(received.len(), expected.len(), "{context}: {outcome}");
    assert!(received == expected, "{context}: the bytes differ");
    let events = Events::of(outcome);
    let finished = events.finished();
    let size = u64::try_from(expected.len()).expect("it fits");
    assert_eq!((number(finished, "protocol"), number(finished, "bytes")), (2, size), "{context}: {finished}");
    assert_eq!(finished["blake3"], blake3_of(expected), "{context}: {finished}");
    let (received, resumed) = (number(finished, "received"), number(finished, "resumed"));
    assert!(received + resumed >= size, "{context}: bytes from nowhere: {finished}");
    let beside = format!("{}.dt", output.display());
    for left in ["part", "journal", "journew"] {
        assert!(!Path::new(&format!("{beside}{left}")).exists(), "{context}: a {left} file is left");
    }
    finished.clone()
}
