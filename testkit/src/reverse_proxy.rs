//! An HTTP reverse proxy before a server: it reads every request, insists on targets with a slash, and understands nothing else.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::http::{is_upgrade, read_head, read_request};
use crate::sockets::{accept_all, is_pause, peek};

const TICK: Duration = Duration::from_millis(5);

/// What the proxy does with a request for an upgrade.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Upgrades {
    /// It forwards them, and what follows an upgrade.
    Carried,
    /// It forwards the requests without the two headers.
    Removed,
    /// It forwards them only if the request has no body.
    CarriedWithoutBody,
    /// It forwards them only if the request has a body, and answers others by 400.
    CarriedWithBody,
}

/// A running proxy; ended when dropped, with the connections that carry nothing at the moment.
#[derive(Debug)]
pub struct ReverseProxy {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    upgrades: Upgrades,
    stop: AtomicBool,
    n_upgraded: AtomicUsize,
    n_rejected: AtomicUsize,
}

impl ReverseProxy {
    /// A proxy before `server`.
    pub fn start(server: SocketAddr, upgrades: Upgrades) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("the address is known");
        let shared = Arc::new(Shared {
            server,
            upgrades,
            stop: AtomicBool::new(false),
            n_upgraded: AtomicUsize::new(0),
            n_rejected: AtomicUsize::new(0),
        });
        let thread = accept_all(listener, &shared, Shared::is_stopped, Shared::serve);
        Self { addr, shared, thread: Some(thread) }
    }

    /// How many connections were upgraded.
    pub fn n_upgraded(&self) -> usize {
        self.shared.n_upgraded.load(Ordering::SeqCst)
    }

    /// How many connections were answered by 400 because they did not begin with a request.
    pub fn n_rejected(&self) -> usize {
        self.shared.n_rejected.load(Ordering::SeqCst)
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A thread that failed has failed the test by what it did not carry.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn serve(self: Arc<Self>, mut client: TcpStream) {
        let Some(first) = peek(&client) else { return };
        if !first.iter().all(u8::is_ascii_uppercase) {
            self.n_rejected.fetch_add(1, Ordering::SeqCst);
            return reject(client);
        }
        let Some((head, body)) = read_request(&mut client) else { return };
        // As nginx does.
        if head.split(|byte| *byte == b' ').nth(1).is_none_or(|target| !target.starts_with(b"/")) {
            return reject(client);
        }
        let is_carried = match self.upgrades {
            Upgrades::CarriedWithBody if body.is_empty() => return reject(client),
            Upgrades::Carried | Upgrades::CarriedWithBody => true,
            Upgrades::Removed => false,
            Upgrades::CarriedWithoutBody => body.is_empty(),
        };
        let head = if is_carried { head } else { without_upgrade(&head) };
        let Ok(mut server) = TcpStream::connect(self.server) else { return };
        if server.write_all(&[&head[..], &body].concat()).is_err() {
            return;
        }
        let Some(answer) = read_head(&mut server) else { return };
        if client.write_all(&answer).is_err() {
            return;
        }
        if is_upgrade(&head) && is_upgrade(&answer) {
            self.n_upgraded.fetch_add(1, Ordering::SeqCst);
            thread::scope(|scope| {
                scope.spawn(|| self.copy(&client, &server));
                self.copy(&server, &client);
            });
        } else {
            self.copy(&server, &client);
        }
    }

    /// Copies to the end of `from`; a connection that breaks on one side is broken on the other.
    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream) {
        from.set_read_timeout(Some(TICK)).expect("a timeout is set");
        let mut buffer = vec![0; 64 << 10];
        while !self.is_stopped() {
            match from.read(&mut buffer) {
                Ok(0) => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Ok(n) if to.write_all(&buffer[..n]).is_ok() => {}
                Err(error) if is_pause(&error) => {}
                Ok(_) | Err(_) => break,
            }
        }
        for side in [from, to] {
            let _ = side.shutdown(Shutdown::Both);
        }
    }
}

/// Answers what is no request, and reads what follows so that the answer arrives.
fn reject(mut client: TcpStream) {
    let _ = client.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let _ = client.shutdown(Shutdown::Write);
    let mut buffer = [0; 4096];
    while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
}

/// The head of a request without the headers that are between one hop and the next.
fn without_upgrade(head: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(head);
    let is_kept = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        !["connection", "upgrade"].contains(&name.as_str())
    };
    text.split_inclusive("\r\n").filter(is_kept).collect::<String>().into_bytes()
}
