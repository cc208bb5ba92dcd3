//! The data port: all streams of all sessions come to it.

use std::sync::Arc;

use tokio::net::TcpListener;

use crate::send::handshake::{handshake, reject};
use crate::server::Shared;
use crate::transport::accept;

/// Accepts streams until the server shuts down; the listener is closed then.
pub(crate) async fn keep(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let (socket, peer) = tokio::select! {
            biased;
            () = shared.draining.cancelled() => return,
            accepted = accept(&listener, |error| shared.accept_failed(&error)) => accepted,
        };
        match shared.pending_handshakes.admit(peer.ip()) {
            Some(place) => {
                let (shared, socket) = (Arc::clone(&shared), Arc::new(socket));
                let tracker = shared.tracker.clone();
                tracker.spawn(handshake(shared, socket, bytes::Bytes::new(), peer, place));
            }
            None => reject(&shared, &socket, peer),
        }
    }
}
