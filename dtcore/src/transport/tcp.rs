//! A TCP connection that is reset unless it was ended.

use std::io;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpStream;

use super::shut_down_sending;

/// The longest acknowledgement timeout that the kernel accepts: an int of milliseconds, 24.8 days.
const MAX_USER_TIMEOUT: Duration = Duration::from_millis(0x7fff_ffff);

/// A connection whose incomplete data never ends like complete data.
///
/// From the start, closing it resets it, whether a dropped task closes it or the system after the process was killed. Only
/// [`end`](Self::end) makes it close in order.
#[derive(Debug)]
pub(crate) struct TcpConnection(Arc<TcpStream>);

impl TcpConnection {
    pub(crate) fn new(socket: Arc<TcpStream>) -> Self {
        // It fails only on a connection that is broken already.
        let _ = socket.set_zero_linger();
        Self(socket)
    }

    /// Sends a FIN after the data; closing the connection afterwards loses nothing.
    ///
    /// The system continues to send until the peer has acknowledged nothing for `stall_timeout`, or for its own limit.
    pub(crate) fn end(&self, stall_timeout: Duration) -> io::Result<()> {
        let socket = SockRef::from(&*self.0);
        // Optional: without it a complete stream must still not end like an incomplete one.
        let _ = socket.set_tcp_user_timeout(Some(stall_timeout.min(MAX_USER_TIMEOUT)));
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
    async fn connection_is_reset_unless_ended() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (short, long) = (Duration::from_secs(10), Duration::from_secs(100 * 365 * 86_400));
        for (stall_timeout, expected) in
            [(short, Ok(3)), (long, Ok(3)), (short, Err(io::ErrorKind::ConnectionReset))]
        {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let socket = TcpConnection::new(Arc::new(listener.accept().await.unwrap().0));
            assert_eq!(socket.try_write(b"abc").unwrap(), 3);
            if expected.is_ok() {
                socket.end(stall_timeout).unwrap();
                let user_timeout = SockRef::from(&*socket).tcp_user_timeout().unwrap();
                assert_eq!(user_timeout, Some(stall_timeout.min(MAX_USER_TIMEOUT)));
            }
            drop(socket);
            let read = timeout(Duration::from_secs(10), client.read_to_end(&mut Vec::new())).await.unwrap();
            assert_eq!(read.map_err(|error| error.kind()), expected);
        }
    }
}
