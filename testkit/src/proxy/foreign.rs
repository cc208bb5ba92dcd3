//! Somebody else at the address of the data port, who accepts streams and has nothing to do with them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;

use super::{Shared, TICK};
use crate::sockets::reset;

/// What somebody does who accepts a stream that is not for him.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Foreign {
    /// He closes it in order, as a proxy does that has nobody behind it.
    Closes,
    /// He resets it.
    Resets,
    /// He reads, and says nothing.
    IsMute,
    /// He says this at once, and nothing else.
    Says(&'static str),
}

impl Foreign {
    pub(super) fn serve(self, shared: &Shared, mut client: TcpStream) {
        let mut buffer = [0; 4096];
        match self {
            Self::Closes => {
                // What he leaves unread would make it a reset.
                let _ = client.shutdown(Shutdown::Write);
                while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
            }
            Self::Resets => {
                let _ = client.read(&mut buffer);
                reset(client);
            }
            Self::IsMute | Self::Says(_) => {
                if let Self::Says(words) = self {
                    let _ = client.write_all(words.as_bytes());
                }
                // Nobody needs what he reads.
                while !shared.is_stopped() {
                    thread::sleep(TICK);
                }
            }
        }
    }
}
