//! One stream of a session: its receiver's requests, answered in order.

use std::io;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures_util::FutureExt;
use tokio::time::timeout;

use super::close::{close, refuse};
use super::digest_cache::DigestError;
use super::digest_queue::DigestQueue;
use super::event::{SessionEnd, StreamFailure};
use super::run::RunSender;
use super::session::{Session, StreamGuard};
use super::write::{Follows, write_all};
use crate::manifest::BlockRun;
use crate::proto::v2::{ErrorCode, FRAME_LEN, Push, ReceiverFailure, Responder, Response, Step, WireRun};
use crate::transport::Connection;

/// How many requests are read at once.
const READ: usize = 16 * FRAME_LEN;

/// What the sender sends on a stream before anything is requested.
#[derive(Debug, Default)]
pub(crate) enum Opening {
    /// Nothing: the stream began with a hello.
    #[default]
    Hello,
    /// These bytes, the session's offer, and the pushed run.
    Offer(Vec<u8>, Push),
}

/// How a stream ended between two frames.
enum StreamEnd {
    /// The receiver has closed, or requested nothing for too long.
    Closed,
    /// The receiver has everything, which ends the session.
    Finished,
    /// The receiver has given up, which ends the session.
    Left,
    /// The receiver has failed, which ends the session.
    Failed(ReceiverFailure, String),
    Drained,
    /// The receiver does not take the stream.
    Rejected(ErrorCode),
    Refused(ErrorCode, String),
}

/// Carries a stream on its connection, on which `early` was read before, to its end.
///
/// Returns why the receiver did not take it, if that is so.
pub(crate) async fn serve_stream(
    guard: StreamGuard,
    connection: Connection,
    early: Bytes,
    opening: Opening,
) -> Option<ErrorCode> {
    let session = Arc::clone(&guard.session);
    // It counts as long as it is open; a connection that was replaced shares the place of its successor.
    let place = Arc::clone(&guard.claim.connection);
    connection.expect_bulk_data();
    let mut stream = ServedStream {
        session: Arc::clone(&session),
        runs: RunSender::new(Arc::clone(&session)),
        digests: DigestQueue::new(Arc::clone(&session)),
        responder: Responder::new(session.spec.manifest),
        connection,
        early,
        unsent: Vec::new(),
        bytes: 0,
        is_mid_frame: false,
    };
    let outcome = tokio::select! {
        biased;
        () = guard.claim.stop.cancelled() => Err(StreamFailure::Aborted),
        outcome = stream.run(opening) => outcome,
    };
    // A receiver that leaves does not take the rest of a run.
    let outcome = match outcome {
        Err(StreamFailure::Disconnected) => stream.last_words().ok_or(StreamFailure::Disconnected),
        outcome => outcome,
    };
    let failure = match &outcome {
        Ok(
            StreamEnd::Closed
            | StreamEnd::Finished
            | StreamEnd::Left
            | StreamEnd::Failed(..)
            | StreamEnd::Rejected(_)
            | StreamEnd::Drained,
        ) => None,
        Ok(StreamEnd::Refused(ErrorCode::SourceChanged, _)) => Some(StreamFailure::SourceChanged),
        Ok(StreamEnd::Refused(ErrorCode::SourceUnreadable, _)) => Some(StreamFailure::SourceUnreadable),
        Ok(StreamEnd::Refused(..)) => Some(StreamFailure::BrokenProtocol),
        Err(StreamFailure::Aborted) if guard.is_replaced() => Some(StreamFailure::Replaced),
        Err(StreamFailure::Aborted)
            if matches!(session.streams.ended(), Some(SessionEnd::Left | SessionEnd::Failed))
                || session.streams.ended() == Some(SessionEnd::Finished) && !stream.is_mid_frame =>
        {
            None
        }
        Err(failure) => Some(*failure),
    };
    (session.spec.on_stream_end)(guard.claim.stream, stream.bytes, failure.map_or(Ok(()), Err));
    // Before the stream is free: a host that drains waits for nothing else, and would take this for a failure.
    match &outcome {
        Ok(StreamEnd::Finished) => drop(session.end(SessionEnd::Finished)),
        Ok(StreamEnd::Left) => drop(session.end(SessionEnd::Left)),
        Ok(StreamEnd::Failed(failure, reason)) => session.fail(*failure, reason.clone()),
        _ => {}
    }
    let rejection = if let Ok(StreamEnd::Rejected(code)) = outcome { Some(code) } else { None };
    drop(guard);
    if failure == Some(StreamFailure::Replaced) {
        stream.close_at_once();
    } else {
        stream.close(outcome).await;
    }
    drop(place);
    rejection
}

