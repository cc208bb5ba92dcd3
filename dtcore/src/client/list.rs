//! Listings: the entries of a remote directory, as a stream.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::{Buf, BytesMut};
use futures_util::Stream;
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::answer;
use super::options::Options;
use super::runtime::Threads;
use crate::error::TransferError;
use crate::failure::{Awaited, Failure};
use crate::proto::{EntryKind, LIST_HEADER, LISTING, ListLine, ListedEntry, MAX_LIST_LINE, TARGET_HEADER};
use crate::sink::{nanoseconds, system_time};
use crate::transport::connect;

/// How many entries wait for a slow reader.
const QUEUED: usize = 1024;

/// How much is read at once.
const READ: usize = 64 << 10;

/// The bytes of a name that are escaped in the request.
const ESCAPED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'?').add(b'#');

/// An entry of a remote directory.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Entry {
    /// The path relative to the directory that is listed. It stays below it: no root, no `..`.
    pub path: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// The size of a file in bytes; 0 for everything else.
    pub size: u64,
    /// The modification time.
    pub modified: SystemTime,
    /// The permission bits.
    pub mode: u32,
    /// Where a symbolic link leads, as it says itself.
    pub target: Option<PathBuf>,
}

/// An item of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ListItem {
    /// An entry.
    Entry(Entry),
    /// Something that the server cannot read. The rest is listed.
    Unreadable {
        /// Its path.
        path: PathBuf,
        /// Why, for people.
        reason: String,
    },
}

/// A directory to list.
///
/// ```no_run
/// # async fn example(client: dtcore::Client) -> Result<(), dtcore::TransferError> {
/// use dtcore::ListItem;
/// let mut listing = client.list("isos").recursive(true).start();
/// while let Some(item) = listing.next().await {
///     if let ListItem::Entry(entry) = item? {
///         println!("{} {}", entry.path.display(), entry.size);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a listing does nothing until it is started"]
pub struct List {
    options: Options,
    recursive: bool,
    hidden: bool,
    threads: Threads,
}

impl List {
    pub(super) fn new(name: OsString, options: Options, threads: Threads) -> Self {
        Self { options: Options { name, ..options }, recursive: false, hidden: false, threads }
    }

    /// Whether the directories in it are listed too, and what is in them; not by default.
    pub fn recursive(mut self, recursive: bool) -> Self {
        self.recursive = recursive;
        self
    }

    /// Whether names that begin with a dot are listed, and files that transfers leave beside their outputs; not by default.
    pub fn hidden(mut self, hidden: bool) -> Self {
        self.hidden = hidden;
        self
    }

    /// Starts it. Entries arrive in the order of their names' bytes, each directory before what is in it.
    ///
    /// The server sends no faster than they are read, so a listing of any length takes little memory.
    pub fn start(self) -> Listing {
        let Self { options, recursive, hidden, threads } = self;
        let (sender, items) = mpsc::channel(QUEUED);
        threads.spawn(async move {
            let result = tokio::select! {
                () = sender.closed() => return,
                result = run(&options, recursive, hidden, &sender) => result,
            };
            if let Err(failure) = result {
                // An error only says that nobody reads any more.
                let _ = sender.send(Err(failure.into())).await;
            }
        });
        Listing(items)
    }
}

/// The items of a listing. A [`Stream`], besides [`next`](Self::next); dropping it ends the listing.
#[derive(Debug)]
pub struct Listing(mpsc::Receiver<Result<ListItem, TransferError>>);

impl Listing {
    /// The next item; `None` after the last one. An error is the last item.
    ///
    /// # Errors
    /// As for a download; [`ErrorKind::Forbidden`](crate::ErrorKind::Forbidden) if the server lists nothing,
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if there is no such directory.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<ListItem, TransferError>> {
        self.0.recv().await
    }
}

