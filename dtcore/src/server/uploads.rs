//! The uploads that a server receives, by the numbers of their sessions.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::event::TransferId;
use crate::proto::v2::{Hello, Secret, SessionId};
use crate::receive::AcceptedStreams;
use crate::send::Places;
use crate::sync::Lock;
use crate::transport::Connection;

/// How long an upload that is replaced may take to release its part file.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// One upload.
#[derive(Debug)]
pub(crate) struct IncomingUpload {
    pub(crate) id: SessionId,
    pub(crate) secret: Secret,
    pub(crate) transfer: TransferId,
    pub(crate) streams: Arc<AcceptedStreams>,
    /// The share of the client.
    pub(crate) client: IpAddr,
    /// The file's name below the folder of uploads.
    pub(crate) name: PathBuf,
    /// Ends it.
    pub(crate) cancel: CancellationToken,
    /// Cancelled when its part file is free for another upload.
    pub(crate) released: CancellationToken,
    n_open: Arc<AtomicUsize>,
}

impl IncomingUpload {
    pub(crate) fn new(
        (id, secret): (SessionId, Secret),
        transfer: TransferId,
        streams: AcceptedStreams,
        client: IpAddr,
        name: PathBuf,
        cancel: CancellationToken,
    ) -> Self {
        Self {
            id,
            secret,
            transfer,
            streams: Arc::new(streams),
            client,
            name,
            cancel,
            released: CancellationToken::new(),
            n_open: Arc::default(),
        }
    }

    /// A connection of this upload, which counts as open until it is closed.
    pub(crate) fn opened(&self, connection: Connection, places: Places) -> Connection {
        self.n_open.fetch_add(1, Ordering::AcqRel);
        connection.holding((places, OpenConnection(Arc::clone(&self.n_open))))
    }

    fn is_abandoned(&self) -> bool {
        self.n_open.load(Ordering::Acquire) == 0
    }
}

/// A connection that is open.
#[derive(Debug)]
struct OpenConnection(Arc<AtomicUsize>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The uploads of a server.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Lock<HashMap<SessionId, Arc<IncomingUpload>>>);

impl Uploads {
    /// Adds an upload; `false` if its number is in use.
    pub(crate) fn insert(&self, upload: &Arc<IncomingUpload>) -> bool {
        let mut all = self.0.lock();
        if all.contains_key(&upload.id) {
            return false;
        }
        all.insert(upload.id, Arc::clone(upload));
        true
    }

    pub(crate) fn remove(&self, id: SessionId) {
        self.0.lock().remove(&id);
    }

    /// The upload that a hello names with the right secret.
    pub(crate) fn find(&self, hello: &Hello) -> Option<Arc<IncomingUpload>> {
        let upload = self.0.lock().get(&hello.session).map(Arc::clone)?;
        (upload.secret == hello.secret).then_some(upload)
    }

    /// Ends the client's upload of this name if no connection of it is open: one that was killed leaves such an upload, and must not
    /// keep its next one out. Returns whether there was one, and it has released its part file.
    pub(crate) async fn replace_abandoned(&self, client: IpAddr, name: &Path) -> bool {
        let found = {
            let all = self.0.lock();
            let mut of_client = all.values().filter(|upload| upload.client == client && upload.name == name);
            of_client.find(|upload| !upload.released.is_cancelled() && upload.is_abandoned()).map(Arc::clone)
        };
        let Some(upload) = found else { return false };
        upload.cancel.cancel();
        timeout(RELEASE_TIMEOUT, upload.released.cancelled()).await.is_ok()
    }
}
