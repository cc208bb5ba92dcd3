//! Where a server is, as a person writes it.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The port that is meant when none is given.
const DEFAULT_PORT: u16 = 9000;

/// The longest host name, in bytes.
const MAX_HOST: usize = 253;

/// A server's host and port: `host:9000`, `192.0.2.7:9000`, `[2001:db8::7]:9000`, or without the port, which is then
/// 9000. A leading `http://` and a trailing slash are allowed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerAddress {
    host: String,
    port: u16,
}

impl ServerAddress {
    /// The server on `host`, a name or an IP address without brackets, at the control port `port`.
    ///
    /// # Errors
    /// [`InvalidAddress`] if that is no host, or the port is 0.
    pub fn new(host: impl Into<String>, port: u16) -> Result<Self, InvalidAddress> {
        let host = host.into();
        let is_host =
            |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%') || !c.is_ascii();
        if host.is_empty() || host.len() > MAX_HOST || !host.chars().all(is_host) || port == 0 {
            return Err(InvalidAddress);
        }
        Ok(Self { host, port })
    }

    /// The host name or IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The control port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for ServerAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.strip_prefix("http://").map_or(text, |rest| rest.strip_suffix('/').unwrap_or(rest));
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or(InvalidAddress)?;
                (
                    host,
                    if port.is_empty() { None } else { Some(port.strip_prefix(':').ok_or(InvalidAddress)?) },
                )
            }
            // More than one colon is an IPv6 address without brackets, which leaves no room for a port.
            None if text.matches(':').count() > 1 => {
                if has_port_without_brackets(text) {
                    return Err(InvalidAddress);
                }
                (text, None)
            }
            None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            None => DEFAULT_PORT,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| InvalidAddress)?
            }
            Some(_) => return Err(InvalidAddress),
        };
        Self::new(host, port)
    }
}

/// Whether `text` is an IPv6 address with what looks like a port after it. It may be a part of the address as well; a guess would be
/// wrong for someone.
fn has_port_without_brackets(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(address, port)| {
        address.parse::<Ipv6Addr>().is_ok() && port.bytes().all(|byte| byte.is_ascii_digit())
    })
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Text that is not a server's address.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an address is written HOST:PORT, and IPv6 in brackets: files.example:9000, [2001:db8::7]:9000")]
pub struct InvalidAddress;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, expected) in [
            ("host:9001", "host:9001"),
            ("host", "host:9000"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("[fe80::1%eth0]", "[fe80::1%eth0]:9000"),
            ("::1", "[::1]:9000"),
            ("2001:db8::7", "[2001:db8::7]:9000"),
            ("[::1:9000]", "[::1:9000]:9000"),
            ("http://host:9001/", "host:9001"),
        ] {
            assert_eq!(
                text.parse().map(|address: ServerAddress| address.to_string()),
                Ok(expected.to_owned()),
                "{text}"
            );
        }
        for text in [
            "",
            ":9000",
            "host:",
            "host:0",
            "host:65536",
            "host:+80",
            "host:9000/x",
            "a b:1",
            "[::1",
            "[::1]80",
            "http://",
            "::1:9000",
            "2001:db8::7:80",
        ] {
            assert!(text.parse::<ServerAddress>().is_err(), "{text}");
        }
    }
}
