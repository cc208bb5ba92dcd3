//! Reads a part of an object once, in order, the next piece while the caller works on the previous one.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::Object;
use crate::manifest::ByteRange;
use crate::sys::{PIECE, PieceReader};

/// How many pieces exist at once: one being read, one waiting, one being worked on.
const N_PIECES: usize = 3;

/// A smaller range is read and worked on in turn: starting a thread would take longer than it saves.
const MIN_READ_AHEAD: u64 = 1 << 20;

/// Passes the bytes of `range`, as far as `object` has them, to `visit`, in order and in pieces, until that breaks.
///
/// Reading costs a copy at least, and on a cold disk as much time as a digest does; in parallel with the work it costs
/// nothing. Blocks the calling thread.
pub(crate) fn read_through(
    object: &dyn Object,
    range: ByteRange,
    mut visit: impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut pieces = PieceReader::new(range, |buffer, offset| object.read_at(buffer, offset));
    if range.len().min(object.size()) < MIN_READ_AHEAD {
        let mut buffer = pieces.buffer();
        while let piece @ [_, ..] = pieces.next(&mut buffer)?
            && visit(piece).is_continue()
        {}
        return Ok(());
    }
    let (full_sender, full) = sync_channel(N_PIECES);
    let (empty_sender, empty) = channel();
    for _ in 0..N_PIECES {
        // The receiver still exists.
        let _ = empty_sender.send(vec![0; PIECE]);
    }
    thread::scope(move |scope| {
        thread::Builder::new()
            .name("dt-read".to_owned())
            .spawn_scoped(scope, move || read_ahead(&mut pieces, empty, &full_sender))?;
        // Its return drops its ends of both channels, which ends the reader, and the scope waits for that.
        work(full, empty_sender, &mut visit)
    })
}

/// A buffer and how many of its bytes were read.
type Piece = (Vec<u8>, usize);

fn read_ahead<R: FnMut(&mut [u8], u64) -> io::Result<usize>>(
    pieces: &mut PieceReader<R>,
    empty: Receiver<Vec<u8>>,
    full: &SyncSender<io::Result<Piece>>,
) {
    for mut buffer in empty {
        let len = pieces.next(&mut buffer).map(<[u8]>::len);
        let is_last = !matches!(len, Ok(1..));
        if full.send(len.map(|len| (buffer, len))).is_err() || is_last {
            return;
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "its return closes the channels")]
fn work(
    full: Receiver<io::Result<Piece>>,
    empty: Sender<Vec<u8>>,
    visit: &mut impl FnMut(&[u8]) -> ControlFlow<()>,
) -> io::Result<()> {
    for piece in full {
        let (buffer, len) = piece?;
        let piece = buffer.get(..len).unwrap_or_default();
        if piece.is_empty() || visit(piece).is_break() {
            break;
        }
        // It fails only after the reader has ended; the pieces it has read are still in `full`.
        let _ = empty.send(buffer);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fs::SourceFile;
    use std::io::Write;

    const EVERYTHING: ByteRange = ByteRange::new(0, u64::MAX);

    #[test]
    fn only_the_range_is_read() {
        let (source, content) = source(3 << 20);
        for (start, end) in [(0, 1), (5, 5), (100, PIECE + 101), (1, 3 << 20), ((3 << 20) - 1, 4 << 20)] {
            let mut seen = Vec::new();
            let range = ByteRange::new(u64::try_from(start).unwrap(), u64::try_from(end).unwrap());
            let keep = |bytes: &[u8]| {
                seen.extend_from_slice(bytes);
                ControlFlow::Continue(())
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
    fn every_byte_is_read_once_and_in_order() {
        for len in [0, 1, PIECE, PIECE + 1, 1 << 20, (3 << 20) + 7] {
            let (source, content) = source(len);
            let mut seen = Vec::new();
            let keep = |bytes: &[u8]| {
                seen.extend_from_slice(bytes);
                ControlFlow::Continue(())
            };
            read_through(&source, EVERYTHING, keep).unwrap();
            assert!(seen == content, "{len} bytes");
        }
    }

    #[test]
    fn reading_ends_when_the_visitor_breaks() {
        for len in [PIECE * 3, PIECE * 20] {
            let mut pieces = 0;
            let stop = |_: &[u8]| {
                pieces += 1;
                if pieces == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            };
            read_through(&source(len).0, EVERYTHING, stop).unwrap();
            assert_eq!(pieces, 2);
        }
    }
}
