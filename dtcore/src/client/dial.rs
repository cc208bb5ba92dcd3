//! Dials a stream: straight to the server, or with an upgrade where a reverse proxy reads HTTP.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::proto::v2;
use crate::transport::prepared;

/// The largest head of the answer to an upgrade, in bytes.
const MAX_HEAD: usize = 4 << 10;

/// The most header lines of that answer.
const MAX_HEADERS: usize = 32;

/// How a connection becomes a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum StreamRoute {
    /// It begins with the hello.
    Direct,
    /// It begins with HTTP, which is left by an upgrade: something in between reads HTTP.
    Upgrade,
}

/// Connects a stream, ready for its hello, within `limit`; returns it with the time that this took.
///
/// # Errors
/// What the system said, [`io::ErrorKind::TimedOut`], [`io::ErrorKind::InvalidData`] if the peer does not leave HTTP, or
/// [`io::ErrorKind::ResourceBusy`] if it does, but not now.
///
/// # Cancel safety
/// A connection that was being made is closed.
pub(crate) async fn dial(
    address: SocketAddr,
    route: StreamRoute,
    limit: Duration,
) -> io::Result<(TcpStream, Duration)> {
    let begun = Instant::now();
    let connecting = async {
        let mut stream = prepared(TcpStream::connect(address).await?)?;
        match route {
            StreamRoute::Direct => {}
            StreamRoute::Upgrade => upgrade(&mut stream, address).await?,
        }
        Ok((stream, begun.elapsed()))
    };
    timeout(limit, connecting).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

async fn upgrade(stream: &mut TcpStream, host: SocketAddr) -> io::Result<()> {
    let request =
        format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {}\r\n\r\n", v2::UPGRADE);
    stream.write_all(request.as_bytes()).await?;
    let refused = || io::Error::new(io::ErrorKind::InvalidData, "a proxy in between does not carry streams");
    let busy = || {
        io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the server, or a proxy before it, has no capacity for another stream now",
        )
    };
    let mut head = Vec::with_capacity(512);
    loop {
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&head) {
            // The server sends nothing before the hello, so nothing can follow the head.
            Ok(httparse::Status::Complete(len)) if response.code == Some(101) && len == head.len() => {
                return Ok(());
            }
            // The server restarts or has too many connections, which passes.
            Ok(httparse::Status::Complete(_)) if matches!(response.code, Some(429 | 502..=504)) => {
                return Err(busy());
            }
            Ok(httparse::Status::Partial) if head.len() <= MAX_HEAD => {}
            Ok(_) | Err(_) => return Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn dialled(answer: &'static str) -> io::Result<TcpStream> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let mut socket = listener.accept().await.unwrap().0;
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                socket.read_buf(&mut request).await.unwrap();
            }
            socket.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let stream = dial(address, StreamRoute::Upgrade, PATIENCE).await;
        let request = serving.await.unwrap();
        assert!(
            request.starts_with("GET / HTTP/1.1\r\n") && request.contains("Upgrade: dt2\r\n"),
            "{request}"
        );
        stream.map(|(stream, _)| stream)
    }

    #[tokio::test]
    async fn only_a_switch_of_protocols_makes_a_stream() {
        let good = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: dt2\r\n\r\n";
        assert!(dialled(good).await.is_ok());
        for answer in
            ["HTTP/1.1 501 Not Implemented\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 101 x\r\n\r\nmore"]
        {
            let error = dialled(answer).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{answer}");
        }
        for busy in [
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 502 Bad Gateway\r\n\r\n",
        ] {
            assert_eq!(dialled(busy).await.unwrap_err().kind(), io::ErrorKind::ResourceBusy, "{busy}");
        }
        assert_eq!(dialled("HTTP/1.1 101").await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
