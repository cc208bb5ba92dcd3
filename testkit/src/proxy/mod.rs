//! A TCP proxy before a server, that does to connections what a test says.
//!
//! The server's answer names the port of its streams, so the proxy has two of its own: requests go through the
//! control port, where the answer's `"port"` is replaced by that of the data port, and streams go through the data
//! port to whatever port the last answer named. Both protocols work through it, and so does the way over the control
//! port that begins with `Upgrade`.

use std::collections::HashMap;
use std::fmt;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::sockets::{FullListener, LateListener, accept_within};

mod answer;
mod fate;
mod foreign;
mod frames;
mod pump;
#[cfg(test)]
mod tests;

pub use fate::{Carries, Connection, Ending, Fate};
pub use foreign::Foreign;

use answer::{Head, read_head, with_port};
use pump::{Link, Pace, Pair};

/// How often a waiting thread looks whether its connection is to end.
const TICK: Duration = Duration::from_millis(5);

/// A running proxy; ended, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    /// Where clients send their requests.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    closed: Option<LateListener>,
    threads: Vec<JoinHandle<()>>,
    _silent: Option<FullListener>,
}

/// Whether the data port can be reached, and by whom it is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataPort {
    /// It accepts streams.
    Open,
    /// It refuses them until [`Proxy::open_data_port`].
    Refusing,
    /// It neither accepts nor refuses, as behind a firewall that drops everything.
    Silent,
    /// Somebody else accepts streams there.
    Foreign(Foreign),
}

struct Shared {
    server: SocketAddr,
    data: SocketAddr,
    plan: Box<dyn Fn(&Connection) -> Fate + Send + Sync>,
    pace: Pace,
    rate: AtomicU64,
    stop: AtomicBool,
    refuses_upgrades: AtomicBool,
    carried: AtomicU64,
    cut_at: AtomicU64,
    /// Where the last answer said that streams are served.
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
    /// A proxy before `server` with an open data port.
    pub fn start(server: SocketAddr, plan: impl Fn(&Connection) -> Fate + Send + Sync + 'static) -> Self {
        Self::start_with(server, DataPort::Open, plan)
    }

    /// A proxy that does nothing to the connections by itself.
    pub fn plain(server: SocketAddr) -> Self {
        Self::start(server, |_| Fate::fine())
    }

    /// A proxy whose plan is for the streams only, whichever way they come.
    pub fn on_streams(
        server: SocketAddr,
        plan: impl Fn(&Connection) -> Fate + Send + Sync + 'static,
    ) -> Self {
        Self::start(server, move |connection| match connection.carries {
            Carries::Control => Fate::fine(),
            Carries::Data | Carries::Upgraded => plan(connection),
        })
    }

    /// A proxy before `server`.
    pub fn start_with(
        server: SocketAddr,
        data_port: DataPort,
        plan: impl Fn(&Connection) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let control = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = control.local_addr().expect("the address is known");
        let late = LateListener::bind();
        let silent = (data_port == DataPort::Silent).then(FullListener::bind);
        let shared = Arc::new(Shared {
            server,
            data: silent.as_ref().map_or(late.addr(), FullListener::addr),
            plan: Box::new(plan),
            pace: Pace::default(),
            rate: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            refuses_upgrades: AtomicBool::new(false),
            carried: AtomicU64::new(0),
            cut_at: AtomicU64::new(u64::MAX),
            target: Mutex::default(),
            links: Mutex::default(),
            attempts: Mutex::default(),
            connections: Mutex::default(),
        });
        let threads = vec![shared.accept_all(control, Shared::serve_control)];
        let mut proxy = Self { addr, shared, closed: Some(late), threads, _silent: silent };
        match data_port {
            DataPort::Open => proxy.open_data_port(),
            DataPort::Foreign(foreign) => proxy.listen(move |shared, client| foreign.serve(&shared, client)),
            DataPort::Refusing | DataPort::Silent => {}
        }
        proxy
    }

    /// Begins to accept streams on a data port that refused them.
    pub fn open_data_port(&mut self) {
        self.listen(Shared::serve_data);
    }

    fn listen(&mut self, serve: impl Fn(Arc<Shared>, TcpStream) + Copy + Send + 'static) {
        let late = self.closed.take().expect("opened once");
        self.threads.push(self.shared.accept_all(late.listen(), serve));
    }

