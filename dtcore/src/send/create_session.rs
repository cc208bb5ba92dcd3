//! From a request to a session: the answer of protocol 2.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;

use crate::backend::fs::SourceFile;
use crate::backend::{Object, ObjectIdentity};
use crate::digest::Blake3Digest;
use crate::manifest::{BlockSize, Manifest};
use crate::proto::v2::{Answer, Request, Secret, SessionId, SourceVersion, WholeDigests};
use crate::send::session::{Session, Terms};
use crate::server::Shared;
use crate::server::admission::Permit;
use crate::server::refusal::Refusal;

/// Grants a session for a file that was opened; nothing of it is read before.
pub(crate) fn grant(
    shared: &Arc<Shared>,
    client_key: SocketAddr,
    wanted: Request,
    (source, path): (SourceFile, PathBuf),
    place: Permit,
) -> Result<Answer, Refusal> {
    let identity = source.identity();
    let manifest = Manifest::new(source.size(), BlockSize::for_file(source.size()))
        .map_err(|error| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    let (id, secret) = (unused_id(shared)?, Secret::from(random()?));
    let answer = Answer {
        manifest,
        modified: saturated(identity.modified()),
        version: version(&identity),
        port: shared.data_addr.port(),
        session: id,
        secret: secret.clone(),
        md5: shared.digests.known_md5(&identity),
        blake3: shared.digests.known_blake3(&identity),
    };
    let source = Arc::new(source);
    let terms = Terms { id, secret, client_key, source, manifest, streams: wanted.streams };
    let session = Session::begin(shared, terms, path, place);
    if wanted.digests == WholeDigests::Blake3AndMd5 && manifest.n_blocks() > 0 {
        shared.tracker.spawn(session.hash_ahead());
    }
    Ok(answer)
}

/// The first 16 bytes of the BLAKE3 hash of inode, size and modification time, 8 bytes each.
fn version(identity: &ObjectIdentity) -> SourceVersion {
    let modified = saturated(identity.modified()).to_le_bytes();
    let parts = [identity.inode().to_le_bytes(), identity.size().to_le_bytes(), modified];
    let digest: [u8; 32] = Blake3Digest::of(parts.as_flattened()).into();
    let mut version = [0; 16];
    version.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    version.into()
}

fn saturated(nanoseconds: i128) -> i64 {
    i64::try_from(nanoseconds).unwrap_or(if nanoseconds < 0 { i64::MIN } else { i64::MAX })
}

/// A session number that no session has; it is no secret, but numbers of a former run must not come again soon.
fn unused_id(shared: &Shared) -> Result<SessionId, Refusal> {
    loop {
        let id = SessionId::from(u64::from_le_bytes(random()?));
        if !shared.sessions.contains(id) {
            return Ok(id);
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], Refusal> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Refusal::busy("the system has no randomness"))?;
    Ok(bytes)
}
