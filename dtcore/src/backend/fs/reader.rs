//! Reads a part of a source once, in order, the next piece while the one before it is worked on.

use std::io;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use rustix::io::{Errno, pread};

use super::SourceFile;
use crate::manifest::ByteRange;

/// How much is read at once. 64 to 256 KiB measured alike: two pieces stay in a core's own cache.
const PIECE: usize = 256 << 10;

/// How many pieces are on their way: one being read, one waiting, one being worked on.
const PIECES: usize = 3;

/// A range below this size is read and worked on in turn: starting a thread would take longer than it saves.
const ALONE_BELOW: u64 = 1 << 20;

/// Whether the reading goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Flow {
    Continue,
    Stop,
}

/// Shows the bytes of `range`, as far as `source` has them, to `visit`, in order and in pieces, until it says to stop.
///
/// Reading costs a copy at least, and on a cold disk as much time as a digest does; beside the work it costs nothing.
/// Blocks the calling thread.
pub(crate) fn read_through(
    source: &SourceFile,
    range: ByteRange,
    mut visit: impl FnMut(&[u8]) -> Flow,
) -> io::Result<()> {
    if range.len().min(source.size()) < ALONE_BELOW {
        let mut piece = Piece { rest: range, ..Piece::default() };
        while piece.read(source)? && visit(piece.bytes()) == Flow::Continue {}
        return Ok(());
    }
    let (full_sender, full) = sync_channel(PIECES);
    let (empty_sender, empty) = channel();
    for _ in 0..PIECES {
        // The receiver is right here.
        let _ = empty_sender.send(Piece::default());
    }
    thread::scope(move |scope| {
        thread::Builder::new()
            .name("dt-read".to_owned())
            .spawn_scoped(scope, move || read_ahead(source, range, empty, &full_sender))?;
        // Its ends of both channels go with this call, and with them the reader: the scope waits for it.
        work(full, empty_sender, &mut visit)
    })
}

fn read_ahead(
    source: &SourceFile,
    mut rest: ByteRange,
    empty: Receiver<Piece>,
    full: &SyncSender<io::Result<Piece>>,
) {
    for mut piece in empty {
        piece.rest = rest;
        let read = piece.read(source).map(|_| piece);
        let is_last = read.as_ref().map_or(true, |piece| piece.len == 0);
        rest = read.as_ref().map_or(rest, |piece| piece.rest);
        if full.send(read).is_err() || is_last {
            return;
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the channels end when it returns")]
fn work(
    full: Receiver<io::Result<Piece>>,
    empty: Sender<Piece>,
    visit: &mut impl FnMut(&[u8]) -> Flow,
) -> io::Result<()> {
    for piece in full {
        let piece = piece?;
        if piece.len == 0 || visit(piece.bytes()) == Flow::Stop {
            break;
        }
        // An error only says that the reader is through; what it read is still to be worked on.
        let _ = empty.send(piece);
    }
    Ok(())
}

/// A buffer and what is to be read behind its bytes.
#[derive(Debug, Default)]
struct Piece {
    buffer: Vec<u8>,
    len: usize,
    rest: ByteRange,
}

impl Piece {
    /// Reads on; `false` at the end of the range or of the file.
    fn read(&mut self, source: &SourceFile) -> io::Result<bool> {
        let len = PIECE.min(usize::try_from(self.rest.len()).unwrap_or(PIECE));
        self.buffer.resize(len, 0);
        self.len = loop {
            match pread(source, &mut *self.buffer, self.rest.start()) {
                Ok(n) => break n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let n = u64::try_from(self.len).unwrap_or(u64::MAX);
        self.rest = ByteRange::new(self.rest.start().saturating_add(n), self.rest.end());
        Ok(self.len > 0)
    }

    fn bytes(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const EVERYTHING: ByteRange = ByteRange::new(0, u64::MAX);

    #[test]
    fn a_range_is_shown_and_nothing_around_it() {
        let (source, content) = source(3 << 20);
        for (start, end) in [(0, 1), (5, 5), (100, PIECE + 101), (1, 3 << 20), ((3 << 20) - 1, 4 << 20)] {
            let mut seen = Vec::new();
            let range = ByteRange::new(u64::try_from(start).unwrap(), u64::try_from(end).unwrap());
            let keep = |bytes: &[u8]| {
                seen.extend_from_slice(bytes);
                Flow::Continue
            };
            read_through(&source, range, keep).unwrap();
            assert!(seen == content[start..end.min(3 << 20)], "{start}..{end}");
        }
    }

    fn source(len: usize) -> (SourceFile, Vec<u8>) {
        let content: Vec<u8> = (0..len).map(|i| u8::try_from(i * 31 % 251).unwrap()).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&content).unwrap();
        (SourceFile::new(file).unwrap(), content)
    }

    #[test]
    fn every_byte_is_shown_once_and_in_order() {
        for len in [0, 1, PIECE, PIECE + 1, 1 << 20, (3 << 20) + 7] {
            let (source, content) = source(len);
            let mut seen = Vec::new();
            let keep = |bytes: &[u8]| {
                seen.extend_from_slice(bytes);
                Flow::Continue
            };
            read_through(&source, EVERYTHING, keep).unwrap();
            assert!(seen == content, "{len} bytes");
        }
    }

    #[test]
    fn it_ends_where_it_is_told_to() {
        for len in [PIECE * 3, PIECE * 20] {
            let mut pieces = 0;
            let stop = |_: &[u8]| {
                pieces += 1;
                if pieces == 2 { Flow::Stop } else { Flow::Continue }
            };
            read_through(&source(len).0, EVERYTHING, stop).unwrap();
            assert_eq!(pieces, 2);
        }
    }
}
