//! From a request of protocol 1 to a transfer and its answer.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::net::TcpListener;
use tokio::time::Instant;

use super::run::run;
use super::slots::Slots;
use super::transfer::LegacyTransfer;
use crate::backend::Object;
use crate::digest::Md5Digest;
use crate::manifest::StaticSplit;
use crate::proto::v1::{LegacyAnswer, LegacyRequest};
use crate::send::digest_cache::DigestError;
use crate::server::ServerContext;
use crate::server::admission::{Permit, client_key};
use crate::server::event::{Direction, ServerEvent, TransferId};
use crate::server::open::open;
use crate::server::refusal::Refusal;
use crate::transport::{PortUse, listen};

/// How often a file that changes while it is hashed is opened and hashed.
const ATTEMPTS: usize = 2;

/// Hashes the file that `names` mean, and listens for the streams of a transfer. Returns the answer, and the size of the file.
pub(in crate::server) async fn create_transfer(
    context: &Arc<ServerContext>,
    peer: SocketAddr,
    wanted: LegacyRequest,
    names: Arc<[Vec<u8>]>,
    permit: Permit,
) -> Result<(LegacyAnswer, u64), Refusal> {
    let (source, path, md5) = find(context, peer, names).await?;
    let id = context.next_transfer();
    let listener = transfer_listener(context, id).map_err(|error| Refusal::of_listening(&error))?;
    let port = listener.local_addr().map_err(|error| Refusal::of_listening(&error))?.port();
    let split = StaticSplit::new(source.size(), wanted.streams);
    let (size, streams) = (split.size(), split.streams());
    let started = path.clone();
    context.emit(ServerEvent::TransferStarted {
        transfer: id,
        direction: Direction::Download,
        protocol: 1,
        peer,
        path: started,
        size,
        streams,
        port,
    });
    let transfer = LegacyTransfer {
        context: Arc::clone(context),
        id,
        peer,
        path,
        source,
        split,
        slots: Slots::new(streams),
        aborted: context.tasks().aborted.child_token(),
        started: Instant::now(),
        bytes_sent: AtomicU64::new(0),
    };
    context.tasks().tracker.spawn(run(Arc::new(transfer), listener, permit));
    Ok((LegacyAnswer { md5, port }, size))
}

/// Opens the file that `names` mean, and computes or remembers its digest.
async fn find(
    context: &Arc<ServerContext>,
    peer: SocketAddr,
    names: Arc<[Vec<u8>]>,
) -> Result<(Arc<dyn Object>, PathBuf, Md5Digest), Refusal> {
    for _ in 0..ATTEMPTS {
        let (source, path) = open(context, peer, Arc::clone(&names)).await?;
        match context.send.digests.md5(&source, client_key(peer.ip())).await {
            Ok(md5) => return Ok((source, path, md5)),
            Err(DigestError::Changed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(DigestError::Changed.into())
}

/// A listener for a transfer, on the address of the server.
///
/// A range of ports is used in turn, so that a late connection of an ended transfer finds a closed port
/// rather than the next transfer.
fn transfer_listener(context: &ServerContext, transfer: TransferId) -> io::Result<TcpListener> {
    let on = |port| SocketAddr::from((context.local_addr.ip(), port));
    let Some(ports) = context.options.transfer_ports else {
        return listen(on(0), PortUse::Ephemeral);
    };
    let mut result = Err(io::Error::from(io::ErrorKind::AddrInUse));
    for port in ports.round_from(transfer.value()) {
        result = listen(on(port), PortUse::Chosen);
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Ok(_) | Err(_) => break,
        }
    }
    result
}
