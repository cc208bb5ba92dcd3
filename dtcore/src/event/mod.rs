//! The events of a running transfer, its progress, and its final report.

mod report;
mod tree;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use futures_util::task::AtomicWaker;
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::manifest::{StreamCount, StreamId};
use crate::sync::Lock;
pub use report::{RecoveryStats, Report, UploadReport};
pub use tree::{FailedEntry, TreeProgress, TreeReport};

/// How often progress is reported.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Ticks from now on, at least `period` apart also after a late one.
pub(crate) fn ticks(period: Duration) -> Interval {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// An event of a transfer.
///
/// The grammar is `InPlace? Unlocked? StreamsReduced? (Connected | Retrying)* Checking* Started StartedOver? (Progress | StreamLost |
/// BlockCorrupt | Grown | StreamsReduced)* Publishing?`, cut off anywhere by a failure, and then perhaps `Resumable`; the outcome
/// itself is what the transfer returns. An upload may end with `UploadResumable`; the download of a directory has `Tree`, `FilesDone`
/// and `EntrySkipped` only.
///
/// Guaranteed events are always delivered. The others are left out when events are not read as fast as they occur.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The server was reached, and the file requested. Guaranteed the first time; again for each further attempt.
    #[non_exhaustive]
    Connected {
        /// The address that was reached.
        server: SocketAddr,
    },
    /// The request cannot be served now, and is repeated after a pause. Not guaranteed.
    #[non_exhaustive]
    Retrying {
        /// How often it has failed, and may.
        outage: Outage,
        /// The pause.
        pause: Duration,
        /// The reason, for people.
        reason: String,
    },
    /// What an earlier run left is compared with its digests: it is read back, because the machine was restarted since, or the server's
    /// digests of it are requested, because its file has another size, time or inode. Not guaranteed; before the first block, and
    /// repeatedly.
    #[non_exhaustive]
    Checking {
        /// How many bytes were compared.
        bytes: u64,
        /// How many bytes there are to compare.
        of: u64,
    },
    /// The server has accepted the request, and the streams are being opened. Guaranteed, once.
    #[non_exhaustive]
    Started {
        /// The file's size in bytes, if the server reports it.
        size: Option<u64>,
        /// The number of streams.
        streams: StreamCount,
        /// The protocol that client and server have agreed on, 1 or 2.
        protocol: u8,
        /// The size in bytes of the blocks that are fetched and verified one by one; protocol 1 has none.
        block: Option<u64>,
        /// Bytes that an earlier run has left, verified.
        resumed: u64,
    },
    /// The file system of the output has no locks, or grants them to everyone. Transfers to one output do not exclude each other then, and
    /// work in files of their own: the one that ends last is what stays. Guaranteed, at most once.
    Unlocked,
    /// Fewer streams are used than were requested, because this process may not open more files. Guaranteed, at most twice.
    #[non_exhaustive]
    StreamsReduced {
        /// How many are used.
        streams: u8,
        /// How many were requested.
        requested: StreamCount,
    },
    /// The output is a mount point, as files that are mounted into a container are. Nothing can be renamed to it, so it is written in
    /// place when everything is verified: if that is interrupted, it has parts of both files until the transfer is started again.
    /// Guaranteed, at most once, as the first event.
    #[non_exhaustive]
    InPlace {
        /// The part file that is copied over it.
        path: PathBuf,
    },
    /// There was a part file that cannot be resumed. Guaranteed, at most once.
    #[non_exhaustive]
    StartedOver {
        /// The reason, for people.
        reason: &'static str,
    },
    /// The remote file has grown since the transfer started. What is delivered are the bytes that it had then. Guaranteed, at most once.
    #[non_exhaustive]
    Grown {
        /// The size that is delivered.
        delivered: u64,
    },
    /// Everything has arrived and is verified; the output is put in place, which may wait for a disk. Guaranteed, once.
    Publishing,
    /// The transfer fails, and what is verified is saved: the same transfer, started again, resumes it. Guaranteed, at most
    /// once, as the last event.
    #[non_exhaustive]
    Resumable {
        /// How many bytes are saved.
        bytes: u64,
    },
    /// The upload fails, and the server keeps what it has verified: the same upload, started again, resumes it. Guaranteed, at most
    /// once, as the last event.
    UploadResumable,
    /// A stream's connection has ended early; its blocks go to the others, and it is reconnected. Not guaranteed;
    /// [`RecoveryStats`] has the number.
    #[non_exhaustive]
    StreamLost {
        /// The stream.
        stream: StreamId,
        /// The reason, for people.
        reason: String,
    },
    /// A block arrived that does not match its digest; it is fetched again. Not guaranteed; [`RecoveryStats`] has the number.
    #[non_exhaustive]
    BlockCorrupt {
        /// The block's number, counted from 0.
        block: u32,
        /// The stream that it arrived on.
        stream: StreamId,
    },
    /// These files of a tree are in place. Not guaranteed; the report has the number.
    #[non_exhaustive]
    FilesDone {
        /// Their paths in the tree, and their sizes in bytes.
        files: Vec<(PathBuf, u64)>,
    },
    /// An entry of a tree is left out, as it is no file, directory or link within the tree. Not guaranteed; the report has the number.
    #[non_exhaustive]
    EntrySkipped {
        /// Its path in the tree.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// How far the download of a tree is. Not guaranteed; repeatedly.
    Tree(TreeProgress),
    /// How far the transfer is. Coalesced: a slow reader gets the newest only.
    Progress(Progress),
}

/// How far a transfer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// The file's size in bytes, once it is known.
    pub size: Option<u64>,
    /// Bytes of the file that are there: received on all streams, or resumed. In an upload, those that were sent.
    pub received: u64,
    /// Bytes that are verified: in protocol 2 those of complete blocks, in protocol 1 those that are part of the file's digest. In an
    /// upload 0: the server verifies them, and reports the end.
    pub verified: u64,
    /// Streams that are open and not at their end.
    pub open_streams: u8,
    /// The server is lost: no stream is open, and all of them have failed to reconnect at least once.
    pub outage: Option<Outage>,
    /// Time since the transfer was started.
    pub elapsed: Duration,
}

