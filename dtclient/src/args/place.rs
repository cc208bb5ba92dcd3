//! Places: files and directories on a server, as a person writes them.

use std::ffi::{OsStr, OsString};
use std::fmt;

use dtcore::ServerAddress;

/// A path on a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RemotePlace {
    pub(crate) server: ServerAddress,
    /// Relative to the directory that the server serves, with or without a leading slash.
    pub(crate) path: OsString,
}

const SCHEME: &str = "dt://";

/// Parses `HOST:/PATH`, `HOST:PORT/PATH`, `HOST:PATH` or `dt://HOST[:PORT]/PATH`.
///
/// As for scp and rsync, a colon before the first slash makes a place of it.
pub(crate) fn remote_place(text: &str) -> Result<RemotePlace, String> {
    let local = || format!("no server in '{text}'; write HOST:/PATH, HOST:PORT/PATH or dt://HOST/PATH");
    let (address, path) = if let Some(rest) = text.strip_prefix(SCHEME) {
        let (address, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        (address.to_owned(), path)
    } else {
        // The colons of an address in brackets do not count.
        let host = text.strip_prefix('[').and_then(|rest| rest.find(']')).map_or(0, |end| end + 2);
        let colon = text.get(host..).unwrap_or_default().find([':', '/']).ok_or_else(local)? + host;
        let (name, rest) = text.split_at(colon);
        let rest = rest.strip_prefix(':').ok_or_else(local)?;
        let (port, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) {
            (format!("{name}:{port}"), path)
        } else {
            (name.to_owned(), rest)
        }
    };
    let server = address.parse().map_err(|error: dtcore::InvalidAddress| error.to_string())?;
    Ok(RemotePlace { server, path: OsStr::new(path).to_owned() })
}

impl fmt::Display for RemotePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string_lossy();
        write!(f, "{}/{}", self.server, path.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        for (text, server, path) in [
            ("host:/a/b", "host:9000", "/a/b"),
            ("host:9001/a/b", "host:9001", "/a/b"),
            ("host:a/b", "host:9000", "a/b"),
            ("host:", "host:9000", ""),
            ("host:9001", "host:9001", ""),
            ("host:9001/", "host:9001", "/"),
            ("dt://host/a:b", "host:9000", "/a:b"),
            ("dt://host:9001", "host:9001", ""),
            ("[::1]:9001/a", "[::1]:9001", "/a"),
            ("[::1]:/a", "[::1]:9000", "/a"),
            ("dt://[::1]/a", "[::1]:9000", "/a"),
            ("192.0.2.7:x:1/y", "192.0.2.7:9000", "x:1/y"),
        ] {
            let place = remote_place(text).unwrap();
            assert_eq!(
                (place.server.to_string().as_str(), place.path.to_str().unwrap()),
                (server, path),
                "{text}"
            );
        }
        for text in ["file", "./a:b", "/a:b", "a/b:c", ":/a", "dt:///a", "host name:/a", ""] {
            assert!(remote_place(text).is_err(), "{text}");
        }
    }
}
