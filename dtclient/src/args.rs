//! The command line of `dtclient`, read into checked types.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use dtcli::{count, rate, switch, timeout};
use dtcore::{Checksum, Engine, ProtocolChoice, ServerAddress, StreamCount};

const EXAMPLES: &str = "\
Examples:
  dtclient files.example:9000 8 isos/debian.iso debian.iso
  dtclient 192.0.2.7:9000 16 backup.tar - | tar x
  dtclient --checksum md5=900150983cd24fb0d6963f7d28e17f72 host:9000 8 f out.bin

What is interrupted, by whatever, goes on where it was when the same command is run again.
Durations are numbers of seconds, or numbers with units: 90, 500ms, 1m30s.
Exit codes:
  0 done and verified         8 local file error
  1 anything else             9 not authorised
  2 usage                    10 no progress, timed out
  3 no such file, unreadable 11 the source changed
  4 server unreachable/lost  12 the peer broke the protocol
  6 bytes do not match       13 the output exists or is in use
  7 disk full, file too big 130 interrupted";

/// Fetches a file from dtserver over parallel streams, verifies it, and puts it in place in one step.
#[derive(Parser, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// The server, as HOST:PORT; the port is 9000 if left out
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: ServerAddress,

    /// How many streams carry the file, 1 to 255
    #[arg(value_name = "STREAMS", allow_negative_numbers = true)]
    pub(crate) streams: StreamCount,

    /// The file's name on the server
    #[arg(value_name = "FILE")]
    pub(crate) file: OsString,

    /// Where to put it; "-" is standard output
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: PathBuf,

    /// Print errors only
    #[arg(short, long, env = "DT_QUIET", value_parser = switch, conflicts_with = "verbose")]
    quiet: bool,

    /// Tell more about what happens
    #[arg(short, long, env = "DT_VERBOSE", value_parser = switch)]
    verbose: bool,

    /// Fail rather than replace an output that exists
    #[arg(long, env = "DT_NO_CLOBBER", value_parser = switch)]
    pub(crate) no_clobber: bool,

    /// Begin anew rather than go on with what an earlier run has left
    #[arg(long, env = "DT_NO_RESUME", value_parser = switch)]
    pub(crate) no_resume: bool,

    /// Print what happens on standard output, one JSON object a line
    #[arg(long, env = "DT_JSON", value_parser = switch)]
    pub(crate) json: bool,

    /// The protocol to speak: auto, 1 or 2
    #[arg(long, env = "DT_PROTOCOL", value_name = "PROTOCOL", default_value = "auto", value_parser = protocol)]
    pub(crate) protocol: ProtocolChoice,

    /// Compute and compare the file's MD5 too
    #[arg(long, env = "DT_MD5", value_parser = switch)]
    pub(crate) md5: bool,

    /// Demand this digest of the file, besides the server's: md5=HEX or blake3=HEX
    #[arg(long, env = "DT_CHECKSUM", value_name = "ALGO=HEX")]
    pub(crate) checksum: Option<Checksum>,

    /// Report success only when the output is on the disk
    #[arg(long, env = "DT_SYNC", value_parser = switch)]
    pub(crate) sync: bool,

    /// How bytes get into the output: auto, map or write
    #[arg(long, env = "DT_ENGINE", value_name = "ENGINE", default_value_t)]
    pub(crate) engine: Engine,

    /// Receive at most so many bytes a second, on all streams together: 500K, 2M, 1.5MiB
    #[arg(long, env = "DT_LIMIT_RATE", value_name = "RATE", value_parser = rate, allow_negative_numbers = true)]
    pub(crate) limit_rate: Option<NonZeroU64>,

    /// How often connecting again may fail on all streams, with no block verified in between [default: 10]
    #[arg(long, env = "DT_RETRIES", value_name = "N", value_parser = count, allow_negative_numbers = true)]
    pub(crate) retries: Option<u32>,

    /// Give up a connection that is not made in this time
    #[arg(long, env = "DT_CONNECT_TIMEOUT", value_name = "DUR", default_value = "10s", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) connect_timeout: Duration,

    /// Give up when nothing comes for this time [default: 60s, and 1h for the answer of a server that hashes first]
    #[arg(long, env = "DT_STALL_TIMEOUT", value_name = "DUR", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) stall_timeout: Option<Duration>,
}

/// How much the user wants to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Reads the name of a protocol.
fn protocol(text: &str) -> Result<ProtocolChoice, String> {
    match text {
        "auto" => Ok(ProtocolChoice::Auto),
        "1" => Ok(ProtocolChoice::V1),
        "2" => Ok(ProtocolChoice::V2),
        _ => Err("the protocol is auto, 1 or 2".to_owned()),
    }
}

impl Args {
    pub(crate) fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (false, true) => Verbosity::Verbose,
            (false, false) => Verbosity::Normal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_four_positionals_are_enough() {
        let args = Args::try_parse_from(["dtclient", "host:9000", "8", "remote/path", "out.bin"]).unwrap();
        assert_eq!(args.address.to_string(), "host:9000");
        assert_eq!(args.streams.value(), 8);
        assert_eq!((args.engine, args.protocol), (Engine::Auto, ProtocolChoice::Auto));
        assert_eq!(args.verbosity(), Verbosity::Normal);
    }
}
