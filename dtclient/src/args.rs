//! The command line of `dtclient`, parsed into checked types.

use std::ffi::{OsStr, OsString};
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use dtcli::{count, duration, rate, switch, timeout};
use dtcore::{Checksum, Engine, ProtocolChoice, ServerAddress, StreamCount};

const EXAMPLES: &str = "\
Examples:
  dtclient files.example:9000 8 isos/debian.iso debian.iso
  dtclient files.example:9000 8 isos/debian.iso /srv/isos/
  dtclient 192.0.2.7:9000 16 backup.tar - | tar x
  dtclient --checksum md5=900150983cd24fb0d6963f7d28e17f72 host:9000 8 f out.bin

Failed streams are retried, and an interrupted transfer resumes when the same command is run again.
Durations are seconds, or have units: 90, 500ms, 1m30s.
Exit codes:
  0 complete and verified     8 local file error
  1 other error               9 authentication required
  2 usage                    10 timed out
  3 no such file, unreadable 11 the source changed
  4 cannot connect, or lost  12 protocol error, no dtserver
  5 the server is busy       13 the output exists or is in use
  6 digest mismatch          129, 130, 143 ended by SIGHUP, SIGINT, SIGTERM
  7 disk full, file too big";

/// Downloads a file from dtserver over parallel streams, and verifies it.
#[derive(Parser, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// The server, as HOST or HOST:PORT; the default port is 9000
    #[arg(value_name = "ADDRESS")]
    pub(crate) address: ServerAddress,

    /// Number of parallel streams, 1 to 255
    #[arg(value_name = "STREAMS", allow_negative_numbers = true)]
    pub(crate) streams: StreamCount,

    /// Name of the file on the server
    #[arg(value_name = "FILE")]
    pub(crate) file: OsString,

    /// The output file, or a directory for it; "-" is standard output [default: FILE's name, in the current directory]
    #[arg(value_name = "OUTPUT")]
    output: Option<PathBuf>,

    /// Print errors only
    #[arg(short, long, env = "DT_QUIET", value_parser = switch, conflicts_with = "verbose")]
    quiet: bool,

    /// Print more details
    #[arg(short, long, env = "DT_VERBOSE", value_parser = switch)]
    verbose: bool,

    /// Fail if the output exists, instead of replacing it
    #[arg(long, env = "DT_NO_CLOBBER", value_parser = switch)]
    pub(crate) no_clobber: bool,

    /// Start over, instead of resuming an interrupted transfer
    #[arg(long, env = "DT_NO_RESUME", value_parser = switch)]
    pub(crate) no_resume: bool,

    /// Give the output the permissions of FILE too, not only its modification time
    #[arg(short = 'p', long, env = "DT_PRESERVE_MODE", value_parser = switch, conflicts_with = "no_preserve")]
    pub(crate) preserve_mode: bool,

    /// Give the output neither the modification time nor the permissions of FILE
    #[arg(long, env = "DT_NO_PRESERVE", value_parser = switch)]
    pub(crate) no_preserve: bool,

    /// Fail if FILE grows meanwhile, rather than deliver the bytes that it had at the start
    #[arg(long, env = "DT_NO_GROWTH", value_parser = switch)]
    pub(crate) no_growth: bool,

    /// Print events on standard output, one JSON object per line
    #[arg(long, env = "DT_JSON", value_parser = switch)]
    pub(crate) json: bool,

    /// The protocol to use: auto, 1 or 2
    #[arg(long, env = "DT_PROTOCOL", value_name = "PROTOCOL", default_value = "auto", value_parser = protocol)]
    pub(crate) protocol: ProtocolChoice,

    /// Also compute the MD5 of the file, and compare it with the server's
    #[arg(long, env = "DT_MD5", value_parser = switch)]
    pub(crate) md5: bool,

    /// Require this digest of the file, in addition to the server's: md5=HEX or blake3=HEX
    #[arg(long, env = "DT_CHECKSUM", value_name = "ALGO=HEX")]
    pub(crate) checksum: Option<Checksum>,

    /// Write the output to disk (fsync) before reporting success
    #[arg(long, env = "DT_SYNC", value_parser = switch)]
    pub(crate) sync: bool,

    /// How the output is written: auto, map or write
    #[arg(long, env = "DT_ENGINE", value_name = "ENGINE", default_value_t)]
    pub(crate) engine: Engine,

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

/// How much is printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Verbosity {
    Quiet,
    Normal,
    Verbose,
}

/// Parses the name of a protocol.
fn protocol(text: &str) -> Result<ProtocolChoice, String> {
    match text {
        "auto" => Ok(ProtocolChoice::Auto),
        "1" => Ok(ProtocolChoice::V1),
        "2" => Ok(ProtocolChoice::V2),
        _ => Err("the protocol must be auto, 1 or 2".to_owned()),
    }
}

impl Args {
    /// The output; `None` if it is a directory, and the remote file has no name of its own.
    pub(crate) fn output(&self) -> Option<PathBuf> {
        let name = || {
            let name = self.file.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            (!matches!(name, b"" | b"." | b"..")).then(|| OsStr::from_bytes(name))
        };
        match &self.output {
            None => name().map(PathBuf::from),
            Some(output) if output.is_dir() || output.as_os_str().as_bytes().ends_with(b"/") => {
                name().map(|name| output.join(name))
            }
            Some(output) => Some(output.clone()),
        }
    }

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
    fn command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn output_is_named_after_the_file_unless_it_has_a_name() {
        let directory = std::env::temp_dir();
        let directory = directory.to_str().unwrap();
        let inside = |name: &str| Some(std::path::Path::new(directory).join(name));
        let missing = format!("{directory}/missing/");
        for (file, output, expected) in [
            ("a/b.iso", None, Some("b.iso".into())),
            ("/b.iso", None, Some("b.iso".into())),
            ("a/b.iso", Some("c"), Some("c".into())),
            ("a/b.iso", Some("-"), Some("-".into())),
            ("a/b.iso", Some(directory), inside("b.iso")),
            ("a/b.iso", Some(missing.as_str()), inside("missing/b.iso")),
            ("a/..", None, None),
            ("a/", None, None),
            ("..", Some(directory), None),
        ] {
            let line = ["dtclient", "host", "8", file].into_iter().chain(output);
            assert_eq!(Args::try_parse_from(line).unwrap().output(), expected, "{file} {output:?}");
        }
    }

    #[test]
    fn four_positionals_are_enough() {
        let args = Args::try_parse_from(["dtclient", "host:9000", "8", "remote/path", "out.bin"]).unwrap();
        assert_eq!(args.address.to_string(), "host:9000");
        assert_eq!(args.streams.value(), 8);
        assert_eq!((args.engine, args.protocol), (Engine::Auto, ProtocolChoice::Auto));
        assert_eq!(args.verbosity(), Verbosity::Normal);
    }
}
