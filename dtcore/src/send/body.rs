//! The way of a file's bytes into a connection: `sendfile`, or reading and writing where the file system lacks it.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::backend::Object;
use crate::manifest::ByteRange;
use crate::server::event::StreamFailure;
use crate::sys::PieceReader;

/// Sends a part of a file, from its beginning on.
#[derive(Debug)]
pub(crate) struct BodySender<'a> {
    source: &'a Arc<dyn Object>,
    socket: &'a TcpStream,
    /// What is not sent yet.
    rest: ByteRange,
    way: Way,
    stall_timeout: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Way {
    /// The kernel moves the bytes.
    SendFile,
    /// The bytes go through this process; these were read and not sent yet.
    Copy(Bytes),
}

impl<'a> BodySender<'a> {
    pub(crate) fn new(
        source: &'a Arc<dyn Object>,
        socket: &'a TcpStream,
        range: ByteRange,
        stall_timeout: Duration,
    ) -> Self {
        Self { source, socket, rest: range, way: Way::SendFile, stall_timeout }
    }

    /// The offset of the first byte that is not sent yet.
    pub(crate) fn position(&self) -> u64 {
        self.rest.start()
    }

    /// Sends as much as the connection takes at once, not beyond `end`; returns how many bytes, at least one.
    ///
    /// # Errors
    /// [`StreamFailure`] if the connection takes nothing for the stall timeout or is gone, or if the file ends
    /// before `end` or cannot be read.
    pub(crate) async fn send(&mut self, end: u64) -> Result<u64, StreamFailure> {
        loop {
            self.ready(end).await?;
            if let Some(n) = self.send_now(end)? {
                return Ok(n);
            }
        }
    }

    /// Waits until the connection takes bytes, and until there are some where the file must be read first.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn ready(&mut self, end: u64) -> Result<(), StreamFailure> {
        if matches!(&self.way, Way::Copy(bytes) if bytes.is_empty()) {
            self.way = Way::Copy(read(self.source, self.next(end), self.stall_timeout).await?);
        }
        let writable = timeout(self.stall_timeout, self.socket.writable()).await;
        writable.map_err(|_| StreamFailure::Stalled)?.map_err(|_| StreamFailure::Disconnected)
    }

    /// Sends without waiting; `None` if the connection takes nothing now, or the way has changed: wait, and try again.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) fn send_now(&mut self, end: u64) -> Result<Option<u64>, StreamFailure> {
        let range = self.next(end);
        let sent = match &mut self.way {
            Way::SendFile => self.send_file(range)?,
            Way::Copy(bytes) => match self.socket.try_write(bytes) {
                Ok(n) => {
                    bytes.advance(n);
                    Some(u64::try_from(n).unwrap_or(0))
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(_) => return Err(StreamFailure::Disconnected),
            },
        };
        let start = self.rest.start().saturating_add(sent.unwrap_or(0));
        self.rest = ByteRange::new(start, self.rest.end());
        Ok(sent)
    }

    /// What is not sent yet of what comes before `end`.
    fn next(&self, end: u64) -> ByteRange {
        ByteRange::new(self.rest.start(), end.min(self.rest.end()))
    }

    fn send_file(&mut self, range: ByteRange) -> Result<Option<u64>, StreamFailure> {
        let Some(file) = self.source.as_fd() else {
            self.way = Way::Copy(Bytes::new());
            return Ok(None);
        };
        let count = usize::try_from(range.len()).unwrap_or(usize::MAX);
        let result = self.socket.try_io(Interest::WRITABLE, || {
            let mut offset = range.start();
            let result = rustix::io::retry_on_intr(|| {
                rustix::fs::sendfile(self.socket.as_fd(), file, Some(&mut offset), count)
            });
            result.map_err(io::Error::from)
        });
        match result {
            // The file is shorter than when its digest was told.
            Ok(0) => Err(StreamFailure::SourceChanged),
            Ok(n) => Ok(Some(u64::try_from(n).unwrap_or(0))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => match Errno::from_io_error(&error) {
                // The file system has no splice, or a sandbox no sendfile: once is enough to know.
                Some(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    self.way = Way::Copy(Bytes::new());
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

/// Reads the beginning of `range`, on a thread that may wait for a disk.
async fn read(
    source: &Arc<dyn Object>,
    range: ByteRange,
    patience: Duration,
) -> Result<Bytes, StreamFailure> {
    let source = Arc::clone(source);
    let reading = spawn_blocking(move || {
        let mut pieces = PieceReader::new(range, |buffer, offset| source.read_at(buffer, offset));
        let mut buffer = pieces.buffer();
        let n = pieces.next(&mut buffer)?.len();
        buffer.truncate(n);
        Ok::<_, io::Error>(Bytes::from(buffer))
    });
    match timeout(patience, reading).await {
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
    use tokio::net::TcpListener;

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What a client receives of `file`, and how it was sent or why it was not.
    async fn sent(file: File, range: ByteRange, way: Way) -> (Vec<u8>, Result<Way, StreamFailure>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = listener.accept().await.unwrap().0;
        let source: Arc<dyn Object> = Arc::new(SourceFile::new(file).unwrap());
        let responder = async move {
            let mut body_sender = BodySender { way, ..BodySender::new(&source, &socket, range, PATIENCE) };
            while !body_sender.rest.is_empty() {
                // Ends that fall between and within the pieces that are read.
                body_sender.send(body_sender.rest.start().saturating_add(300_000)).await?;
            }
            Ok(body_sender.way)
        };
        let mut bytes = Vec::new();
        let (way, read) = tokio::join!(responder, client.read_to_end(&mut bytes));
        read.unwrap();
        (bytes, way)
    }

    fn file(len: usize) -> (File, Vec<u8>) {
        let content: Vec<u8> = (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (file, content)
    }

    #[tokio::test]
    async fn both_ways_send_the_same_bytes() {
        for way in [Way::SendFile, Way::Copy(Bytes::new())] {
            let (file, content) = file(5_000_000);
            let (bytes, kept) = sent(file, ByteRange::new(7, 4_999_999), way.clone()).await;
            assert!(bytes == content[7..4_999_999], "{way:?}");
            assert_eq!(kept, Ok(way));
        }
    }

    #[tokio::test]
    async fn a_file_without_splice_is_copied() {
        // Since Linux 5.10 such files can only be read: sendfile says EINVAL.
        let path = "/proc/self/limits";
        let content = std::fs::read(path).unwrap();
        let range = ByteRange::new(0, u64::try_from(content.len()).unwrap());
        let (bytes, way) = sent(File::open(path).unwrap(), range, Way::SendFile).await;
        assert_eq!((bytes, way.is_ok()), (content, true));
    }

    #[tokio::test]
    async fn a_file_that_is_too_short_has_changed() {
        for way in [Way::SendFile, Way::Copy(Bytes::new())] {
            let (file, content) = file(1000);
            let (bytes, end) = sent(file, ByteRange::new(0, 1001), way).await;
            assert_eq!((bytes, end), (content, Err(StreamFailure::SourceChanged)));
        }
    }
}
