//! Moves a file's bytes into a connection: by `sendfile`, or by reading and writing where that is not possible or slower.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::event::StreamFailure;
use super::local;
use super::write::WriteWait;
use crate::backend::Object;
use crate::manifest::ByteRange;
use crate::num::{to_u64, to_usize};
use crate::sys::{MappedRange, PieceReader};
use crate::transport::Connection;

/// Sends a part of a file, in order.
#[derive(Debug)]
pub(crate) struct BodySender<'a> {
    source: &'a Arc<dyn Object>,
    connection: &'a Connection,
    /// What is not sent yet.
    rest: ByteRange,
    method: Method,
    /// What is mapped of the file.
    mapped: Option<MappedRange>,
    stall_timeout: Duration,
    wait: WriteWait,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Method {
    /// The kernel moves the bytes.
    SendFile,
    /// The receiver is on this machine: the bytes are copied from a mapping.
    Local,
    /// The bytes go through this process; these were read and not sent yet.
    Copy(Bytes),
}

impl<'a> BodySender<'a> {
    pub(crate) fn new(
        source: &'a Arc<dyn Object>,
        connection: &'a Connection,
        range: ByteRange,
        stall_timeout: Duration,
    ) -> Self {
        let method = match (source.as_fd(), connection.as_fd()) {
            (Some(_), Some(_)) if connection.is_local() && !source.is_sparse() => Method::Local,
            (Some(_), Some(_)) => Method::SendFile,
            _ => Method::Copy(Bytes::new()),
        };
        let wait = WriteWait::new(stall_timeout);
        Self { source, connection, rest: range, method, mapped: None, stall_timeout, wait }
    }

    /// The offset of the first byte that is not sent yet.
    pub(crate) fn position(&self) -> u64 {
        self.rest.start()
    }

    /// Sends as much as the connection accepts at once, not beyond `end`; returns how many bytes, at least one.
    ///
    /// # Errors
    /// [`StreamFailure`] if the connection accepts nothing for the stall timeout or is gone, or if the file ends
    /// before `end` or cannot be read.
    pub(crate) async fn send(&mut self, end: u64) -> Result<u64, StreamFailure> {
        loop {
            self.ready(end).await?;
            if let Some(n) = self.send_now(end)? {
                return Ok(n);
            }
        }
    }

    /// Waits until the connection accepts bytes, and where they must be copied, until some were read.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn ready(&mut self, end: u64) -> Result<(), StreamFailure> {
        if matches!(&self.method, Method::Copy(bytes) if bytes.is_empty()) {
            self.method = Method::Copy(read(self.source, self.next(end), self.stall_timeout).await?);
        }
        self.wait.ready(self.connection).await
    }

    /// Sends without waiting; `None` if the connection accepts nothing now, or the method has changed: wait, and try again.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn send_now(&mut self, end: u64) -> Result<Option<u64>, StreamFailure> {
        let range = self.next(end);
        let sent = match &mut self.method {
            Method::SendFile | Method::Local => self.send_file(range)?,
            Method::Copy(bytes) => {
                match self.wait.attempt(self.connection, || self.connection.send(bytes, false)) {
                    Ok(n) => {
                        bytes.advance(n);
                        Some(to_u64(n))
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                    Err(_) => return Err(StreamFailure::Disconnected),
                }
            }
        };
        if let Some(n) = sent {
            self.rest = ByteRange::new(self.rest.start() + n, self.rest.end());
        }
        Ok(sent)
    }

    /// What is not sent yet of the part before `end`.
    fn next(&self, end: u64) -> ByteRange {
        ByteRange::new(self.rest.start(), end.min(self.rest.end()))
    }

    fn send_file(&mut self, range: ByteRange) -> Result<Option<u64>, StreamFailure> {
        let (Some(file), Some(socket)) = (self.source.as_fd(), self.connection.as_fd()) else {
            self.method = Method::Copy(Bytes::new());
            return Ok(None);
        };
        let (method, mapped) = (&self.method, &mut self.mapped);
        let mut offset = range.start();
        let send = || {
            if *method == Method::Local {
                return local::send(file, range, socket, mapped);
            }
            let sending = || rustix::fs::sendfile(socket, file, Some(&mut offset), to_usize(range.len()));
            rustix::io::retry_on_intr(sending).map_err(io::Error::from)
        };
        match self.wait.attempt(self.connection, send) {
            // The file is shorter than when it was opened.
            Ok(0) => Err(StreamFailure::SourceChanged),
            Ok(n) => Ok(Some(to_u64(n))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => match Errno::from_io_error(&error) {
                // The file system cannot map; or the file was truncated after it was mapped, or cannot be read, and then the other
                // method knows which.
                Some(Errno::NODEV | Errno::ACCESS | Errno::NOMEM | Errno::FAULT)
                    if self.method == Method::Local =>
                {
                    self.method = Method::SendFile;
                    Ok(None)
                }
                // The file system has no splice, or a sandbox no sendfile; that does not change.
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.method = Method::Copy(Bytes::new());
                    Ok(None)
                }
                Some(Errno::IO | Errno::STALE | Errno::OVERFLOW | Errno::NOMEM) => {
                    Err(StreamFailure::SourceUnreadable)
                }
                _ => Err(StreamFailure::Disconnected),
            },
        }
    }
}

