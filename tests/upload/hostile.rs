//! Clients that lie: the server stays well, and nothing that is wrong gets a name.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use dt_testkit::frame::{self, HEADER, kind};
use dt_testkit::wait::PATIENCE;
use dt_testkit::workspace::files_in;

use crate::{MIB, Scene};

const BLOCK: u64 = 65_536;

/// A request for an upload, with these fields in place of right ones.
fn body(size: u64, changes: &[(&str, &str)]) -> String {
    let mut body = format!(
        "{{\"protocol\": 2, \"size\": {size}, \"modified\": 1, \"version\": \"{}\", \"block\": {BLOCK}, \"session\": \
         \"00000000000000a7\", \"secret\": \"{}\", \"hash\": null, \"blake3\": null, \"threads\": 4}}",
        "9f".repeat(16),
        "53".repeat(16)
    );
    for (from, to) in changes {
        assert!(body.contains(from), "{from}");
        body = body.replace(from, to);
    }
    body
}

struct Uploader {
    socket: TcpStream,
    answer: String,
}

impl Uploader {
    fn request(scene: &Scene, head: &str, body: &str) -> Self {
        let mut socket = TcpStream::connect(scene.server.addr).expect("it listens");
        socket.set_read_timeout(Some(PATIENCE)).expect("it is set");
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        socket.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\n") && socket.read(&mut byte).expect("it answers") == 1 {
            answer.push(byte[0]);
        }
        Self { socket, answer: String::from_utf8(answer).expect("it is text") }
    }

    fn upload(scene: &Scene, name: &str, body: &str) -> Self {
        let head = format!("PUT /{name} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: dt2");
        Self::request(scene, &head, body)
    }

    #[track_caller]
    fn status(&self) -> u16 {
        self.answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("it has a status")
    }

    /// Reads the header of the next frame.
    fn frame(&mut self) -> Option<[u8; HEADER]> {
        let mut header = [0; HEADER];
        self.socket.read_exact(&mut header).ok().map(|()| header)
    }

    /// Whether the server ends the connection, whatever it sends before.
    fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset is an end too.
        let read = self.socket.read_to_end(&mut rest);
        read.is_ok() || read.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    }
}

#[test]
fn invalid_requests_are_refused() {
    let scene = Scene::new(&[]);
    for (what, changes, status) in [
        ("a size below zero", &[("\"size\": 100", "\"size\": -1")][..], 400),
        (
            "a size beyond files",
            &[("\"size\": 100", "\"size\": 9223372036854775807"), ("65536", "16777216")],
            400,
        ),
        (
            "a size beyond the disk",
            &[("\"size\": 100", "\"size\": 100000000000000"), ("65536", "16777216")],
            507,
        ),
        ("no streams", &[("\"threads\": 4", "\"threads\": 0")], 400),
        ("many streams", &[("\"threads\": 4", "\"threads\": 256")], 400),
        ("an odd block", &[("65536", "65537")], 400),
        ("no block", &[("65536", "0")], 400),
        ("a number for a switch", &[("\"threads\": 4", "\"threads\": 4, \"overwrite\": 1")], 400),
        ("a later protocol", &[("\"protocol\": 2", "\"protocol\": 3")], 400),
    ] {
        let uploader = Uploader::upload(&scene, "out", &body(100, changes));
        assert_eq!(uploader.status(), status, "{what}: {}", uploader.answer);
    }
    assert_eq!(Uploader::upload(&scene, "out", "{").status(), 400);
    assert_eq!(Uploader::upload(&scene, "", &body(100, &[])).status(), 404);
    let plain = Uploader::request(&scene, "PUT /out HTTP/1.1\r\nHost: x", &body(100, &[]));
    assert_eq!(plain.status(), 426, "without an upgrade: {}", plain.answer);
    assert!(files_in(&scene.workspace.outputs()).is_empty());
}

/// What arrives is compared with digests, whatever it is; and frames of which the server has requested none end the stream.
#[test]
fn wrong_bytes_never_get_a_name() {
    let scene = Scene::new(&["--session-expiry", "1s"]);
    let bytes = vec![7; 100];
    let right = *blake3::hash(&bytes).as_bytes();
    let wrong = [1; 32];
    for (session, (what, answer)) in [
        ("a wrong digest", frame::data(0, &bytes, 0, &[wrong])),
        ("another run", frame::data(1, &bytes, 0, &[right])),
        ("more bytes", frame::data(0, &[7; 101], 0, &[right])),
        ("a length without end", frame::header(kind::DATA, 0, 1, 0, u64::MAX)),
        ("no frame", vec![0xEE; 1000]),
        ("an offer", frame::offer("{}")),
    ]
    .into_iter()
    .enumerate()
    {
        let session = format!("{session:016x}");
        let mut uploader = Uploader::upload(&scene, "out", &body(100, &[("00000000000000a7", &session)]));
        assert_eq!(uploader.status(), 101, "{what}: {}", uploader.answer);
        let request = uploader.frame().expect("a request");
        assert_eq!(request[0], kind::RUN, "{what}");
        // Again and again, as long as the server asks.
        for _ in 0..20 {
            if uploader.socket.write_all(&answer).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(uploader);
        assert!(!scene.stored("out").exists(), "{what}");
        // The place is free for the next one.
        let content = scene.local("f", 100);
        scene.put("f", "out").run().assert_success();
        scene.assert_stored("out", &content);
        std::fs::remove_file(scene.stored("out")).expect("it is ours");
    }
}

/// A client that asks for sessions and sends nothing uses up its own places, not those of others.
#[test]
fn silent_uploaders_do_not_keep_others_out() {
    let scene = Scene::new(&["--session-expiry", "1s"]);
    let silent: Vec<Uploader> = (0..50)
        .map(|n| {
            let session = format!("{n:016x}");
            let body = body(16 * BLOCK, &[("00000000000000a7", &session)]);
            Uploader::upload(&scene, &format!("silent{n}"), &body)
        })
        .collect();
    assert!(silent.iter().all(|uploader| uploader.status() == 101));
    let content = scene.local("f", MIB);
    scene.put("f", "out").run().assert_success();
    assert!(std::fs::read(scene.stored("out")).expect("it is there") == content);
    drop(silent);
    // Nothing was received, so nothing stays.
    dt_testkit::wait::until_true("the end of all", || files_in(&scene.workspace.outputs()) == ["out"]);
}

#[test]
fn stream_with_a_wrong_secret_is_refused() {
    let scene = Scene::new(&[]);
    let mut uploader = Uploader::upload(&scene, "out", &body(10 * BLOCK, &[]));
    assert_eq!(uploader.status(), 101, "{}", uploader.answer);
    assert!(uploader.frame().is_some());
    let mut stranger = TcpStream::connect(scene.server.addr).expect("it listens");
    stranger.write_all(&frame::hello(1, 0xa7, [1; 16], 0)).expect("it is sent");
    stranger.set_read_timeout(Some(PATIENCE)).expect("it is set");
    let mut header = [0; HEADER];
    stranger.read_exact(&mut header).expect("it answers");
    assert_eq!((header[0], header[1]), (kind::REFUSED, 1));
    let mut other = Uploader::upload(&scene, "other", &body(10 * BLOCK, &[]));
    assert_eq!(other.status(), 409, "the number of a session is taken once");
    assert!(other.is_ended());
}
