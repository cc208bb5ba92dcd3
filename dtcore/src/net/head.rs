//! Takes the request line off a connection, before the HTTP parser sees it.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::net::TcpStream;

use crate::wire::{InvalidRequestLine, MAX_LINE, RequestLine, is_token};

/// The raw target of a request, and the bytes the HTTP parser is to see in its place.
#[derive(Debug)]
pub(crate) struct Head {
    /// The target, byte for byte as it came.
    pub(crate) target: Vec<u8>,
    /// A request line with the target `/`, and whatever was read behind the line.
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
    /// Reads until the end of the first line, at most [`MAX_LINE`] bytes of it. The caller sets the deadline.
    ///
    /// # Cancel safety
    /// What was read is lost; the connection is of no use afterwards.
    pub(crate) async fn read(socket: &TcpStream) -> Result<Self, HeadError> {
        let mut buffer = BytesMut::with_capacity(MAX_LINE);
        loop {
            socket.readable().await?;
            match socket.try_read_buf(&mut buffer) {
                Ok(0) => return Err(HeadError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            if let Some(head) = Self::split_off(&mut buffer)? {
                return Ok(head);
            }
        }
    }

    /// The head, if its line is complete.
    fn split_off(buffer: &mut BytesMut) -> Result<Option<Self>, InvalidRequestLine> {
        // RFC 9112, 2.2: an empty line before the request is ignored.
        let blank = buffer.iter().take(4).take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        let _ = buffer.split_to(blank);
        if !buffer.first().copied().is_none_or(is_token) {
            return Err(InvalidRequestLine::Malformed);
        }
        let Some(end) = buffer.iter().take(MAX_LINE).position(|byte| *byte == b'\n') else {
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
    fn what_follows_the_line_stays_as_it_is() {
        let mut buffer = BytesMut::from("\r\nPOST a b HTTP/1.1\r\nHost: x\r\n\r\n{}");
        let head = Head::split_off(&mut buffer).unwrap().unwrap();
        assert_eq!(head.target, b"a b");
        assert_eq!(head.plain, "POST / HTTP/1.1\r\nHost: x\r\n\r\n{}");
    }

    #[test]
    fn a_line_is_waited_for_only_while_it_can_be_one() {
        let mut buffer = BytesMut::from("POST /half");
        assert!(Head::split_off(&mut buffer).unwrap().is_none());
        let mut buffer = BytesMut::from("\x16\x03\x01");
        assert_eq!(Head::split_off(&mut buffer).unwrap_err(), InvalidRequestLine::Malformed);
        let mut buffer = BytesMut::from(vec![b'x'; MAX_LINE].as_slice());
        assert_eq!(Head::split_off(&mut buffer).unwrap_err(), InvalidRequestLine::TooLong);
    }
}
