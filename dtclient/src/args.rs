//! The command line of `dtclient`, read into checked types.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use clap::builder::FalseyValueParser;
use dtcli::timeout;
use dtcore::{Checksum, Engine, ServerAddress, StreamCount};

const EXAMPLES: &str = "\
Examples:
  dtclient files.example:9000 8 isos/debian.iso debian.iso
  dtclient 192.0.2.7:9000 16 backup.tar - | tar x
  dtclient --checksum md5=900150983cd24fb0d6963f7d28e17f72 host:9000 8 f out.bin

Durations are numbers of seconds, or numbers with units: 90, 500ms, 1m30s.
Exit codes:
  0 done and verified         8 local file error
  1 anything else             9 not authorised
  2 usage                    10 no progress, timed out
  3 no such remote file      11 the source changed
  4 server unreachable/lost  12 the peer broke the protocol
  6 bytes do not match       13 the output exists or is in use
  7 disk full               130 interrupted";

/// Fetches a file from dtserver over parallel streams, verifies it, and puts it in place in one step.
#[derive(Parser, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// The server, as HOST:PORT; the port is 9000 if left out
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: ServerAddress,

    /// How many streams carry the file, 1 to 255
    #[arg(value_name = "STREAMS")]
    pub(crate) streams: StreamCount,

    /// The file's name on the server
    #[arg(value_name = "FILE")]
    pub(crate) file: OsString,

    /// Where to put it; "-" is standard output, by way of a file in $TMPDIR
    #[arg(value_name = "OUTPUT")]
    pub(crate) output: PathBuf,

    /// Print errors only
    #[arg(short, long, env = "DT_QUIET", value_parser = FalseyValueParser::new(), conflicts_with = "verbose")]
    quiet: bool,

    /// Tell more about what happens
    #[arg(short, long, env = "DT_VERBOSE", value_parser = FalseyValueParser::new())]
    verbose: bool,

    /// Fail rather than replace an output that exists
    #[arg(long, env = "DT_NO_CLOBBER", value_parser = FalseyValueParser::new())]
    pub(crate) no_clobber: bool,

    /// Demand this digest of the file, besides the server's: md5=HEX
    #[arg(long, env = "DT_CHECKSUM", value_name = "ALGO=HEX")]
    pub(crate) checksum: Option<Checksum>,

    /// Report success only when the output is on the disk
    #[arg(long, env = "DT_SYNC", value_parser = FalseyValueParser::new())]
    pub(crate) sync: bool,

    /// How bytes get into the output: auto, map or write
    #[arg(long, env = "DT_ENGINE", value_name = "ENGINE", default_value_t)]
    pub(crate) engine: Engine,

    /// Give up a connection that is not made in this time
    #[arg(long, env = "DT_CONNECT_TIMEOUT", value_name = "DUR", default_value = "10s", value_parser = timeout)]
    pub(crate) connect_timeout: Duration,

    /// Give up when nothing comes for this time [default: 60s, and 1h for the answer of a server that hashes first]
    #[arg(long, env = "DT_STALL_TIMEOUT", value_name = "DUR", value_parser = timeout)]
    pub(crate) stall_timeout: Option<Duration>,
}

/// How much the user wants to read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
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
        assert_eq!(args.engine, Engine::Auto);
        assert_eq!(args.verbosity(), Verbosity::Normal);
    }
}
