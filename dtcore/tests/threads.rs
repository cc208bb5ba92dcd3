//! The threads of many transfers. These tests count those of the process, so they share it with no others.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "other tests use all of it")]
#[path = "api/serve.rs"]
mod serve;

use std::fs;
use std::num::NonZeroU64;
use std::time::Duration;

use dtcore::{Client, Event};
use serve::Served;
use tokio::runtime::Handle;
use tokio::time::sleep;

/// The name of a client's threads.
const NAME: &str = "dt-transfer";

/// How many threads of this process belong to clients.
fn n_client_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == NAME).count()
}

/// Runs 60 downloads at once, and returns how many threads of clients there are while all of them run.
async fn threads_of_60_downloads(served: &Served, client: &Client) -> usize {
    let content = served.file("f", 1 << 20);
    let outputs: Vec<_> = (0..60).map(|n| served.output(&format!("out{n}"))).collect();
    let mut transfers: Vec<_> = outputs.iter().map(|output| client.download("f").to_path(output)).collect();
    for transfer in &mut transfers {
        let mut events = transfer.take_events().unwrap();
        while !matches!(events.next().await, Some(Event::Started { .. })) {}
    }
    let n_threads = n_client_threads();
    for transfer in transfers {
        transfer.await.unwrap();
    }
    for output in outputs {
        assert!(fs::read(output).unwrap() == content);
    }
    n_threads
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn downloads_share_the_threads_of_their_client_or_runtime() {
    let served = Served::new();
    let builder = served.builder().rate_limit(NonZeroU64::new(40 << 20).unwrap());
    let client = builder.clone().build().unwrap();
    let n_threads = threads_of_60_downloads(&served, &client).await;
    // As many as there are cores, 8 at most, and 32 at most that wait for a disk.
    assert!((1..=40).contains(&n_threads), "{n_threads} threads");
    drop(client);
    while n_client_threads() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    for n in 0..60 {
        fs::remove_file(served.output(&format!("out{n}"))).unwrap();
    }
    let client = builder.runtime(Handle::current()).build().unwrap();
    assert_eq!(threads_of_60_downloads(&served, &client).await, 0);
}
