//! Sends one run: its bytes in few long calls, and the digests of its blocks; or these alone.

use std::sync::Arc;

use tokio::time::timeout;

use super::event::StreamFailure;
use super::run_digests::{RunDigests, RunPiece};
use super::session::Session;
use super::write::write_zeros;
use super::{BodySender, Prefetcher};
use crate::backend::Object;
use crate::manifest::{BlockRun, ByteRange};
use crate::num::{to_u64, to_usize};
use crate::proto::v2::{ErrorCode, Growth, encode_trailer};
use crate::transport::Connection;

/// Sends runs of a session's file on one stream.
pub(crate) struct RunSender {
    session: Arc<Session>,
    prefetcher: Prefetcher,
}

impl RunSender {
    pub(crate) fn new(session: Arc<Session>) -> Self {
        let prefetcher = Prefetcher::new(Arc::clone(&session.spec.source));
        Self { session, prefetcher }
    }

    /// Sends the bytes of `run`, zeros for those that are missing, and returns the trailer, which says whether they are valid.
    ///
    /// `upcoming` is the run that is sent after it, if that is known already.
    ///
    /// # Errors
    /// [`StreamFailure`] if the connection accepts nothing for the stall timeout, or is gone.
    pub(crate) async fn send(
        &mut self,
        connection: &Connection,
        run: BlockRun,
        upcoming: Option<BlockRun>,
    ) -> Result<Vec<u8>, StreamFailure> {
        let session = Arc::clone(&self.session);
        let (source, stall_timeout) = (&session.spec.source, session.context.timeouts.stall);
        let bytes_of = |run| session.spec.manifest.run_range(run).unwrap_or_default();
        let (range, upcoming) = (bytes_of(run), upcoming.map(bytes_of).unwrap_or_default());
        let mut digests = RunDigests::new(&session, run);
        let mut body = BodySender::new(source, connection, range, stall_timeout);
        let sent = self.send_pieces(&mut body, upcoming, &mut digests).await;
        session.add_bytes_sent(body.position() - range.start());
        let position = body.position();
        let trailer = trailer(&**source, run, sent, digests).await?;
        write_zeros(connection, range.end() - position, stall_timeout).await?;
        Ok(trailer)
    }

    /// The trailer of `run` for a receiver that wants no data: digests that are not remembered are computed.
    ///
    /// # Errors
    /// None that a trailer can report.
    pub(crate) async fn prove(&mut self, run: BlockRun) -> Result<Vec<u8>, StreamFailure> {
        let session = Arc::clone(&self.session);
        let mut digests = RunDigests::without_data(&session, run);
        let hashed = self.hash_pieces(&mut digests).await;
        trailer(&*session.spec.source, run, hashed, digests).await
    }

    async fn hash_pieces(&mut self, digests: &mut RunDigests) -> Result<(), StreamFailure> {
        let mut pieces = digests.pieces().into_iter().filter(|piece| piece.is_hashed).peekable();
        while let Some(RunPiece { range, .. }) = pieces.next() {
            self.cached(range, pieces.peek().copied().unwrap_or_default().range).await?;
            let _turn = self.session.next_turn().await;
            digests.hash(range)?;
        }
        Ok(())
    }

    async fn cached(&mut self, range: ByteRange, ahead: ByteRange) -> Result<(), StreamFailure> {
        let caching = self.prefetcher.ensure_cached(range, ahead);
        let cached = timeout(self.session.context.timeouts.stall, caching).await;
        cached.map_err(|_| StreamFailure::SourceUnreadable)
    }

    async fn send_pieces(
        &mut self,
        body: &mut BodySender<'_>,
        upcoming: ByteRange,
        digests: &mut RunDigests,
    ) -> Result<(), StreamFailure> {
        let mut pieces = digests.pieces().into_iter().peekable();
        while let Some(RunPiece { range, is_hashed }) = pieces.next() {
            // The upcoming run mostly begins like this one ends.
            let ahead = pieces.peek().map_or(RunPiece::first_of(upcoming, is_hashed), |next| *next).range;
            self.cached(range, ahead).await?;
            let mut unhashed = is_hashed;
            while body.position() < range.end() {
                body.ready(range.end()).await?;
                let limit = self.session.context.rate_limit.as_ref();
                let allowed = match limit {
                    Some(limit) => limit.allowance().await,
                    None => usize::MAX,
                };
                let end = range.end().min(body.position().saturating_add(to_u64(allowed)));
                let turn = self.session.next_turn().await;
                let sent = body.send_now(end)?;
                if let Some(limit) = limit {
                    limit.give_back(allowed, to_usize(sent.unwrap_or(0)));
                }
                // While the receiver is busy with the first bytes, and the pages are in the cache.
                if unhashed {
                    unhashed = false;
                    digests.hash(range)?;
                }
                drop(turn);
            }
        }
        Ok(())
    }
}

/// The trailer of a run of which everything was `sent` or hashed: its digests, or why it is invalid.
async fn trailer(
    source: &dyn Object,
    run: BlockRun,
    sent: Result<(), StreamFailure>,
    digests: RunDigests,
) -> Result<Vec<u8>, StreamFailure> {
    let code = match sent {
        Ok(()) => match digests.finish().await {
            Ok(digests) => return Ok(encode_trailer(Ok(&digests), growth_of(source), run.count)),
            Err(code) => code,
        },
        Err(StreamFailure::SourceUnreadable) if source.is_unchanged() => ErrorCode::SourceUnreadable,
        Err(StreamFailure::SourceUnreadable | StreamFailure::SourceChanged) => ErrorCode::SourceChanged,
        Err(failure) => return Err(failure),
    };
    Ok(encode_trailer(Err(code), Growth::None, run.count))
}

fn growth_of(source: &dyn Object) -> Growth {
    if source.has_grown() { Growth::Grown } else { Growth::None }
}
