//! The first line of an HTTP request, whose target may be any file name.
//!
//! The clients of protocol 1 write the name of the file verbatim into the request line: without a leading slash,
//! with spaces, in any encoding. No HTTP parser accepts that, so the line is split here, and the parser gets a line
//! with the target `/`.

/// The longest target in bytes: four times the longest path that Linux opens, enough for fully escaped names of
/// ordinary length.
pub(crate) const MAX_TARGET: usize = 16 << 10;

/// The longest request line, in bytes: a target with room for a method and the version.
pub(crate) const MAX_LINE: usize = MAX_TARGET + 64;

/// The parts of a request line; the target is raw.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RequestLine<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: &'a [u8],
}

impl<'a> RequestLine<'a> {
    /// Splits a line: the method ends at the first space, the version follows the last ` HTTP/`.
    pub(crate) fn parse(line: &'a [u8]) -> Result<Self, InvalidRequestLine> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (method, rest) = split_at(line, b" ", Side::First).ok_or(InvalidRequestLine::Malformed)?;
        let (target, version) = split_at(rest, b" HTTP/", Side::Last).ok_or(InvalidRequestLine::Malformed)?;
        if method.is_empty() || !method.iter().copied().all(is_token) {
            return Err(InvalidRequestLine::Malformed);
        }
        if version != b"1.0" && version != b"1.1" {
            return Err(InvalidRequestLine::Version);
        }
        if target.len() > MAX_TARGET {
            return Err(InvalidRequestLine::TooLong);
        }
        Ok(Self { method, target, version })
    }

    /// The target, exactly as received.
    pub(crate) fn target(&self) -> &'a [u8] {
        self.target
    }

    /// The same line with the target `/`, which every parser accepts.
    pub(crate) fn with_plain_target(&self) -> Vec<u8> {
        [self.method, b" / HTTP/", self.version, b"\r\n"].concat()
    }
}

/// Whether `byte` may stand in a method; the first bytes of TLS and other binary data may not.
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Why a request line is invalid; the text is sent to the peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum InvalidRequestLine {
    #[error("the request line is not HTTP")]
    Malformed,
    #[error("the HTTP version is neither 1.0 nor 1.1")]
    Version,
    #[error("the request target is longer than 16384 bytes")]
    TooLong,
}

#[derive(Clone, Copy)]
enum Side {
    First,
    Last,
}

/// The parts of `bytes` before and after the first or last occurrence of `mark`.
fn split_at<'a>(bytes: &'a [u8], mark: &[u8], side: Side) -> Option<(&'a [u8], &'a [u8])> {
    let mut windows = bytes.windows(mark.len());
    let at = match side {
        Side::First => windows.position(|window| window == mark),
        Side::Last => windows.rposition(|window| window == mark),
    }?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn target_is_everything_between_method_and_version() {
        let cases: [(&[u8], &[u8]); 10] = [
            (b"POST /dir/f7 HTTP/1.1\r\n", b"/dir/f7"),
            (b"POST remote/path HTTP/1.0\r\n", b"remote/path"),
            (b"POST /f HTTP/1.1\n", b"/f"),
            (b"POST a b\tc HTTP/1.1\r\n", b"a b\tc"),
            (b"POST \xfc\xff HTTP/1.1\r\n", b"\xfc\xff"),
            (b"POST /a#b?c HTTP/1.1\r\n", b"/a#b?c"),
            (b"POST /a HTTP/1.0 b HTTP/1.1\r\n", b"/a HTTP/1.0 b"),
            (b"POST  HTTP/1.1\r\n", b""),
            (b"POST   x  HTTP/1.1\r\n", b"  x "),
            ("POST /gr\u{fc}n HTTP/1.1\r\n".as_bytes(), "/gr\u{fc}n".as_bytes()),
        ];
        for (line, target) in cases {
            let parsed = RequestLine::parse(line).unwrap();
            assert_eq!(parsed.target(), target, "{}", line.escape_ascii());
        }
    }

    #[test]
    fn only_the_target_is_replaced() {
        let line = RequestLine::parse(b"GET x y HTTP/1.0\r\n").unwrap();
        assert_eq!(line.with_plain_target(), b"GET / HTTP/1.0\r\n");
    }

    #[test]
    fn garbage_is_invalid() {
        use InvalidRequestLine::{Malformed, Version};
        let cases: [(&[u8], InvalidRequestLine); 11] = [
            (b"", Malformed),
            (b"\r\n", Malformed),
            (b"POST\r\n", Malformed),
            (b"POST HTTP/1.1\r\n", Malformed),
            (b"POST /f\r\n", Malformed),
            (b" /f HTTP/1.1\r\n", Malformed),
            (b"P\x00ST /f HTTP/1.1\r\n", Malformed),
            (b"\x16\x03\x01\x02 /f HTTP/1.1\n", Malformed),
            (b"POST /f HTTP/2.0\r\n", Version),
            (b"POST /f HTTP/1.1 \r\n", Version),
            (b"POST /f HTTP/\r\n", Version),
        ];
        for (line, error) in cases {
            assert_eq!(RequestLine::parse(line), Err(error), "{}", line.escape_ascii());
        }
        let long = format!("POST {} HTTP/1.1\r\n", "x".repeat(MAX_TARGET + 1));
        assert_eq!(RequestLine::parse(long.as_bytes()), Err(InvalidRequestLine::TooLong));
    }

    proptest! {
        #[test]
        fn any_name_without_line_breaks_is_parsed(name in "[^\r\n]{0,60}") {
            let line = format!("POST {name} HTTP/1.1\r\n");
            let parsed = RequestLine::parse(line.as_bytes()).unwrap();
            prop_assert_eq!(parsed.target(), name.as_bytes());
        }

        #[test]
        fn arbitrary_bytes_do_not_panic(line in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = RequestLine::parse(&line);
        }
    }
}
