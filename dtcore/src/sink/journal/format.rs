//! The journal's bytes: header and records, as pure functions. `docs/journal.md` is the normative text.

use crate::digest::{Blake3Digest, RangeDigest};
use crate::manifest::{BlockId, BlockSet, BlockSize, ByteRange, Manifest};
use crate::num::to_u64;
use crate::proto::v2::SourceVersion;

/// The header's length in bytes.
pub(crate) const HEADER_LEN: usize = 160;

/// A record's length in bytes.
pub(crate) const RECORD_LEN: usize = 56;

const MAGIC: [u8; 8] = *b"DTJOURNL";
const FORMAT: u32 = 1;

/// The length of the header without its check.
const CHECKED: usize = 128;

/// The header of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JournalHeader {
    /// The remote file that is being received.
    pub(crate) source_identity: SourceIdentity,
    /// The boot in which the journal was created or its blocks were last rehashed; zeros if unknown.
    pub(crate) boot: [u8; 16],
    /// The part file that contains the blocks.
    pub(crate) part: PartIdentity,
    /// Binds the records to this journal.
    pub(crate) nonce: [u8; 16],
}

/// Which version of which remote file is received, and how it is split into blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SourceIdentity {
    pub(crate) manifest: Manifest,
    /// The source's modification time, in nanoseconds since 1970.
    pub(crate) modified: i64,
    pub(crate) version: SourceVersion,
    /// From [`SourceIdentity::remote`].
    pub(crate) remote: [u8; 32],
}

impl SourceIdentity {
    /// The hash of the server's address as the user wrote it and the file's name, without leading `/` and `./`.
    pub(crate) fn remote(server: &str, name: &[u8]) -> [u8; 32] {
        let mut name = name;
        while let Some(rest) = name.strip_prefix(b"/").or_else(|| name.strip_prefix(b"./")) {
            name = rest;
        }
        Blake3Digest::of(&[server.as_bytes(), b"\0", name].concat()).into()
    }
}

/// The system's identity of a part file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PartIdentity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl JournalHeader {
    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER_LEN] {
        let block = u32::try_from(self.source_identity.manifest.block_size().bytes()).unwrap_or(u32::MAX);
        let mut bytes = [0; HEADER_LEN];
        let parts = MAGIC
            .into_iter()
            .chain(FORMAT.to_le_bytes())
            .chain(block.to_le_bytes())
            .chain(self.source_identity.manifest.size().to_le_bytes())
            .chain(self.source_identity.modified.to_le_bytes())
            .chain(self.source_identity.version.0)
            .chain(self.boot)
            .chain(self.source_identity.remote)
            .chain(self.part.device.to_le_bytes())
            .chain(self.part.inode.to_le_bytes())
            .chain(self.nonce);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        let (checked, check) = bytes.split_at_mut(CHECKED);
        check.copy_from_slice(&<[u8; 32]>::from(Blake3Digest::of(checked)));
        bytes
    }

    /// Decodes the header at the start of `bytes`; `None` if it is short, invalid or of another format.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (checked, rest) = bytes.split_first_chunk::<CHECKED>()?;
        if *rest.first_chunk()? != <[u8; 32]>::from(Blake3Digest::of(checked)) {
            return None;
        }
        let (magic, rest) = checked.split_first_chunk()?;
        let (format, rest) = rest.split_first_chunk()?;
        let (block, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (modified, rest) = rest.split_first_chunk()?;
        let (version, rest) = rest.split_first_chunk::<16>()?;
        let (boot, rest) = rest.split_first_chunk()?;
        let (remote, rest) = rest.split_first_chunk()?;
        let (device, rest) = rest.split_first_chunk()?;
        let (inode, rest) = rest.split_first_chunk()?;
        let nonce = rest.first_chunk()?;
        if *magic != MAGIC || u32::from_le_bytes(*format) != FORMAT {
            return None;
        }
        let block = BlockSize::new(u64::from(u32::from_le_bytes(*block)))?;
        let source_identity = SourceIdentity {
            manifest: Manifest::new(u64::from_le_bytes(*size), block).ok()?,
            modified: i64::from_le_bytes(*modified),
            version: SourceVersion(*version),
            remote: *remote,
        };
        let part = PartIdentity { device: u64::from_le_bytes(*device), inode: u64::from_le_bytes(*inode) };
        Some(Self { source_identity, boot: *boot, part, nonce: *nonce })
    }
}

/// The record that a block is in the part file, and has this digest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Record {
    pub(crate) block: BlockId,
    pub(crate) digest: RangeDigest,
}

/// The length of a record without its check.
const RECORD_CHECKED: usize = RECORD_LEN - 16;

