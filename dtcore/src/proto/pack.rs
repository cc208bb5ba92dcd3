//! Packs: many small files as the content of one transfer.

use serde_json::Value;

use super::extended;
use super::listing::{ListLine, ListedEntry, decode_name, encode_name};
use crate::num::{to_u64, to_usize};

/// The most files of a pack.
pub(crate) const MAX_PACK_FILES: usize = 1024;

/// The most bytes that the files of a pack have together.
pub(crate) const MAX_PACK_BYTES: u64 = 4 << 20;

/// The longest body of a request for a pack, in bytes.
pub(crate) const MAX_PACK_BODY: usize = 256 << 10;

/// The names of a request for a pack, as the value of its key `pack`.
pub(crate) fn encode_pack_names(names: &[Vec<u8>]) -> String {
    Value::Array(names.iter().map(|name| encode_name(name)).collect()).to_string()
}

/// The names that a request's body asks for; `None` if it asks for no pack.
///
/// # Errors
/// There are too many, or one leads out of the directory.
pub(crate) fn decode_pack_names(body: &[u8]) -> Result<Option<Vec<Vec<u8>>>, InvalidPack> {
    let body: Value = serde_json::from_slice(body).map_err(|_| InvalidPack)?;
    let Some(names) = body.get("pack") else { return Ok(None) };
    let names = names.as_array().filter(|names| names.len() <= MAX_PACK_FILES).ok_or(InvalidPack)?;
    names.iter().map(|name| decode_name(name).ok_or(InvalidPack)).collect::<Result<_, _>>().map(Some)
}

/// What is no pack, or no request for one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the pack is invalid")]
pub(crate) struct InvalidPack;

/// One file of a pack: its entry and its bytes, or why there are none.
pub(crate) type PackedFile<'a> = (ListLine, &'a [u8]);

/// The content of a pack: the length of its table in 4 bytes, the table, one line for each file in the order of the request, and the bytes of
/// the files in the same order.
pub(crate) fn encode_pack(lines: &[ListLine], bytes: &[u8]) -> Vec<u8> {
    let table: Vec<u8> = lines.iter().flat_map(ListLine::encode).collect();
    let len = u32::try_from(table.len()).unwrap_or(u32::MAX);
    [&len.to_le_bytes()[..], &table, bytes].concat()
}

/// The files of a pack.
pub(crate) fn decode_pack(content: &[u8]) -> Result<Vec<PackedFile<'_>>, InvalidPack> {
    let (len, rest) = content.split_first_chunk::<4>().ok_or(InvalidPack)?;
    let len = to_usize(u32::from_le_bytes(*len).into());
    let (table, mut bytes) = rest.split_at_checked(len).ok_or(InvalidPack)?;
    let mut files = Vec::new();
    for line in table.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = ListLine::decode(line).map_err(|_| InvalidPack)?;
        let size = match &line {
            ListLine::Entry(ListedEntry { size, .. }) => to_usize(*size),
            ListLine::Unreadable(..) | ListLine::NotPacked(..) => 0,
            ListLine::End(_) => return Err(InvalidPack),
        };
        let (own, rest) = bytes.split_at_checked(size).ok_or(InvalidPack)?;
        bytes = rest;
        files.push((line, own));
    }
    if bytes.is_empty() && to_u64(files.len()) <= to_u64(MAX_PACK_FILES) {
        Ok(files)
    } else {
        Err(InvalidPack)
    }
}

/// The body of a request, with the names of a pack.
pub(crate) fn with_pack(body: &str, names: &str) -> String {
    extended(body, &format!(", \"pack\": {names}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::EntryKind;
    use serde_json::json;

    fn file(path: &str, size: u64) -> ListLine {
        let path = path.as_bytes().to_vec();
        ListLine::Entry(ListedEntry {
            path,
            kind: EntryKind::File,
            size,
            modified: 1,
            mode: 0o644,
            target: None,
        })
    }

    #[test]
    fn pack_is_read_back() {
        let unreadable = ListLine::Unreadable(b"b".to_vec(), "permission denied".to_owned());
        let content = encode_pack(&[file("a", 2), unreadable.clone(), file("c", 0), file("d", 3)], b"aaddd");
        let files = decode_pack(&content).unwrap();
        let expected: [PackedFile<'_>; 4] =
            [(file("a", 2), b"aa"), (unreadable, b""), (file("c", 0), b""), (file("d", 3), b"ddd")];
        assert_eq!(files, expected);
        for end in 0..content.len() {
            assert_eq!(decode_pack(&content[..end]), Err(InvalidPack), "{end}");
        }
        assert_eq!(decode_pack(&[&content[..], b"x"].concat()), Err(InvalidPack));
        assert_eq!(decode_pack(&encode_pack(&[file("a", u64::MAX)], b"")), Err(InvalidPack));
        assert_eq!(decode_pack(&encode_pack(&[ListLine::End(0)], b"")), Err(InvalidPack));
    }

    #[test]
    fn names_are_read_back_and_bounded() {
        let names = vec![b"a".to_vec(), b"b/\xff".to_vec(), "ü\n".as_bytes().to_vec()];
        let body = with_pack("{\"threads\": 1}", &encode_pack_names(&names));
        assert_eq!(decode_pack_names(body.as_bytes()), Ok(Some(names)));
        assert_eq!(decode_pack_names(b"{\"threads\": 1}"), Ok(None));
        let many = json!({"pack": vec!["a"; MAX_PACK_FILES + 1]}).to_string();
        for body in [many.as_str(), "{\"pack\": [\"../a\"]}", "{\"pack\": [1]}", "{\"pack\": 1}", "x"] {
            assert_eq!(decode_pack_names(body.as_bytes()), Err(InvalidPack), "{body:.40}");
        }
    }
}
