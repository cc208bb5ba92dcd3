//! A named pipe whose reader never waits for a writer that does not exist.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat};

use crate::wait::until;

/// The reading side of a FIFO; only the test reads it.
#[derive(Debug)]
pub struct Pipe {
    reader: File,
}

impl Pipe {
    /// Makes a FIFO and opens it for reading.
    pub fn make(path: &Path) -> Self {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO is made");
        Self::open(path)
    }

    /// Opens a FIFO for reading.
    pub fn open(path: &Path) -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = rustix::fs::open(path, flags, Mode::empty()).expect("the FIFO opens");
        Self { reader: File::from(reader) }
    }

    /// Makes a FIFO without a reader.
    pub fn make_unread(path: &Path) {
        drop(Self::make(path));
    }

    /// Whether a writer has opened it and closed it again.
    pub fn was_written(&self) -> bool {
        let mut polled = [PollFd::new(&self.reader, PollFlags::IN)];
        poll(&mut polled, Some(&Timespec::default())).expect("a pipe can be polled");
        polled[0].revents().contains(PollFlags::HUP)
    }

    /// Waits for the first byte and takes it: from then on the writer is at work.
    pub fn first_byte(&mut self) -> u8 {
        let mut byte = [0];
        until("the first byte in the pipe", || {
            self.reader.read(&mut byte).is_ok_and(|n| n == 1).then_some(())
        });
        byte[0]
    }

    /// Reads until the last writer has closed; there must be one already.
    pub fn drain(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let n = until("the pipe's next bytes or its end", || match self.reader.read(&mut buffer) {
                Ok(n) => Some(n),
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                Err(error) => panic!("the pipe cannot be read: {error}"),
            });
            if n == 0 {
                return bytes;
            }
            bytes.extend_from_slice(&buffer[..n]);
        }
    }
}
