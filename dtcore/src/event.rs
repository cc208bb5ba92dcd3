//! What a transfer tells while it runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::digest::{Blake3Digest, Md5Digest};
use crate::manifest::{StreamCount, StreamId};

/// One thing that happened in a transfer.
///
/// The grammar is `Connected Checking* Started StartedOver? (Progress | StreamLost | BlockCorrupt | FellBack)*`, cut off
/// anywhere by a failure, and then perhaps `Resumable`; the outcome itself is what the transfer returns.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server's control port was reached, and it was asked for the file. Guaranteed, once.
    #[non_exhaustive]
    Connected {
        /// The address that answered.
        server: SocketAddr,
    },
    /// What an earlier run left is read back and compared with its digests, because the machine was started anew since.
    /// Told before the first block and now and then; left out when events are not read as fast as they come.
    #[non_exhaustive]
    Checking {
        /// How many bytes were compared.
        bytes: u64,
        /// How many are to be.
        of: u64,
    },
    /// The server has agreed, and the streams are being opened. Guaranteed, once.
    #[non_exhaustive]
    Started {
        /// The file's size in bytes, if the server told it.
        size: Option<u64>,
        /// How many streams carry it.
        streams: StreamCount,
        /// The protocol that client and server have agreed on, 1 or 2.
        protocol: u8,
        /// The size in bytes of the blocks that are fetched and verified one by one; protocol 1 has none.
        block: Option<u64>,
        /// Bytes that are there already, verified by an earlier run.
        resumed: u64,
    },
    /// A part file was there and could not be gone on with. Guaranteed, at most once.
    #[non_exhaustive]
    StartedOver {
        /// Why, in words for people.
        reason: &'static str,
    },
    /// The data port could not be reached, or another server listens there, or nothing that came from there was a frame,
    /// and the streams come over the control port. Guaranteed, at most once.
    #[non_exhaustive]
    FellBack {
        /// The address that streams did not get through to.
        data: SocketAddr,
    },
    /// The transfer fails, and what it has verified is kept: the same transfer, started again, goes on with it.
    /// Guaranteed, at most once, as the last event.
    #[non_exhaustive]
    Resumable {
        /// How many bytes are kept.
        bytes: u64,
    },
    /// A stream's connection has ended early; its blocks go to the others, and it is connected again. Left out when
    /// events are not read as fast as they come; [`RecoveryStats`] has the number.
    #[non_exhaustive]
    StreamLost {
        /// Which stream.
        stream: StreamId,
        /// Why, in words for people.
        reason: String,
    },
    /// A block came that does not match its digest; it is fetched again. Left out when events are not read as fast as
    /// they come; [`RecoveryStats`] has the number.
    #[non_exhaustive]
    BlockCorrupt {
        /// The block's number, counted from 0.
        block: u32,
        /// The stream that brought it.
        stream: StreamId,
    },
    /// How far the transfer is. Coalesced: whoever is slow to ask gets the newest one only.
    Progress(Progress),
}

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// The file's size in bytes, once it is known.
    pub size: Option<u64>,
    /// Bytes of the file that are there: received on all streams, and resumed.
    pub received: u64,
    /// Bytes that are verified: in protocol 2 those of whole blocks, in protocol 1 those that have gone into the file's
    /// digest.
    pub verified: u64,
    /// Streams that are open and not at their end.
    pub open_streams: u8,
    /// Time since the transfer was started.
    pub elapsed: Duration,
}

/// What a finished transfer delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Report {
    /// Where the file is now; `None` if it was written to a writer.
    pub output: Option<PathBuf>,
    /// The file's size in bytes.
    pub bytes: u64,
    /// The protocol that was spoken, 1 or 2.
    pub protocol: u8,
    /// Bytes of the file that were received, each counted as often as it came.
    pub received: u64,
    /// Bytes that were there already, verified by an earlier run.
    pub resumed: u64,
    /// The file's BLAKE3 hash, computed here and equal to the server's. Protocol 2 always has one.
    pub blake3: Option<Blake3Digest>,
    /// The file's MD5, computed here and equal to the server's. Protocol 1 always has one, protocol 2 if it was asked
    /// for.
    pub md5: Option<Md5Digest>,
    /// What went wrong on the way, and was mended.
    pub recovery: RecoveryStats,
    /// Time from the start of the transfer until the last byte had come.
    pub received_after: Duration,
    /// Time from the start of the transfer until the output was verified and in place.
    pub elapsed: Duration,
}

/// What went wrong in a transfer that succeeded nevertheless. All is 0 in protocol 1, which can mend nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryStats {
    /// How often connections were made anew, or tried to be.
    pub retries: u64,
    /// How many blocks came that did not match their digest, and were fetched again.
    pub repaired_blocks: u64,
    /// Bytes that were received and thrown away: corrupt, cut off, or there already.
    pub wasted_bytes: u64,
    /// How many connections ended early.
    pub streams_lost: u64,
}

/// The events of one transfer, in order; ends with the transfer.
#[derive(Debug)]
pub struct Events {
    guaranteed: mpsc::Receiver<Event>,
    progress: watch::Receiver<Progress>,
}

impl Events {
    /// The next event, or `None` when the transfer has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: an event is either returned or still there.
    pub async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            biased;
            Some(event) = self.guaranteed.recv() => Some(event),
            Ok(()) = self.progress.changed() => Some(Event::Progress(*self.progress.borrow_and_update())),
            else => None,
        }
    }
}

/// The transfer's end of its events.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    guaranteed: mpsc::Sender<Event>,
    progress: Arc<watch::Sender<Progress>>,
}

/// How many events wait for a slow observer.
const BACKLOG: usize = 256;

/// How many of those places are kept for the guaranteed events, of which a transfer has fewer.
const GUARANTEED: usize = 16;

/// A transfer's events and where they are put.
pub(crate) fn channel() -> (EventSender, Events) {
    let (guaranteed, guaranteed_receiver) = mpsc::channel(BACKLOG);
    let (progress, progress_receiver) = watch::channel(Progress::default());
    let sender = EventSender { guaranteed, progress: Arc::new(progress) };
    (sender, Events { guaranteed: guaranteed_receiver, progress: progress_receiver })
}

impl EventSender {
    /// Sends a guaranteed event. There are fewer of them than places are kept for, so this never waits.
    pub(crate) fn emit(&self, event: Event) {
        // An error only says that nobody listens.
        let _ = self.guaranteed.try_send(event);
    }

    /// Sends an event that an observer may miss.
    pub(crate) fn try_emit(&self, event: Event) {
        if self.guaranteed.capacity() > GUARANTEED {
            self.emit(event);
        }
    }

    /// Replaces the newest progress.
    pub(crate) fn progress(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }
}
