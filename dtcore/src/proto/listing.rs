//! The lines of a listing: one JSON object for each entry, and one at the end.

use serde_json::{Map, Value, json};

use super::v1;
use crate::digest::{bytes_from_hex, to_hex};
use crate::num::to_u64;

/// The media type of a listing.
pub(crate) const LISTING: &str = "application/x-ndjson";

/// The header that says what is listed: `recursive`, `hidden`, or both, separated by a comma.
pub(crate) const LIST_HEADER: &str = "dt-list";

/// The longest line, in bytes: two names of 4 KiB, of which every byte may be escaped.
pub(crate) const MAX_LIST_LINE: usize = 64 << 10;

/// What an entry of a directory is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A pipe, a socket or a device.
    Other,
}

impl EntryKind {
    const NAMES: [(Self, &'static str); 4] = [
        (Self::File, "file"),
        (Self::Directory, "directory"),
        (Self::Symlink, "symlink"),
        (Self::Other, "other"),
    ];

    /// A stable name in lower case, for scripts.
    pub fn name(self) -> &'static str {
        Self::NAMES.into_iter().find(|(kind, _)| *kind == self).map_or("other", |(_, name)| name)
    }

    fn of(name: &str) -> Option<Self> {
        Self::NAMES.into_iter().find(|(_, known)| *known == name).map(|(kind, _)| kind)
    }
}

/// An entry, as it is on the wire.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ListedEntry {
    /// Relative to the directory that is listed.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: EntryKind,
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    pub(crate) modified: i64,
    /// The permission bits.
    pub(crate) mode: u32,
    /// Where a link leads.
    pub(crate) target: Option<Vec<u8>>,
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ListLine {
    Entry(ListedEntry),
    /// Something that could not be read, and why.
    Unreadable(Vec<u8>, String),
    /// A file that a pack lacks, and why: requested alone it may be readable.
    NotPacked(Vec<u8>, String),
    /// Everything was listed: so many entries.
    End(u64),
}

/// A line that does not belong to a listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid line in a listing")]
pub(crate) struct InvalidListLine;

impl ListLine {
    /// The line, with its end.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut object = Map::new();
        match self {
            Self::Entry(entry) => {
                put_name(&mut object, "path", &entry.path);
                object.insert("type".to_owned(), entry.kind.name().into());
                object.insert("size".to_owned(), entry.size.into());
                object.insert("modified".to_owned(), entry.modified.into());
                object.insert("mode".to_owned(), entry.mode.into());
                if let Some(target) = &entry.target {
                    put_name(&mut object, "target", target);
                }
            }
            Self::Unreadable(path, reason) => {
                put_name(&mut object, "path", path);
                object.insert("error".to_owned(), reason.as_str().into());
            }
            Self::NotPacked(path, reason) => {
                put_name(&mut object, "path", path);
                object.insert("error".to_owned(), reason.as_str().into());
                object.insert("alone".to_owned(), json!(true));
            }
            Self::End(entries) => {
                object.insert("end".to_owned(), json!(true));
                object.insert("entries".to_owned(), (*entries).into());
            }
        }
        let mut line = Value::Object(object).to_string().into_bytes();
        line.push(b'\n');
        line
    }

    /// Reads a line without its end. Unknown keys are ignored.
    pub(crate) fn decode(line: &[u8]) -> Result<Self, InvalidListLine> {
        let object: Map<String, Value> = serde_json::from_slice(line).map_err(|_| InvalidListLine)?;
        let number = |key: &str| object.get(key).and_then(Value::as_u64).ok_or(InvalidListLine);
        if object.get("end") == Some(&Value::Bool(true)) {
            return number("entries").map(Self::End);
        }
        let path = name(&object, "path").filter(|path| is_relative(path)).ok_or(InvalidListLine)?;
        if let Some(error) = object.get("error") {
            let reason = error.as_str().map(v1::printable).ok_or(InvalidListLine)?;
            let is_alone = object.get("alone") == Some(&Value::Bool(true));
            return Ok(if is_alone { Self::NotPacked(path, reason) } else { Self::Unreadable(path, reason) });
        }
        let kind = object.get("type").and_then(Value::as_str).ok_or(InvalidListLine)?;
        Ok(Self::Entry(ListedEntry {
            path,
            // A later version may know more.
            kind: EntryKind::of(kind).unwrap_or(EntryKind::Other),
            size: number("size")?,
            modified: object.get("modified").and_then(Value::as_i64).ok_or(InvalidListLine)?,
            mode: u32::try_from(number("mode")?).map_err(|_| InvalidListLine)? & 0o777,
            target: name(&object, "target"),
        }))
    }
}

