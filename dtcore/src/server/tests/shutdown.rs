//! Shutdown: everything is closed when `run` returns.

use super::*;

#[tokio::test]
async fn all_sockets_are_closed_and_no_stream_looks_complete() {
    let served = Served::with(|options| options.drain_timeout(Duration::from_millis(50))).await;
    served.sparse("f", 64 << 20);
    let idle = served.transfer("f", 1).await;
    let busy = served.transfer("f", 1).await;
    let stream = open_stream(busy, 0).await;
    within(stream.readable()).await.unwrap();
    let (control, stats) = (served.address, served.stats.clone());
    served.stop().await;
    for address in [control, idle, busy] {
        assert!(is_closed(address).await, "{address}");
    }
    let result = read_to_end(stream).await;
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!((stats.transfers_started(), stats.transfers_ended()), (2, 2));
}

#[tokio::test]
async fn running_stream_can_complete_within_the_drain_timeout() {
    let served = Served::with(|options| options.drain_timeout(DEADLINE)).await;
    served.sparse("f", 64 << 20);
    let address = served.transfer("f", 1).await;
    let stream = open_stream(address, 0).await;
    within(stream.readable()).await.unwrap();
    let reading = tokio::spawn(read_to_end(stream));
    let stats = served.stats.clone();
    served.stop().await;
    assert_eq!(reading.await.unwrap().unwrap().len(), 64 << 20);
    assert_eq!(stats.transfers_finished(), 1);
}

#[tokio::test]
async fn hashing_is_cancelled() {
    let served = Served::start().await;
    served.sparse("huge", 1 << 40);
    let mut socket = connect(served.address).await.unwrap();
    socket.write_all(&request("huge", 2)).await.unwrap();
    while served.stats.bytes_hashed() == 0 {
        tokio::task::yield_now().await;
    }
    served.stop().await;
    let answer = String::from_utf8(read_to_end(socket).await.unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn task_that_never_ends_does_not_block_shutdown() {
    let served = Served::with(|options| options.drain_timeout(Duration::from_millis(50))).await;
    // Like a read from a file server that is gone.
    served.context.upgrade().unwrap().tasks().tracker.spawn(std::future::pending::<()>());
    served.stop().await;
}

#[tokio::test]
async fn dropped_run_closes_everything_too() {
    let mut served = Served::start().await;
    served.file("f", b"abc");
    let transfer = served.transfer("f", 1).await;
    served.running.abort();
    within(async { while served.events.next().await.is_some() {} }).await;
    assert!(is_closed(served.address).await);
    assert!(is_closed(transfer).await);
}

#[tokio::test]
async fn unusable_folder_or_port_is_an_error() {
    let served = Served::start().await;
    let path = served.file("f", b"abc");
    let error = Server::bind(ServerOptions::new(path)).await.unwrap_err();
    assert!(matches!(error, ServerError::Root { .. }), "{error}");
    let options = ServerOptions::new(served.folder.path()).port(served.address.port());
    let error = Server::bind(options).await.unwrap_err();
    assert!(matches!(error, ServerError::Listen { .. }), "{error}");
}
