//! Streams of known and unknown length, and how they end.

use super::*;
use crate::digest::{FileHasher, Md5Digest};
use crate::manifest::StreamCount;
use crate::receive::in_order::{Duties, InOrderResult};
use crate::sink::PwriteStore;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

const CONTENT: &[u8] = b"abcdefghijklm";

/// A transfer of [`CONTENT`] on three streams, of 5, 5 and 3 bytes.
struct Scene {
    parts: Parts,
    peers: Vec<TcpStream>,
    reader: InOrderReader,
    result: InOrderResult,
}

impl Scene {
    async fn new(size: Option<u64>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let streams = StreamCount::new(3).unwrap();
        let store = Arc::new(PwriteStore::of_unknown_size(tempfile::tempfile().unwrap()));
        let (mut parts, mut peers) = (Vec::new(), Vec::new());
        for id in streams.ids() {
            let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            peers.push(listener.accept().await.unwrap().0);
            let place = || Arc::new(PwriteStore::of_unknown_size(tempfile::tempfile().unwrap()));
            let range = |size| StaticSplit::new(size, streams).range(id);
            parts.push(match size.map(range) {
                Some(range) => Part::of_known_size(id, socket, store.clone(), range),
                None => Part::of_unknown_size(id, socket, place()),
            });
        }
        let hasher = FileHasher::default().with_md5();
        let duties = Duties { writer: None, path: PathBuf::from("out"), hasher };
        let (reader, result) = InOrderReader::spawn(duties).unwrap();
        Self { parts: Parts::new(parts, None), peers, reader, result }
    }

    async fn send(&mut self, stream: usize, bytes: &[u8]) {
        self.peers[stream].write_all(bytes).await.unwrap();
    }

    async fn receive_all(&mut self) -> Result<(), PartFault> {
        while self.parts.n_open() > 0 {
            self.parts.receive(&self.reader).await?;
        }
        self.parts.hand_on(&self.reader);
        Ok(())
    }

    async fn assert_digested(mut self, expected: &[u8]) {
        self.reader.close(u64::try_from(expected.len()).unwrap());
        assert_eq!(self.result.wait().await.unwrap().md5, Some(Md5Digest::of(expected)));
    }
}

#[tokio::test]
async fn later_parts_are_handed_on_after_earlier_ones() {
    for size in [Some(13), None] {
        let mut scene = Scene::new(size).await;
        for (stream, bytes) in [(2, &CONTENT[10..]), (1, &CONTENT[5..10]), (0, &CONTENT[..5])] {
            scene.send(stream, bytes).await;
        }
        scene.peers.clear();
        scene.receive_all().await.unwrap();
        assert_eq!((scene.parts.received(), scene.parts.size().unwrap()), (13, 13));
        scene.assert_digested(CONTENT).await;
    }
}

#[tokio::test]
async fn reset_after_the_last_byte_is_no_error() {
    for size in [Some(13), None] {
        let mut scene = Scene::new(size).await;
        for (stream, bytes) in [(0, &CONTENT[..5]), (1, &CONTENT[5..10]), (2, &CONTENT[10..])] {
            scene.send(stream, bytes).await;
        }
        // A reset removes what was not read.
        while scene.parts.received() < 13 {
            scene.parts.receive(&scene.reader).await.unwrap();
        }
        scene.peers.drain(..).for_each(|peer| peer.set_zero_linger().unwrap());
        scene.receive_all().await.unwrap();
        scene.assert_digested(CONTENT).await;
    }
}

#[tokio::test]
async fn early_end_is_reported_with_its_stream() {
    for size in [Some(13), None] {
        let mut scene = Scene::new(size).await;
        for (stream, bytes) in [(0, &CONTENT[..5]), (1, &b"f"[..]), (2, &CONTENT[10..])] {
            scene.send(stream, bytes).await;
        }
        scene.peers.clear();
        let received = scene.receive_all().await;
        let fault = received.and_then(|()| scene.parts.size().map(|_| ())).unwrap_err();
        assert!(matches!(fault, PartFault::Lost { stream: 1, received: 1, .. }), "{fault:?}");
    }
}

#[tokio::test]
async fn empty_parts_need_no_byte() {
    for size in [Some(0), None] {
        let mut scene = Scene::new(size).await;
        scene.peers.clear();
        scene.receive_all().await.unwrap();
        assert_eq!(scene.parts.size().unwrap(), 0);
        scene.assert_digested(b"").await;
    }
}

#[tokio::test]
async fn stream_with_unread_data_has_not_stalled() {
    let mut scene = Scene::new(Some(13)).await;
    for stream in 0..3 {
        assert!(scene.parts.is_stalled(Duration::ZERO));
        scene.send(stream, b"x").await;
    }
    while scene.parts.is_stalled(Duration::ZERO) {
        tokio::task::yield_now().await;
    }
}

#[test]
fn starving_streams_come_first_then_file_order() {
    let turns = |received: &[Option<u64>], due| turns(received.iter().copied(), due);
    assert_eq!(turns(&[Some(900), Some(0), Some(0)], 0), [0, 1, 2]);
    assert_eq!(turns(&[Some(900), Some(50), Some(10), Some(200)], 100), [2, 1, 0, 3]);
    assert_eq!(turns(&[None, Some(50), None, Some(10)], 0), [1, 3], "complete ones are left out");
}
