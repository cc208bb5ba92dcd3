//! A session: one transfer's conversation, from its offer to its end.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use super::Context;
use super::digest_cache::DigestError;
use super::event::{SessionEnd, StreamFailure, StreamRefusal};
use super::fair_queue::FairPermit;
use super::stream_table::{Places, StreamClaim, StreamTable};
use crate::backend::{Object, ObjectIdentity};
use crate::digest::{Blake3Digest, Md5Digest};
use crate::manifest::{BlockId, BlockSet, Manifest, StreamCount, StreamId};
use crate::proto::v2::{
    ReceiverFailure, Replacing, ReportedDigests, Secret, SessionId, SessionOffer, SourceVersion, WholeDigests,
};
use crate::sync::Lock;

/// What a session is made of.
pub(crate) struct SessionSpec {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) share: Share,
    pub(crate) source: Arc<dyn Object>,
    pub(crate) manifest: Manifest,
    pub(crate) streams: StreamCount,
    pub(crate) on_stream_end: OnStreamEnd,
}

/// Called when a stream has ended, before it is free for another connection: with the number of data bytes that it carried,
/// and why it broke if it did.
pub(crate) type OnStreamEnd = Box<dyn Fn(StreamId, u64, Result<(), StreamFailure>) + Send + Sync>;

/// Which sessions wait for cores together: those of one peer, and there each for itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Share {
    pub(crate) peer: IpAddr,
    pub(crate) session: u64,
}

/// How long a session may be without streams until nothing is hashed ahead for it: a killed client must not keep a core and a
/// disk busy until its session expires.
const ABSENCE: Duration = Duration::from_secs(1);

/// What all streams of a session share.
pub(crate) struct Session {
    pub(crate) context: Arc<Context>,
    pub(crate) spec: SessionSpec,
    pub(super) streams: StreamTable,
    /// The blocks whose remembered digests were sent to the receiver; made when there is one.
    remembered: Lock<Option<BlockSet>>,
    bytes_sent: AtomicU64,
    pub(crate) started: Instant,
    md5: OnceCell<Md5Digest>,
    blake3: OnceCell<Blake3Digest>,
    /// Why the receiver has failed, in its words.
    failure: OnceLock<(ReceiverFailure, String)>,
}

impl Session {
    /// A session without streams. Its owner calls [`run`](Self::run).
    pub(crate) fn new(context: &Arc<Context>, spec: SessionSpec) -> Arc<Self> {
        Arc::new(Self {
            context: Arc::clone(context),
            spec,
            streams: StreamTable::new(&context.tasks.aborted),
            remembered: Lock::default(),
            bytes_sent: AtomicU64::new(0),
            started: Instant::now(),
            md5: OnceCell::new(),
            blake3: OnceCell::new(),
            failure: OnceLock::new(),
        })
    }

    /// Waits until the session has ended and all of its streams are closed.
    pub(crate) async fn run(&self) -> SessionEnd {
        let end = tokio::select! {
            biased;
            // The task that ended it has set the reason.
            () = self.streams.until_ended() => SessionEnd::ShutDown,
            () = self.expire() => SessionEnd::Expired,
            () = self.drain() => SessionEnd::ShutDown,
        };
        let end = self.end(end);
        self.streams.until_all_closed().await;
        end
    }

    /// Returns when no stream was open for the expiry time.
    async fn expire(&self) {
        loop {
            self.streams.until_all_closed().await;
            if timeout(self.context.timeouts.session, self.streams.until_open()).await.is_err() {
                return;
            }
        }
    }

    /// Returns when the host shuts down and the streams have reported it to the receiver.
    async fn drain(&self) {
        self.context.tasks.draining.cancelled().await;
        self.streams.until_all_closed().await;
    }

    /// Ends the session and its streams; the first reason counts, and is returned.
    pub(crate) fn end(&self, end: SessionEnd) -> SessionEnd {
        self.streams.end(end)
    }

    /// Ends the session because its receiver has failed.
    pub(super) fn fail(&self, failure: ReceiverFailure, reason: String) {
        let _ = self.failure.set((failure, reason));
        self.end(SessionEnd::Failed);
    }

    /// Why the receiver has failed, if it has.
    pub(crate) fn failure(&self) -> Option<&(ReceiverFailure, String)> {
        self.failure.get()
    }

    /// Returns when the session has ended, perhaps before its streams are closed.
    pub(crate) async fn until_ended(&self) -> Option<SessionEnd> {
        self.streams.until_ended().await;
        self.streams.ended()
    }

    /// As [`end`](Self::end), if no stream is open and nothing has ended the session before; says whether that is so.
    pub(crate) fn end_if_idle(&self, end: SessionEnd) -> bool {
        self.streams.end_if_idle(end)
    }

