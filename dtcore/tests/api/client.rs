//! What the transfers of a client have in common: its options, its limit, and clones of all of it.

use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use dtcore::{Client, ErrorKind, Event, StreamCount};
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::serve::{PATIENCE, Served};

#[tokio::test]
async fn stat_reports_a_file_without_receiving_it() {
    let served = Served::new();
    served.file("f", 5000);
    let client = served.client();
    let found = client.stat("f").await.unwrap();
    assert_eq!(found.size, 5000);
    let age = found.modified.elapsed().expect("it is not of the future");
    assert!(age < PATIENCE, "{age:?}");
    let error = client.stat("missing").await.unwrap_err();
    assert_eq!((error.kind(), error.entry()), (ErrorKind::NotFound, Some("missing")));
    assert_eq!(error.peer(), Some(&*served.address().to_string()));
}

#[tokio::test]
async fn unreachable_server_is_retryable() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let client = Client::new(address.parse().unwrap()).unwrap();
    let error = client.download("f").bytes(1).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.code(), error.is_retryable()),
        (ErrorKind::Unreachable, "unreachable", true)
    );
    assert_eq!(error.to_string(), format!("cannot connect to {address}"));
}

#[tokio::test]
async fn clones_download_the_same_file() {
    let served = Served::new();
    let content = served.file("f", 2 << 20);
    let download = served.client().clone().download("/f").streams(StreamCount::new(3).unwrap());
    let (first, second) = tokio::join!(
        download.clone().to_path(served.output("first")),
        download.to_path(served.output("second")),
    );
    assert_eq!(first.unwrap().blake3, second.unwrap().blake3);
    for output in ["first", "second"] {
        assert!(std::fs::read(served.output(output)).unwrap() == content, "{output}");
    }
}

#[tokio::test]
async fn rate_limit_is_shared() {
    let served = Served::new();
    served.file("f", 2 << 20);
    let rate = NonZeroU64::new(8 << 20).unwrap();
    let client = served.builder().rate_limit(rate).build().unwrap();
    let (first, second) = (client.download("f"), client.clone().download("f"));
    let started = Instant::now();
    let (first, second) = tokio::join!(first.bytes(usize::MAX), second.bytes(usize::MAX));
    assert_eq!((first.unwrap().len(), second.unwrap().len()), (2 << 20, 2 << 20));
    // 4 MiB at 8 MiB/s; a tenth of a second of the rate may be saved up at the start.
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(390), "{took:?}");
}

#[tokio::test]
async fn longest_timeouts_are_no_overflow() {
    let served = Served::new();
    let content = served.file("f", 1 << 20);
    let builder = served.builder().connect_timeout(Duration::MAX).stall_timeout(Duration::MAX);
    let client = builder.answer_timeout(Duration::MAX).build().unwrap();
    assert!(client.download("f").bytes(1 << 20).await.unwrap() == content);
    assert_eq!(client.stat("f").await.unwrap().size, 1 << 20);
}

#[tokio::test]
async fn events_are_a_stream_that_ends_with_the_transfer() {
    let served = Served::new();
    served.file("f", 1 << 20);
    let mut transfer = served.client().download("f").to_path(served.output("out"));
    let events = transfer.take_events().unwrap();
    assert!(transfer.take_events().is_none());
    let events: Vec<Event> = timeout(PATIENCE, events.collect()).await.expect("they end");
    assert!(matches!(events.first(), Some(Event::Connected { .. })), "{events:?}");
    assert!(matches!(events.get(1), Some(Event::Started { size: Some(0x10_0000), .. })), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Progress(last)) if last.verified == 1 << 20), "{events:?}");
    transfer.await.unwrap();
}

#[tokio::test]
async fn transfer_outlives_its_client() {
    let served = Served::new();
    let content = served.file("f", 2 << 20);
    let client = served.client();
    let transfer = client.download("f").bytes(2 << 20);
    drop(client);
    assert!(transfer.await.unwrap() == content);
}

/// The smallest executor: it knows nothing of tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}

#[test]
fn any_executor_will_do() {
    let served = Served::new();
    let content = served.file("f", 2 << 20);
    let client = served.client();
    assert_eq!(block_on(client.stat("f")).unwrap().size, 2 << 20);
    assert!(block_on(client.download("f").bytes(2 << 20)).unwrap() == content);
    let (_, written) = block_on(client.download("f").to_async_writer(Vec::new())).unwrap();
    assert!(written == content);
}
