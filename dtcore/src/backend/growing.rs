//! An object that may grow while it is sent, as a log does: only the bytes that it had when it was opened count.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Object, ObjectIdentity};
use crate::num::to_usize;

/// The beginning of another object, up to the size that it had when it was opened.
///
/// While the object has that size, all changes count. Once it is larger, its identity is that of the beginning, with the change time of
/// now: so what was sent counts, no digest of it is remembered, and every remembered one is computed again.
#[derive(Debug)]
pub(crate) struct GrowingObject {
    object: Arc<dyn Object>,
    has_grown: AtomicBool,
}

impl GrowingObject {
    pub(crate) fn new(object: Arc<dyn Object>) -> Self {
        Self { object, has_grown: AtomicBool::new(false) }
    }
}

impl Object for GrowingObject {
    fn identity(&self) -> ObjectIdentity {
        self.object.identity()
    }

    fn current_identity(&self) -> io::Result<ObjectIdentity> {
        let (former, now) = (self.object.identity(), self.object.current_identity()?);
        if now.size() <= former.size() {
            return Ok(now);
        }
        self.has_grown.store(true, Ordering::Relaxed);
        Ok(now.as_prefix_of(&former))
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = to_usize(self.size().saturating_sub(offset)).min(buffer.len());
        buffer.get_mut(..left).map_or(Ok(0), |buffer| self.object.read_at(buffer, offset))
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.object.as_fd()
    }

    fn has_grown(&self) -> bool {
        self.has_grown.load(Ordering::Relaxed)
    }

    fn mode(&self) -> Option<u32> {
        self.object.mode()
    }

    fn is_sparse(&self) -> bool {
        self.object.is_sparse()
    }
}
