//! The command lines of `dtclient`, parsed into checked types.

mod fetch;
mod list;
mod place;
mod put;
mod stat;

use std::num::NonZeroU64;
use std::time::Duration;

use dtcli::{count, duration, rate, switch, timeout};
use dtcore::{Client, ClientBuilder, ServerAddress, StreamCount, TransferError};

pub(crate) use fetch::{Args, Fetch, GetArgs};
pub(crate) use list::ListArgs;
pub(crate) use put::{Put, PutArgs};
pub(crate) use stat::StatArgs;

/// What all commands have in common: how to reach the server, and what to print.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Common {
    /// Print errors only
    #[arg(short, long, env = "DT_QUIET", value_parser = switch, conflicts_with = "verbose")]
    pub(crate) quiet: bool,

    /// Print more details
    #[arg(short, long, env = "DT_VERBOSE", value_parser = switch)]
    pub(crate) verbose: bool,

    /// Print events on standard output, one JSON object per line
    #[arg(long, env = "DT_JSON", value_parser = switch)]
    pub(crate) json: bool,

    /// Maximum rate of all streams together, in bytes per second: 500K, 2M, 1.5MiB
    #[arg(long, env = "DT_LIMIT_RATE", value_name = "RATE", value_parser = rate, allow_negative_numbers = true)]
    pub(crate) limit_rate: Option<NonZeroU64>,

    /// How many times in a row reconnecting may fail on all streams [default: 10]
    #[arg(long, env = "DT_RETRIES", value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) retries: Option<u32>,

    /// How long to keep trying without progress, from the start on, in place of --retries; 0 is without limit
    #[arg(long, env = "DT_RETRY_TIME", value_name = "DUR", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) retry_time: Option<Duration>,

    /// Timeout for establishing a connection
    #[arg(long, env = "DT_CONNECT_TIMEOUT", value_name = "DUR", default_value = "10s", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) connect_timeout: Duration,

    /// Timeout for receiving data [default: 60s; 1h for the answer with --protocol 1, where the server hashes the file first]
    #[arg(long, env = "DT_STALL_TIMEOUT", value_name = "DUR", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) stall_timeout: Option<Duration>,
}

/// Over how many streams.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// Number of parallel streams, 1 to 255
    #[arg(
        short,
        long,
        value_name = "STREAMS",
        env = "DT_STREAMS",
        default_value = "8",
        allow_negative_numbers = true
    )]
    pub(crate) streams: StreamCount,
}

/// How a file is transferred, in either direction.
#[derive(clap::Args, Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct FileOptions {
    /// Start over, instead of resuming an interrupted transfer
    #[arg(long, env = "DT_NO_RESUME", value_parser = switch)]
    pub(crate) no_resume: bool,

    /// Give the copy the permissions of the original too, not only its modification time
    #[arg(short = 'p', long, env = "DT_PRESERVE_MODE", value_parser = switch, conflicts_with = "no_preserve")]
    pub(crate) preserve_mode: bool,

    /// Give the copy neither the modification time nor the permissions of the original
    #[arg(long, env = "DT_NO_PRESERVE", value_parser = switch)]
    pub(crate) no_preserve: bool,

    /// Fail if the original grows meanwhile, rather than transfer the bytes that it had at the start
    #[arg(long, env = "DT_NO_GROWTH", value_parser = switch)]
    pub(crate) no_growth: bool,

    /// Have the copy written to disk (fsync) before reporting success
    #[arg(long, env = "DT_SYNC", value_parser = switch)]
    pub(crate) sync: bool,
}

/// How much is printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

impl Common {
    pub(crate) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        }
    }

    /// A client of `server` with these options, after `adjust`.
    pub(crate) fn client(
        &self,
        server: ServerAddress,
        adjust: impl FnOnce(ClientBuilder) -> ClientBuilder,
    ) -> Result<Client, TransferError> {
        let mut builder = Client::builder(server).connect_timeout(self.connect_timeout);
        if let Some(rate) = self.limit_rate {
            builder = builder.rate_limit(rate);
        }
        if let Some(limit) = self.retry_time {
            builder = builder.retry_time(limit);
        }
        if let Some(rounds) = self.retries {
            builder = builder.retries(rounds);
        }
        if let Some(limit) = self.stall_timeout {
            builder = builder.stall_timeout(limit).answer_timeout(limit);
        }
        adjust(builder).build()
    }
}