/// How often a server that was lost has been tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Outage {
    /// The number of the attempt, counted from 1; one of all streams together counts as one.
    pub attempt: u32,
    /// How many there are at most, unless only the time is limited.
    pub limit: Option<u32>,
}

/// The events of one transfer, in order; ends with the transfer. A [`Stream`], besides [`next`](Self::next).
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    progress: Arc<NewestProgress>,
}

impl Events {
    /// The next event, or `None` when the transfer has ended.
    ///
    /// # Cancel safety
    /// Cancel safe: an event is either returned or still there.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let received = self.events.poll_recv(cx);
        if let Poll::Ready(Some(event)) = received {
            return Poll::Ready(Some(event));
        }
        // A replacement after this wakes the reader.
        self.progress.waker.register(cx.waker());
        match self.progress.take() {
            Some(progress) => Poll::Ready(Some(Event::Progress(progress))),
            None => received,
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll(cx)
    }
}

/// The progress that was not read yet.
#[derive(Debug, Default)]
struct NewestProgress {
    progress: Lock<Option<Progress>>,
    waker: AtomicWaker,
}

impl NewestProgress {
    fn take(&self) -> Option<Progress> {
        self.progress.lock().take()
    }

    fn replace(&self, progress: Progress) {
        *self.progress.lock() = Some(progress);
        self.waker.wake();
    }
}

/// The transfer's end of its events.
#[derive(Clone, Debug)]
pub(crate) struct EventSender {
    events: mpsc::Sender<Event>,
    progress: Arc<NewestProgress>,
}

/// How many events wait for a slow reader.
const BACKLOG: usize = 256;

/// How many of those places are reserved for the guaranteed events, of which a transfer has fewer.
const GUARANTEED: usize = 16;

/// A transfer's events and where they are put.
pub(crate) fn channel() -> (EventSender, Events) {
    let (sender, receiver) = mpsc::channel(BACKLOG);
    let progress = Arc::<NewestProgress>::default();
    let events = Events { events: receiver, progress: Arc::clone(&progress) };
    (EventSender { events: sender, progress }, events)
}

impl EventSender {
    /// Sends a guaranteed event. There are fewer of them than reserved places, so this never waits.
    pub(crate) fn emit(&self, event: Event) {
        // An error only says that nobody listens.
        let _ = self.events.try_send(event);
    }

    /// Sends an event that a reader may miss.
    pub(crate) fn try_emit(&self, event: Event) {
        if self.events.capacity() > GUARANTEED {
            self.emit(event);
        }
    }

    /// Replaces the newest progress.
    pub(crate) fn progress(&self, progress: Progress) {
        self.progress.replace(progress);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn received(bytes: u64) -> Progress {
        Progress { received: bytes, ..Progress::default() }
    }

    #[tokio::test]
    async fn progress_is_coalesced_and_events_are_not() {
        let (sender, mut events) = channel();
        sender.progress(received(1));
        sender.emit(Event::StartedOver { reason: "a test" });
        sender.progress(received(2));
        sender.emit(Event::Resumable { bytes: 2 });
        drop(sender);
        assert_eq!(events.next().await, Some(Event::StartedOver { reason: "a test" }));
        assert_eq!(StreamExt::next(&mut events).await, Some(Event::Resumable { bytes: 2 }));
        assert_eq!(events.next().await, Some(Event::Progress(received(2))));
        assert_eq!(events.next().await, None);
    }

    #[tokio::test]
    async fn waiting_reader_is_woken_by_progress_and_by_the_end() {
        let (sender, mut events) = channel();
        let reading = tokio::spawn(async move {
            let first = events.next().await;
            (first, events.next().await)
        });
        tokio::task::yield_now().await;
        sender.progress(received(1));
        while sender.progress.progress.lock().is_some() {
            tokio::task::yield_now().await;
        }
        drop(sender);
        assert_eq!(reading.await.unwrap(), (Some(Event::Progress(received(1))), None));
    }

    #[tokio::test]
    async fn slow_reader_misses_no_guaranteed_event() {
        let (sender, mut events) = channel();
        for block in 0..1000 {
            sender.try_emit(Event::BlockCorrupt { block, stream: StreamCount::ONE.ids().next().unwrap() });
        }
        sender.emit(Event::Resumable { bytes: 1 });
        drop(sender);
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last, Some(Event::Resumable { bytes: 1 }));
    }
}
