//! Standard output as a destination of data: every byte gets there, or there is an error.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, OFlags, fcntl_getfl, fstat, major, minor};

/// Standard output without the line buffer of `io::stdout`, which cuts big writes into small ones.
///
/// Where the descriptor is non-blocking, as terminals, pipes and sockets are that another program has set so, a write waits until
/// there is room.
#[derive(Debug)]
pub struct StandardOutput(File);

/// The device that stands in for a descriptor that was closed at the start.
const NULL_DEVICE: (u32, u32) = (1, 3);

impl StandardOutput {
    /// Standard output.
    ///
    /// # Errors
    /// It was closed when the program started; or it is the null device opened for reading too, which is what the language's runtime
    /// puts in the place of a closed descriptor, so the two cannot be distinguished.
    pub fn open() -> io::Result<Self> {
        let out = io::stdout();
        let stat = fstat(out.as_fd())?;
        let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (major(stat.st_rdev), minor(stat.st_rdev)) == NULL_DEVICE;
        if is_null && fcntl_getfl(out.as_fd())? & OFlags::ACCMODE == OFlags::RDWR {
            return Err(io::Error::other("it is closed"));
        }
        Ok(Self(out.as_fd().try_clone_to_owned()?.into()))
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let mut writable = [PollFd::new(&self.0, PollFlags::OUT)];
                    match poll(&mut writable, None) {
                        Ok(_) | Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                }
                result => return result,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
