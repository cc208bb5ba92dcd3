//! The journal of a transfer, read and written a second time from its description.

use std::fs;
use std::path::Path;

/// The header's length in bytes.
pub const HEADER: usize = 160;
/// A record's length in bytes.
pub const RECORD: usize = 56;

/// A journal as it stands on the disk, its header unchecked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Journal {
    /// The header's bytes.
    pub header: Vec<u8>,
    /// The records whose check is right, up to the first one whose check is not.
    pub records: Vec<Record>,
    /// How many bytes follow them.
    pub tail: usize,
}

/// One record: a block, and its digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The block's number.
    pub block: u64,
    /// Its chaining value.
    pub digest: [u8; 32],
}

/// The fields of a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The format's number.
    pub format: u32,
    /// The block's size.
    pub block: u32,
    /// The file's size.
    pub size: u64,
    /// Its modification time in nanoseconds.
    pub modified: i64,
    /// The source's version.
    pub version: [u8; 16],
    /// The boot in which it was begun.
    pub boot: [u8; 16],
    /// Which remote file it is.
    pub remote: [u8; 32],
    /// The part file's device and inode.
    pub part: [u64; 2],
    /// What its records are bound to.
    pub nonce: [u8; 16],
}

impl Journal {
    /// Reads a journal; `None` if there is none, or not even a complete header.
    pub fn read(path: &Path) -> Option<Self> {
        let bytes = fs::read(path).ok()?;
        let (header, rest) = bytes.split_at_checked(HEADER)?;
        let nonce: [u8; 16] = header[112..128].try_into().expect("16 bytes");
        let mut records = Vec::new();
        for record in rest.chunks_exact(RECORD) {
            if record[40..] != check(&nonce, &record[..40]) {
                break;
            }
            let block = u64::from_le_bytes(record[..8].try_into().expect("eight bytes"));
            records.push(Record { block, digest: record[8..40].try_into().expect("32 bytes") });
        }
        let tail = rest.len() - records.len() * RECORD;
        Some(Self { header: header.to_vec(), records, tail })
    }

    /// How many different blocks are recorded.
    pub fn blocks(&self) -> u64 {
        let mut blocks: Vec<u64> = self.records.iter().map(|record| record.block).collect();
        blocks.sort_unstable();
        blocks.dedup();
        u64::try_from(blocks.len()).expect("it fits")
    }

    /// The fields of the header; its magic and its check must be right.
    #[track_caller]
    pub fn header(&self) -> Header {
        Header::decode(&self.header)
    }
}

impl Header {
    /// Takes a header apart, which must be one.
    #[track_caller]
    pub fn decode(bytes: &[u8]) -> Self {
        assert_eq!(bytes[..8], *b"DTJOURNL", "the magic");
        assert_eq!(bytes[128..160], *blake3::hash(&bytes[..128]).as_bytes(), "the header's check");
        Self {
            format: u32::from_le_bytes(array(bytes, 8)),
            block: u32::from_le_bytes(array(bytes, 12)),
            size: u64::from_le_bytes(array(bytes, 16)),
            modified: i64::from_le_bytes(array(bytes, 24)),
            version: array(bytes, 32),
            boot: array(bytes, 48),
            remote: array(bytes, 64),
            part: [array(bytes, 96), array(bytes, 104)].map(u64::from_le_bytes),
            nonce: array(bytes, 112),
        }
    }

    /// The bytes on the disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = [
            b"DTJOURNL".as_slice(),
            &self.format.to_le_bytes(),
            &self.block.to_le_bytes(),
            &self.size.to_le_bytes(),
            &self.modified.to_le_bytes(),
            &self.version,
            &self.boot,
            &self.remote,
            &self.part[0].to_le_bytes(),
            &self.part[1].to_le_bytes(),
            &self.nonce,
        ]
        .concat();
        bytes.extend_from_slice(blake3::hash(&bytes).as_bytes());
        bytes
    }

    /// The bytes of a record of this journal.
    pub fn record(&self, block: u64, digest: &[u8; 32]) -> Vec<u8> {
        let named = [&block.to_le_bytes()[..], digest].concat();
        [&named[..], &check(&self.nonce, &named)].concat()
    }
}

/// The identity of `file` of `server` in a journal, as the user wrote both.
pub fn remote(server: &str, file: &str) -> [u8; 32] {
    *blake3::hash(&[server.as_bytes(), b"\0", file.as_bytes()].concat()).as_bytes()
}

fn check(nonce: &[u8; 16], named: &[u8]) -> [u8; 16] {
    array(blake3::hash(&[&nonce[..], named].concat()).as_bytes(), 0)
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("it is as long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn journal_is_read_as_written() {
        let header = Header {
            format: 1,
            block: 65536,
            size: 1 << 40,
            modified: -5,
            version: [1; 16],
            boot: [2; 16],
            remote: remote("host:9000", "dir/f"),
            part: [3, 4],
            nonce: [5; 16],
        };
        let mut bytes = header.encode();
        assert_eq!(bytes.len(), HEADER);
        for block in [7, 9, 7] {
            bytes.extend(header.record(block, &[6; 32]));
        }
        let torn = &header.record(1, &[6; 32])[..50];
        bytes.extend(torn);
        let file = tempfile::NamedTempFile::new().expect("a file is made");
        fs::write(file.path(), &bytes).expect("it is written");
        let journal = Journal::read(file.path()).expect("it is there");
        assert_eq!(
            (journal.header(), journal.records.len(), journal.blocks(), journal.tail),
            (header, 3, 2, 50)
        );
        bytes[HEADER + RECORD + 3] ^= 1;
        fs::write(file.path(), &bytes).expect("it is written");
        assert_eq!(Journal::read(file.path()).expect("it is there").blocks(), 1);
    }
}
