//! The server as a library: sockets that listen already, handles, authorisation, and options at their extremes.

use std::path::Path;
use std::sync::{Arc, Mutex};

use super::*;

#[tokio::test]
async fn sockets_of_both_kinds_are_served() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("f"), b"abc").unwrap();
    let std_socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let tokio_socket = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    for socket in [ListeningSocket::from(std_socket), tokio_socket.into()] {
        let server = Server::from_listener(socket, ServerOptions::new(folder.path())).await.unwrap();
        let (address, handle) = (server.local_addr(), server.handle());
        assert_eq!((handle.local_addr(), handle.stats().transfers_started()), (address, 0));
        let running = tokio::spawn(server.run(std::future::pending()));
        let mut client = connect(address).await.unwrap();
        client.write_all(&request("f", 1)).await.unwrap();
        let answer = String::from_utf8(read_to_end(client).await.unwrap()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        handle.shutdown();
        within(running).await.unwrap();
        assert!(is_closed(address).await);
        assert_eq!(handle.stats().transfers_started(), 1);
    }
}

#[tokio::test]
async fn server_that_was_shut_down_before_it_runs_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::bind(ServerOptions::new(folder.path())).await.unwrap();
    let (address, handle) = (server.local_addr(), server.handle());
    handle.shutdown();
    within(server.run(std::future::pending())).await;
    assert!(is_closed(address).await);
}

/// The requests that the hook was asked about: the path, and whether it is allowed.
type Requested = Arc<Mutex<Vec<PathBuf>>>;

async fn authorizing(decide: fn(&Path) -> Authorization) -> (Served, Requested) {
    let asked = Requested::default();
    let observed = Arc::clone(&asked);
    let served = Served::with(|options| {
        options.authorize(move |request| {
            assert!(request.peer.ip().is_loopback());
            assert_eq!(request.action, Action::Download);
            observed.lock().unwrap().push(request.path.clone());
            async move {
                tokio::task::yield_now().await;
                decide(&request.path)
            }
        })
    })
    .await;
    (served, asked)
}

fn request2(name: &str) -> Vec<u8> {
    let body = "{\"threads\": 1, \"protocol\": 2}";
    format!("POST {name} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn hook_decides_in_both_protocols() {
    let (served, asked) = authorizing(|path| match path.to_str().unwrap() {
        "open" => Authorization::Allowed,
        "secret/f" => Authorization::Forbidden,
        _ => Authorization::Unauthenticated,
    })
    .await;
    std::fs::create_dir(served.folder.path().join("secret")).unwrap();
    for name in ["open", "secret/f", "other"] {
        served.file(name, b"abc");
    }
    for (name, status, path) in [
        ("open", "200 OK", "open"),
        ("/open", "200 OK", "open"),
        ("secret/f", "403 Forbidden", "secret/f"),
        ("//secret/.//f", "403 Forbidden", "secret/f"),
        ("secret%2Ff", "403 Forbidden", "secret/f"),
        ("other", "401 Unauthorized", "other"),
        // Whether a file exists is not revealed.
        ("missing", "401 Unauthorized", "missing"),
        ("../f", "401 Unauthorized", "../f"),
    ] {
        for request in [request(name, 1), request2(name)] {
            let answer = served.exchange(&[&request]).await;
            assert_eq!(answer.get(9..9 + status.len()), Some(status), "{name}");
            assert_eq!(asked.lock().unwrap().pop(), Some(PathBuf::from(path)), "{name}");
        }
    }
    // Nothing is hashed for a request that is refused.
    assert_eq!(served.stats.bytes_hashed(), 6);
    assert_eq!((served.stats.transfers_started(), served.stats.requests_refused()), (4, 12));
}

#[tokio::test]
async fn allowed_request_for_a_missing_file_is_not_found() {
    let (served, _) = authorizing(|_| Authorization::Allowed).await;
    let answer = served.exchange(&[&request2("missing")]).await;
    assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
}

#[tokio::test]
async fn missing_file_is_forbidden_under_every_name_that_the_request_can_mean() {
    let (served, _) = authorizing(|path| {
        if path.starts_with("private") { Authorization::Forbidden } else { Authorization::Allowed }
    })
    .await;
    let answer = served.exchange(&[&request2("priv%61te/missing")]).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn hook_that_never_decides_is_a_refusal() {
    let served = Served::with(|options| {
        let options = options.request_timeout(Duration::from_millis(200));
        options.authorize(|_| std::future::pending())
    })
    .await;
    served.file("f", b"abc");
    let answer = served.exchange(&[&request2("f")]).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn longest_durations_are_accepted() {
    let max = Duration::MAX;
    let served = Served::with(|options| {
        options
            .request_timeout(max)
            .transfer_expiry(max)
            .session_expiry(max)
            .idle_timeout(max)
            .stall_timeout(max)
            .drain_timeout(max)
    })
    .await;
    served.file("f", b"abc");
    let answer = served.exchange(&[&request2("f")]).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let address = served.transfer("f", 1).await;
    assert_eq!(read_stream(address, 0).await.unwrap(), b"abc");
    served.stop().await;
}
