//! Receives the files of a tree: one alone, or many in a pack.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::output::{TreeOutput, remote_name};
use super::plan::WantedFile;
use super::totals::Totals;
use crate::client::negotiate;
use crate::client::options::{Options, ProtocolChoice};
use crate::event::{self, Event};
use crate::failure::{self, Failure};
use crate::manifest::StreamCount;
use crate::num::to_u64;
use crate::proto::{ListLine, decode_pack, encode_pack_names};
use crate::sink::{Output, ReorderBuffer};

/// How much of a pack a server may send with its offer: all of it.
const PUSH: u64 = 16 << 20;

/// The most bytes of a pack with its table: more than any server makes.
const MAX_CONTENT: u64 = 32 << 20;

/// What all transfers of a tree share.
#[derive(Debug)]
pub(super) struct TreeTransfer {
    /// Of the directory.
    pub(super) options: Options,
    pub(super) output: TreeOutput,
    pub(super) totals: Totals,
    pub(super) cancel: CancellationToken,
}

/// Receives a file alone, over all streams; retries once if it changes meanwhile.
pub(super) async fn fetch_one(transfer: &Arc<TreeTransfer>, file: WantedFile) -> Result<(), Failure> {
    for is_last in [false, true] {
        match received(transfer, &file).await {
            Ok(bytes) => {
                transfer.totals.done(vec![(file.path, bytes)]);
                return Ok(());
            }
            Err(Failure::SourceChanged { .. }) if !is_last => {}
            Err(failure) => return failed(transfer, &file.path, failure),
        }
    }
    Ok(())
}

/// Receives a file alone, and returns its size.
async fn received(transfer: &Arc<TreeTransfer>, file: &WantedFile) -> Result<u64, Failure> {
    let (opening, path) = (Arc::clone(transfer), file.path.clone());
    let place = spawn_blocking(move || opening.output.cleared_place(&path));
    let place = place.await.map_err(|_| Failure::thread_died("open the output"))?;
    let local = |source| Failure::LocalFile { action: "write", path: file.path.clone(), source };
    let place = place.map_err(local)?;
    let name = remote_name(&transfer.options.name, &file.path).into_os_string();
    let options = Options { name, ..transfer.options.clone() };
    let (events, mut observer) = event::channel();
    let output = Output::Confined(place.path());
    let mut receiving = Box::pin(negotiate::run(options, output, events, transfer.cancel.clone()));
    let mut partial = 0;
    let report = loop {
        tokio::select! {
            biased;
            report = &mut receiving => break report,
            Some(event) = observer.next() => {
                if let Event::Progress(progress) = event {
                    transfer.totals.partial(partial, progress.received);
                    partial = progress.received;
                }
            }
        }
    };
    transfer.totals.partial(partial, 0);
    drop(place);
    report.map(|report| report.bytes)
}

/// Receives many small files by one transfer.
pub(super) async fn fetch_pack(transfer: &Arc<TreeTransfer>, files: Vec<WantedFile>) -> Result<(), Failure> {
    let names: Vec<Vec<u8>> = files.iter().map(|file| file.path.as_os_str().as_bytes().to_vec()).collect();
    let folder = transfer.options.name.as_bytes();
    let slash = if folder.ends_with(b"/") { &b""[..] } else { b"/" };
    let mut options = Options {
        name: OsString::from_vec([folder, slash].concat()),
        pack: Some(encode_pack_names(&names).into()),
        push: PUSH,
        protocol: ProtocolChoice::V2,
        may_grow: false,
        ..transfer.options.clone()
    };
    options.settings.streams = StreamCount::ONE;
    let memory = Arc::new(ReorderBuffer::for_memory(MAX_CONTENT));
    let (events, _) = event::channel();
    let output = Output::Memory(Arc::clone(&memory), MAX_CONTENT);
    let report = negotiate::run(options, output, events, transfer.cancel.clone()).await?;
    let writing = Arc::clone(transfer);
    let written = spawn_blocking(move || {
        let failed = |source| Failure::System { action: "get memory for a pack", source };
        let content = memory.take(report.bytes).map_err(failed)?;
        write_files(&writing, &files, &content)
    });
    let again = written.await.map_err(|_| Failure::thread_died("write files"))??;
    for file in again {
        // It has changed since it was listed; alone it gets as much room as it needs.
        Box::pin(fetch_one(transfer, file)).await?;
    }
    Ok(())
}

/// Writes the files of a pack; returns those that must be received alone.
fn write_files(
    transfer: &TreeTransfer,
    files: &[WantedFile],
    content: &[u8],
) -> Result<Vec<WantedFile>, Failure> {
    let server = || transfer.options.server.to_string();
    let invalid = |what: &str| Failure::Protocol { server: server(), what: what.to_owned() };
    let packed = decode_pack(content).map_err(|error| invalid(&error.to_string()))?;
    if packed.len() != files.len() {
        return Err(invalid("a pack without some of its files"));
    }
    let (mut done, mut again) = (Vec::new(), Vec::new());
    for (file, (line, bytes)) in files.iter().zip(packed) {
        match line {
            ListLine::Entry(entry) if entry.path == file.path.as_os_str().as_bytes() => {
                match transfer.output.write(&file.path, bytes, entry.modified, entry.mode) {
                    Ok(()) => done.push((file.path.clone(), to_u64(bytes.len()))),
                    Err(error) => transfer.totals.failed(&file.path, failure::reason(&error), true),
                }
            }
            ListLine::Unreadable(path, reason) if path == file.path.as_os_str().as_bytes() => {
                transfer.totals.failed(&file.path, reason, false);
            }
            ListLine::NotPacked(path, _) if path == file.path.as_os_str().as_bytes() => {
                again.push(file.clone());
            }
            ListLine::Entry(_) | ListLine::Unreadable(..) | ListLine::NotPacked(..) | ListLine::End(_) => {
                return Err(invalid("a pack with other files"));
            }
        }
    }
    transfer.totals.done(done);
    Ok(again)
}

/// Notes the failure of one file; one that concerns all files ends the transfer.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are about the server or this machine")]
fn failed(transfer: &TreeTransfer, path: &Path, failure: Failure) -> Result<(), Failure> {
    let (reason, is_local) = match failure {
        Failure::LocalFile { source, .. } => (failure::reason(&source), true),
        Failure::TooLarge { .. } => ("larger than the file system allows".to_owned(), true),
        Failure::OutputInUse { .. } => ("another transfer writes it".to_owned(), true),
        Failure::NotFound { reason, .. } => (or(reason, "no such file"), false),
        Failure::Forbidden { reason, .. } => (or(reason, "permission denied"), false),
        Failure::Unreadable { reason, .. } => (or(reason, "the server cannot read it"), false),
        Failure::SourceChanged { .. } => ("it changes all the time".to_owned(), false),
        Failure::SourceReplaced { .. } => {
            ("its saved data is of another version; remove it to start over".to_owned(), true)
        }
        Failure::DigestMismatch { .. } | Failure::CorruptBlock { .. } => {
            ("its bytes do not match their digests".to_owned(), false)
        }
        failure => return Err(failure),
    };
    transfer.totals.failed(path, reason, is_local);
    Ok(())
}

fn or(reason: String, otherwise: &str) -> String {
    if reason.is_empty() { otherwise.to_owned() } else { reason }
}
