//! The inlet: what comes in on one stream, read with as few system calls as possible.
//!
//! The last bytes of a block, its trailer and the header behind it come in one call: the block's rest goes to its place, and
//! what follows it, of which the length is known, into a small buffer.

use std::io::{self, IoSliceMut};

use tokio::net::TcpStream;

use super::line::{Line, Poked};
use crate::storage::{FillError, Leased};
use crate::wire::v2::{FRAME_LEN, TRAILER_LEN};

/// What may follow a block's bytes without having been asked for on its own: a trailer and the next header.
const AHEAD: usize = TRAILER_LEN + FRAME_LEN;

/// How much of an answer that nobody wants is read at once.
const DISCARD: usize = 64 << 10;

/// One stream's connection, as the receiver reads it.
#[derive(Debug)]
pub(super) struct Inlet {
    socket: TcpStream,
    /// What was read and not taken yet.
    ahead: [u8; AHEAD],
    n_ahead: usize,
    /// Where answers go that nobody wants; empty before the first one.
    scratch: Vec<u8>,
}

/// Why nothing more comes in just now.
#[derive(Debug)]
pub(super) enum Halt {
    /// Somebody wants the stream to look up.
    Poked(Poked),
    /// The connection ended where it must not.
    Ended,
    /// The connection broke.
    Broken(io::Error),
    /// What came cannot be stored.
    Store(io::Error),
}

impl From<io::Error> for Halt {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Inlet {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self { socket, ahead: [0; AHEAD], n_ahead: 0, scratch: Vec::new() }
    }

    /// Waits until at least `n` bytes are ahead, `n` being at most a trailer and a header; nothing beyond them is read.
    ///
    /// # Cancel safety
    /// What was read stays ahead.
    pub(super) async fn ensure(&mut self, n: usize, line: &Line) -> Result<(), Halt> {
        while self.n_ahead < n {
            let space = self.ahead.get_mut(self.n_ahead..n).unwrap_or_default();
            match self.socket.try_read(space) {
                Ok(0) => return Err(Halt::Ended),
                Ok(read) => self.n_ahead += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable(line).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Takes the first `N` bytes that are ahead, which [`ensure`](Self::ensure) has waited for.
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let taken = self.ahead.first_chunk().copied().unwrap_or([0; N]);
        self.ahead.copy_within(N.min(AHEAD).., 0);
        self.n_ahead = self.n_ahead.saturating_sub(N);
        taken
    }

    /// Receives at most `limit` bytes of a block to their place, and perhaps what follows it; returns how many of the block.
    ///
    /// # Cancel safety
    /// Cancel safe: bytes are either in their place, or not read.
    pub(super) async fn receive(
        &mut self,
        leased: &mut Leased,
        limit: usize,
        line: &Line,
    ) -> Result<usize, Halt> {
        loop {
            let (socket, ahead, n_ahead) = (&self.socket, &mut self.ahead, &mut self.n_ahead);
            let mut source = |space: &mut [u8]| {
                if limit < space.len() {
                    return socket.try_read(space.get_mut(..limit).unwrap_or_default());
                }
                let len = space.len();
                let tail = ahead.get_mut(*n_ahead..).unwrap_or_default();
                let n = socket.try_read_vectored(&mut [IoSliceMut::new(space), IoSliceMut::new(tail)])?;
                *n_ahead += n.saturating_sub(len);
                Ok(n.min(len))
            };
            match leased.fill(&mut source) {
                Ok(0) => return Err(Halt::Ended),
                Ok(n) => return Ok(n),
                Err(FillError::Source(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable(line).await?;
                }
                Err(FillError::Source(error)) => return Err(Halt::Broken(error)),
                Err(FillError::Store(error)) => return Err(Halt::Store(error)),
            }
        }
    }

    /// Receives at most `limit` bytes, and `remaining` at most, and throws them away; returns how many.
    ///
    /// # Cancel safety
    /// Cancel safe in that nothing is kept anyway, but the number of bytes read is lost.
    pub(super) async fn discard(&mut self, remaining: u64, limit: usize, line: &Line) -> Result<usize, Halt> {
        if self.scratch.is_empty() {
            self.scratch = vec![0; DISCARD];
        }
        let most = usize::try_from(remaining).unwrap_or(DISCARD).min(DISCARD).min(limit);
        loop {
            match self.socket.try_read(self.scratch.get_mut(..most).unwrap_or_default()) {
                Ok(0) => return Err(Halt::Ended),
                Ok(n) => return Ok(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable(line).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until something comes, or somebody wants the stream to look up.
    pub(super) async fn readable(&self, line: &Line) -> Result<(), Halt> {
        tokio::select! {
            biased;
            poked = line.poked() => Err(Halt::Poked(poked)),
            ready = self.socket.readable() => Ok(ready?),
        }
    }

    /// Sends demands, all of them.
    ///
    /// # Cancel safety
    /// Not cancel safe; but a poke does not cut it off unless it ends the stream.
    pub(super) async fn send(&self, bytes: &[u8], line: &Line) -> Result<(), Halt> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.socket.try_write(rest) {
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        fault = line.replaced() => return Err(Halt::Poked(Poked::Replace(fault))),
                        ready = self.socket.writable() => ready?,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}
