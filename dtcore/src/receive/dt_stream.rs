//! A stream of protocol 2, as the receiver sees it.

use std::time::Duration;

use super::frame_reader::FrameReader;
use super::source::{EndNotice, RangeStream, ReadInterrupt, Trailer};
use super::wake::Wake;
use crate::digest::RangeDigest;
use crate::manifest::{BlockRun, Manifest};
use crate::num::to_usize;
use crate::proto::v2::{
    FRAME_LEN, Incoming, PAYLOAD_CHECK_LEN, ReportedDigests, Request, Requester, TRAILER_LEN, TrailerHead,
    Violation, WHOLE_DIGESTS_LEN, WholeDigests, checked_payload, reason_of,
};
use crate::sink::BlockLease;

/// What an HTTP server or proxy says first.
const HTTP: &[u8] = b"HTTP/";

/// How long the system tries to deliver the last bytes.
const LINGER: Duration = Duration::from_secs(10);

/// One connection of a session.
#[derive(Debug)]
pub(crate) struct DtStream {
    reader: FrameReader,
    requester: Requester,
    /// What is to be sent next.
    queued: Vec<u8>,
    /// The header of the response that is being received.
    header: [u8; FRAME_LEN],
    /// Whether nothing has arrived yet.
    is_unanswered: bool,
    /// How many bytes follow the data of the run that is being received: its trailer and the next header.
    follows: usize,
}

impl DtStream {
    /// A stream on which `hello` is sent before anything else.
    pub(crate) fn new(reader: FrameReader, manifest: Manifest, hello: &[u8]) -> Self {
        Self {
            reader,
            requester: Requester::new(manifest),
            queued: hello.to_vec(),
            header: [0; FRAME_LEN],
            is_unanswered: true,
            follows: 0,
        }
    }

    /// A stream on which the offer has arrived, and after it `pushed`, if that is something.
    pub(crate) fn after_offer(reader: FrameReader, manifest: Manifest, pushed: Option<BlockRun>) -> Self {
        let mut stream = Self { is_unanswered: false, ..Self::new(reader, manifest, &[]) };
        if let Some(run) = pushed {
            stream.requester.expect_pushed(run);
        }
        stream
    }

    /// The connection, with what was read of it and is not used.
    pub(super) fn into_reader(self) -> FrameReader {
        self.reader
    }

    /// Waits for the payload of the current frame, and its check.
    async fn payload(&mut self, len: usize, wake: &Wake) -> Result<Vec<u8>, ReadInterrupt> {
        self.reader.ensure(len + PAYLOAD_CHECK_LEN, wake).await?;
        let mut payload = self.reader.take(len + PAYLOAD_CHECK_LEN);
        checked_payload(&self.header, &payload).map_err(|_| invalid())?;
        payload.truncate(len);
        Ok(payload)
    }
}

impl RangeStream for DtStream {
    fn request(&mut self, run: BlockRun) -> bool {
        let Some(request) = self.requester.request_run(run) else { return false };
        self.queued.extend_from_slice(&request);
        true
    }

    fn request_proof(&mut self, run: BlockRun) -> bool {
        let Some(request) = self.requester.request_proof(run) else { return false };
        self.queued.extend_from_slice(&request);
        true
    }

    fn request_digests(&mut self, which: WholeDigests) -> bool {
        let Some(request) = self.requester.request_digests(which) else { return false };
        self.queued.extend_from_slice(&request);
        true
    }

    fn request_end(&mut self, notice: EndNotice) {
        self.queued.extend_from_slice(&Request::from(notice).encode());
    }

    fn n_unanswered(&self) -> usize {
        self.requester.n_unanswered()
    }

    async fn flush(&mut self, wake: &Wake) -> Result<(), ReadInterrupt> {
        let queued = std::mem::take(&mut self.queued);
        self.reader.send(&queued, wake).await
    }

    async fn next(&mut self, wake: &Wake) -> Result<Incoming, ReadInterrupt> {
        if self.is_unanswered {
            self.reader.ensure(HTTP.len(), wake).await?;
            if self.reader.buffered().starts_with(HTTP) {
                return Err(ReadInterrupt::AnsweredByHttp);
            }
        }
        self.reader.ensure(FRAME_LEN, wake).await?;
        self.header = self.reader.take_array();
        let incoming = self.requester.header(&self.header).map_err(ReadInterrupt::Violation)?;
        self.is_unanswered = false;
        if let Incoming::Run(run) = incoming {
            self.follows = trailer_len(run) + FRAME_LEN;
        }
        Ok(incoming)
    }

    async fn read(
        &mut self,
        lease: &mut BlockLease,
        limit: usize,
        is_last: bool,
        wake: &Wake,
    ) -> Result<usize, ReadInterrupt> {
        let follows = if is_last { self.follows } else { 0 };
        self.reader.receive(lease, limit, follows, wake).await
    }

    async fn discard(&mut self, remaining: u64, limit: usize, wake: &Wake) -> Result<usize, ReadInterrupt> {
        self.reader.discard(remaining, limit, wake).await
    }

    async fn trailer(&mut self, run: BlockRun, wake: &Wake) -> Result<Trailer, ReadInterrupt> {
        self.reader.ensure(trailer_len(run), wake).await?;
        let head = TrailerHead::decode(&self.reader.take_array()).map_err(|_| invalid())?;
        let digests = self.reader.take(trailer_len(run) - TRAILER_LEN);
        if head.count != run.count {
            return Err(invalid());
        }
        if head.result.is_err() && digests.iter().any(|byte| *byte != 0) {
            return Err(invalid());
        }
        self.requester.run_answered();
        let (digests, _) = digests.as_chunks::<{ RangeDigest::LEN }>();
        let digests = digests.iter().copied().map(RangeDigest).collect();
        Ok(head.result.map(|growth| (growth, digests)))
    }

    async fn digests(&mut self, which: WholeDigests, wake: &Wake) -> Result<ReportedDigests, ReadInterrupt> {
        let payload = self.payload(WHOLE_DIGESTS_LEN, wake).await?;
        let digests = ReportedDigests::decode(which, &payload).map_err(|_| invalid())?;
        self.requester.digests_answered();
        Ok(digests)
    }

    async fn reason(&mut self, len: usize, wake: &Wake) -> Result<String, ReadInterrupt> {
        self.payload(len, wake).await.map(|reason| reason_of(&reason))
    }

    fn finish(self) {
        // Everything that is of use has arrived; if the end does not reach the peer, it notices by itself.
        let _ = self.reader.into_connection().finish(LINGER);
    }
}

fn invalid() -> ReadInterrupt {
    ReadInterrupt::Violation(Violation::InvalidFrame)
}

/// How long the trailer of a run is. A run has at most 1024 blocks.
fn trailer_len(run: BlockRun) -> usize {
    TRAILER_LEN + to_usize(u64::from(run.count)) * RangeDigest::LEN
}
