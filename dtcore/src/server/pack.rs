//! Packs: many small files, read into memory and sent as one transfer.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::ServerContext;
use super::auth::{Action, AuthorizeRequest};
use super::open::{authorize, path_below};
use super::refusal::Refusal;
use crate::backend::fs::{NotRead, SmallFile, SmallFiles};
use crate::backend::{MemoryObject, Object};
use crate::num::to_u64;
use crate::proto::{EntryKind, ListLine, ListedEntry, MAX_PACK_BYTES, encode_pack};

/// Reads the files `names` below the directory `folder`. What cannot be read is named in the pack, with the reason.
pub(crate) async fn open_pack(
    context: &Arc<ServerContext>,
    peer: SocketAddr,
    folder: &[u8],
    names: Vec<Vec<u8>>,
) -> Result<(Arc<dyn Object>, PathBuf), Refusal> {
    let path = path_below(folder);
    let mut wanted = Vec::with_capacity(names.len());
    for name in names {
        let below = path.join(OsStr::from_bytes(&name));
        let request = AuthorizeRequest { peer, action: Action::Download, path: below };
        wanted.push(
            authorize(context, request).await.map(|()| name.clone()).map_err(|refusal| (name, refusal)),
        );
    }
    let place = Arc::clone(&context.limits.packs).try_acquire_owned();
    let place = place.map_err(|_| Refusal::busy("too many packs"))?;
    let (root, folder) = (Arc::clone(&context.root), path.clone());
    let reading = spawn_blocking(move || {
        let (mut lines, mut bytes) = (Vec::new(), Vec::new());
        let mut reader = root.files();
        for wanted in wanted {
            lines.push(match wanted {
                Ok(name) => read(&mut reader, &folder, name, &mut bytes),
                Err((name, refusal)) => ListLine::Unreadable(name, refusal.reason),
            });
        }
        encode_pack(&lines, &bytes)
    });
    let packed = reading.await.map_err(|_| Refusal::busy("the server is shutting down"))?;
    Ok((Arc::new(MemoryObject::new(packed, place)), path))
}

/// Adds the content of a file to `bytes`, and returns its line.
fn read(reader: &mut SmallFiles<'_>, folder: &Path, name: Vec<u8>, bytes: &mut Vec<u8>) -> ListLine {
    let before = bytes.len();
    let room = MAX_PACK_BYTES.saturating_sub(to_u64(before));
    match reader.read(&folder.join(OsStr::from_bytes(&name)), room, bytes) {
        Ok(SmallFile { modified, mode }) => ListLine::Entry(ListedEntry {
            path: name,
            kind: EntryKind::File,
            size: to_u64(bytes.len() - before),
            modified,
            mode,
            target: None,
        }),
        Err(error) => {
            bytes.truncate(before);
            let reason = error.to_string();
            match error {
                NotRead::Open(_) => ListLine::Unreadable(name, reason),
                NotRead::Now(_) => ListLine::NotPacked(name, reason),
            }
        }
    }
}