impl Record {
    /// The record's bytes in the journal with this nonce.
    pub(crate) fn encode(self, nonce: &[u8; 16]) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        let parts = u64::from(self.block.value()).to_le_bytes().into_iter().chain(self.digest.0);
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        let (checked, check) = bytes.split_at_mut(RECORD_CHECKED);
        check.copy_from_slice(&record_check(nonce, checked));
        bytes
    }

    /// Decodes a record of the journal with this nonce and manifest.
    fn decode(bytes: &[u8; RECORD_LEN], nonce: &[u8; 16], manifest: &Manifest) -> Option<Self> {
        let (checked, check) = bytes.split_first_chunk::<RECORD_CHECKED>()?;
        let (index, digest) = checked.split_first_chunk()?;
        if *check != record_check(nonce, checked) {
            return None;
        }
        let block = manifest.block(u64::from_le_bytes(*index))?;
        Some(Self { block, digest: RangeDigest(*digest.first_chunk::<{ RangeDigest::LEN }>()?) })
    }
}

fn record_check(nonce: &[u8; 16], record: &[u8]) -> [u8; 16] {
    let digest: [u8; 32] = Blake3Digest::of(&[nonce, record].concat()).into();
    let mut check = [0; 16];
    check.iter_mut().zip(digest).for_each(|(byte, part)| *byte = part);
    check
}

/// The valid part of a journal.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct JournalContents {
    pub(crate) header: JournalHeader,
    /// All records before the first invalid one, in the order in which they were written.
    pub(crate) records: Vec<Record>,
}

