//! The command line of `dtserver`.

use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use dtcli::{at_least_one, duration, port, switch, timeout};
use dtcore::{PortRange, ServerOptions};

const EXAMPLES: &str = "\
Examples:
  dtserver 9000                                  serve the current directory
  dtserver --root /srv/files 9000                serve another one
  dtserver --data-port 9001 9000                 behind a firewall that lets these two through
  dtserver --transfer-ports 9100-9199 9000       and these, for clients of protocol 1
  dtclient host:9000 8 remote/path out.bin       fetch a file from it over 8 streams

Durations are numbers of seconds, or numbers with units: 90, 500ms, 1m30s.
SIGTERM, SIGINT (Ctrl-C) and SIGHUP let running streams go on for --drain-timeout, and end the
server; a second one ends it at once.
Exit codes: 0 ended by one of these signals, 1 cannot listen, 2 usage, 8 the folder cannot be
served; 143, 130 or 129 ended at once by a second SIGTERM, SIGINT or SIGHUP.";

/// Serves the files of a folder to dtclient, over many streams at once.
#[derive(Debug, Parser)]
#[command(name = "dtserver", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The port that requests come to; 0 lets the system choose
    #[arg(value_parser = port, allow_negative_numbers = true)]
    pub(crate) port: u16,

    /// The folder to serve; nothing outside it is reachable
    #[arg(long, value_name = "DIR", default_value = ".", env = "DT_ROOT")]
    pub(crate) root: PathBuf,

    /// The address to listen on [default: all, IPv6 and IPv4]
    #[arg(long, value_name = "ADDR", env = "DT_BIND")]
    pub(crate) bind: Option<IpAddr>,

    /// The port for the streams of protocol 2; 0 lets the system choose
    #[arg(long, value_name = "PORT", default_value = "0", env = "DT_DATA_PORT", value_parser = port, allow_negative_numbers = true)]
    pub(crate) data_port: u16,

    /// The ports for the streams of protocol 1 [default: any]
    #[arg(long, value_name = "A-B", env = "DT_TRANSFER_PORTS")]
    pub(crate) transfer_ports: Option<PortRange>,

    /// How many streams there may be at once, half of them (271 at least) for one address; more are refused until there is
    /// room, or in protocol 1 wait their turn
    #[arg(long, value_name = "N", default_value = "4096", env = "DT_MAX_STREAMS", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) max_streams: NonZeroUsize,

    /// How many transfers there may be at once, half of them (256 at most) for one address
    #[arg(long, value_name = "N", default_value = "1024", env = "DT_MAX_TRANSFERS", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) max_transfers: NonZeroUsize,

    /// How long a transfer of protocol 1 waits while none of its streams is connected
    #[arg(long, value_name = "DUR", default_value = "30s", env = "DT_TRANSFER_EXPIRY", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) transfer_expiry: Duration,

    /// How long a session of protocol 2 waits while none of its streams is connected
    #[arg(long, value_name = "DUR", default_value = "60s", env = "DT_SESSION_EXPIRY", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) session_expiry: Duration,

    /// How long a stream may take no bytes before it is cut off
    #[arg(long, value_name = "DUR", default_value = "60s", env = "DT_STALL_TIMEOUT", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) stall_timeout: Duration,

    /// How long running streams may go on after SIGTERM, Ctrl-C or SIGHUP
    #[arg(long, value_name = "DUR", default_value = "1s", env = "DT_DRAIN_TIMEOUT", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) drain_timeout: Duration,

    /// Log nothing but errors
    #[arg(short, long, env = "DT_QUIET", value_parser = switch)]
    pub(crate) quiet: bool,

    /// Log every stream too, and every refusal: else those of a kind are summed up, a line a second
    #[arg(short, long, conflicts_with = "quiet", env = "DT_VERBOSE", value_parser = switch)]
    pub(crate) verbose: bool,

    /// How the log on stderr is written, one line per event
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "DT_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// How log lines are written: as text for people, or as one JSON object per line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Args {
    /// Checks what no option alone can be wrong in.
    pub(crate) fn checked(self) -> Result<Self, clap::Error> {
        if self.data_port != 0 && self.data_port == self.port {
            let text = format!("port {} is that of the requests; choose another for --data-port", self.port);
            return Err(Self::command().error(ErrorKind::ArgumentConflict, text));
        }
        Ok(self)
    }

    /// The options of the server that was asked for.
    pub(crate) fn server_options(&self) -> ServerOptions {
        let mut options = ServerOptions::new(&self.root)
            .port(self.port)
            .data_port(self.data_port)
            .max_streams(self.max_streams)
            .max_transfers(self.max_transfers)
            .transfer_expiry(self.transfer_expiry)
            .session_expiry(self.session_expiry)
            .stall_timeout(self.stall_timeout)
            .drain_timeout(self.drain_timeout);
        if let Some(address) = self.bind {
            options = options.bind_address(address);
        }
        if let Some(ports) = self.transfer_ports {
            options = options.transfer_ports(ports);
        }
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_port_is_all_that_is_needed() {
        let args = Args::try_parse_from(["dtserver", "9000"]).unwrap();
        assert_eq!((args.port, args.log_format), (9000, LogFormat::Text));
        for wrong in
            [vec![], vec!["70000"], vec!["x"], vec!["1", "--transfer-ports", "9-8"], vec!["1", "-q", "-v"]]
        {
            let line = std::iter::once("dtserver").chain(wrong);
            assert_eq!(Args::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn streams_and_requests_come_to_different_ports() {
        let checked = |port, data_port| {
            Args::try_parse_from(["dtserver", port, "--data-port", data_port]).unwrap().checked()
        };
        assert_eq!(checked("9000", "9000").unwrap_err().exit_code(), 2);
        assert!(checked("9000", "9001").is_ok());
        assert!(checked("0", "0").is_ok());
    }
}
