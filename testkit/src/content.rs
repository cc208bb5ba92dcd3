//! File contents that are the same in every run and differ by seed, and their MD5.

use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use md5::{Digest, Md5};

const CHUNK: usize = 1 << 20;

/// `len` bytes that look random and are those of `seed` in every run.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491_4F6C_DD1D;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Writes a file of that pattern and returns its bytes.
pub fn write_pattern(path: &Path, seed: u64, len: usize) -> Vec<u8> {
    let bytes = pattern(seed, len);
    std::fs::write(path, &bytes).expect("the pattern is written");
    bytes
}

/// Writes a file of `len` bytes that do not compress and in which no two blocks are alike; works for files larger than
/// memory.
pub fn write_random(path: &Path, len: u64) {
    let mut file = File::create(path).expect("the file is created");
    let (mut seed, mut left) = (len, len);
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.write_all(&pattern(seed, n)).expect("the file is written");
        left -= u64::try_from(n).expect("a chunk fits");
        seed += 1;
    }
}

/// Writes a file of `len` bytes that is one hole.
pub fn write_hole(path: &Path, len: u64) {
    File::create(path).expect("the file is created").set_len(len).expect("the file gets its length");
}

/// Writes a sparse file with data at its ends, around 4 GiB, and around each boundary of `streams` parts: where an
/// offset that was cut or shifted would show.
pub fn write_sparse(path: &Path, len: u64, streams: u8) {
    let file = File::create(path).expect("the sparse file is created");
    file.set_len(len).expect("the sparse file gets its length");
    let boundaries = (0..streams).map(|id| part(len, streams, id).start);
    for (seed, middle) in (1..).zip(boundaries.chain([1 << 32, len])) {
        let start = middle.saturating_sub(2048);
        let mark = pattern(seed, usize::try_from(len.min(start + 4096) - start).expect("at most 4096"));
        file.write_all_at(&mark, start).expect("a mark is written");
    }
}

/// The bytes of a file of `size` that stream `id` of `streams` carries in protocol 1.
pub fn part(size: u64, streams: u8, id: u8) -> Range<u64> {
    let part = size / u64::from(streams) + 1;
    let start = part * u64::from(id);
    size.min(start)..size.min(start + part)
}

/// The lower-case hexadecimal MD5 of `bytes`.
pub fn md5(bytes: &[u8]) -> String {
    hex(&Md5::digest(bytes))
}

/// The lower-case hexadecimal MD5 of a file.
pub fn md5_of_file(path: &Path) -> String {
    struct Sink(Md5);
    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.update(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = io::BufWriter::with_capacity(CHUNK, Sink(Md5::new()));
    io::copy(&mut File::open(path).expect("the file opens"), &mut sink).expect("the file is read");
    let Ok(sink) = sink.into_inner() else { panic!("the sink cannot fail") };
    hex(&sink.0.finalize())
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(digest: &[u8]) -> String {
    digest.iter().flat_map(|byte| [byte >> 4, byte & 15]).fold(String::new(), |mut text, nibble| {
        text.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16"));
        text
    })
}

/// Fails unless both files hold the same bytes; works for files larger than memory.
pub fn assert_same_file(expected: &Path, actual: &Path) {
    let [expected_file, actual_file] =
        [expected, actual].map(|path| File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())));
    let size = expected_file.metadata().expect("the length is known").len();
    let actual_size = actual_file.metadata().expect("the length is known").len();
    assert_eq!(actual_size, size, "length of {}", actual.display());
    let mut buffers = [vec![0; CHUNK], vec![0; CHUNK]];
    let mut offset = 0;
    while offset < size {
        let len = usize::try_from(size - offset).unwrap_or(CHUNK).min(CHUNK);
        let [left, right] = &mut buffers;
        expected_file.read_exact_at(&mut left[..len], offset).expect("the expected file is read");
        actual_file.read_exact_at(&mut right[..len], offset).expect("the actual file is read");
        assert!(left[..len] == right[..len], "{} differs after {offset}", actual.display());
        offset += u64::try_from(len).expect("a chunk fits");
    }
}