/// A stream's connection, and where it is in its conversation.
struct ServedStream {
    session: Arc<Session>,
    runs: RunSender,
    digests: DigestQueue,
    responder: Responder,
    connection: Connection,
    /// What was read before the stream began.
    early: Bytes,
    /// Bytes that are written together with the next frame: an offer, or the trailer of the previous run.
    unsent: Vec<u8>,
    /// How many data bytes were sent.
    bytes: u64,
    /// Whether a frame was begun and not completed: then the connection can only be reset.
    is_mid_frame: bool,
}

impl ServedStream {
    /// Answers requests until the stream ends.
    async fn run(&mut self, opening: Opening) -> Result<StreamEnd, StreamFailure> {
        if let Opening::Offer(preface, push) = opening {
            self.unsent = preface;
            self.unsent.extend(Response::offer(&self.session.offer().encode()));
            self.is_mid_frame = true;
            match push.run(&self.session.spec.manifest) {
                Some(run) => self.send(run).await?,
                None => self.flush().await?,
            }
            if self.session.spec.manifest.n_blocks() == 0 {
                // The offer is all there is.
                return Ok(StreamEnd::Finished);
            }
        }
        loop {
            if self.responder.is_empty() {
                // What has arrived meanwhile: mostly the next request, so that its header is written with the trailer.
                let _ = self.read_now()?;
            }
            if self.is_draining() {
                return self.drain().await;
            }
            if let Some(frame) = self.digests.next().now_or_never() {
                if let Some(end) = self.report_digests(frame).await? {
                    return Ok(end);
                }
                continue;
            }
            let step = self.responder.next();
            match step {
                Some(Step::Send(run)) => self.send(run).await?,
                Some(Step::Prove(run)) => self.prove(run).await?,
                Some(Step::Digests(which)) if self.digests.request(which).is_some() => {}
                Some(Step::Digests(_)) => return self.violated("too many unanswered requests").await,
                Some(Step::Rejected(code)) => return Ok(StreamEnd::Rejected(code)),
                Some(Step::Refuse(reason)) => return self.violated(reason).await,
                Some(Step::End) => {
                    self.flush().await?;
                    return Ok(StreamEnd::Finished);
                }
                Some(Step::Leave) => return Ok(StreamEnd::Left),
                Some(Step::Failed(failure)) => return Ok(self.failed(failure)),
                None => {
                    self.flush().await?;
                    if let Some(end) = self.wait().await? {
                        return Ok(end);
                    }
                }
            }
        }
    }

    /// Sends a run and keeps its trailer for the next write.
    async fn send(&mut self, run: BlockRun) -> Result<(), StreamFailure> {
        let header = self.wire_run(run);
        self.unsent.extend(Response::Data(header).encode());
        self.write_unsent(Follows::More).await?;
        let upcoming = self.responder.upcoming();
        self.unsent = self.runs.send(&self.connection, run, upcoming).await?;
        self.bytes += header.length;
        Ok(())
    }

    /// Sends the digests of the blocks of a run.
    async fn prove(&mut self, run: BlockRun) -> Result<(), StreamFailure> {
        // What is there must not wait until they are computed; and a receiver that has gone is noticed by it.
        self.flush().await?;
        let trailer = self.runs.prove(run).await?;
        self.unsent.extend(Response::Proof(self.wire_run(run)).encode());
        self.write(&trailer).await?;
        // Perhaps that the receiver leaves, so that the digests that it has requested before are of no use.
        self.read_now().map(|_| ())
    }

    fn wire_run(&self, run: BlockRun) -> WireRun {
        let length = self.session.spec.manifest.run_len(run).unwrap_or_default();
        WireRun { first: u64::from(run.first.value()), count: run.count, length }
    }

    /// Writes the rest of a frame, if there is one.
    async fn flush(&mut self) -> Result<(), StreamFailure> {
        self.write_unsent(Follows::Nothing).await?;
        self.is_mid_frame = false;
        Ok(())
    }

    async fn write_unsent(&mut self, follows: Follows) -> Result<(), StreamFailure> {
        if !self.unsent.is_empty() {
            self.is_mid_frame = true;
            write_all(&self.connection, &self.unsent, follows, self.session.context.timeouts.stall).await?;
            self.unsent.clear();
        }
        Ok(())
    }

    /// Writes a complete frame, after what is unsent.
    async fn write(&mut self, frame: &[u8]) -> Result<(), StreamFailure> {
        self.unsent.extend_from_slice(frame);
        self.flush().await
    }