/// A name is text where it is valid UTF-8, and hexadecimal under another key where it is not.
fn put_name(object: &mut Map<String, Value>, key: &str, name: &[u8]) {
    match str::from_utf8(name) {
        Ok(text) => drop(object.insert(key.to_owned(), text.into())),
        Err(_) => drop(object.insert(format!("{key}_hex"), to_hex(name).into())),
    }
}

fn name(object: &Map<String, Value>, key: &str) -> Option<Vec<u8>> {
    match object.get(key) {
        Some(text) => text.as_str().map(|text| text.as_bytes().to_vec()),
        None => bytes_from_hex(object.get(&format!("{key}_hex"))?.as_str()?),
    }
}

/// A name by itself: text, or an array with its hexadecimal form.
pub(super) fn encode_name(name: &[u8]) -> Value {
    str::from_utf8(name).map_or_else(|_| json!([to_hex(name)]), Value::from)
}

/// Reads a name by itself; `None` if it leads out of its directory.
pub(super) fn decode_name(value: &Value) -> Option<Vec<u8>> {
    let name = match value {
        Value::String(text) => text.as_bytes().to_vec(),
        Value::Array(hex) => bytes_from_hex(hex.first()?.as_str()?)?,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => return None,
    };
    Some(name).filter(|name| is_relative(name))
}

/// Whether a path from a peer stays below where it is put: no root, no empty part, no dots.
fn is_relative(path: &[u8]) -> bool {
    to_u64(path.len()) <= 4096
        && !path.contains(&0)
        && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(path: &[u8]) -> ListedEntry {
        let kind = EntryKind::Symlink;
        ListedEntry {
            path: path.to_vec(),
            kind,
            size: 7,
            modified: -5,
            mode: 0o644,
            target: Some(b"../x\xff".to_vec()),
        }
    }

    #[test]
    fn lines_are_these_texts() {
        for (line, expected) in [
            (
                ListLine::Entry(ListedEntry {
                    target: None,
                    kind: EntryKind::File,
                    ..entry("ü\n".as_bytes())
                }),
                "{\"mode\":420,\"modified\":-5,\"path\":\"ü\\n\",\"size\":7,\"type\":\"file\"}\n",
            ),
            (
                ListLine::Entry(entry(b"a\xff")),
                "{\"mode\":420,\"modified\":-5,\"path_hex\":\"61ff\",\"size\":7,\"target_hex\":\"2e2e2f78ff\",\"type\":\"symlink\"}\n",
            ),
            (
                ListLine::Unreadable(b"d".to_vec(), "permission denied".to_owned()),
                "{\"error\":\"permission denied\",\"path\":\"d\"}\n",
            ),
            (
                ListLine::NotPacked(b"d".to_vec(), "it is too large".to_owned()),
                "{\"alone\":true,\"error\":\"it is too large\",\"path\":\"d\"}\n",
            ),
            (ListLine::End(3), "{\"end\":true,\"entries\":3}\n"),
        ] {
            assert_eq!(String::from_utf8(line.encode()).unwrap(), expected);
            assert_eq!(ListLine::decode(expected.trim_end().as_bytes()), Ok(line));
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_rejected() {
        for path in ["", "/", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "a\0b"] {
            let line = ListLine::Entry(entry(path.as_bytes())).encode();
            assert_eq!(ListLine::decode(line.trim_ascii_end()), Err(InvalidListLine), "{path}");
        }
        for line in
            ["", "{}", "[]", "{\"path\":\"a\"}", "{\"end\":true}", "{\"path_hex\":\"6\",\"error\":\"x\"}"]
        {
            assert_eq!(ListLine::decode(line.as_bytes()), Err(InvalidListLine), "{line}");
        }
    }

    proptest! {
        #[test]
        fn any_name_is_read_back(path in proptest::collection::vec(any::<u8>(), 1..40)) {
            prop_assume!(is_relative(&path));
            let line = ListLine::Entry(entry(&path));
            prop_assert_eq!(ListLine::decode(line.encode().trim_ascii_end()), Ok(line));
        }
    }
}
