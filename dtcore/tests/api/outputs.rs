//! Where a download can go: files, writers, asynchronous writers, memory, streams.

use std::error::Error;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll};

use dtcore::{Download, ErrorKind, Events, ProtocolChoice, StreamCount, TransferError};
use futures_util::StreamExt;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use crate::serve::{PATIENCE, Served};

const SIZE: usize = 3 << 20;

/// A download that takes a minute, with a first block after half a second.
fn slow(served: &Served) -> Download {
    served.file("slow", 60_000_000);
    let builder = served.builder().rate_limit(NonZeroU64::new(1_000_000).unwrap());
    builder.streams(StreamCount::new(1).unwrap()).build().unwrap().download("slow")
}

/// The text of the error below `error`.
fn cause(error: &TransferError) -> String {
    error.source().expect("it has a cause").to_string()
}

/// Waits until the transfer has ended, which closes its events.
async fn ended(mut events: Events) {
    let ending = async { while events.next().await.is_some() {} };
    timeout(PATIENCE, ending).await.expect("the transfer ends");
}

#[tokio::test]
async fn path_gets_a_verified_file() {
    let served = Served::new();
    let content = served.file("f", SIZE);
    let report =
        served.client().download("f").fsync(true).md5(true).to_path(served.output("out")).await.unwrap();
    assert_eq!((report.output, report.bytes), (Some(served.output("out")), 3 << 20));
    assert!(report.blake3.is_some() && report.md5.is_some());
    assert!(std::fs::read(served.output("out")).unwrap() == content);
}

#[tokio::test]
async fn existing_output_is_replaced_unless_forbidden() {
    let served = Served::new();
    let content = served.file("f", 1000);
    std::fs::write(served.output("out"), "before").unwrap();
    let download = served.client().download("f");
    let error = download.clone().overwrite(false).to_path(served.output("out")).await.unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::OutputExists, Some(&*served.output("out"))));
    assert_eq!(std::fs::read(served.output("out")).unwrap(), b"before");
    download.to_path(served.output("out")).await.unwrap();
    assert!(std::fs::read(served.output("out")).unwrap() == content);
}

#[tokio::test]
async fn writer_is_returned() {
    let served = Served::new();
    for size in [0, 1, SIZE] {
        let content = served.file("f", size);
        let (report, written) = served.client().download("f").to_writer(Vec::new()).await.unwrap();
        assert!(written == content, "{size}");
        assert_eq!((report.output, usize::try_from(report.bytes)), (None, Ok(size)));
    }
}

/// A writer that takes some bytes, and then fails as `end` does.
struct Failing<F> {
    left: usize,
    end: F,
}

impl<F: FnMut() -> io::Error> Write for Failing<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = bytes.len().min(self.left);
        self.left -= n;
        if n == 0 { Err((self.end)()) } else { Ok(n) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: FnMut() -> io::Error + Unpin> AsyncWrite for Failing<F> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.write(bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn failing_writer_is_the_cause() {
    let served = Served::new();
    served.file("f", SIZE);
    let download = served.client().download("f");
    for left in [0, 1, SIZE - 1] {
        let failing = || Failing { left, end: || io::Error::other("the tape has torn") };
        let error = download.clone().to_writer(failing()).await.map(drop).unwrap_err();
        assert_eq!((error.kind(), &*cause(&error)), (ErrorKind::LocalFile, "the tape has torn"), "{left}");
        let error = download.clone().to_async_writer(failing()).await.map(drop).unwrap_err();
        assert_eq!((error.kind(), &*cause(&error)), (ErrorKind::LocalFile, "the tape has torn"), "{left}");
    }
    let full = Failing { left: 5, end: || io::ErrorKind::StorageFull.into() };
    let error = download.to_async_writer(full).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DiskFull);
}

#[tokio::test]
async fn panicking_writer_ends_the_transfer() {
    let served = Served::new();
    served.file("f", SIZE);
    let panicking = Failing { left: 5, end: || panic!("as the test wants it") };
    let transfer = served.client().download("f").to_writer(panicking);
    let error = timeout(PATIENCE, transfer).await.expect("it ends").map(drop).unwrap_err();
    assert_eq!((error.kind(), &*cause(&error)), (ErrorKind::LocalFile, "the writer panicked"));
}

#[tokio::test]
async fn asynchronous_writer_is_returned() {
    let served = Served::new();
    for size in [0, 1, SIZE] {
        let content = served.file("f", size);
        let (report, written) = served.client().download("f").to_async_writer(Vec::new()).await.unwrap();
        assert!(written == content, "{size}");
        assert_eq!(usize::try_from(report.bytes), Ok(size));
    }
}

#[tokio::test]
async fn stuck_asynchronous_writer_can_be_cancelled() {
    let served = Served::new();
    for size in [100, SIZE] {
        served.file("f", size);
        // Nobody reads from the other end.
        let (writer, _reader) = tokio::io::duplex(16);
        let mut transfer = served.client().download("f").to_async_writer(writer);
        let mut events = transfer.take_events().unwrap();
        while !matches!(events.next().await, Some(dtcore::Event::Started { .. })) {}
        transfer.cancel_handle().cancel();
        let error = timeout(PATIENCE, transfer).await.expect("it ends").map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{size}");
    }
}

#[tokio::test]
async fn bytes_are_limited() {
    let served = Served::new();
    for size in [0, 1, SIZE] {
        let content = served.file("f", size);
        let client = served.client();
        assert!(client.download("f").bytes(size).await.unwrap() == content, "{size}");
        assert!(client.download("f").bytes(usize::MAX).await.unwrap() == content, "{size}");
        if let Some(limit) = size.checked_sub(1) {
            let error = client.download("f").bytes(limit).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::TooLarge);
            let expected = format!(
                "file too large: {size} byte{}, and the limit is {limit}",
                if size == 1 { "" } else { "s" }
            );
            assert_eq!(error.to_string(), expected);
        }
    }
}