impl Stream for Listing {
    type Item = Result<ListItem, TransferError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Requests the listing and sends its items.
pub(super) async fn run(
    options: &Options,
    recursive: bool,
    hidden: bool,
    items: &mpsc::Sender<Result<ListItem, TransferError>>,
) -> Result<(), Failure> {
    let server = options.server.to_string();
    let (host, port) = (options.server.host(), options.server.port());
    let mut stream = connect(host, port, &server, options.connect_timeout, &[]).await?.stream;
    let lost = |source| Failure::ConnectionLost { server: server.clone(), stream: None, received: 0, source };
    stream
        .write_all(request(options, recursive, hidden).as_bytes())
        .await
        .map_err(|error| lost(Some(error)))?;
    let mut lines =
        Lines { received: BytesMut::new(), body: BytesMut::new(), chunk: None, is_chunked: false };
    let limit = options.settings.stall_timeout;
    let mut has_head = false;
    loop {
        if !has_head {
            has_head = lines.take_head(options)?;
        }
        if has_head {
            while let Some(line) = lines.next_line().map_err(|what| invalid(&server, what))? {
                match item(&line).map_err(|what| invalid(&server, what))? {
                    Some(item) => {
                        // Without a reader the task is about to end.
                        let _ = items.send(Ok(item)).await;
                    }
                    None => return Ok(()),
                }
            }
        }
        let read =
            timeout(limit, stream.read_buf(&mut lines.received)).await.map_err(|_| Failure::TimedOut {
                server: server.clone(),
                awaited: if has_head { Awaited::Data } else { Awaited::Response },
                waited: limit,
            })?;
        match read {
            Ok(0) => return Err(lost(None)),
            Ok(_) => {}
            Err(error) => return Err(lost(Some(error))),
        }
    }
}

fn invalid(server: &str, what: &str) -> Failure {
    Failure::Protocol { server: server.to_owned(), what: what.to_owned() }
}

fn request(options: &Options, recursive: bool, hidden: bool) -> String {
    let name = options.name.as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let wanted = match (recursive, hidden) {
        (true, true) => "recursive, hidden",
        (true, false) => "recursive",
        (false, true) => "hidden",
        (false, false) => "",
    };
    format!(
        "GET /{} HTTP/1.1\r\nHost: {}\r\nAccept: {LISTING}\r\nAccept-Encoding: identity\r\n{TARGET_HEADER}: \
         percent-encoded\r\n{LIST_HEADER}: {wanted}\r\nConnection: close\r\n\r\n",
        percent_encode(name, ESCAPED),
        options.server,
    )
}

/// The item of a line; `None` at the end.
fn item(line: &[u8]) -> Result<Option<ListItem>, &'static str> {
    let path = |bytes: Vec<u8>| PathBuf::from(OsString::from_vec(bytes));
    Ok(match ListLine::decode(line).map_err(|_| "invalid line in its listing")? {
        ListLine::Entry(ListedEntry { path: name, kind, size, modified, mode, target }) => {
            let modified = system_time(modified);
            let target = target.map(path);
            Some(ListItem::Entry(Entry { path: path(name), kind, size, modified, mode, target }))
        }
        ListLine::Unreadable(name, reason) | ListLine::NotPacked(name, reason) => {
            Some(ListItem::Unreadable { path: path(name), reason })
        }
        ListLine::End(_) => None,
    })
}

/// The lines of an answer, as far as they have arrived.
#[derive(Debug)]
struct Lines {
    /// What was read and not looked at.
    received: BytesMut,
    /// What of the body is in no line yet.
    body: BytesMut,
    /// What is missing of the current chunk, with the two bytes after it.
    chunk: Option<usize>,
    is_chunked: bool,
}

