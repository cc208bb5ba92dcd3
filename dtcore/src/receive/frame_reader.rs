//! The reader: what comes in on one stream, read with as few system calls as possible.
//!
//! The last bytes of a block, its trailer and the header behind it come in one call: the block's rest goes to its place, and
//! what follows it, of which the length is known, into a small buffer.

use std::io::{self, IoSliceMut};

use tokio::net::TcpStream;

use crate::proto::v2::{FRAME_LEN, TRAILER_LEN};
use crate::receive::wake::{Line, Woken};
use crate::sink::{BlockLease, FillError};

/// What may follow a block's bytes without having been asked for on its own: a trailer and the next header.
const AHEAD: usize = TRAILER_LEN + FRAME_LEN;

/// How much of an answer that nobody wants is read at once.
const DISCARD: usize = 64 << 10;

/// One stream's connection, as the receiver reads it.
#[derive(Debug)]
pub(crate) struct FrameReader {
    socket: TcpStream,
    /// What was read and not taken yet.
    ahead: [u8; AHEAD],
    n_ahead: usize,
    /// Where answers go that nobody wants; empty before the first one.
    scratch: Vec<u8>,
}

/// Why nothing more comes in just now.
#[derive(Debug)]
pub(crate) enum ReadInterrupt {
    /// Somebody wants the stream to look up.
    Woken(Woken),
    /// The connection ended where it must not.
    Ended,
    /// The connection broke.
    Broken(io::Error),
    /// What came cannot be stored.
    Store(io::Error),
}

impl From<io::Error> for ReadInterrupt {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl FrameReader {
    pub(crate) fn new(socket: TcpStream) -> Self {
        Self { socket, ahead: [0; AHEAD], n_ahead: 0, scratch: Vec::new() }
    }

