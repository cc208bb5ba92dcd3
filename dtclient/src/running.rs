//! A transfer that runs, and what it has done at the end.

use std::pin::Pin;

use dtcore::{CancelHandle, Events, Report, Transfer, TransferError, TreeReport, UploadReport};

/// What a transfer has done.
pub(crate) enum Done {
    Fetched(Report),
    Sent(UploadReport),
    Tree(TreeReport),
}

impl Done {
    /// The exit code: some entries of a tree may have failed.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Tree(report) if report.failures.iter().any(|failure| failure.is_local) => LOCAL_FILE,
            Self::Tree(report) if report.failed > 0 => NOT_READABLE,
            Self::Fetched(_) | Self::Sent(_) | Self::Tree(_) => 0,
        }
    }
}

/// The exit codes of a tree of which a part could not be written here, or read there.
const LOCAL_FILE: u8 = 8;
const NOT_READABLE: u8 = 3;

/// A transfer, whatever its output.
pub(crate) struct Running {
    pub(crate) outcome: Pin<Box<dyn Future<Output = Result<Done, TransferError>>>>,
    pub(crate) events: Option<Events>,
    pub(crate) cancel: CancelHandle,
}

impl Running {
    pub(crate) fn new<T: 'static>(mut transfer: Transfer<T>, report: fn(T) -> Done) -> Self {
        let (events, cancel) = (transfer.take_events(), transfer.cancel_handle());
        Self { outcome: Box::pin(async move { transfer.await.map(report) }), events, cancel }
    }
}
