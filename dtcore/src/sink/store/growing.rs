//! Writing into a store whose length nobody knows yet: room is made as the bytes come.

use std::io;
use std::sync::Arc;

use super::{FillError, Store, Writer};
use crate::error::is_disk_full;
use crate::manifest::ByteRange;

/// The first room a store of unknown length gets, in bytes: 255 of them must not ask for much.
pub(crate) const FIRST_GROWTH: u64 = 128 << 10;

/// The largest room it gets at once: what is reserved in vain is given back at the end.
const MAX_GROWTH: u64 = 256 << 20;

/// Writes from the start of a store whose length nobody knows yet, and makes room as the bytes come.
pub(crate) struct GrowingWriter {
    store: Arc<dyn Store>,
    writer: Option<Box<dyn Writer>>,
    written: u64,
}

impl GrowingWriter {
    /// A writer at the beginning of `store`.
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store, writer: None, written: 0 }
    }

    /// As [`Writer::fill`].
    pub(crate) fn fill(
        &mut self,
        source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> Result<usize, FillError> {
        if self.writer.as_ref().is_none_or(|writer| writer.remaining() == 0) {
            self.writer = Some(next_writer(&*self.store, self.written).map_err(FillError::Store)?);
        }
        let Some(writer) = self.writer.as_mut() else {
            return Err(FillError::Store(io::ErrorKind::WriteZero.into()));
        };
        let n = writer.fill(source)?;
        self.written = self.written.saturating_add(n.try_into().unwrap_or(u64::MAX));
        Ok(n)
    }
}

/// Writes `bytes` at `position`, making room where needed.
pub(crate) fn append(store: &dyn Store, mut position: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut writer = next_writer(store, position)?;
        while writer.remaining() > 0 && !bytes.is_empty() {
            let mut copy = |space: &mut [u8]| io::Read::read(&mut bytes, space);
            let n = writer.fill(&mut copy).map_err(|error| match error {
                FillError::Source(error) | FillError::Store(error) => error,
            })?;
            position = position.saturating_add(n.try_into().unwrap_or(u64::MAX));
        }
    }
    Ok(())
}

/// A writer for what is behind `position`, making the store a good deal larger if it ends there.
fn next_writer(store: &dyn Store, position: u64) -> io::Result<Box<dyn Writer>> {
    let open_end = ByteRange::new(position, u64::MAX);
    if let Some(writer) = store.writer(open_end) {
        return Ok(writer);
    }
    let grow_by = |room: u64| store.grow(position.saturating_add(room));
    match grow_by((position / 4).clamp(FIRST_GROWTH, MAX_GROWTH)) {
        // The disk may be full for that much, and not for what will come.
        Err(error) if is_disk_full(&error) => grow_by(FIRST_GROWTH)?,
        result => result?,
    }
    store.writer(open_end).ok_or_else(|| io::Error::other("the bytes are being written twice"))
}