    /// Waits until at least `n` bytes are ahead, `n` being at most a trailer and a header; nothing beyond them is read.
    ///
    /// # Cancel safety
    /// What was read stays ahead.
    pub(crate) async fn ensure(&mut self, n: usize, line: &Line) -> Result<(), ReadInterrupt> {
        while self.n_ahead < n {
            let space = self.ahead.get_mut(self.n_ahead..n).unwrap_or_default();
            match self.socket.try_read(space) {
                Ok(0) => return Err(ReadInterrupt::Ended),
                Ok(read) => self.n_ahead += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable(line).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes the first `N` bytes that are ahead, which [`ensure`](Self::ensure) has waited for.
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.ahead.first_chunk().copied().unwrap_or([0; N]);
        self.ahead.copy_within(N.min(AHEAD).., 0);
        self.n_ahead = self.n_ahead.saturating_sub(N);
        taken
    }

    /// Receives at most `limit` bytes of a block to their place, and perhaps what follows it; returns how many of the block.
    ///
    /// # Cancel safety
    /// Cancel safe: bytes are either in their place, or not read.
    pub(crate) async fn receive(
        &mut self,
        leased: &mut BlockLease,
        limit: usize,
        line: &Line,
    ) -> Result<usize, ReadInterrupt> {
        loop {
            let (socket, ahead, n_ahead) = (&self.socket, &mut self.ahead, &mut self.n_ahead);
            let remaining = usize::try_from(leased.remaining()).unwrap_or(usize::MAX);
            let mut source = |space: &mut [u8]| {
                let len = space.len();
                // A place may offer itself piece by piece, and behind such a piece comes more of the block.
                if len < remaining || limit < len {
                    return socket.try_read(space.get_mut(..limit.min(len)).unwrap_or_default());
                }
                let tail = ahead.get_mut(*n_ahead..).unwrap_or_default();
                let n = socket.try_read_vectored(&mut [IoSliceMut::new(space), IoSliceMut::new(tail)])?;
                *n_ahead += n.saturating_sub(len);
                Ok(n.min(len))
            };
            match leased.fill(&mut source) {
                Ok(0) => return Err(ReadInterrupt::Ended),
                Ok(n) => return Ok(n),
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(line).await?;
                }
                Err(FillError::Source(error)) => return Err(ReadInterrupt::Broken(error)),
                Err(FillError::Store(error)) => return Err(ReadInterrupt::Store(error)),
            }
        }
    }

    /// Receives at most `limit` bytes, and `remaining` at most, and throws them away; returns how many.
    ///
    /// # Cancel safety
    /// Cancel safe in that nothing is kept anyway, but the number of bytes read is lost.
    pub(crate) async fn discard(
        &mut self,
        remaining: u64,
        limit: usize,
        line: &Line,
    ) -> Result<usize, ReadInterrupt> {
        if self.scratch.is_empty() {
            self.scratch = vec![0; DISCARD];
        }
        let most = usize::try_from(remaining).unwrap_or(DISCARD).min(DISCARD).min(limit);
        loop {
            match self.socket.try_read(self.scratch.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(ReadInterrupt::Ended),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable(line).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until something comes, or somebody wants the stream to look up.
    pub(crate) async fn readable(&self, line: &Line) -> Result<(), ReadInterrupt> {
        tokio::select! {
            biased;
            woken = line.woken() => Err(ReadInterrupt::Woken(woken)),
            ready = self.socket.readable() => Ok(ready?),
        }
    }

    /// Sends demands, all of them.
    ///
    /// # Cancel safety
    /// Not cancel safe; but a wake does not cut it off unless it ends the stream.
    pub(crate) async fn send(&self, bytes: &[u8], line: &Line) -> Result<(), ReadInterrupt> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.socket.try_write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        fault = line.replaced() => return Err(ReadInterrupt::Woken(Woken::Replace(fault))),
                        ready = self.socket.writable() => ready?,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::RangeDigest;
    use crate::manifest::{BlockSet, BlockSize, Manifest};
    use crate::sink::{Engine, FileSink, open};
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    const HEADER: [u8; FRAME_LEN] = [0xaa; FRAME_LEN];
    const TRAILER: [u8; TRAILER_LEN] = [0xbb; TRAILER_LEN];
    const NEXT: [u8; FRAME_LEN] = [0xcc; FRAME_LEN];

    async fn connected() -> (FrameReader, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let requester = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (FrameReader::new(requester), listener.accept().await.unwrap().0)
    }

    fn block_file(manifest: Manifest, engine: Engine) -> FileSink {
        let store = open(&tempfile::tempfile().unwrap(), engine, manifest.size()).unwrap();
        FileSink::new(manifest, store, None, &BlockSet::new(&manifest), Box::new(|| {})).unwrap()
    }

    fn manifest_of(size: u64, block: u64) -> Manifest {
        Manifest::new(size, BlockSize::new(block).unwrap()).unwrap()
    }

    fn content(len: u64) -> Vec<u8> {
        (0..len).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect()
    }

    /// A header, the file's only block, its trailer and the next header, received in steps of at most `limit` bytes.
    async fn receive_frame(reader: &mut FrameReader, blocks: &FileSink, manifest: Manifest, limit: usize) {
        let line = Line::default();
        reader.ensure(FRAME_LEN, &line).await.unwrap();
        assert_eq!(reader.take(), HEADER);
        let block = manifest.block(0).unwrap();
        let mut leased = blocks.lease(block).unwrap();
        while leased.remaining() > 0 {
            let before = leased.remaining();
            let n = reader.receive(&mut leased, limit, &line).await.unwrap();
            assert!(n <= limit);
            assert_eq!(leased.remaining(), before - u64::try_from(n).unwrap());
        }
        let expected =
            RangeDigest::of(manifest.size(), manifest.range(block), &content(manifest.size())).unwrap();
        leased.finish().unwrap().verify(expected).expect("the bytes of the block are in their place");
        reader.ensure(TRAILER_LEN, &line).await.unwrap();
        assert_eq!(reader.take(), TRAILER);
        reader.ensure(FRAME_LEN, &line).await.unwrap();
        assert_eq!(reader.take(), NEXT);
        assert_eq!(reader.n_ahead, 0);
    }

    fn frame(manifest: Manifest) -> Vec<u8> {
        [&HEADER[..], &content(manifest.size()), &TRAILER, &NEXT].concat()
    }

    #[tokio::test]
    async fn a_frame_may_come_in_two_parts_wherever_it_is_split() {
        let manifest = manifest_of(100, 1 << 14);
        let frame = frame(manifest);
        let (mut reader, mut peer) = connected().await;
        for engine in [Engine::Map, Engine::Write] {
            for split in 0..=frame.len() {
                let blocks = block_file(manifest, engine);
                let (first, second) = frame.split_at(split);
                let responder = async {
                    peer.write_all(first).await.unwrap();
                    // The reader takes what there is, and waits.
                    for _ in 0..4 {
                        tokio::task::yield_now().await;
                    }
                    peer.write_all(second).await.unwrap();
                };
                tokio::join!(receive_frame(&mut reader, &blocks, manifest, usize::MAX), responder);
            }
        }
    }

    /// A mapping has its pages taken 4 MiB at a time, and offers no more than those.
    #[tokio::test]
    async fn a_block_that_is_offered_piece_by_piece_is_received_whole() {
        let manifest = manifest_of((9 << 20) + 5, 16 << 20);
        for engine in [Engine::Map, Engine::Write] {
            for limit in [usize::MAX, 1_000_000] {
                let (mut reader, mut peer) = connected().await;
                let blocks = block_file(manifest, engine);
                let frame = frame(manifest);
                let responder = async { peer.write_all(&frame).await.unwrap() };
                tokio::join!(receive_frame(&mut reader, &blocks, manifest, limit), responder);
            }
        }
    }

    #[tokio::test]
    async fn what_follows_a_block_comes_with_its_last_bytes_and_nothing_beyond_it() {
        let manifest = manifest_of(100, 1 << 14);
        let (mut reader, mut peer) = connected().await;
        let (line, blocks) = (Line::default(), block_file(manifest, Engine::Write));
        peer.write_all(&[&content(100)[..], &TRAILER, &NEXT, b"later"].concat()).await.unwrap();
        let mut leased = blocks.lease(manifest.block(0).unwrap()).unwrap();
        assert_eq!(reader.receive(&mut leased, usize::MAX, &line).await.unwrap(), 100);
        assert_eq!(reader.n_ahead, AHEAD);
        assert_eq!((reader.take(), reader.take()), (TRAILER, NEXT));
        reader.ensure(5, &line).await.unwrap();
        assert_eq!(reader.take(), *b"later");
    }

    #[tokio::test]
    async fn what_nobody_wants_ends_where_the_frame_does() {
        let (mut reader, mut peer) = connected().await;
        let line = Line::default();
        peer.write_all(&[&[0; 100][..], &TRAILER].concat()).await.unwrap();
        assert_eq!(reader.discard(100, 60, &line).await.unwrap(), 60);
        assert_eq!(reader.discard(40, usize::MAX, &line).await.unwrap(), 40);
        reader.ensure(TRAILER_LEN, &line).await.unwrap();
        assert_eq!(reader.take(), TRAILER);
    }

    #[tokio::test]
    async fn a_poke_interrupts_a_wait_and_loses_nothing() {
        let (mut reader, mut peer) = connected().await;
        let line = Line::default();
        peer.write_all(&TRAILER[..7]).await.unwrap();
        reader.ensure(7, &line).await.unwrap();
        line.wake();
        assert!(matches!(reader.ensure(TRAILER_LEN, &line).await, Err(ReadInterrupt::Woken(Woken::Look))));
        peer.write_all(&TRAILER[7..]).await.unwrap();
        reader.ensure(TRAILER_LEN, &line).await.unwrap();
        assert_eq!(reader.take(), TRAILER);
        drop(peer);
        assert!(matches!(reader.ensure(1, &line).await, Err(ReadInterrupt::Ended)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn a_frame_may_come_in_any_pieces(sizes in proptest::collection::vec(1..9000_usize, 1..40), limit in 1..20_000_usize) {
            let manifest = manifest_of(12_345, 1 << 14);
            let frame = frame(manifest);
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
                let (mut reader, mut peer) = connected().await;
                let blocks = block_file(manifest, Engine::Map);
                let responder = async {
                    let mut rest = frame.as_slice();
                    for size in sizes {
                        let piece = rest.split_off(..size.min(rest.len())).unwrap();
                        peer.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    peer.write_all(rest).await.unwrap();
                };
                tokio::join!(receive_frame(&mut reader, &blocks, manifest, limit), responder);
            });
        }
    }
}
