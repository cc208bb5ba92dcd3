//! The command line of `dtserver`.

use std::net::IpAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use dtcli::{at_least_one, duration, port, rate, switch, timeout};
use dtcore::{PortRange, ServerOptions, UploadPolicy};

const EXAMPLES: &str = "\
Examples:
  dtserver 9000                                  serve the current directory
  dtserver --root /srv/files 9000                serve another directory
  dtserver --transfer-ports 9100-9199 9000       open these ports in the firewall too, for clients of protocol 1
  dtserver --upload-dir /srv/inbox 9000          take uploads too, into another directory
  dtclient host:9000 8 remote/path out.bin       download a file from it over 8 streams

Durations are numbers of seconds, or numbers with units: 90, 500ms, 1m30s.
After SIGTERM, SIGINT (Ctrl-C) or SIGHUP, running streams may continue for --drain-timeout, then
the server exits; a second signal ends it at once.
Exit codes: 0 ended by one of these signals, 1 cannot listen, 2 usage, 8 the directory cannot be
served; 143, 130 or 129 ended at once by a second SIGTERM, SIGINT or SIGHUP.";

/// Serves the files of a directory to dtclient, over many streams at once.
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[command(name = "dtserver", version, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Port to listen on; 0 lets the system choose
    #[arg(value_parser = port, allow_negative_numbers = true)]
    pub(crate) port: u16,

    /// Directory to serve; nothing outside it is reachable
    #[arg(long, value_name = "DIR", default_value = ".", env = "DT_ROOT")]
    pub(crate) root: PathBuf,

    /// Take uploads into the directory that is served
    #[arg(long, env = "DT_WRITABLE", value_parser = switch)]
    writable: bool,

    /// Take uploads into this directory
    #[arg(long, value_name = "DIR", env = "DT_UPLOAD_DIR", conflicts_with = "writable")]
    upload_dir: Option<PathBuf>,

    /// Let clients that ask for it replace files
    #[arg(long, env = "DT_ALLOW_OVERWRITE", value_parser = switch)]
    allow_overwrite: bool,

    /// Size of the largest upload, in bytes: 500M, 10GiB [default: no limit]
    #[arg(long, value_name = "SIZE", env = "DT_MAX_UPLOAD_SIZE", value_parser = rate, allow_negative_numbers = true)]
    max_upload_size: Option<NonZeroU64>,

    /// Do not list directories
    #[arg(long, env = "DT_NO_LIST", value_parser = switch)]
    no_list: bool,

    /// Address to listen on [default: all, IPv6 and IPv4]
    #[arg(long, value_name = "ADDR", env = "DT_BIND")]
    pub(crate) bind: Option<IpAddr>,

    /// Ports for the streams of protocol 1 [default: any]
    #[arg(long, value_name = "A-B", env = "DT_TRANSFER_PORTS")]
    pub(crate) transfer_ports: Option<PortRange>,

    /// Maximum number of streams, half of them (at least 271) for one address; more are refused, or in protocol 1 wait for
    /// their turn
    #[arg(long, value_name = "N", default_value = "4096", env = "DT_MAX_STREAMS", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) max_streams: NonZeroUsize,

    /// Maximum number of transfers, half of them (at most 256) for one address
    #[arg(long, value_name = "N", default_value = "1024", env = "DT_MAX_TRANSFERS", value_parser = at_least_one, allow_negative_numbers = true)]
    pub(crate) max_transfers: NonZeroUsize,

    /// How long a transfer of protocol 1 is kept while it has no open stream
    #[arg(long, value_name = "DUR", default_value = "30s", env = "DT_TRANSFER_EXPIRY", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) transfer_expiry: Duration,

    /// How long a transfer of protocol 2 is kept while it has no open stream
    #[arg(long, value_name = "DUR", default_value = "60s", env = "DT_SESSION_EXPIRY", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) session_expiry: Duration,

    /// How long a stream may accept no data before it is closed
    #[arg(long, value_name = "DUR", default_value = "60s", env = "DT_STALL_TIMEOUT", value_parser = timeout, allow_negative_numbers = true)]
    pub(crate) stall_timeout: Duration,

    /// How long running streams may continue after SIGTERM, Ctrl-C or SIGHUP
    #[arg(long, value_name = "DUR", default_value = "1s", env = "DT_DRAIN_TIMEOUT", value_parser = duration, allow_negative_numbers = true)]
    pub(crate) drain_timeout: Duration,

    /// Log errors only
    #[arg(short, long, env = "DT_QUIET", value_parser = switch)]
    pub(crate) quiet: bool,

    /// Log every stream and every refusal; by default, similar ones are summed up in a line per second
    #[arg(short, long, conflicts_with = "quiet", env = "DT_VERBOSE", value_parser = switch)]
    pub(crate) verbose: bool,

    /// Format of the log on stderr, one line per event
    #[arg(long, value_name = "FORMAT", default_value = "text", env = "DT_LOG_FORMAT")]
    pub(crate) log_format: LogFormat,
}

/// The format of log lines: text for people, or one JSON object per line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

impl Args {
    /// The options of the server.
    pub(crate) fn server_options(&self) -> ServerOptions {
        let mut options = ServerOptions::new(&self.root)
            .port(self.port)
            .listing(!self.no_list)
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
        match self.uploads() {
            Some(policy) => options.uploads(policy),
            None => options,
        }
    }

    /// How uploads are taken, if they are.
    pub(crate) fn uploads(&self) -> Option<UploadPolicy> {
        let policy = match &self.upload_dir {
            Some(directory) => UploadPolicy::new().directory(directory),
            None if self.writable => UploadPolicy::new(),
            None => return None,
        };
        let policy = policy.overwrite(self.allow_overwrite);
        Some(match self.max_upload_size {
            Some(size) => policy.max_size(size.get()),
            None => policy,
        })
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
    fn only_the_port_is_required() {
        let args = Args::try_parse_from(["dtserver", "9000"]).unwrap();
        assert_eq!((args.port, args.log_format), (9000, LogFormat::Text));
        for wrong in
            [vec![], vec!["70000"], vec!["x"], vec!["1", "--transfer-ports", "9-8"], vec!["1", "-q", "-v"]]
        {
            let line = std::iter::once("dtserver").chain(wrong);
            assert_eq!(Args::try_parse_from(line).unwrap_err().exit_code(), 2);
        }
    }
}
