//! Sends one range: its bytes by `sendfile`, and its digest, remembered or computed while the bytes are in the cache.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::digest::{RangeDigest, RangeHasher};
use crate::manifest::{BlockId, ByteRange};
use crate::proto::v2::{ErrorCode, Trailer};
use crate::send::BodySender;
use crate::send::Prefetcher;
use crate::send::session::Session;
use crate::send::write::write_zeros;
use crate::server::event::StreamFailure;

/// How much is sent, and hashed, in one turn: a third of a millisecond's work.
const PIECE: u64 = 1 << 20;

/// Sends ranges of a session's file on one stream.
#[derive(Debug)]
pub(crate) struct RangeSender {
    session: Arc<Session>,
    prefetcher: Prefetcher,
}

/// What is known of a range's digest before its last byte is sent.
enum Digest {
    /// It was computed before, for the version of the file that was opened.
    Known(RangeDigest),
    Computed(Box<RangeHasher>),
    /// It was known and given before, and the receiver asks again: perhaps the bytes did not match.
    Doubted(RangeDigest, Box<RangeHasher>),
}

impl RangeSender {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        let prefetcher = Prefetcher::new(Arc::clone(session.source()));
        Self { session, prefetcher }
    }

    /// Sends the bytes of `range`, zeros for those that are not to be had, and returns the trailer that says so.
    ///
    /// `upcoming` is the range that is sent behind it, if that is known already.
    ///
    /// # Errors
    /// [`StreamFailure`] if the connection takes nothing for the stall timeout, or is gone.
    pub(crate) async fn send(
        &mut self,
        socket: &TcpStream,
        range: ByteRange,
        upcoming: Option<ByteRange>,
    ) -> Result<Trailer, StreamFailure> {
        let session = Arc::clone(&self.session);
        let stall_timeout = session.options().stall_timeout;
        let (source, manifest) = (session.source(), *session.manifest());
        let begin = SystemTime::now();
        let block = manifest.block_at(range);
        let blocks = session.shared().digests.blocks();
        let known = block.and_then(|block| blocks.find(&source.identity(), &manifest, block));
        let mut digest = match (known, RangeHasher::new(manifest.size(), range)) {
            (Some(known), Some(hasher)) if !block.is_some_and(|block| session.give_remembered(block)) => {
                Digest::Doubted(known, Box::new(hasher))
            }
            (Some(known), _) => Digest::Known(known),
            (None, Some(hasher)) => Digest::Computed(Box::new(hasher)),
            // Only subtrees come here.
            (None, None) => return Err(StreamFailure::BrokenProtocol),
        };
        let mut body_sender = BodySender::new(source, socket, range, stall_timeout);
        let sent = self.send_pieces(&mut body_sender, range, upcoming, &mut digest).await;
        session.add_bytes_sent(body_sender.position().saturating_sub(range.start()));
        let code = match sent {
            Ok(()) => match self.finish(digest, range, block, begin).await {
                Ok(digest) => return Ok(Trailer(Ok(digest))),
                Err(code) => code,
            },
            Err(StreamFailure::SourceUnreadable) if source.is_unchanged() => ErrorCode::SourceUnreadable,
            Err(StreamFailure::SourceUnreadable | StreamFailure::SourceChanged) => ErrorCode::SourceChanged,
            Err(failure) => return Err(failure),
        };
        write_zeros(socket, range.end().saturating_sub(body_sender.position()), stall_timeout).await?;
        Ok(Trailer(Err(code)))
    }

    async fn send_pieces(
        &mut self,
        body_sender: &mut BodySender<'_>,
        range: ByteRange,
        upcoming: Option<ByteRange>,
        digest: &mut Digest,
    ) -> Result<(), StreamFailure> {
        let session = &self.session;
        let mut piece = piece_at(range.start(), range);
        while !piece.is_empty() {
            let next = piece_at(piece.end(), range);
            let ahead = match upcoming {
                Some(upcoming) if next.is_empty() => piece_at(upcoming.start(), upcoming),
                _ => next,
            };
            let ensure_cached =
                timeout(session.options().stall_timeout, self.prefetcher.ensure_cached(piece, ahead));
            ensure_cached.await.map_err(|_| StreamFailure::SourceUnreadable)?;
            let mut unhashed = Some(piece);
            while body_sender.position() < piece.end() {
                body_sender.ready(piece.end()).await?;
                let turn = session.next_turn().await;
                body_sender.send_now(piece.end())?;
                // While the receiver is busy with the first bytes, and the pages are in the cache.
                if let (Digest::Computed(hasher) | Digest::Doubted(_, hasher), Some(piece)) =
                    (&mut *digest, unhashed.take())
                {
                    hash(session, piece, hasher)?;
                }
                drop(turn);
            }
            piece = next;
        }
        Ok(())
    }

    /// The digest of what was sent, if the file is still what it was.
    async fn finish(
        &self,
        digest: Digest,
        range: ByteRange,
        block: Option<BlockId>,
        begin: SystemTime,
    ) -> Result<RangeDigest, ErrorCode> {
        let source = self.session.source();
        let (hasher, doubted) = match digest {
            Digest::Known(known) => {
                let now = source.current_identity().map_err(|_| ErrorCode::SourceUnreadable)?;
                if now == source.identity() {
                    return Ok(known);
                }
                // Size and time can be as they were in a file that was written to: only its bytes tell.
                (self.hash_again(range).await?, None)
            }
            Digest::Computed(hasher) => (*hasher, None),
            Digest::Doubted(known, hasher) => (*hasher, Some(known)),
        };
        let now = source.current_identity().map_err(|_| ErrorCode::SourceUnreadable)?;
        if !source.identity().same_content(&now) {
            return Err(ErrorCode::SourceChanged);
        }
        let digest = hasher.finish().ok_or(ErrorCode::SourceChanged)?;
        if doubted.is_some_and(|known| known != digest) {
            self.session.shared().digests.forget(&source.identity());
        }
        if let Some(block) = block {
            let blocks = self.session.shared().digests.blocks();
            blocks.remember(&**source, self.session.manifest(), block, digest, &now, begin);
        }
        Ok(digest)
    }

    async fn hash_again(&self, range: ByteRange) -> Result<RangeHasher, ErrorCode> {
        let session = &self.session;
        let mut hasher =
            RangeHasher::new(session.manifest().size(), range).ok_or(ErrorCode::SourceChanged)?;
        let mut piece = piece_at(range.start(), range);
        while !piece.is_empty() {
            let _turn = session.next_turn().await;
            hash(session, piece, &mut hasher).map_err(|_| ErrorCode::SourceChanged)?;
            piece = piece_at(piece.end(), range);
        }
        Ok(hasher)
    }
}

fn hash(session: &Session, piece: ByteRange, hasher: &mut RangeHasher) -> Result<(), StreamFailure> {
    let source = &**session.source();
    session.shared().digests.blocks().hash(source, piece, hasher).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            StreamFailure::SourceChanged
        } else {
            StreamFailure::SourceUnreadable
        }
    })
}

/// The piece of `range` that begins at `offset`; empty at its end.
fn piece_at(offset: u64, range: ByteRange) -> ByteRange {
    ByteRange::new(offset, offset.saturating_add(PIECE).min(range.end()))
}