    /// Waits for requests and digests; returns how the stream ended if it ends instead.
    async fn wait(&mut self) -> Result<Option<StreamEnd>, StreamFailure> {
        let session = Arc::clone(&self.session);
        let idle = session.context.timeouts.idle;
        let is_idle = self.digests.is_empty();
        tokio::select! {
            biased;
            () = session.context.tasks.draining.cancelled() => return Ok(None),
            frame = self.digests.next() => return self.report_digests(frame).await,
            readable = timeout(idle, self.connection.readable()) => match readable {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(StreamFailure::Disconnected),
                Err(_) if is_idle => return Ok(Some(StreamEnd::Closed)),
                Err(_) => return Ok(None),
            },
        }
        match self.read_now()? {
            Read::End if self.responder.is_at_boundary() => Ok(Some(StreamEnd::Closed)),
            Read::End => Err(StreamFailure::Disconnected),
            Read::Some | Read::Nothing => Ok(None),
        }
    }

    fn failed(&self, failure: ReceiverFailure) -> StreamEnd {
        if failure == ReceiverFailure::ShuttingDown {
            // The next server at its address continues.
            StreamEnd::Rejected(ErrorCode::NoSuchSession)
        } else {
            StreamEnd::Failed(failure, self.responder.reason())
        }
    }

    /// How the receiver has ended the transfer, as far as its requests have arrived. The connection may be broken.
    fn last_words(&mut self) -> Option<StreamEnd> {
        while self.responder.room() > 0 && matches!(self.read_now(), Ok(Read::Some)) {}
        match self.responder.next()? {
            Step::Leave => Some(StreamEnd::Left),
            Step::Failed(failure) => Some(self.failed(failure)),
            Step::Rejected(code) => Some(StreamEnd::Rejected(code)),
            Step::Send(_) | Step::Prove(_) | Step::Digests(_) | Step::End | Step::Refuse(_) => None,
        }
    }

    /// Reads what is there, without waiting.
    fn read_now(&mut self) -> Result<Read, StreamFailure> {
        if self.early.has_remaining() {
            let n = self.responder.take(&self.early);
            self.early.advance(n);
            return Ok(Read::Some);
        }
        let mut buffer = [0; READ];
        let room = self.responder.room().min(READ);
        match self.connection.try_read(buffer.get_mut(..room).unwrap_or_default()) {
            // Where there was room, it is the end.
            Ok(0) => Ok(if room > 0 { Read::End } else { Read::Nothing }),
            Ok(n) => {
                self.responder.take(buffer.get(..n).unwrap_or_default());
                Ok(Read::Some)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Read::Nothing),
            Err(_) => Err(StreamFailure::Disconnected),
        }
    }

    /// Sends a frame about the file's digests; digests that cannot be had end the stream.
    async fn report_digests(
        &mut self,
        frame: Result<Vec<u8>, DigestError>,
    ) -> Result<Option<StreamEnd>, StreamFailure> {
        let error = match frame {
            Ok(frame) => return self.write(&frame).await.map(|()| None),
            Err(error) => error,
        };
        self.flush().await?;
        let code = match error {
            DigestError::Changed => ErrorCode::SourceChanged,
            DigestError::Unreadable | DigestError::Failed => ErrorCode::SourceUnreadable,
            DigestError::Shortage | DigestError::Cancelled => ErrorCode::Busy,
        };
        Ok(Some(StreamEnd::Refused(code, error.to_string())))
    }

    async fn violated(&mut self, reason: &str) -> Result<StreamEnd, StreamFailure> {
        self.flush().await?;
        Ok(StreamEnd::Refused(ErrorCode::ProtocolViolation, reason.to_owned()))
    }

    fn is_draining(&self) -> bool {
        self.session.context.tasks.draining.is_cancelled()
    }

    async fn drain(&mut self) -> Result<StreamEnd, StreamFailure> {
        self.write(&Response::Drain.encode()).await?;
        Ok(StreamEnd::Drained)
    }

    /// Closes the connection of a stream that was replaced, as [`close`](Self::close) does, without waiting for the receiver.
    fn close_at_once(self) {
        if !self.is_mid_frame {
            // It is dropped in any case.
            let _ = self.connection.finish(self.session.context.timeouts.stall);
        }
    }

    /// Closes the connection: in order between two frames, else by a reset.
    async fn close(self, outcome: Result<StreamEnd, StreamFailure>) {
        let context = &self.session.context;
        match outcome {
            Ok(StreamEnd::Refused(code, reason)) => {
                refuse(context, &self.connection, code, &reason).await;
            }
            Ok(StreamEnd::Closed | StreamEnd::Finished | StreamEnd::Failed(..) | StreamEnd::Drained) => {
                close(context, &self.connection).await;
            }
            Err(StreamFailure::Aborted) if !self.is_mid_frame => close(context, &self.connection).await,
            Ok(StreamEnd::Left | StreamEnd::Rejected(_)) | Err(_) => {}
        }
    }
}

/// The result of a look for requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Read {
    Some,
    Nothing,
    /// The receiver sends no more.
    End,
}
