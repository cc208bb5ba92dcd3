//! The reference client of protocol 2 against the reference server, directly and through the proxy.

use std::io::Write;
use std::net::Shutdown;

use dt_testkit::content::{hex, md5, pattern};
use dt_testkit::frame::{self, Frame, MARK, kind};
use dt_testkit::http::{Afterwards, exchange};
use dt_testkit::proxy::{Carries, Fate, Place, Proxy};
use dt_testkit::range_server::{Lie, RangeServer};
use dt_testkit::session::{Session, Stream, UPGRADE, body, request};
use dt_testkit::sockets::{End, connect, read_to_end};
use dt_testkit::wait::until_true;

const BLOCK: u64 = 16 << 10;
/// A file of seven blocks.
const LEN: usize = 100_000;

fn served(lie: Lie) -> (RangeServer, Vec<u8>) {
    let content = pattern(1, LEN);
    (RangeServer::start(content.clone(), BLOCK, lie), content)
}

#[test]
fn files_of_all_sizes_arrive_over_dialled_streams() {
    for size in [1, 1023, 1024, 1025, 16 << 10, (16 << 10) + 1, 300_000] {
        let content = pattern(1, size);
        let server = RangeServer::start(content.clone(), BLOCK, Lie::Nothing);
        let proxy = Proxy::plain(server.addr);
        for addr in [server.addr, proxy.addr] {
            let session = Session::request(addr, "f", 3);
            let mut streams = vec![session.open(0), session.open_over_http(1), session.open(2)];
            assert!(session.download(&mut streams) == content, "{size} bytes");
        }
        assert_eq!((proxy.count(Carries::Request), proxy.count(Carries::Upgraded)), (1, 1));
        // A stream on which nothing was requested may not have been seen yet.
        until_true("both are known", || proxy.count(Carries::Stream) == 2);
    }
}

#[test]
fn offer_and_pushed_run_arrive_on_the_upgraded_connection() {
    let (server, content) = served(Lie::Nothing);
    let proxy = Proxy::plain(server.addr);
    for (from, push, pushed) in [
        (0, 0, None),
        (0, BLOCK - 1, None),
        (0, BLOCK, Some(0..1)),
        (0, 3 * BLOCK + 5, Some(0..3)),
        (0, u64::MAX, Some(0..7)),
        (BLOCK - 1, BLOCK, Some(0..1)),
        (BLOCK, 2 * BLOCK, Some(1..3)),
        (99_999, 1700, Some(6..7)),
        (99_999, 1695, None),
        (100_000, u64::MAX, None),
    ] {
        for addr in [server.addr, proxy.addr] {
            let (session, mut stream) = Session::upgrade(addr, "f", 2, from, push);
            assert_eq!(session.pushed(from, push), pushed, "from {from}, push {push}");
            if let Some(run) = &pushed {
                assert!(session.receive(&mut stream, run) == session.part(&content, run), "{run:?}");
            }
            let mut streams = [stream, session.open(1)];
            assert!(session.download(&mut streams) == content, "from {from}, push {push}");
        }
    }
    let connections = proxy.connections();
    assert!(connections.iter().all(|one| one.stream == u8::from(one.carries == Carries::Stream)));
    assert_eq!((proxy.count(Carries::First), proxy.count(Carries::Request)), (10, 0));
}

#[test]
fn empty_file_is_an_offer_and_nothing_else() {
    let server = RangeServer::start(vec![], BLOCK, Lie::Nothing);
    let (session, mut stream) = Session::upgrade(server.addr, "f", 2, 0, 1 << 20);
    assert_eq!((session.n_blocks(), stream.frame()), (0, None));
}

#[test]
fn answer_without_an_upgrade_is_the_offer_in_json() {
    let (server, content) = served(Lie::NoUpgrade);
    let bytes = request(server.addr, "f", UPGRADE, &body(1, 0, 1 << 20));
    let answer = exchange(server.addr, &[&bytes], Afterwards::Wait);
    assert_eq!((answer.status, answer.header("upgrade")), (200, None));
    let session = Session::of(server.addr, &answer.body);
    assert!(session.download(&mut [session.open(0)]) == content);
}

#[test]
fn connections_are_told_apart_by_two_bytes() {
    let (server, _) = served(Lie::Nothing);
    for bytes in [b"\x16\x03\x01\x02".as_slice(), &[9, MARK], b"P", b""] {
        let mut stream = connect(server.addr);
        stream.write_all(bytes).expect("it is sent");
        stream.shutdown(Shutdown::Write).expect("it is shut down");
        assert!(read_to_end(&stream).bytes.is_empty(), "{bytes:?}");
    }
    let mut hello = Session::request(server.addr, "f", 1).hello(0);
    hello[12] ^= 1;
    Stream::open(server.addr, &hello).assert_refused(&[5], "a wrong secret");
}

#[test]
fn digests_may_overtake_runs() {
    let (server, content) = served(Lie::DigestsFirst);
    let session = Session::request(server.addr, "f", 1);
    let mut stream = session.open(0);
    stream.send(&[session.run(&(0..2)), session.run(&(2..3)), frame::digest(3)].concat());
    let Some(Frame::Digests { code: 3, blake3, md5: md5_bytes }) = stream.frame() else {
        panic!("digests first")
    };
    assert_eq!(blake3, *blake3::hash(&content).as_bytes());
    assert_eq!(hex(&md5_bytes), md5(&content));
    assert!(session.receive(&mut stream, &(0..2)) == content[..2 << 14]);
    assert!(session.receive(&mut stream, &(2..3)) == content[2 << 14..3 << 14]);
}

