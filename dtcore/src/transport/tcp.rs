//! A connection that carries a file's bytes, and how it ends.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::shut_down_sending;

/// The longest time that the kernel takes for an acknowledgement: an int of milliseconds, 24.8 days.
const LONGEST_WAIT: Duration = Duration::from_millis(0x7fff_ffff);

/// A connection whose incomplete data never ends like complete data.
///
/// From the beginning, closing it resets it, whoever closes it: a dropped task, or the system when the process is
/// killed. Only a complete stream is given an orderly end.
#[derive(Debug)]
pub(crate) struct TcpConnection(Arc<TcpStream>);

impl TcpConnection {
    pub(crate) fn new(socket: Arc<TcpStream>) -> Self {
        // It can fail only on a connection that is gone already.
        let _ = socket.set_zero_linger();
        Self(socket)
    }

    /// Sends a FIN behind what was sent; from here on, closing loses nothing.
    ///
    /// The system goes on responder until the client has acknowledged nothing for `stall_timeout`, or for as long as it waits
    /// by itself.
    pub(crate) fn end(&self, stall_timeout: Duration) -> io::Result<()> {
        let socket = SockRef::from(&*self.0);
        // Only advice: a stream that is complete must not end like one that is not for the lack of it.
        let _ = socket.set_tcp_user_timeout(Some(stall_timeout.min(LONGEST_WAIT)));
        socket.set_linger(None)?;
        shut_down_sending(&self.0)
    }
}

impl Deref for TcpConnection {
    type Target = TcpStream;

    fn deref(&self) -> &TcpStream {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    #[tokio::test]
    async fn only_an_ended_stream_closes_in_order() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (short, long) = (Duration::from_secs(10), Duration::from_secs(100 * 365 * 86_400));
        for (patience, expected) in
            [(short, Ok(3)), (long, Ok(3)), (short, Err(io::ErrorKind::ConnectionReset))]
        {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut client = client;
            let socket = TcpConnection::new(Arc::new(listener.accept().await.unwrap().0));
            assert_eq!(socket.try_write(b"abc").unwrap(), 3);
            if expected.is_ok() {
                socket.end(patience).unwrap();
                let longest = SockRef::from(&*socket).tcp_user_timeout().unwrap();
                assert_eq!(longest, Some(patience.min(LONGEST_WAIT)));
            }
            drop(socket);
            let read = timeout(Duration::from_secs(10), client.read_to_end(&mut Vec::new())).await.unwrap();
            assert_eq!(read.map_err(|error| error.kind()), expected);
        }
    }
}