impl JournalContents {
    /// Decodes any bytes; `None` if they do not start with a valid header.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = JournalHeader::decode(bytes)?;
        let records = bytes
            .get(HEADER_LEN..)?
            .chunks_exact(RECORD_LEN)
            .map_while(|record| {
                Record::decode(record.first_chunk()?, &header.nonce, &header.source_identity.manifest)
            })
            .collect();
        Some(Self { header, records })
    }

    /// The length up to the end of the last valid record.
    pub(crate) fn len(&self) -> u64 {
        to_u64(HEADER_LEN + self.records.len() * RECORD_LEN)
    }

    /// The first bytes of the file that are in no recorded block; empty if every block is recorded.
    pub(crate) fn first_gap(&self) -> ByteRange {
        let manifest = &self.header.source_identity.manifest;
        let mut recorded = BlockSet::new(manifest);
        self.records.iter().for_each(|record| {
            recorded.insert(record.block);
        });
        let mut missing = manifest.blocks().skip_while(|block| recorded.contains(*block));
        let start = missing.next().map_or(manifest.size(), |block| manifest.range(block).start());
        let next = missing.find(|block| recorded.contains(*block));
        ByteRange::new(start, next.map_or(manifest.size(), |block| manifest.range(block).start()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn header(n_blocks: u64) -> JournalHeader {
        let block = BlockSize::new(64 << 10).unwrap();
        let source_identity = SourceIdentity {
            manifest: Manifest::new((n_blocks << 16) - 1, block).unwrap(),
            modified: -2,
            version: SourceVersion([0x11; 16]),
            remote: [0x33; 32],
        };
        let part = PartIdentity { device: 0x0102, inode: 0x0304 };
        JournalHeader { source_identity, boot: [0x22; 16], part, nonce: [0x44; 16] }
    }

    fn record(header: &JournalHeader, index: u64, byte: u8) -> Record {
        Record {
            block: header.source_identity.manifest.block(index).unwrap(),
            digest: RangeDigest([byte; 32]),
        }
    }

    fn journal(header: &JournalHeader, records: &[Record]) -> Vec<u8> {
        let mut bytes = header.encode().to_vec();
        for record in records {
            bytes.extend(record.encode(&header.nonce));
        }
        bytes
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    }

    #[test]
    fn header_has_golden_bytes() {
        let fields = [
            "44544a4f55524e4c",
            "01000000",
            "00000100",
            "ffff030000000000",
            "feffffffffffffff",
            &"11".repeat(16),
            &"22".repeat(16),
            &"33".repeat(32),
            "0201000000000000",
            "0403000000000000",
            &"44".repeat(16),
            "34b5c9cd13f9934430c76575f6400cad20d62015867117a93ef7faa6ec91b01d",
        ]
        .concat();
        assert_eq!(hex(&header(4).encode()), fields);
    }

    #[test]
    fn record_has_golden_bytes() {
        let header = header(4);
        let fields = ["0300000000000000", &"55".repeat(32), "f536586793d61b865a28ae1a7c912e9e"].concat();
        assert_eq!(hex(&record(&header, 3, 0x55).encode(&header.nonce)), fields);
    }

    #[test]
    fn remote_is_hashed_from_server_and_name() {
        assert_eq!(
            SourceIdentity::remote("host:1", b"name"),
            <[u8; 32]>::from(Blake3Digest::of(b"host:1\0name"))
        );
        assert_ne!(SourceIdentity::remote("host:1", b"2"), SourceIdentity::remote("host:12", b""));
        for name in ["/name", "./name", ".//./name"] {
            assert_eq!(
                SourceIdentity::remote("host:1", name.as_bytes()),
                SourceIdentity::remote("host:1", b"name"),
                "{name}"
            );
        }
        assert_ne!(SourceIdentity::remote("host:1", b".name"), SourceIdentity::remote("host:1", b"name"));
    }

    /// The check is correct in all of these, so only the bounds can reject them.
    #[test]
    fn numbers_out_of_bounds_are_rejected() {
        let good = header(4).encode();
        for (at, bytes) in [
            (0, &b"x"[..]),
            (8, &[2]),
            (8, &[0]),
            (12, &[1, 0, 1]),
            (14, &[0]),
            (12, &[0, 0, 0, 2]),
            (16, &[0xff; 8]),
        ] {
            let mut bad = good;
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            let check: [u8; 32] = Blake3Digest::of(&bad[..CHECKED]).into();
            bad[CHECKED..].copy_from_slice(&check);
            assert_eq!(JournalHeader::decode(&bad), None, "{bytes:?} at {at}");
        }
        assert_eq!(JournalHeader::decode(&good), Some(header(4)));
    }

    #[test]
    fn record_of_a_block_beyond_the_file_ends_the_list() {
        let (small, large) = (header(4), header(5));
        let records = [record(&small, 0, 1), record(&large, 4, 2), record(&small, 1, 3)];
        let read = JournalContents::decode(&journal(&small, &records)).unwrap();
        assert_eq!(read.records, records[..1]);
        let read = JournalContents::decode(&journal(&large, &records)).unwrap();
        assert_eq!(read.records, records);
    }

    #[test]
    fn record_of_another_journal_is_rejected() {
        let header = header(4);
        let mut other = header.clone();
        other.nonce[0] ^= 1;
        let mut bytes = journal(&header, &[record(&header, 0, 1)]);
        bytes.extend(record(&header, 1, 1).encode(&other.nonce));
        assert_eq!(JournalContents::decode(&bytes).unwrap().records.len(), 1);
    }

    #[test]
    fn gap_ends_where_a_recorded_block_begins() {
        let header = header(6);
        let manifest = header.source_identity.manifest;
        let block = manifest.block_size().bytes();
        for (recorded, start, end) in [
            (&[][..], 0, manifest.size()),
            (&[0, 1, 4], 2 * block, 4 * block),
            (&[3], 0, 3 * block),
            (&[0, 1, 2], 3 * block, manifest.size()),
            (&[0, 1, 2, 3, 4, 5], manifest.size(), manifest.size()),
        ] {
            let records = recorded.iter().map(|index| record(&header, *index, 1)).collect();
            let contents = JournalContents { header: header.clone(), records };
            assert_eq!(contents.first_gap(), ByteRange::new(start, end), "{recorded:?}");
        }
    }

    proptest! {
        #[test]
        fn torn_tail_is_ignored(blocks in proptest::collection::vec((0..9_u64, any::<u8>()), 0..5)) {
            let header = header(9);
            let records: Vec<_> = blocks.iter().map(|(index, byte)| record(&header, *index, *byte)).collect();
            let bytes = journal(&header, &records);
            for len in 0..=bytes.len() {
                let read = JournalContents::decode(&bytes[..len]);
                let Some(n) = len.checked_sub(HEADER_LEN).map(|records| records / RECORD_LEN) else {
                    prop_assert_eq!(read, None);
                    continue;
                };
                let read = read.unwrap();
                prop_assert_eq!(&read.header, &header);
                prop_assert_eq!(&read.records, &records[..n]);
                prop_assert_eq!(read.len(), u64::try_from(HEADER_LEN + n * RECORD_LEN).unwrap());
            }
        }

        #[test]
        fn garbage_after_the_records_is_ignored(n in 0..5_u64, garbage in proptest::collection::vec(any::<u8>(), 0..200)) {
            let header = header(9);
            let records: Vec<_> = (0..n).map(|index| record(&header, index, 7)).collect();
            let mut bytes = journal(&header, &records);
            bytes.extend(garbage);
            prop_assert_eq!(JournalContents::decode(&bytes).unwrap().records, records);
        }

        #[test]
        fn flipped_bit_is_never_accepted(n in 1..5_u64, bit in any::<prop::sample::Index>()) {
            let header = header(9);
            let records: Vec<_> = (0..n).map(|index| record(&header, index, 7)).collect();
            let mut bytes = journal(&header, &records);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let read = JournalContents::decode(&bytes);
            match (bit / 8).checked_sub(HEADER_LEN) {
                None => prop_assert_eq!(read, None),
                Some(at) => prop_assert_eq!(&read.unwrap().records, &records[..at / RECORD_LEN]),
            }
        }

        #[test]
        fn garbage_is_not_a_journal(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            prop_assert_eq!(JournalContents::decode(&bytes), None);
        }
    }
}
