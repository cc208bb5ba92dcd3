//! The writing engine: bytes are received into a buffer and written at their offset.
//!
//! It asks nothing of the file system but positioned writes, so it serves where mapping or preallocation cannot.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::space;
use super::store::{FillError, Store, Writer};
use crate::plan::ByteRange;

/// The buffer of a writer or reader: with 255 streams 32 MiB in all, and a system call's cost already vanishes.
const BUFFER: usize = 128 << 10;

/// A file that is written at offsets.
#[derive(Debug)]
pub(super) struct Positioned {
    file: Arc<File>,
}

impl Positioned {
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file) }
    }
}

impl Store for Positioned {
    fn grow(&self, len: u64) -> io::Result<()> {
        let present = self.file.metadata()?.len();
        if len <= present {
            return Ok(());
        }
        space::ensure(&self.file, len - present)?;
        match fallocate(&*self.file, FallocateFlags::empty(), present, len - present) {
            Ok(()) => Ok(()),
            // This file system cannot reserve: then a full disk shows when the bytes are written, as an error too.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(len),
            Err(error) => Err(error.into()),
        }
    }

    fn writer(&self, range: ByteRange) -> Option<Box<dyn Writer>> {
        let end = self.file.metadata().ok()?.len().min(range.end());
        (range.start() < end).then(|| -> Box<dyn Writer> {
            Box::new(PositionedWriter {
                file: Arc::clone(&self.file),
                range: ByteRange::new(range.start(), end),
                buffer: Vec::new(),
            })
        })
    }

    fn read(&self, range: ByteRange, visit: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut buffer = vec![0; capped(range.len())];
        let mut next = range.start();
        while next < range.end() {
            let piece = buffer.get_mut(..capped(range.end() - next)).unwrap_or_default();
            self.file.read_exact_at(piece, next)?;
            visit(piece)?;
            next = next.saturating_add(piece.len().try_into().unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

struct PositionedWriter {
    file: Arc<File>,
    /// What is still to be written.
    range: ByteRange,
    buffer: Vec<u8>,
}

impl Writer for PositionedWriter {
    fn remaining(&self) -> u64 {
        self.range.len()
    }

    fn fill(&mut self, source: &mut dyn FnMut(&mut [u8]) -> io::Result<usize>) -> Result<usize, FillError> {
        if self.buffer.is_empty() {
            self.buffer = vec![0; capped(self.range.len())];
        }
        let space = self.buffer.get_mut(..capped(self.range.len())).unwrap_or_default();
        let n = source(space).map_err(FillError::Source)?;
        let n = n.min(space.len());
        let bytes = space.get(..n).unwrap_or_default();
        self.file.write_all_at(bytes, self.range.start()).map_err(FillError::Store)?;
        let written = n.try_into().unwrap_or(u64::MAX);
        self.range = ByteRange::new(self.range.start().saturating_add(written), self.range.end());
        Ok(n)
    }
}

fn capped(len: u64) -> usize {
    usize::try_from(len).map_or(BUFFER, |len| len.min(BUFFER))
}