impl Lines {
    /// Takes the head of the answer, if it is complete.
    fn take_head(&mut self, options: &Options) -> Result<bool, Failure> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Response::new(&mut headers);
        let server = options.server.to_string();
        let len = match head.parse(&self.received) {
            Ok(httparse::Status::Partial) if self.received.len() <= answer::MAX_HEAD => return Ok(false),
            parsed => answer::head_len(&server, &self.received, parsed)?,
        };
        let is_listing = head.code == Some(200)
            && answer::header(head.headers, "content-type").is_some_and(|kind| kind.starts_with(LISTING));
        if !is_listing {
            return answer::list_refusal(&server, &options.name, &self.received);
        }
        self.is_chunked = answer::header(head.headers, "transfer-encoding")
            .is_some_and(|encoding| encoding.eq_ignore_ascii_case("chunked"));
        self.received.advance(len);
        Ok(true)
    }

    /// The next line, without its end, if it is complete.
    fn next_line(&mut self) -> Result<Option<BytesMut>, &'static str> {
        loop {
            if let Some(end) = self.body.iter().position(|byte| *byte == b'\n') {
                let mut line = self.body.split_to(end + 1);
                line.truncate(end);
                return Ok(Some(line));
            }
            if self.body.len() > MAX_LIST_LINE {
                return Err("a line of its listing is too long");
            }
            if !self.take_body()? {
                return Ok(None);
            }
        }
    }

    /// Moves what has arrived of the body; `false` if nothing has.
    fn take_body(&mut self) -> Result<bool, &'static str> {
        if !self.is_chunked {
            let arrived = self.received.split();
            self.body.extend_from_slice(&arrived);
            return Ok(!arrived.is_empty());
        }
        let Some(rest) = self.chunk else {
            return match httparse::parse_chunk_size(&self.received) {
                Ok(httparse::Status::Complete((len, size))) => {
                    self.received.advance(len);
                    let size = usize::try_from(size).map_err(|_| "a chunk of its listing is too long")?;
                    self.chunk = Some(size + 2);
                    Ok(size > 0)
                }
                Ok(httparse::Status::Partial) => Ok(false),
                Err(_) => Err("its listing is not chunked as HTTP requires"),
            };
        };
        let n = rest.min(self.received.len()).min(READ);
        let data = n.min(rest.saturating_sub(2));
        self.body.extend_from_slice(self.received.get(..data).unwrap_or_default());
        self.received.advance(n);
        self.chunk = Some(rest - n).filter(|rest| *rest > 0);
        Ok(n > 0)
    }
}

impl Entry {
    /// The modification time in nanoseconds since 1970.
    pub(crate) fn modified_nanos(&self) -> i64 {
        nanoseconds(self.modified)
    }

    /// The last part of the path.
    pub fn name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v2::{ErrorCode, Response};

    fn lines(received: &str, cut: usize, is_chunked: bool) -> Vec<String> {
        let mut lines = Lines { received: BytesMut::new(), body: BytesMut::new(), chunk: None, is_chunked };
        let mut all = Vec::new();
        for piece in received.as_bytes().chunks(cut) {
            lines.received.extend_from_slice(piece);
            while let Some(line) = lines.next_line().unwrap() {
                all.push(String::from_utf8(line.to_vec()).unwrap());
            }
        }
        all
    }

    #[test]
    fn lines_arrive_in_any_pieces() {
        let chunked = "3\r\nab\n\r\n7;x=y\r\ncd\nef\ng\r\n2\r\nh\n\r\n0\r\n\r\n";
        for cut in 1..chunked.len() {
            assert_eq!(lines(chunked, cut, true), ["ab", "cd", "ef", "gh"], "{cut}");
            assert_eq!(lines("ab\ncd\nef", cut, false), ["ab", "cd"], "{cut}");
        }
    }

    #[test]
    fn full_server_is_busy_and_no_stranger() {
        let options = Options::new("host:1".parse().unwrap());
        let refusal = Response::refusal(ErrorCode::Busy, "too many connections");
        let mut lines =
            Lines { received: refusal[..].into(), body: BytesMut::new(), chunk: None, is_chunked: false };
        let error = lines.take_head(&options).unwrap_err();
        assert!(error.is_busy(), "{error}");
        lines.received = b"SSH-2.0-x\r\n"[..].into();
        let error = lines.take_head(&options).unwrap_err();
        assert!(matches!(error, Failure::NotDtserver { .. }), "{error}");
    }

    #[test]
    fn endless_lines_and_wrong_chunks_are_errors() {
        let of = |received: &[u8], is_chunked| Lines {
            received: received.into(),
            body: BytesMut::new(),
            chunk: None,
            is_chunked,
        };
        assert!(of(&vec![b'x'; MAX_LIST_LINE + 1], false).next_line().is_err());
        assert!(of(b"xyz\r\n", true).next_line().is_err());
        assert!(of(b"fffffffffffffffff\r\n", true).next_line().is_err());
    }
}
