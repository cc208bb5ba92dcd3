//! The options of a download.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::Duration;

use crate::client::address::ServerAddress;
use crate::manifest::StreamCount;
use crate::proto::v2::SessionRequest;
use crate::proto::with_pack;
use crate::receive::{ComputeMd5, Settings, Verification};
use crate::schedule::RetryLimit;
use crate::sink::{Clobber, Durability, Engine, Resume};

/// How many rounds of reconnecting may fail in a row by default: with the pauses between them about twenty seconds, which is
/// what a server takes to restart.
const RETRIES: u32 = 10;

/// How many bytes the server may send with its offer: one block of the commonest size. What fits arrives after two round trips,
/// without another connection.
const PUSH: u64 = 512 << 10;

/// The options of one download.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) server: ServerAddress,
    /// The remote file's name, whatever bytes it is made of.
    pub(crate) name: OsString,
    pub(crate) protocol: ProtocolChoice,
    pub(crate) clobber: Clobber,
    pub(crate) resume: Resume,
    pub(crate) preserve: Preserve,
    /// The names of the files that are wanted of the directory `name`, as the request has them.
    pub(crate) pack: Option<Arc<str>>,
    /// How many bytes the server may send with its offer.
    pub(crate) push: u64,
    /// Whether the remote file may grow during the transfer.
    pub(crate) may_grow: bool,
    pub(crate) connect_timeout: Duration,
    pub(crate) settings: Settings,
}

/// Which attributes of the remote file the output gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Preserve {
    pub(crate) times: bool,
    pub(crate) mode: bool,
}

/// Which protocol to speak.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum ProtocolChoice {
    /// Protocol 2 where the server has it, else protocol 1.
    #[default]
    Auto,
    /// Protocol 1, as the original server.
    V1,
    /// Protocol 2, or fail.
    V2,
}

impl Options {
    /// How long the answer to the first request may take. Protocol 2 hashes nothing before it, and a server of protocol 1 that hashes a
    /// file of this length is a rare one.
    pub(super) fn first_answer_timeout(&self) -> Duration {
        let Settings { answer_timeout, stall_timeout, .. } = self.settings;
        match self.protocol {
            ProtocolChoice::V1 => answer_timeout,
            ProtocolChoice::V2 | ProtocolChoice::Auto => answer_timeout.min(stall_timeout),
        }
    }

    /// The body of the request for a session.
    pub(super) fn body(&self, request: &SessionRequest) -> String {
        let body = request.encode();
        match &self.pack {
            Some(names) => with_pack(&body, names),
            None => body,
        }
    }

    /// The defaults, for a server.
    pub(super) fn new(server: ServerAddress) -> Self {
        Self {
            server,
            name: OsString::new(),
            protocol: ProtocolChoice::default(),
            clobber: Clobber::default(),
            resume: Resume::Allowed,
            preserve: Preserve { times: true, mode: false },
            pack: None,
            push: PUSH,
            may_grow: true,
            connect_timeout: Duration::from_secs(10),
            settings: Settings {
                streams: StreamCount::default(),
                md5: ComputeMd5::No,
                checksum: None,
                verification: Verification::On,
                engine: Engine::default(),
                durability: Durability::default(),
                rate_limit: None,
                is_sender_limited: false,
                retries: RetryLimit::rounds(RETRIES),
                stall_timeout: Duration::from_secs(60),
                answer_timeout: Duration::from_secs(3600),
            },
        }
    }
}