/// Reads the beginning of `range`, on a thread that may block.
async fn read(
    source: &Arc<dyn Object>,
    range: ByteRange,
    stall_timeout: Duration,
) -> Result<Bytes, StreamFailure> {
    let source = Arc::clone(source);
    let reading = spawn_blocking(move || {
        let mut pieces = PieceReader::new(range, |buffer, offset| source.read_at(buffer, offset));
        let mut buffer = pieces.buffer();
        let n = pieces.next(&mut buffer)?.len();
        buffer.truncate(n);
        Ok::<_, io::Error>(Bytes::from(buffer))
    });
    match timeout(stall_timeout, reading).await {
        Ok(Ok(Ok(bytes))) if bytes.is_empty() => Err(StreamFailure::SourceChanged),
        Ok(Ok(Ok(bytes))) => Ok(bytes),
        Ok(_) | Err(_) => Err(StreamFailure::SourceUnreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fs::SourceFile;
    use std::fs::File;
    use std::io::Write;
    use tokio::io::AsyncReadExt;
    use tokio::net::{TcpListener, TcpStream};

    const TIMEOUT: Duration = Duration::from_secs(10);

    /// What a client receives of `file`, and how it was sent or why it was not.
    async fn sent(file: File, range: ByteRange, method: Method) -> (Vec<u8>, Result<Method, StreamFailure>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = listener.accept().await.unwrap().0;
        let source: Arc<dyn Object> = Arc::new(SourceFile::new(file).unwrap());
        let sending = async move {
            let connection = Connection::tcp(Arc::new(socket));
            let mut body = BodySender { method, ..BodySender::new(&source, &connection, range, TIMEOUT) };
            let result = loop {
                if body.rest.is_empty() {
                    break Ok(());
                }
                // Ends that fall between and within the pieces that are read.
                if let Err(failure) = body.send(body.rest.start() + 300_000).await {
                    break Err(failure);
                }
            };
            let method = body.method;
            connection.finish(TIMEOUT).unwrap();
            result.map(|()| method)
        };
        let mut bytes = Vec::new();
        let (method, read) = tokio::join!(sending, client.read_to_end(&mut bytes));
        read.unwrap();
        (bytes, method)
    }

    fn file(len: usize) -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    #[tokio::test]
    async fn both_methods_send_the_same_bytes() {
        for method in [Method::SendFile, Method::Local, Method::Copy(Bytes::new())] {
            let (file, content) = file(5_000_000);
            let (bytes, kept) = sent(file, ByteRange::new(7, 4_999_999), method.clone()).await;
            assert!(bytes == content[7..4_999_999], "{method:?}");
            assert_eq!(kept, Ok(method));
        }
    }

    #[tokio::test]
    async fn file_without_splice_is_copied() {
        // Since Linux 5.10 such files can only be read: sendfile fails with EINVAL.
        let path = "/proc/self/limits";
        let content = std::fs::read(path).unwrap();
        let range = ByteRange::new(0, u64::try_from(content.len()).unwrap());
        let (bytes, method) = sent(File::open(path).unwrap(), range, Method::SendFile).await;
        assert_eq!((bytes, method.is_ok()), (content, true));
    }

    #[tokio::test]
    async fn file_that_is_too_short_has_changed() {
        for method in [Method::SendFile, Method::Local, Method::Copy(Bytes::new())] {
            let (file, content) = file(1000);
            let (bytes, end) = sent(file, ByteRange::new(0, 1001), method).await;
            assert_eq!((bytes, end), (content, Err(StreamFailure::SourceChanged)));
        }
    }
}