    /// Answers from now on that the control port carries no streams.
    pub fn refuse_upgrades(&self) {
        self.shared.refuses_upgrades.store(true, Ordering::SeqCst);
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

    /// How many bytes streams have carried to the client.
    pub fn carried(&self) -> u64 {
        self.shared.carried.load(Ordering::SeqCst)
    }

    /// All connections so far whose purpose was known, in the order of their greetings.
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

    fn accept_all(
        self: &Arc<Self>,
        listener: TcpListener,
        serve: impl Fn(Arc<Self>, TcpStream) + Copy + Send + 'static,
    ) -> JoinHandle<()> {
        let shared = Arc::clone(self);
        thread::spawn(move || {
            while !shared.is_stopped() {
                let Some(client) = accept_within(&listener, TICK) else { continue };
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(shared, client));
            }
        })
    }

    /// Notes a connection and asks the plan for its fate.
    fn decide(&self, carries: Carries, stream: u8) -> Fate {
        let mut connections = self.connections.lock().expect("no holder panics");
        let number = connections.iter().filter(|connection| connection.carries == carries).count();
        let attempt = if carries == Carries::Control {
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

    fn serve_control(self: Arc<Self>, mut client: TcpStream) {
        let Some(Head { head, rest }) = read_head(&mut client) else { return };
        let Ok(server) = TcpStream::connect(self.server) else { return };
        let upgrade = String::from_utf8_lossy(&head).to_ascii_lowercase().contains("\nupgrade:");
        if upgrade && self.refuses_upgrades.load(Ordering::SeqCst) {
            let _ = client.write_all(b"HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n");
            return;
        }
        let request = [head, rest].concat();
        let answered = if upgrade { Self::upgraded(&client, &server, &request) } else { None };
        let (first, answered, fate) = match answered {
            // The greeting's first byte went with the answer's head.
            Some((first, answered)) => (vec![first], answered, self.decide(Carries::Upgraded, first)),
            None if upgrade => return,
            None => {
                let fate = self.decide(Carries::Control, 0);
                let Some(answer) = self.ask(&client, &server, &request) else { return };
                (vec![], answer, fate)
            }
        };
        self.carry(client, server, &first, answered, fate, upgrade);
    }

    /// Sends the request on and reads the whole answer, with the port in it replaced.
    fn ask(&self, mut client: &TcpStream, mut server: &TcpStream, request: &[u8]) -> Option<Vec<u8>> {
        server.write_all(request).ok()?;
        // What is still missing of the body.
        let mut missing = answer::missing_body(request);
        let mut buffer = [0; 4096];
        while missing > 0 {
            let n = client.read(&mut buffer).ok().filter(|n| *n > 0)?;
            server.write_all(&buffer[..n]).ok()?;
            missing = missing.saturating_sub(n);
        }
        let mut whole = Vec::new();
        // An answer that is cut off is carried as it is.
        let _ = server.read_to_end(&mut whole);
        let (answer, port) = with_port(&whole, self.data.port());
        if let Some(port) = port {
            let target = SocketAddr::new(self.server.ip(), port);
            *self.target.lock().expect("no holder panics") = Some(target);
        }
        Some(answer)
    }

    /// Carries an `Upgrade` and its answer; gives the first byte of the stream, and what the server has said already.
    fn upgraded(mut client: &TcpStream, mut server: &TcpStream, request: &[u8]) -> Option<(u8, Vec<u8>)> {
        server.write_all(request).ok()?;
        let Head { head, rest } = read_head(&mut server)?;
        client.write_all(&head).ok()?;
        let mut first = [0];
        (client.read(&mut first).ok()? == 1).then_some((first[0], rest))
    }

    fn serve_data(self: Arc<Self>, mut client: TcpStream) {
        let mut first = [0];
        // A stream that says nothing holds its thread no longer than the patience of all reads here.
        if !client.read(&mut first).is_ok_and(|n| n == 1) {
            return;
        }
        let fate = self.decide(Carries::Data, first[0]);
        let target = *self.target.lock().expect("no holder panics");
        let Some(Ok(server)) = target.map(TcpStream::connect) else { return };
        self.carry(client, server, &first, vec![], fate, true);
    }

    fn carry(
        self: Arc<Self>,
        client: TcpStream,
        server: TcpStream,
        first: &[u8],
        answered: Vec<u8>,
        fate: Fate,
        is_stream: bool,
    ) {
        for side in [&client, &server] {
            let settings = [
                side.set_nodelay(true),
                side.set_read_timeout(Some(TICK)),
                side.set_write_timeout(Some(TICK)),
            ];
            assert!(settings.iter().all(Result::is_ok), "a socket takes its settings");
        }
        let link = Arc::new(Link::default());
        if is_stream {
            self.links.lock().expect("no holder panics").push(Arc::clone(&link));
        }
        Pair { client, server, link, shared: self, is_stream }.pump(first, answered, fate);
    }
}
