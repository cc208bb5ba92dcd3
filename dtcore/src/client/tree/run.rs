//! Runs the download of a tree: lists it, creates what is no file at once, and receives the files meanwhile.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::TreeOptions;
use super::fetch::{TreeTransfer, fetch_one, fetch_pack};
use super::output::{Existing, TreeOutput, stays_inside};
use super::plan::{Planner, Task, WantedFile};
use super::totals::Totals;
use crate::client::list::{self, Entry, ListItem};
use crate::client::options::Options;
use crate::error::TransferError;
use crate::event::{EventSender, PROGRESS_INTERVAL, TreeReport, ticks};
use crate::failure::{Failure, reason};
use crate::proto::EntryKind;

/// How many entries wait to be looked at.
const QUEUED: usize = 1024;

/// How many large files are received at once, each over all streams.
const LARGE_AT_ONCE: usize = 2;

/// A directory, and what it is to have when everything is in it.
type FinishedDirectory = (PathBuf, i64, u32);

/// Runs the download to its end, or until `cancel`.
pub(super) async fn run(
    options: Options,
    wishes: TreeOptions,
    path: PathBuf,
    events: EventSender,
    cancel: CancellationToken,
) -> Result<TreeReport, Failure> {
    let totals = Totals::new(events, Instant::now());
    let mut listing = Listed::start(&options, wishes);
    // A directory that cannot be listed leaves none here.
    cancel.run_until_cancelled(listing.begin()).await.ok_or(Failure::Cancelled)??;
    let (preserve, durability) = (options.preserve, options.settings.durability);
    let opening = spawn_blocking(move || TreeOutput::open(&path, preserve, durability));
    let output = opening.await.map_err(|_| Failure::thread_died("open the output"))??;
    // Its own: a failure ends what is under way.
    let cancel_all = cancel.child_token();
    let _ended = cancel_all.clone().drop_guard();
    let transfer = Arc::new(TreeTransfer { options, output, totals, cancel: cancel_all });
    let mut progress = ticks(PROGRESS_INTERVAL);
    let mut receiving = Box::pin(receive(&transfer, wishes, listing));
    let result = loop {
        tokio::select! {
            biased;
            () = cancel.cancelled() => break Err(Failure::Cancelled),
            result = &mut receiving => break result,
            _ = progress.tick() => transfer.totals.emit_progress(),
        }
    };
    drop(receiving);
    transfer.totals.emit_progress();
    result.map(|()| transfer.totals.report())
}

/// A listing that runs, and what of it has arrived.
struct Listed {
    task: JoinSet<Result<(), Failure>>,
    items: mpsc::Receiver<Result<ListItem, TransferError>>,
    batch: Vec<Result<ListItem, TransferError>>,
}

impl Listed {
    fn start(options: &Options, wishes: TreeOptions) -> Self {
        let (sender, items) = mpsc::channel(QUEUED);
        let options = options.clone();
        let mut task = JoinSet::new();
        task.spawn(async move { list::run(&options, true, wishes.hidden, &sender).await });
        Self { task, items, batch: Vec::with_capacity(QUEUED) }
    }

    /// Waits until something has arrived, or the directory is known to be empty.
    async fn begin(&mut self) -> Result<(), Failure> {
        if self.items.recv_many(&mut self.batch, QUEUED).await == 0 { self.end().await } else { Ok(()) }
    }

    /// The next items; none at the end.
    async fn next(&mut self) -> Vec<Result<ListItem, TransferError>> {
        if self.batch.is_empty() {
            self.items.recv_many(&mut self.batch, QUEUED).await;
        }
        std::mem::take(&mut self.batch)
    }

    /// Whether everything was listed, after the last item.
    async fn end(&mut self) -> Result<(), Failure> {
        while let Some(ended) = self.task.join_next().await {
            ended.map_err(|_| Failure::thread_died("list the directory"))??;
        }
        Ok(())
    }
}

