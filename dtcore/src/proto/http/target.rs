//! The request target: the name of a remote file in the request line.
//!
//! In protocol 1 the target is the name, verbatim, so a name of printable ASCII is sent unchanged, with or without a
//! leading slash. A name with other bytes (spaces, UTF-8) is percent-encoded, and a header says so. The header also
//! says that a name with a percent sign is literal, so that files named `a%20b` and `a b` are never confused.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode, percent_encode};

/// The bytes that must not stand in a request line, and the percent sign.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%');

/// The name of a remote file as written in the request line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    text: String,
    marking: Marking,
}

/// How a target is to be interpreted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Marking {
    /// Not stated: first verbatim, then decoded.
    None,
    /// Percent-encoded, never verbatim.
    Escaped,
    /// Verbatim, never decoded.
    Literal,
}

impl Marking {
    /// The marking in a header; unknown values are ignored.
    pub(crate) fn of(value: Option<&[u8]>) -> Self {
        let known = [Self::Escaped, Self::Literal];
        known.into_iter().find(|known| known.value().map(str::as_bytes) == value).unwrap_or(Self::None)
    }

    /// The value of the header, if one is needed.
    pub(crate) fn value(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Escaped => Some("percent-encoded"),
            Self::Literal => Some("literal"),
        }
    }
}

impl Target {
    /// The target for `name`.
    pub(crate) fn of(name: &[u8]) -> Self {
        match str::from_utf8(name) {
            Ok(text) if is_plain(text) => {
                let marking = if text.contains('%') { Marking::Literal } else { Marking::None };
                Self { text: text.to_owned(), marking }
            }
            _ => Self { text: percent_encode(name, ESCAPED).to_string(), marking: Marking::Escaped },
        }
    }

    /// The text for the request line: printable ASCII without spaces.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// How the target is to be interpreted.
    pub(crate) fn marking(&self) -> Marking {
        self.marking
    }

    /// The names that a received target may mean, in the order in which to try them.
    ///
    /// Without a marking, that is the target verbatim, as in the original server, and then its percent-decoded form, as
    /// HTTP clients mean it.
    pub(crate) fn names(target: &[u8], marking: Marking) -> Vec<Cow<'_, [u8]>> {
        match marking {
            Marking::Escaped => return vec![percent_decode(target).into()],
            Marking::Literal => return vec![Cow::Borrowed(target)],
            Marking::None => {}
        }
        let path = without_authority(target);
        let decoded: Cow<'_, [u8]> = percent_decode(path).into();
        if decoded.as_ref() == path { vec![decoded] } else { vec![Cow::Borrowed(path), decoded] }
    }
}

/// Whether a name can be sent verbatim and unmarked, or marked as literal.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) && !name.starts_with(SCHEME)
}

/// The start of a target in absolute form.
const SCHEME: &str = "http://";

/// Removes scheme and host from a target in absolute form, which RFC 9112 requires every server to accept.
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
    fn printable_names_are_sent_unchanged() {
        for (name, marking) in [
            ("remote/path", Marking::None),
            ("/dir/f7", Marking::None),
            ("a%20b", Marking::Literal),
            ("100%", Marking::Literal),
            ("a#b?c", Marking::None),
            ("../x", Marking::None),
        ] {
            let target = Target::of(name.as_bytes());
            assert_eq!((target.text(), target.marking()), (name, marking));
        }
    }

    #[test]
    fn other_names_are_escaped_and_marked() {
        for (name, text) in
            [("a b", "a%20b"), ("a b%", "a%20b%25"), ("ü", "%C3%BC"), ("a\r\nb", "a%0D%0Ab"), ("", "")]
        {
            let target = Target::of(name.as_bytes());
            assert_eq!((target.text(), target.marking()), (text, Marking::Escaped));
        }
    }

    #[test]
    fn marking_survives_its_header_value() {
        for marking in [Marking::None, Marking::Escaped, Marking::Literal] {
            assert_eq!(Marking::of(marking.value().map(str::as_bytes)), marking);
        }
        assert_eq!(Marking::of(Some(b"of-a-later-version")), Marking::None);
    }

    #[test]
    fn unmarked_target_is_tried_verbatim_first() {
        let names = |target: &'static str, marking| -> Vec<String> {
            let names = Target::names(target.as_bytes(), marking);
            names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
        };
        assert_eq!(names("a%20b", Marking::None), ["a%20b", "a b"]);
        assert_eq!(names("a%20b", Marking::Escaped), ["a b"]);
        assert_eq!(names("a%20b", Marking::Literal), ["a%20b"]);
        assert_eq!(names("a%2", Marking::None), ["a%2"]);
        assert_eq!(names("/plain", Marking::None), ["/plain"]);
        assert_eq!(names("http://host:9000/x/y", Marking::None), ["/x/y"]);
        assert_eq!(names("http://host", Marking::None), [""]);
        for marking in [Marking::Escaped, Marking::Literal] {
            assert_eq!(names("http://host/x", marking), ["http://host/x"]);
        }
    }

    proptest! {
        #[test]
        fn every_name_survives_its_target(name in proptest::collection::vec(any::<u8>(), 1..40)) {
            let target = Target::of(&name);
            let names = Target::names(target.text().as_bytes(), target.marking());
            prop_assert_eq!(names[0].as_ref(), name.as_slice());
        }
    }
}
