//! The sessions of a server, by their numbers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::admission::Permit;
use crate::proto::v2::{Hello, SessionId};
use crate::send::{Session, SessionEnd};
use crate::sync::Lock;

/// The sessions of a server, by their numbers.
#[derive(Default)]
pub(crate) struct Sessions(Lock<HashMap<SessionId, SessionEntry>>);

struct SessionEntry {
    session: Arc<Session>,
    /// The share of the peer that requested it.
    client: IpAddr,
    /// Its place among the transfers.
    _permit: Permit,
}

impl Sessions {
    /// Adds a session, whose streams are found from now on.
    pub(crate) fn insert(&self, session: &Arc<Session>, client: IpAddr, permit: Permit) {
        let entry = SessionEntry { session: Arc::clone(session), client, _permit: permit };
        self.0.lock().insert(session.spec.id, entry);
    }

    /// Removes a session and frees its place.
    pub(crate) fn remove(&self, id: SessionId) {
        self.0.lock().remove(&id);
    }

    /// Whether a number is in use.
    pub(crate) fn contains(&self, id: SessionId) -> bool {
        self.0.lock().contains_key(&id)
    }

    /// The session that a hello names with the right secret.
    pub(crate) fn find(&self, hello: &Hello) -> Option<Arc<Session>> {
        let session = self.0.lock().get(&hello.session).map(|entry| Arc::clone(&entry.session))?;
        (session.spec.secret == hello.secret).then_some(session)
    }

    /// Ends the session of a client that has been without streams for the longest time, and frees its place; `false` if all
    /// of its sessions have streams.
    ///
    /// A client that was killed leaves such sessions; they must not keep its next one out.
    pub(crate) fn evict_idle(&self, client: IpAddr) -> bool {
        let mut all = self.0.lock();
        let mut idle: Vec<_> = all
            .iter()
            .filter(|(_, entry)| entry.client == client)
            .filter_map(|(id, entry)| Some((entry.session.idle_since()?, *id)))
            .collect();
        idle.sort_unstable_by_key(|(since, _)| *since);
        for (_, id) in idle {
            // A stream may have been opened meanwhile.
            if all.get(&id).is_some_and(|entry| entry.session.end_if_idle(SessionEnd::Evicted)) {
                all.remove(&id);
                return true;
            }
        }
        false
    }
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("n", &self.0.lock().len()).finish()
    }
}
