//! What a transfer tells while it runs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::integrity::Md5Digest;
use crate::plan::StreamCount;

/// One thing that happened in a transfer.
///
/// The grammar is `Connected Started Progress*`, cut off anywhere by a failure; the outcome itself is what the
/// transfer returns.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server's control port was reached, and it was asked for the file. Guaranteed, once.
    #[non_exhaustive]
    Connected {
        /// The address that answered.
        server: SocketAddr,
    },
    /// The server has agreed, and the streams are being opened. Guaranteed, once.
    #[non_exhaustive]
    Started {
        /// The file's size in bytes, if the server told it.
        size: Option<u64>,
        /// How many streams carry it.
        streams: StreamCount,
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
    /// Bytes received on all streams.
    pub received: u64,
    /// Bytes that have gone into the file's digest.
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
    /// The file's MD5, computed here and equal to the server's. Protocol 1 always has one.
    pub md5: Option<Md5Digest>,
    /// Time from the start of the transfer until the last byte had come.
    pub received_after: Duration,
    /// Time from the start of the transfer until the output was verified and in place.
    pub elapsed: Duration,
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

/// More guaranteed events than a transfer has.
const MAX_GUARANTEED: usize = 16;

/// A transfer's events and where they are put.
pub(crate) fn channel() -> (EventSender, Events) {
    let (guaranteed, guaranteed_receiver) = mpsc::channel(MAX_GUARANTEED);
    let (progress, progress_receiver) = watch::channel(Progress::default());
    let sender = EventSender { guaranteed, progress: Arc::new(progress) };
    (sender, Events { guaranteed: guaranteed_receiver, progress: progress_receiver })
}

impl EventSender {
    /// Sends a guaranteed event. There are fewer of them than the channel holds, so this never waits.
    pub(crate) fn send(&self, event: Event) {
        // An error only says that nobody listens.
        let _ = self.guaranteed.try_send(event);
    }

    /// Replaces the newest progress.
    pub(crate) fn progress(&self, progress: Progress) {
        self.progress.send_replace(progress);
    }
}