#[test]
fn waits_precede_late_digests_and_delay_no_run() {
    let (server, content) = served(Lie::ClosesIdle);
    let (session, mut stream) = Session::upgrade(server.addr, "f", 1, 0, 0);
    stream.send(&frame::digest(1));
    assert_eq!(stream.frame(), Some(Frame::Wait(1)));
    assert!(session.fetch(&mut stream, &(0..7)) == content);
    let mut before = 1;
    let last = std::iter::from_fn(|| stream.frame()).find(|frame| {
        let Frame::Wait(n) = frame else { return true };
        assert!(*n >= before, "{n} after {before}");
        before = *n;
        false
    });
    assert!(matches!(last, Some(Frame::Digests { .. })), "{last:?}");
}

/// The first run that is sent with this lie, which is about a byte of the first block.
fn first_run(lie: Lie) -> Option<Frame> {
    let (server, _) = served(lie);
    let session = Session::request(server.addr, "f", 1);
    let mut stream = session.open(0);
    stream.send(&session.run(&(0..2)));
    stream.frame()
}

#[test]
fn lies_are_lies() {
    let content = pattern(1, LEN);
    let right = frame::block_digests(100_000, BLOCK, 0, &content[..2 << 14]);
    let Some(Frame::Data { digests, bytes, .. }) = first_run(Lie::Digest(BLOCK + 77)) else {
        panic!("no data")
    };
    assert!(digests[0] == right[0] && digests[1] != right[1] && bytes == content[..2 << 14]);
    let Some(Frame::Data { digests, bytes, .. }) = first_run(Lie::Consistent(77)) else { panic!("no data") };
    assert!(digests[0] != right[0] && digests[1] == right[1] && bytes != content[..2 << 14]);
    assert!(matches!(first_run(Lie::Trailer(0, 3)), Some(Frame::Data { code: 3, .. })));
    assert!(matches!(first_run(Lie::Refuses(6)), Some(Frame::Refused { code: 6, .. })));
    assert!(matches!(first_run(Lie::RefusesOnce(2)), Some(Frame::Refused { code: 2, .. })));
    assert_eq!(first_run(Lie::Instead(5, frame::drain())), Some(Frame::Drain));
}

#[test]
fn flipped_bit_of_the_file_shows_in_its_block_only() {
    let (server, _) = served(Lie::Nothing);
    let proxy = Proxy::on_streams(server.addr, |_| Fate::fine().flips_in_file(40_000));
    let (session, mut first) = Session::upgrade(proxy.addr, "f", 2, 0, 0);
    for stream in [&mut first, &mut session.open(1)] {
        for run in session.runs(2) {
            stream.send(&session.run(&run));
            let Some(Frame::Data { first, bytes, digests, .. }) = stream.frame() else { panic!("no data") };
            let right = frame::block_digests(session.size, BLOCK, first * BLOCK, &bytes);
            for ((block, digest), right) in run.zip(digests).zip(right) {
                assert_eq!(digest == right, block != 2, "block {block}");
            }
        }
    }
}

/// Every place of a frame can be hit, in either direction, and nothing else is.
#[test]
fn flipped_bits_of_frames_are_exact() {
    let run = frame::data(0, &pattern(1, LEN)[..1 << 14], 0, &[[0; 32]]);
    let trailer = u64::try_from(run.len() - 40).expect("it fits");
    for (place, at) in [
        (Place::Header(0), 0),
        (Place::Header(23), 23),
        (Place::Payload(0), 24),
        (Place::Payload((1 << 14) - 1), trailer - 1),
        (Place::Trailer(0), trailer),
        (Place::Trailer(39), trailer + 39),
    ] {
        let (server, _) = served(Lie::Nothing);
        let received = |proxy: &Proxy| {
            let session = Session::request(proxy.addr, "f", 1);
            let mut stream = session.open(0);
            stream.send(&[session.run(&(0..1)), session.run(&(0..1)), frame::end()].concat());
            read_to_end(&stream.socket)
        };
        let right = received(&Proxy::plain(server.addr));
        let fate = Fate::fine().flips_in_frame(kind::DATA, place).flips_in_frame(kind::DIGESTS, place);
        let flipped = received(&Proxy::on_streams(server.addr, move |_| fate.clone()));
        let places: Vec<u64> = (0..)
            .zip(right.bytes.iter().zip(&flipped.bytes))
            .filter(|(_, (right, flipped))| right != flipped)
            .map(|(at, _)| at)
            .collect();
        assert_eq!((places, flipped.end), (vec![at], End::Closed), "{place:?}");
    }
    for (fate, code) in
        [(Fate::fine().flips_in_frame(kind::RUN, Place::Header(9)), 5), (Fate::fine().flips_in_hello(14), 5)]
    {
        let (server, _) = served(Lie::Nothing);
        let proxy = Proxy::on_streams(server.addr, move |_| fate.clone());
        let session = Session::request(proxy.addr, "f", 1);
        let mut stream = session.open(0);
        stream.send(&session.run(&(0..1)));
        stream.assert_refused(&[code], "a flipped bit");
    }
}
