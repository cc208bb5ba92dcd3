//! A TCP proxy before a server, that does to connections what a test says.
//!
//! Requests and streams of protocol 2 arrive at the one address of the proxy and go on to that of the server. An answer in
//! protocol 1 names a port of its own for the streams, so the proxy has a second one: it replaces the answer's `"port"`,
//! and forwards what arrives there to the port that the last answer named.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::frame::{HEADER, MARK, PAYLOAD_CHECK, kind};
use crate::http::{is_upgrade, read_head, read_request};
use crate::sockets::{accept_all, peek};

mod answer;
mod fate;
mod frames;
mod pump;
#[cfg(test)]
mod tests;

pub use fate::{Carries, Connection, Ending, Fate, Place};

use answer::with_port;
use frames::Common;
use pump::{Link, Pace, Pair};

/// How often a waiting thread checks whether its connection is to end.
const TICK: Duration = Duration::from_millis(5);

/// A running proxy; ended, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients connect.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    server: SocketAddr,
    /// Where streams of protocol 1 arrive.
    legacy: SocketAddr,
    plan: Box<dyn Fn(&Connection) -> Fate + Send + Sync>,
    pace: Pace,
    rate: AtomicU64,
    stop: AtomicBool,
    carried: AtomicU64,
    cut_at: AtomicU64,
    common: Common,
    /// Where streams are served according to the last answer in protocol 1.
    target: Mutex<Option<SocketAddr>>,
    links: Mutex<Vec<Arc<Link>>>,
    attempts: Mutex<HashMap<u8, usize>>,
    connections: Mutex<Vec<Connection>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy before `server`.
    pub fn start(server: SocketAddr, plan: impl Fn(&Connection) -> Fate + Send + Sync + 'static) -> Self {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port is free"));
        let [addr, legacy] =
            listeners.each_ref().map(|listener| listener.local_addr().expect("the address is known"));
        let shared = Arc::new(Shared {
            server,
            legacy,
            plan: Box::new(plan),
            pace: Pace::default(),
            rate: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            common: Common::new(),
            target: Mutex::default(),
            links: Mutex::default(),
            attempts: Mutex::default(),
            connections: Mutex::default(),
        });
        let [listener, legacy] = listeners;
        let threads = vec![
            accept_all(listener, &shared, Shared::is_stopped, Shared::serve),
            accept_all(legacy, &shared, Shared::is_stopped, Shared::serve_legacy_stream),
        ];
        Self { addr, shared, threads }
    }

    /// A proxy that does nothing to the connections by itself.
    pub fn plain(server: SocketAddr) -> Self {
        Self::start(server, |_| Fate::fine())
    }

    /// A proxy whose plan is for the streams only, however they are opened.
    pub fn on_streams(
        server: SocketAddr,
        plan: impl Fn(&Connection) -> Fate + Send + Sync + 'static,
    ) -> Self {
        Self::start(server, move |connection| match connection.carries {
            Carries::Request => Fate::fine(),
            Carries::First | Carries::Stream | Carries::Upgraded | Carries::Upload | Carries::Legacy => {
                plan(connection)
            }
        })
    }

    /// Lets all streams together carry at most so many bytes per second from now on; `None` is no limit.
    pub fn set_rate(&self, bytes_per_second: Option<u64>) {
        self.shared.rate.store(bytes_per_second.unwrap_or(0), Ordering::SeqCst);
    }

    /// Resets all streams that are open when so many bytes have been carried to the client, once.
    pub fn cut_all_at(&self, bytes: u64) {
        self.shared.cut_at.store(bytes, Ordering::SeqCst);
    }

    /// Resets all streams that are open.
    pub fn cut_all(&self) {
        self.shared.cut_all();
    }

    /// Resets one of the open streams every `interval`, chosen by a generator with this seed, until the proxy ends.
    pub fn cut_one_every(&mut self, interval: Duration, seed: u64) {
        let shared = Arc::clone(&self.shared);
        self.threads.push(thread::spawn(move || {
            let mut state = seed | 1;
            let mut next = Instant::now() + interval;
            while !shared.is_stopped() {
                thread::sleep(TICK);
                if Instant::now() < next {
                    continue;
                }
                next += interval;
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                shared.cut_one(state >> 33);
            }
        }));
    }

    /// Flips at most so many bits of frames and hellos, on all connections together.
    pub fn flip_at_most(&self, bits: u64) {
        self.shared.common.flips_left.store(bits, Ordering::SeqCst);
    }

    /// How many bits of frames and hellos were flipped.
    pub fn flips(&self) -> u64 {
        self.shared.common.n_flips.load(Ordering::SeqCst)
    }

    /// How many bytes streams have carried to the client.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }

    /// All connections so far whose purpose is known, in this order.
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.connections.lock().expect("no holder panics").clone()
    }

    /// How many connections of a kind there were.
    pub fn count(&self, carries: Carries) -> usize {
        self.connections().iter().filter(|connection| connection.carries == carries).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // A thread that failed has failed the test by what it did not carry.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::SeqCst)).filter(|rate| *rate > 0)
    }

    fn account(&self, n: usize) {
        let n = u64::try_from(n).expect("it fits");
        let carried = self.carried.fetch_add(n, Ordering::SeqCst) + n;
        let cut_at = self.cut_at.load(Ordering::SeqCst);
        if carried >= cut_at
            && self.cut_at.compare_exchange(cut_at, u64::MAX, Ordering::SeqCst, Ordering::SeqCst).is_ok()
        {
            self.cut_all();
        }
    }

    fn cut_all(&self) {
        for link in self.links.lock().expect("no holder panics").drain(..) {
            link.reset();
        }
    }

    fn cut_one(&self, choice: u64) {
        let mut links = self.links.lock().expect("no holder panics");
        links.retain(|link| !link.is_dead());
        let n = u64::try_from(links.len()).expect("it fits");
        if let Some(chosen) = choice.checked_rem(n).and_then(|chosen| usize::try_from(chosen).ok()) {
            links.swap_remove(chosen).reset();
        }
    }

    /// Notes a connection and asks the plan for its fate.
    fn decide(&self, carries: Carries, stream: u8) -> Fate {
        let mut connections = self.connections.lock().expect("no holder panics");
        let is_request = |carries: Carries| carries == Carries::Request;
        let alike = |before: &&Connection| is_request(before.carries) == is_request(carries);
        let number = connections.iter().filter(alike).count();
        let attempt = if is_request(carries) {
            number
        } else {
            let mut attempts = self.attempts.lock().expect("no holder panics");
            let attempts = attempts.entry(stream).or_default();
            *attempts += 1;
            *attempts - 1
        };
        let connection = Connection { carries, number, stream, attempt };
        connections.push(connection);
        drop(connections);
        (self.plan)(&connection)
    }

    /// Tells connections apart as the server does, by their first two bytes.
    fn serve(self: Arc<Self>, client: TcpStream) {
        let Some(first) = peek(&client) else { return };
        let Ok(server) = TcpStream::connect(self.server) else { return };
        match first {
            [stream, MARK] => self.carry(client, server, vec![], Carries::Stream, stream),
            _ => self.serve_http(client, server),
        }
    }

    fn serve_http(self: Arc<Self>, mut client: TcpStream, mut server: TcpStream) {
        let Some((head, body)) = read_request(&mut client) else { return };
        let request = [&head[..], &body].concat();
        let Some(answer) = server.write_all(&request).ok().and_then(|()| read_head(&mut server)) else {
            return;
        };
        if is_upgrade(&head) && is_upgrade(&answer) {
            if client.write_all(&answer).is_err() {
                return;
            }
            if head.starts_with(b"POST ") {
                let offer = self.read_offer(&mut server);
                self.carry(client, server, offer, Carries::First, 0);
            } else if head.starts_with(b"PUT ") {
                self.carry(client, server, vec![], Carries::Upload, 0);
            } else if let Some([stream, _]) = peek(&client) {
                self.carry(client, server, vec![], Carries::Upgraded, stream);
            }
            return;
        }
        let mut rest = Vec::new();
        // An answer that is cut off is carried as it is.
        let _ = server.read_to_end(&mut rest);
        self.note_block(&rest);
        let (answer, port) = with_port(&[answer, rest].concat(), self.legacy.port());
        if let Some(port) = port {
            let target = SocketAddr::new(self.server.ip(), port);
            *self.target.lock().expect("no holder panics") = Some(target);
        }
        self.carry(client, server, answer, Carries::Request, 0);
    }

    /// Reads the frame that follows an upgraded request, as far as it arrives.
    fn read_offer(&self, server: &mut TcpStream) -> Vec<u8> {
        let mut header = [0; HEADER];
        if server.read_exact(&mut header).is_err() || header[0] != kind::OFFER {
            return header.to_vec();
        }
        let length = u64::from_le_bytes(header[16..].try_into().expect("eight bytes"));
        let mut json = vec![0; usize::try_from(length.min(1 << 20)).expect("at most 1 MiB") + PAYLOAD_CHECK];
        if server.read_exact(&mut json).is_ok() {
            self.note_block(&json[..json.len() - PAYLOAD_CHECK]);
        }
        [&header[..], &json].concat()
    }

    fn note_block(&self, offer: &[u8]) {
        let offer: Option<serde_json::Value> = serde_json::from_slice(offer).ok();
        if let Some(block) = offer.as_ref().and_then(|offer| offer.get("block")?.as_u64()) {
            self.common.block.store(block, Ordering::SeqCst);
        }
    }

    fn serve_legacy_stream(self: Arc<Self>, client: TcpStream) {
        let mut first = [0];
        // A silent stream holds its thread no longer than the patience of all reads here.
        if !client.peek(&mut first).is_ok_and(|n| n == 1) {
            return;
        }
        let target = *self.target.lock().expect("no holder panics");
        let Some(Ok(server)) = target.map(TcpStream::connect) else { return };
        self.carry(client, server, vec![], Carries::Legacy, first[0]);
    }

    /// Carries a connection to its end; `answered` is what the server has sent already.
    fn carry(
        self: Arc<Self>,
        client: TcpStream,
        server: TcpStream,
        answered: Vec<u8>,
        carries: Carries,
        stream: u8,
    ) {
        let fate = self.decide(carries, stream);
        for side in [&client, &server] {
            let settings = [
                side.set_nodelay(true),
                side.set_read_timeout(Some(TICK)),
                side.set_write_timeout(Some(TICK)),
            ];
            assert!(settings.iter().all(Result::is_ok), "a socket takes its settings");
        }
        let link = Arc::new(Link::default());
        if carries != Carries::Request {
            self.links.lock().expect("no holder panics").push(Arc::clone(&link));
        }
        Pair { client, server, link, shared: self, carries, fate }.pump(answered);
    }
}
