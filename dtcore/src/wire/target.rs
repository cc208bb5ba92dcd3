//! The request target: how a remote file's name travels in the request line.
//!
//! Protocol 1 takes the target as it stands for the name, so a name of printable ASCII is sent unchanged, with or
//! without a leading slash. A name with other bytes (spaces, UTF-8) is percent-encoded and marked by a header, so
//! that a file literally called `a%20b` and one called `a b` are never mistaken for each other.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

/// What must not stand in a request line, and the percent sign, which would be ambiguous beside it.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// A remote file's name as it stands in the request line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    text: String,
    escaped: bool,
}

impl Target {
    /// The target that asks for `name`.
    pub(crate) fn of(name: &[u8]) -> Self {
        match str::from_utf8(name) {
            Ok(text) if is_plain(text) => Self { text: text.to_owned(), escaped: false },
            _ => Self { text: percent_encode(name, ESCAPED).to_string(), escaped: true },
        }
    }

    /// The text for the request line: printable ASCII without spaces.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether the request must carry the header that marks the target as percent-encoded.
    pub(crate) fn is_escaped(&self) -> bool {
        self.escaped
    }

    /// The names that a received target may mean, the likeliest first.
    ///
    /// Unmarked, the name as it stands comes first, as in the original, then its percent-decoded form, as an HTTP
    /// client would mean it.
    pub(crate) fn names(target: &[u8], escaped: bool) -> Vec<Cow<'_, [u8]>> {
        if escaped {
            return vec![percent_decode(target).into()];
        }
        let path = without_authority(target);
        let decoded: Cow<'_, [u8]> = percent_decode(path).into();
        if decoded.as_ref() == path { vec![decoded] } else { vec![Cow::Borrowed(path), decoded] }
    }
}

/// Whether a name can stand in a request line and mean itself there.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) && !name.starts_with(SCHEME)
}

/// The beginning of a target in absolute form.
const SCHEME: &str = "http://";

/// Cuts scheme and host off a target in absolute form, which RFC 9112 makes every server accept.
fn without_authority(target: &[u8]) -> &[u8] {
    let Some(rest) = target.strip_prefix(SCHEME.as_bytes()) else { return target };
    let slash = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
    rest.get(slash..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn printable_names_travel_unchanged() {
        for name in ["remote/path", "/dir/f7", "a%20b", "a#b?c", "../x"] {
            let target = Target::of(name.as_bytes());
            assert_eq!((target.text(), target.is_escaped()), (name, false));
        }
    }

    #[test]
    fn other_names_are_escaped_and_marked() {
        for (name, text) in
            [("a b", "a%20b"), ("a b%", "a%20b%25"), ("ü", "%C3%BC"), ("a\r\nb", "a%0D%0Ab"), ("", "")]
        {
            let target = Target::of(name.as_bytes());
            assert_eq!((target.text(), target.is_escaped()), (text, true));
        }
    }

    #[test]
    fn an_unmarked_target_is_tried_as_it_stands_first() {
        let names = |target: &'static str, escaped| -> Vec<String> {
            let names = Target::names(target.as_bytes(), escaped);
            names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert_eq!(names("a%20b", false), ["a%20b", "a b"]);
        assert_eq!(names("a%20b", true), ["a b"]);
        assert_eq!(names("a%2", false), ["a%2"]);
        assert_eq!(names("/plain", false), ["/plain"]);
        assert_eq!(names("http://host:9000/x/y", false), ["/x/y"]);
        assert_eq!(names("http://host", false), [""]);
    }

    proptest! {
        #[test]
        fn every_name_arrives(name in proptest::collection::vec(any::<u8>(), 1..40)) {
            let target = Target::of(&name);
            let names = Target::names(target.text().as_bytes(), target.is_escaped());
            prop_assert_eq!(names[0].as_ref(), name.as_slice());
        }
    }
}
