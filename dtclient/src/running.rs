//! A transfer that runs, and what it has done at the end.

use std::pin::Pin;

use dtcore::{CancelHandle, Events, Report, Transfer, TransferError, UploadReport};

/// What a transfer has done.
pub(crate) enum Done {
    Fetched(Report),
    Sent(UploadReport),
}

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
