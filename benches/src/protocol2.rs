//! As much of protocol 2 as it takes to hold streams open: asking for a session, and greeting.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::Failure;

/// A session that a server granted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// Where its streams go.
    pub port: u16,
    id: u64,
    secret: Vec<u8>,
}

impl Session {
    /// Asks the server at `address` for a session of so many streams.
    ///
    /// # Errors
    /// If the server cannot be asked, refuses, or does not speak protocol 2.
    pub fn ask(address: &str, file: &str, threads: u8) -> Result<Self, Failure> {
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(Duration::from_secs(60)))?;
        let body = json!({ "protocol": 2, "threads": threads }).to_string();
        let length = body.len();
        // In one piece: the server may answer and close as soon as it has all of it.
        let head = format!("POST /{file} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n");
        connection.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Self::read(&answer)
    }

    /// From the whole answer.
    ///
    /// # Errors
    /// If it grants no session of protocol 2.
    pub fn read(answer: &str) -> Result<Self, Failure> {
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer has no body")?;
        let status = head.lines().next().unwrap_or_default();
        if !status.contains(" 200") {
            return Err(format!("the server answers {status:?}: {body}").into());
        }
        let answer: Value = serde_json::from_str(body)?;
        if answer.get("protocol").and_then(Value::as_u64) != Some(2) {
            return Err("the server does not speak protocol 2".into());
        }
        let text = |key: &str| answer.get(key).and_then(Value::as_str);
        let (port, id, secret) =
            (answer.get("port").and_then(Value::as_u64), text("session"), text("secret"));
        let (Some(port), Some(id), Some(secret)) = (port, id, secret) else {
            return Err(format!("the answer lacks something: {body}").into());
        };
        Ok(Self {
            port: u16::try_from(port)?,
            id: u64::from_str_radix(id, 16)?,
            secret: octets(secret).ok_or("the secret is not hexadecimal")?,
        })
    }

    /// The first bytes of a stream.
    pub fn greeting(&self, stream: u8) -> Vec<u8> {
        let mut bytes = vec![stream];
        bytes.extend(&self.secret);
        bytes.extend(self.id.to_le_bytes());
        bytes.extend([2, 0, 0]);
        bytes
    }

    /// Opens and greets one stream.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn open(&self, server: SocketAddr, stream: u8) -> io::Result<TcpStream> {
        let mut connection = TcpStream::connect((server.ip(), self.port))?;
        connection.write_all(&self.greeting(stream))?;
        Ok(connection)
    }
}

/// Whether the other side has neither closed the stream nor said a thing.
pub fn is_idle(stream: &TcpStream) -> bool {
    let peeked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut [0]));
    matches!(peeked, Err(error) if error.kind() == ErrorKind::WouldBlock)
}

fn octets(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_granted_session_is_greeted_as_the_protocol_says() {
        let answer = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n{\"protocol\": 2, \"port\": 7, \
            \"session\": \"00000000000000a7\", \"secret\": \"000102030405060708090a0b0c0d0eff\"}";
        let session = Session::read(answer).unwrap();
        let expected =
            [&[5, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255, 0xa7][..], &[0; 7], &[2, 0, 0]];
        assert_eq!(session.greeting(5), expected.concat());
        assert_eq!(session.port, 7);
    }

    #[test]
    fn an_answer_of_protocol_1_is_none_of_2() {
        let answer = "HTTP/1.1 200 OK\r\n\r\n{\"hash\": \"00\", \"port\": 7}";
        let error = Session::read(answer).unwrap_err().to_string();
        assert!(error.contains("protocol 2"), "{error}");
    }
}
