//! Takes the request line off a connection, before the HTTP parser sees it.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::proto::{InvalidRequestLine, MAX_LINE, RequestLine, is_token};
use crate::transport::read_when_ready;

/// The raw target of a request, and the bytes the HTTP parser is to see in its place.
#[derive(Debug)]
pub(crate) struct Head {
    /// The target, byte for byte as it was received.
    pub(crate) target: Vec<u8>,
    /// A request line with the target `/`, and the bytes that were read after the line.
    pub(crate) plain: Bytes,
}

/// Why there is no request on a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// The peer closed before it had sent a line.
    #[error("the connection ended before a request")]
    Closed,
    #[error(transparent)]
    Invalid(#[from] InvalidRequestLine),
    #[error("the connection broke")]
    Broken(#[from] io::Error),
}

impl Head {
    /// Reads until the end of the first line, at most [`MAX_LINE`] bytes of it; `buffer` was read before. The caller sets the
    /// deadline.
    ///
    /// # Cancel safety
    /// What was read is lost; the connection cannot be used afterwards.
    pub(crate) async fn read(socket: &TcpStream, mut buffer: BytesMut) -> Result<Self, HeadError> {
        let mut searched = 0;
        loop {
            if let Some(head) = Self::split_off(&mut buffer, &mut searched)? {
                return Ok(head);
            }
            let read = read_when_ready(socket, || {
                buffer.reserve(MAX_LINE);
                socket.try_read_buf(&mut buffer)
            });
            if read.await? == 0 {
                return Err(HeadError::Closed);
            }
        }
    }

    /// The head, if its line is complete; its end is searched after the bytes that were `searched` before.
    fn split_off(buffer: &mut BytesMut, searched: &mut usize) -> Result<Option<Self>, InvalidRequestLine> {
        // RFC 9112, 2.2: an empty line before the request is ignored.
        let blank = buffer.iter().take(4).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let _ = buffer.split_to(blank);
        *searched = searched.saturating_sub(blank);
        if !buffer.first().copied().is_none_or(is_token) {
            return Err(InvalidRequestLine::Malformed);
        }
        let mut unsearched = buffer.iter().enumerate().take(MAX_LINE).skip(*searched);
        let Some((end, _)) = unsearched.find(|(_, byte)| **byte == b'\n') else {
            *searched = buffer.len();
            return if buffer.len() < MAX_LINE { Ok(None) } else { Err(InvalidRequestLine::TooLong) };
        };
        let line = buffer.split_to(end + 1);
        let line = RequestLine::parse(&line)?;
        let mut plain = BytesMut::from(line.with_plain_target().as_slice());
        plain.extend_from_slice(buffer);
        Ok(Some(Self { target: line.target().to_vec(), plain: plain.freeze() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_after_the_line_are_unchanged() {
        let mut buffer = BytesMut::from("\r\nPOST a b HTTP/1.1\r\nHost: x\r\n\r\n{}");
        let head = Head::split_off(&mut buffer, &mut 0).unwrap().unwrap();
        assert_eq!(head.target, b"a b");
        assert_eq!(head.plain, "POST / HTTP/1.1\r\nHost: x\r\n\r\n{}");
    }

    #[test]
    fn line_that_cannot_become_valid_is_rejected_early() {
        let mut buffer = BytesMut::from("POST /half");
        assert!(Head::split_off(&mut buffer, &mut 0).unwrap().is_none());
        let mut buffer = BytesMut::from("\x16\x03\x01");
        assert_eq!(Head::split_off(&mut buffer, &mut 0).unwrap_err(), InvalidRequestLine::Malformed);
        let mut buffer = BytesMut::from(vec![b'x'; MAX_LINE].as_slice());
        assert_eq!(Head::split_off(&mut buffer, &mut 0).unwrap_err(), InvalidRequestLine::TooLong);
    }

    #[test]
    fn line_in_any_pieces_is_searched_once() {
        let text = b"\r\nPOST a b HTTP/1.1\r\nHost: x\r\n";
        let (mut buffer, mut searched) = (BytesMut::new(), 0);
        let line = text.len() - b"Host: x\r\n".len();
        for n in 1..line {
            buffer.extend_from_slice(&text[n - 1..n]);
            assert!(Head::split_off(&mut buffer, &mut searched).unwrap().is_none());
            assert_eq!(searched, buffer.len());
        }
        buffer.extend_from_slice(&text[line - 1..]);
        let head = Head::split_off(&mut buffer, &mut searched).unwrap().unwrap();
        assert_eq!(
            (head.target.as_slice(), &*head.plain),
            (&b"a b"[..], &b"POST / HTTP/1.1\r\nHost: x\r\n"[..])
        );
    }
}