#[tokio::test]
async fn stream_ends_with_a_report() {
    let served = Served::new();
    for size in [0, 1, SIZE] {
        let content = served.file("f", size);
        let mut stream = served.client().download("f").into_stream();
        let mut received = Vec::new();
        while let Some(piece) = stream.next().await {
            assert!(stream.report().is_none());
            received.extend_from_slice(&piece.unwrap());
        }
        assert!(received == content, "{size}");
        assert_eq!(stream.report().map(|report| usize::try_from(report.bytes)), Some(Ok(size)));
        assert!(stream.next().await.is_none(), "it stays at its end");
    }
}

#[tokio::test]
async fn stream_of_a_missing_file_is_one_error() {
    let served = Served::new();
    let mut stream = served.client().download("missing").into_stream();
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::NotFound);
    assert!(stream.next().await.is_none());
    assert!(stream.report().is_none());
}

#[tokio::test]
async fn dropped_stream_cancels_its_transfer() {
    let served = Served::new();
    let mut stream = slow(&served).into_stream();
    let events = stream.take_events().unwrap();
    assert!(!stream.next().await.unwrap().unwrap().is_empty());
    drop(stream);
    ended(events).await;
}

#[tokio::test]
async fn dropped_transfer_is_cancelled() {
    let served = Served::new();
    let mut transfer = slow(&served).to_path(served.output("out"));
    let mut events = transfer.take_events().unwrap();
    while !matches!(events.next().await, Some(dtcore::Event::Started { .. })) {}
    drop(transfer);
    ended(events).await;
    assert!(!served.output("out").exists());
}

#[tokio::test]
async fn cancelled_transfer_resumes() {
    let served = Served::new();
    let content = served.file("f", SIZE);
    let slowly = served.builder().rate_limit(NonZeroU64::new(2 << 20).unwrap()).build().unwrap();
    let mut transfer = slowly.download("f").to_path(served.output("out"));
    let (mut events, cancel) = (transfer.take_events().unwrap(), transfer.cancel_handle());
    let mut saved = None;
    while let Some(event) = events.next().await {
        if let dtcore::Event::Resumable { bytes, .. } = event {
            saved = Some(bytes);
        } else if matches!(event, dtcore::Event::Progress(progress) if progress.verified > 0) {
            cancel.cancel();
        }
    }
    let error = transfer.await.unwrap_err();
    assert_eq!(
        (error.kind(), error.is_retryable(), error.code()),
        (ErrorKind::Cancelled, false, "cancelled")
    );
    let report = served.client().download("f").to_path(served.output("out")).await.unwrap();
    assert!(report.resumed > 0 && Some(report.resumed) == saved, "{report:?}, {saved:?}");
    assert!(std::fs::read(served.output("out")).unwrap() == content);
}

#[tokio::test]
async fn protocol_1_delivers_to_every_output() {
    let served = Served::new();
    let download = served.builder().protocol(ProtocolChoice::V1).build().unwrap().download("f");
    for size in [0, 1, SIZE] {
        let content = served.file("f", size);
        let report = download.clone().to_path(served.output("out")).await.unwrap();
        assert_eq!(report.protocol, 1);
        assert!(std::fs::read(served.output("out")).unwrap() == content, "{size}");
        assert!(download.clone().to_writer(Vec::new()).await.unwrap().1 == content, "{size}");
        assert!(download.clone().to_async_writer(Vec::new()).await.unwrap().1 == content, "{size}");
        assert!(download.clone().bytes(size).await.unwrap() == content, "{size}");
        let pieces: Vec<_> = download.clone().into_stream().map(Result::unwrap).collect().await;
        assert!(pieces.concat() == content, "{size}");
    }
    let error = download.bytes(SIZE - 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}