    /// Since when no stream is open; `None` while one is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.streams.idle_since()
    }

    /// Gives a stream to a connection; a refusal changes nothing. `admit` finds places for a stream that replaces none.
    pub(crate) fn claim(
        self: &Arc<Self>,
        stream: u8,
        replacing: Replacing,
        admit: impl FnOnce() -> Option<Places>,
    ) -> Result<StreamGuard, StreamRefusal> {
        let stream = self.spec.streams.stream(stream).ok_or(StreamRefusal::OutOfRange(stream))?;
        let claim = self.streams.claim(stream, replacing, admit)?;
        Ok(StreamGuard { session: Arc::clone(self), claim })
    }

    /// The offer, with those digests of the file that are known by now.
    pub(crate) fn offer(&self) -> SessionOffer {
        let identity = self.spec.source.identity();
        SessionOffer {
            manifest: self.spec.manifest,
            modified: clamped(identity.modified()),
            version: version(&identity),
            session: self.spec.id,
            secret: self.spec.secret.clone(),
            md5: self.context.digests.known_md5(&identity),
            blake3: self.context.digests.known_blake3(&identity),
            mode: self.spec.source.mode(),
        }
    }

    /// Notes that the receiver gets the remembered digest of a block; `false` if it got it before.
    pub(crate) fn give_remembered(&self, block: BlockId) -> bool {
        let mut remembered = self.remembered.lock();
        remembered.get_or_insert_with(|| BlockSet::new(&self.spec.manifest)).insert(block)
    }

    /// Computes the MD5 beside everything else, until the session ends or its receiver has gone. One that returns requests it
    /// again.
    pub(crate) async fn hash_ahead(&self) {
        let gone = async {
            loop {
                self.streams.until_all_closed().await;
                if timeout(ABSENCE, self.streams.until_open()).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.streams.until_ended() => {}
            () = self.context.tasks.draining.cancelled() => {}
            () = gone => {}
            // An error is found again by the stream that requests it.
            _ = self.md5() => {}
        }
    }

    /// The file's digests, which are computed once for all streams.
    pub(crate) async fn whole_digests(&self, which: WholeDigests) -> Result<ReportedDigests, DigestError> {
        let SessionSpec { source, manifest, share, .. } = &self.spec;
        let blake3 = || self.context.digests.blake3(source, *manifest, share.peer);
        let blake3 = *self.blake3.get_or_try_init(blake3).await?;
        let md5 = match which {
            WholeDigests::Blake3 => None,
            WholeDigests::Blake3AndMd5 => Some(self.md5().await?),
        };
        // What was remembered is of the content that was opened.
        if source.is_unchanged() { Ok(ReportedDigests { blake3, md5 }) } else { Err(DigestError::Changed) }
    }

    /// The BLAKE3 hash of the file, if the receiver has asked for it.
    pub(crate) fn known_blake3(&self) -> Option<Blake3Digest> {
        self.blake3.get().copied()
    }

    /// How the session has ended, if it has.
    pub(crate) fn ended(&self) -> Option<SessionEnd> {
        self.streams.ended()
    }

    async fn md5(&self) -> Result<Md5Digest, DigestError> {
        let md5 = || self.context.digests.md5(&self.spec.source, self.spec.share.peer);
        self.md5.get_or_try_init(md5).await.copied()
    }

    /// How many bytes were read for the digests that are being computed.
    pub(crate) fn digest_progress(&self) -> u64 {
        self.context.digests.progress(&self.spec.source.identity())
    }

    pub(crate) fn add_bytes_sent(&self, n: u64) {
        self.bytes_sent.fetch_add(n, Ordering::Relaxed);
        self.context.bytes_sent.fetch_add(n, Ordering::Relaxed);
    }

    /// How many bytes of the file were sent, each as often as it was.
    pub(crate) fn bytes_sent(&self) -> u64 {
        self.bytes_sent.load(Ordering::Relaxed)
    }

    /// Waits for a core.
    pub(crate) async fn next_turn(&self) -> FairPermit {
        let Share { peer, session } = self.spec.share;
        self.context.fair_queue.next(peer, session).await
    }
}

/// The first 16 bytes of the BLAKE3 hash of inode, size and modification time, 8 bytes each.
fn version(identity: &ObjectIdentity) -> SourceVersion {
    let modified = clamped(identity.modified()).to_le_bytes();
    let parts = [identity.inode().to_le_bytes(), identity.size().to_le_bytes(), modified];
    let digest: [u8; 32] = Blake3Digest::of(parts.as_flattened()).into();
    SourceVersion(digest.first_chunk::<16>().copied().unwrap_or_default())
}

fn clamped(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
}

/// The right to carry a stream of a session; dropping it frees the stream for another connection.
pub(crate) struct StreamGuard {
    pub(crate) session: Arc<Session>,
    pub(crate) claim: StreamClaim,
}

impl StreamGuard {
    /// Whether another connection has replaced this one.
    pub(crate) fn is_replaced(&self) -> bool {
        self.session.streams.is_replaced(&self.claim)
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.session.streams.release(&self.claim);
    }
}
