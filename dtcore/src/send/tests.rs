//! A session without connections: what ends when.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::backend::fs::SourceFile;
use crate::manifest::{BlockSize, Manifest, StreamCount};
use crate::proto::v2::{Hello, Replacing, Secret, SessionId};
use crate::send::session::{Session, SessionEnd, Terms};
use crate::server::event::ServerEvent;
use crate::server::{Server, ServerOptions};

#[tokio::test]
async fn a_transfer_has_ended_when_what_was_replaced_has_told_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind(ServerOptions::new(folder.path())).await.unwrap();
    let mut events = server.events();
    let file = tempfile::tempfile().unwrap();
    file.set_len(1).unwrap();
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let (id, secret) = (SessionId::from(7), Secret::from([7; 16]));
    let terms = Terms {
        id,
        secret: secret.clone(),
        client_key: peer,
        source: Arc::new(SourceFile::new(file).unwrap()),
        manifest: Manifest::new(1, BlockSize::new(BlockSize::MIN).unwrap()).unwrap(),
        streams: StreamCount::default(),
    };
    let place = server.shared.transfers.admit(peer.ip()).unwrap();
    let session = Session::begin(&server.shared, terms, "f".into(), place);
    let hello = |replacing| Hello { stream: 0, secret: secret.clone(), session: id, replacing };
    let former = session.claim(&hello(Replacing::Nothing), peer.ip()).unwrap();
    let last = session.claim(&hello(Replacing::Former), peer.ip()).unwrap();
    assert!(former.stop().is_cancelled() && former.is_replaced());
    assert_eq!(server.shared.data_connections.n_admitted(), 1, "one place for both");
    session.end(SessionEnd::Finished);
    drop(last);
    assert!(matches!(events.next().await, Some(ServerEvent::TransferStarted { .. })));
    let early = timeout(Duration::from_millis(50), events.next()).await;
    assert!(early.is_err(), "{early:?} before the former connection has told of its end");
    drop(former);
    assert!(matches!(events.next().await, Some(ServerEvent::TransferFinished { .. })));
}
