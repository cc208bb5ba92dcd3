//! A server of this crate, on a thread of its own.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dtcore::{Client, ClientBuilder, Server, ServerAddress, ServerHandle, ServerOptions};
use tempfile::TempDir;

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that is served until this is dropped.
pub(crate) struct Served {
    directory: TempDir,
    address: ServerAddress,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("served")).unwrap();
        let options =
            ServerOptions::new(directory.path().join("served")).bind_address(Ipv4Addr::LOCALHOST.into());
        let (sender, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.unwrap().block_on(async {
                let server = Server::bind(options).await.unwrap();
                sender.send(server.handle()).unwrap();
                server.run(std::future::pending()).await;
            });
        });
        let handle = started.recv_timeout(PATIENCE).expect("the server starts");
        let address = handle.local_addr().to_string().parse().unwrap();
        Self { directory, address, handle, thread: Some(thread) }
    }

    /// Serves `size` bytes as `name`, and returns them.
    pub(crate) fn file(&self, name: &str, size: usize) -> Vec<u8> {
        let content: Vec<u8> = (0..size).map(|n| n.wrapping_mul(0x9E37_79B1).to_le_bytes()[2]).collect();
        std::fs::write(self.directory.path().join("served").join(name), &content).unwrap();
        content
    }

    /// A path beside the served directory.
    pub(crate) fn output(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn address(&self) -> &ServerAddress {
        &self.address
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(self.address.clone())
    }

    pub(crate) fn client(&self) -> Client {
        self.builder().build().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.handle.shutdown();
        // A panic there was printed already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}
