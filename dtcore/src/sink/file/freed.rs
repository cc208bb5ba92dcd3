//! The notice that the place of a block is free or filled, for tasks that wait for it.

use std::fmt;
use std::sync::Arc;

/// The function that is called when a place is free or filled.
pub(super) struct PlaceFreed(Arc<dyn Fn() + Send + Sync>);

impl PlaceFreed {
    pub(super) fn new(call: Box<dyn Fn() + Send + Sync>) -> Self {
        Self(call.into())
    }

    /// A notice that is given when it is dropped.
    pub(super) fn notice(&self) -> FreedNotice {
        FreedNotice(Self(Arc::clone(&self.0)))
    }
}

impl fmt::Debug for PlaceFreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("function")
    }
}

/// Calls the function when it is dropped.
#[derive(Debug)]
pub(super) struct FreedNotice(PlaceFreed);

impl Drop for FreedNotice {
    fn drop(&mut self) {
        let PlaceFreed(call) = &self.0;
        call();
    }
}
