//! The digests of the file: computed beside everything else, and not for nothing.

use super::*;

/// A file that takes an hour to hash.
const HUGE: u64 = 1 << 40;

#[tokio::test]
async fn nothing_is_hashed_before_the_offer() {
    let served = Served::start().await;
    served.sparse("huge", HUGE);
    let offer = served.session("huge", 8).await;
    assert_eq!((offer.md5, offer.blake3), (None, None));
    assert_eq!(served.stats.bytes_hashed(), 0);
}

#[tokio::test]
async fn md5_is_computed_ahead_until_the_session_ends() {
    let served = Served::start().await;
    served.sparse("huge", HUGE);
    let body = "{\"threads\": 1, \"protocol\": 2, \"md5\": true}";
    let offer = served.session_with("huge", body).await;
    within(async {
        while served.stats.bytes_hashed() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut stream = served.open(&offer, 0).await;
    stream.request(&[Request::End]).await;
    assert_eq!(stream.got().await, Got::End);
    hashing_stops(&served).await;
}

/// Waits until the server hashes nothing.
async fn hashing_stops(served: &Served) {
    within(async {
        let mut before = u64::MAX;
        while before != served.stats.bytes_hashed() {
            before = served.stats.bytes_hashed();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn waiting_receiver_gets_progress_once_a_second() {
    let served = Served::start().await;
    served.sparse("huge", HUGE);
    let offer = served.session("huge", 1).await;
    let mut stream = served.open(&offer, 0).await;
    let begin = std::time::Instant::now();
    stream.request(&[Request::Digest(WholeDigests::Blake3)]).await;
    let mut before = 0;
    for n in 1..=2 {
        let Got::Wait(hashed) = stream.got().await else { panic!() };
        assert!(hashed > before);
        assert!(begin.elapsed() >= Duration::from_millis(900 * n), "{:?}", begin.elapsed());
        before = hashed;
    }
    served.shutdown.cancel();
    assert_eq!(stream.got().await, Got::Drain);
    served.stop().await;
}

#[tokio::test]
async fn digests_delay_no_run() {
    let served = Served::start().await;
    served.sparse("huge", HUGE);
    let offer = served.session("huge", 1).await;
    let mut stream = served.open(&offer, 0).await;
    stream.request(&[Request::Digest(WholeDigests::Blake3AndMd5)]).await;
    let mut n_waits = 0;
    while n_waits < 2 {
        stream.request_run(0, 1).await;
        loop {
            let got = stream.got().await;
            let Got::Wait(_) = got else {
                assert!(matches!(got, Got::Data(_, _, Ok(_))), "{got:?}");
                break;
            };
            n_waits += 1;
        }
    }
    // The digests of a stream that is closed are not computed any further.
    drop(stream);
    hashing_stops(&served).await;
}

#[tokio::test]
async fn several_requests_for_digests_are_answered_in_order() {
    let served = Served::start().await;
    let content = content(200_000);
    served.file("f", &content);
    let offer = served.session("f", 1).await;
    let mut stream = served.open(&offer, 0).await;
    let kinds = [WholeDigests::Blake3, WholeDigests::Blake3AndMd5, WholeDigests::Blake3];
    stream.request(&kinds.map(Request::Digest)).await;
    for kind in kinds {
        let md5 = (kind == WholeDigests::Blake3AndMd5).then(|| Md5Digest::of(&content));
        let expected = ReportedDigests { blake3: Blake3Digest::of(&content), md5 };
        assert_eq!(stream.got().await, Got::Digests(expected));
    }
    assert!(stream.fetch(0, 4).await == content);
}

#[tokio::test]
async fn too_many_requests_for_digests_end_the_stream() {
    let mut served = Served::start().await;
    served.sparse("huge", HUGE);
    let offer = served.session("huge", 1).await;
    let mut stream = served.open(&offer, 0).await;
    stream.request(&vec![Request::Digest(WholeDigests::Blake3); 1100]).await;
    assert_eq!(stream.got().await.refused(), ErrorCode::ProtocolViolation);
    assert_eq!(served.failed().await, StreamFailure::BrokenProtocol);
}
