//! Sends one run: its bytes in few long calls, and the digests of its blocks.

use std::sync::Arc;

use tokio::time::timeout;

use super::event::StreamFailure;
use super::run_digests::{RunDigests, RunPiece};
use super::session::Session;
use super::write::write_zeros;
use super::{BodySender, Prefetcher};
use crate::backend::Object;
use crate::manifest::{BlockRun, ByteRange};
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
        let code = match sent {
            Ok(()) => match digests.finish().await {
                Ok(digests) => return Ok(encode_trailer(Ok(&digests), growth_of(&**source), run.count)),
                Err(code) => code,
            },
            Err(StreamFailure::SourceUnreadable) if source.is_unchanged() => ErrorCode::SourceUnreadable,
            Err(StreamFailure::SourceUnreadable | StreamFailure::SourceChanged) => ErrorCode::SourceChanged,
            Err(failure) => return Err(failure),
        };
        write_zeros(connection, range.end() - body.position(), stall_timeout).await?;
        Ok(encode_trailer(Err(code), Growth::None, run.count))
    }

    async fn send_pieces(
        &mut self,
        body: &mut BodySender<'_>,
        upcoming: ByteRange,
        digests: &mut RunDigests,
    ) -> Result<(), StreamFailure> {
        let session = &self.session;
        let mut pieces = digests.pieces().into_iter().peekable();
        while let Some(RunPiece { range, is_hashed }) = pieces.next() {
            // The upcoming run mostly begins like this one ends.
            let ahead = pieces.peek().map_or(RunPiece::first_of(upcoming, is_hashed), |next| *next).range;
            let caching = self.prefetcher.ensure_cached(range, ahead);
            timeout(session.context.timeouts.stall, caching)
                .await
                .map_err(|_| StreamFailure::SourceUnreadable)?;
            let mut unhashed = is_hashed;
            while body.position() < range.end() {
                body.ready(range.end()).await?;
                let turn = session.next_turn().await;
                body.send_now(range.end())?;
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

fn growth_of(source: &dyn Object) -> Growth {
    if source.has_grown() { Growth::Grown } else { Growth::None }
}