async fn receive(
    transfer: &Arc<TreeTransfer>,
    wishes: TreeOptions,
    mut listing: Listed,
) -> Result<(), Failure> {
    let mut tasks = JoinSet::new();
    let n_small = Arc::new(Semaphore::new(usize::from(transfer.options.settings.streams.value())));
    let n_large = Arc::new(Semaphore::new(LARGE_AT_ONCE));
    let (mut planner, mut directories) = (Planner::default(), Vec::new());
    loop {
        let items = listing.next().await;
        if items.is_empty() {
            break;
        }
        let creating = Arc::clone(transfer);
        let considered = spawn_blocking(move || consider(&creating, wishes, items));
        let (wanted, folders) = considered.await.map_err(|_| Failure::thread_died("create entries"))?;
        directories.extend(folders);
        for file in wanted {
            if let Some(task) = planner.add(file) {
                start(transfer, &mut tasks, task, &n_small, &n_large).await?;
            }
        }
    }
    listing.end().await?;
    transfer.totals.listed();
    if let Some(task) = planner.rest() {
        start(transfer, &mut tasks, task, &n_small, &n_large).await?;
    }
    while let Some(ended) = tasks.join_next().await {
        ended.map_err(|_| Failure::thread_died("receive a file"))??;
    }
    let finishing = Arc::clone(transfer);
    let finished = spawn_blocking(move || {
        // What is below has a longer path.
        for (path, modified, mode) in directories.into_iter().rev() {
            if let Err(error) = finishing.output.finish_directory(&path, modified, mode) {
                finishing.totals.failed(&path, reason(&error), true);
            }
        }
    });
    finished.await.map_err(|_| Failure::thread_died("set the times of directories"))
}

/// Starts a transfer when there is a place for it.
async fn start(
    transfer: &Arc<TreeTransfer>,
    tasks: &mut JoinSet<Result<(), Failure>>,
    task: Task,
    n_small: &Arc<Semaphore>,
    n_large: &Arc<Semaphore>,
) -> Result<(), Failure> {
    // The error of one that has ended already ends them all.
    while let Some(ended) = tasks.try_join_next() {
        ended.map_err(|_| Failure::thread_died("receive a file"))??;
    }
    let places = if matches!(task, Task::One(_)) { n_large } else { n_small };
    let place = Arc::clone(places).acquire_owned().await;
    let place = place.map_err(|_| Failure::system("continue", "there are no places"))?;
    let transfer = Arc::clone(transfer);
    tasks.spawn(async move {
        let _place = place;
        match task {
            Task::One(file) => fetch_one(&transfer, file).await,
            Task::Pack(files) => fetch_pack(&transfer, files).await,
        }
    });
    Ok(())
}

/// Creates what is no file; returns the files that are to be received, and the directories.
fn consider(
    transfer: &TreeTransfer,
    wishes: TreeOptions,
    items: Vec<Result<ListItem, TransferError>>,
) -> (Vec<WantedFile>, Vec<FinishedDirectory>) {
    let (mut files, mut directories) = (Vec::new(), Vec::new());
    for item in items {
        match item {
            Ok(ListItem::Entry(entry)) => {
                if entry.kind == EntryKind::Directory {
                    directories.push((entry.path.clone(), entry.modified_nanos(), entry.mode));
                }
                files.extend(consider_entry(transfer, wishes, entry));
            }
            Ok(ListItem::Unreadable { path, reason }) => transfer.totals.failed(&path, reason, false),
            // The lister sends none: its error is what it returns.
            Err(_) => {}
        }
    }
    (files, directories)
}

fn consider_entry(transfer: &TreeTransfer, wishes: TreeOptions, entry: Entry) -> Option<WantedFile> {
    let (output, totals) = (&transfer.output, &transfer.totals);
    let result = match entry.kind {
        EntryKind::Other => {
            totals.skipped(&entry.path, "it is a pipe, a socket or a device");
            return None;
        }
        EntryKind::Symlink => {
            let Some(target) = entry.target.as_deref().filter(|to| stays_inside(&entry.path, to)) else {
                totals.skipped(&entry.path, "it is a link that leads out of the directory");
                return None;
            };
            if wishes.dry_run {
                Ok(())
            } else {
                output.create_link(&entry.path, target).map(|()| totals.link())
            }
        }
        EntryKind::Directory if wishes.dry_run => Ok(()),
        EntryKind::Directory => output.create_directory(&entry.path).map(|()| totals.directory()),
        EntryKind::File => {
            totals.found(entry.size);
            match output.existing(&entry.path, entry.size, entry.modified_nanos()) {
                Existing::Same => {
                    totals.unchanged();
                    return None;
                }
                Existing::Different if wishes.keep_existing => {
                    totals.skipped(&entry.path, "it exists, and differs");
                    return None;
                }
                Existing::Different | Existing::Nothing => {}
            }
            if wishes.dry_run {
                totals.done(vec![(entry.path, entry.size)]);
                return None;
            }
            return Some(WantedFile { path: entry.path, size: entry.size });
        }
    };
    if let Err(error) = result {
        totals.failed(&entry.path, reason(&error), true);
    }
    None
}
