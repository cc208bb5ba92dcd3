//! One stream of the reference server: its frames, and what is wrong with them.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use md5::{Digest, Md5};

use super::lie::Lie;
use super::{Shared, send};
use crate::frame::{self, HEADER, TRAILER, kind};

/// How often the server says that it computes digests.
const BETWEEN_WAITS: Duration = Duration::from_millis(100);

/// For how long requests are held back, so that one which overtakes them can arrive.
const HELD_BACK: Duration = Duration::from_millis(20);

pub(super) struct Stream {
    shared: Arc<Shared>,
    reader: TcpStream,
    /// Shared with the threads that compute digests: their frames must not arrive within others.
    writer: Writer,
    session: u64,
}

type Writer = Arc<Mutex<TcpStream>>;

/// Whether the peer still took it; a peer that is gone is no fault of the server.
fn send_frame(writer: &Writer, bytes: &[u8]) -> bool {
    writer.lock().expect("no holder panics").write_all(bytes).is_ok()
}

impl Stream {
    /// Notes a stream, and refuses it if that is the lie.
    pub(super) fn accept(shared: Arc<Shared>, mut client: TcpStream, id: u8, session: u64) -> Option<Self> {
        let is_first = {
            let mut streams = shared.streams.lock().expect("no holder panics");
            let is_first = !streams.contains(&id);
            streams.push(id);
            is_first
        };
        if let Some(code) = shared.lie.refusal(id, is_first) {
            send(&mut client, &frame::refused(code, "the test says so"));
            // What is still unread would reset the connection, and the refusal might be lost.
            let _ = client.shutdown(Shutdown::Write);
            while shared.read::<1>(&mut client, false).is_some() {}
            return None;
        }
        let writer = Arc::new(Mutex::new(client.try_clone().expect("a handle is free")));
        Some(Self { shared, reader: client, writer, session })
    }

    /// Sends the run that the request asked for.
    pub(super) fn push(&mut self, from: u64, push: u64) {
        let (block, size) = (self.shared.block, self.shared.size());
        let first = from / block;
        // In ascending order, so that the largest run that fits is the last.
        let runs = (first + 1..=size.div_ceil(block)).map(|end| first..end);
        let fits = |run: &Range<u64>| size.min(run.end * block) - run.start * block <= push.min(16 << 20);
        if from < size
            && self.shared.lie != Lie::Mute
            && let Some(run) = runs.take_while(fits).last()
        {
            let data = self.data(&run);
            self.send(&data);
        }
    }

    fn send(&self, frame: &[u8]) {
        send_frame(&self.writer, frame);
    }

    /// Answers requests until the receiver or the test ends the stream.
    pub(super) fn serve(&mut self) {
        let mut held_back = Vec::new();
        while let Some(request) = self.next_request() {
            if self.shared.lie == Lie::Mute {
                continue;
            }
            let number = |at: usize| u64::from_le_bytes(request[at..at + 8].try_into().expect("eight bytes"));
            let count = u32::from_le_bytes(request[4..8].try_into().expect("four bytes"));
            if request[..] != frame::header(request[0], request[1], count, number(8), number(16)) {
                return self.send(&frame::refused(5, "a check is wrong"));
            }
            match request[0] {
                kind::RUN => {
                    let run = number(8)..number(8) + u64::from(count);
                    held_back.push(if request[1] == 0 { self.data(&run) } else { self.proof(&run) });
                    if self.shared.lie == Lie::DigestsFirst {
                        thread::sleep(HELD_BACK);
                        if self.reader.peek(&mut [0]).is_ok_and(|n| n > 0) {
                            continue;
                        }
                    }
                }
                kind::DIGEST => self.send_digests(request[1]),
                // The client gives up.
                kind::END if request[1] == 1 => return,
                kind::END => {
                    self.shared.ended.lock().expect("no holder panics").insert(self.session);
                    return;
                }
                _ => return self.send(&frame::refused(5, "not a request")),
            }
            for data in held_back.drain(..) {
                self.send(&data);
            }
        }
    }

    fn next_request(&mut self) -> Option<[u8; HEADER]> {
        // A stream whose digests are being computed is not idle.
        let is_idle = Arc::strong_count(&self.writer) == 1;
        self.shared.read(&mut self.reader, is_idle && self.shared.lie == Lie::ClosesIdle)
    }

    /// The frame of a run.
    fn data(&self, run: &Range<u64>) -> Vec<u8> {
        let shared = &self.shared;
        let (block, size) = (shared.block, shared.size());
        let bytes = run.start * block..size.min(run.end * block);
        let [start, end] = [bytes.start, bytes.end].map(|n| usize::try_from(n).expect("it fits"));
        let Some(content) = shared.content.get(start..end) else {
            return frame::refused(5, "no such run");
        };
        shared.sent.lock().expect("no holder panics").push(bytes.clone());
        let mut content = content.to_vec();
        let mut digests = frame::block_digests(size, block, bytes.start, &content);
        let lie = Some(&shared.lie).filter(|lie| lie.is_about(&bytes));
        if let Some(Lie::Instead(_, bytes)) = lie {
            return bytes.clone();
        }
        if let Some(Lie::InsteadOnce(_, bytes)) = lie
            && !shared.has_lied.swap(true, Ordering::SeqCst)
        {
            return bytes.clone();
        }
        if let Some(Lie::Trailer(_, code)) = lie {
            return frame::data(run.start, &content, *code, &vec![[0; 32]; digests.len()]);
        }
        if let Some(Lie::Consistent(at)) = lie {
            content[usize::try_from(at - bytes.start).expect("it fits")] ^= 0x10;
            digests = frame::block_digests(size, block, bytes.start, &content);
        }
        if let Some(Lie::Digest(at)) = lie {
            digests[usize::try_from(at / block - run.start).expect("it fits")] = [7; 32];
        }
        let mut data = frame::data(run.start, &content, 0, &digests);
        if let Some(Lie::TrailerByte(_, at, value)) = lie {
            let trailer = &mut data[HEADER + content.len()..][..TRAILER];
            trailer[*at] = *value;
            frame::set_check(trailer);
        }
        data
    }

    /// The frame with the digests of a run.
    fn proof(&self, run: &Range<u64>) -> Vec<u8> {
        let (block, size) = (self.shared.block, self.shared.size());
        let [start, end] = [run.start * block, size.min(run.end * block)];
        let bytes = [start, end].map(|n| usize::try_from(n).expect("it fits"));
        match self.shared.content.get(bytes[0]..bytes[1]) {
            Some(content) => {
                frame::proof(run.start, end - start, &frame::block_digests(size, block, start, content))
            }
            None => frame::refused(5, "no such run"),
        }
    }

    fn send_digests(&self, code: u8) {
        let (shared, writer) = (Arc::clone(&self.shared), Arc::clone(&self.writer));
        let compute = move || {
            for n in 1..=shared.lie.n_waits() {
                let hashed = if shared.lie == Lie::Hangs { 1 } else { n };
                if !send_frame(&writer, &frame::wait(hashed)) || shared.is_stopped() {
                    return;
                }
                thread::sleep(BETWEEN_WAITS);
            }
            let more: &[u8] = if shared.lie == Lie::FileDigests { b"something else" } else { &[] };
            let of = [shared.content.as_slice(), more].concat();
            let md5 = (code == 3).then(|| Md5::digest(&of).into());
            send_frame(&writer, &frame::digests(blake3::hash(&of).as_bytes(), md5));
        };
        // Runs do not wait for digests that take long.
        if self.shared.lie.n_waits() == 0 { compute() } else { drop(thread::spawn(compute)) }
    }
}
