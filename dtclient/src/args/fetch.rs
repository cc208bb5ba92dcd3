//! Downloads: the four arguments of the main form, and `dtclient get`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Parser;
use dtcli::switch;
use dtcore::{Checksum, Engine, ProtocolChoice, ServerAddress, StreamCount};

use super::place::{RemotePlace, remote_place};
use super::{Common, FileOptions, Streams};

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

/// Downloads a file from dtserver over parallel streams, and verifies it. Other commands: get, put, ls, stat.
#[derive(Parser, Debug)]
#[command(version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Args {
    /// The server, as HOST or HOST:PORT; the default port is 9000
    #[arg(value_name = "ADDRESS")]
    address: ServerAddress,

    /// Number of parallel streams, 1 to 255
    #[arg(value_name = "STREAMS", allow_negative_numbers = true)]
    streams: StreamCount,

    /// Name of the file on the server
    #[arg(value_name = "FILE")]
    file: OsString,

    /// The output file, or a directory for it; "-" is standard output [default: FILE's name, in the current directory]
    #[arg(value_name = "OUTPUT")]
    output: Option<PathBuf>,

    #[command(flatten)]
    options: FetchOptions,

    #[command(flatten)]
    common: Common,
}

const GET_EXAMPLES: &str = "\
Examples:
  dtclient get files.example:/isos/debian.iso
  dtclient get -s 16 -o /srv/isos/ files.example:9000/isos/a.iso files.example:9000/isos/b.iso
  dtclient get dt://192.0.2.7/backup.tar -o - | tar x
  dtclient get files.example:/photos/ -o /srv/photos     what is in the directory, into /srv/photos

A PLACE is HOST:/PATH, HOST:PORT/PATH or dt://HOST[:PORT]/PATH. Exit codes are those of 'dtclient --help'.";

/// Downloads files from dtserver, one after the other, and verifies them.
#[derive(Parser, Debug)]
#[command(name = "dtclient get", version, after_help = GET_EXAMPLES, max_term_width = 100)]
pub(crate) struct GetArgs {
    /// The files on servers
    #[arg(value_name = "PLACE", required = true, value_parser = remote_place)]
    places: Vec<RemotePlace>,

    /// The output file, or a directory for it; "-" is standard output [default: the name in PLACE, in the current directory]
    #[arg(short, long, value_name = "OUTPUT", env = "DT_OUTPUT")]
    output: Option<PathBuf>,

    #[command(flatten)]
    streams: Streams,

    #[command(flatten)]
    options: FetchOptions,

    #[command(flatten)]
    common: Common,
}

/// How a file is downloaded.
#[derive(clap::Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct FetchOptions {
    /// Download a directory with all that is in it, as for a name that ends with a slash
    #[arg(short, long, env = "DT_RECURSIVE", value_parser = switch)]
    pub(crate) recursive: bool,

    /// Of a directory, only report what would be downloaded
    #[arg(short = 'n', long, env = "DT_DRY_RUN", value_parser = switch)]
    pub(crate) dry_run: bool,

    /// Fail if the output exists, instead of replacing it
    #[arg(long, env = "DT_NO_CLOBBER", value_parser = switch)]
    pub(crate) no_clobber: bool,

    /// The protocol to use: auto, 1 or 2
    #[arg(long, env = "DT_PROTOCOL", value_name = "PROTOCOL", default_value = "auto", value_parser = protocol)]
    pub(crate) protocol: ProtocolChoice,

    /// Also compute the MD5 of the file, and compare it with the server's
    #[arg(long, env = "DT_MD5", value_parser = switch)]
    pub(crate) md5: bool,

    /// Require this digest of the file, in addition to the server's: md5=HEX or blake3=HEX
    #[arg(long, env = "DT_CHECKSUM", value_name = "ALGO=HEX")]
    pub(crate) checksum: Option<Checksum>,

    /// How the output is written: auto, map or write
    #[arg(long, env = "DT_ENGINE", value_name = "ENGINE", default_value_t)]
    pub(crate) engine: Engine,

    #[command(flatten)]
    pub(crate) file: FileOptions,
}

/// One file to download.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    pub(crate) server: ServerAddress,
    pub(crate) streams: StreamCount,
    pub(crate) file: OsString,
    output: Option<PathBuf>,
    pub(crate) options: FetchOptions,
    pub(crate) common: Common,
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
    pub(crate) fn fetch(self) -> Fetch {
        let Self { address, streams, file, output, options, common } = self;
        Fetch { server: address, streams, file, output, options, common }
    }
}

impl GetArgs {
    /// The files, in order.
    ///
    /// # Errors
    /// Several have one output.
    pub(crate) fn fetches(self) -> Result<Vec<Fetch>, String> {
        let Self { places, output, streams, options, common } = self;
        let is_one_file = output.as_ref().is_some_and(|output| !is_directory(output));
        if places.len() > 1 && is_one_file {
            return Err("several files need a directory as '--output'".to_owned());
        }
        let fetch = |place: RemotePlace| Fetch {
            server: place.server,
            streams: streams.streams,
            file: place.path,
            output: output.clone(),
            options: options.clone(),
            common: common.clone(),
        };
        Ok(places.into_iter().map(fetch).collect())
    }
}

/// Whether a file gets its own name below `output`.
fn is_directory(output: &std::path::Path) -> bool {
    output.is_dir() || output.as_os_str().as_bytes().ends_with(b"/")
}

impl Fetch {
    /// Whether it is a directory that is downloaded.
    pub(crate) fn is_tree(&self) -> bool {
        self.options.recursive || self.has_slash()
    }

    fn has_slash(&self) -> bool {
        self.file.is_empty() || self.file.as_bytes().ends_with(b"/")
    }

    /// The directory that a directory is downloaded to: as rsync, what is in it goes into the output if its name ends with a slash.
    pub(crate) fn tree_target(&self) -> PathBuf {
        let parts = self.file.as_bytes().rsplit(|byte| *byte == b'/');
        let name = parts.into_iter().find(|part| !matches!(*part, b"" | b"." | b".."));
        let name = name.map(|name| PathBuf::from(OsStr::from_bytes(name)));
        match (&self.output, name) {
            (None, Some(name)) => name,
            (None, None) => PathBuf::from("."),
            (Some(output), Some(name)) if is_directory(output) && !self.has_slash() => output.join(name),
            (Some(output), _) => output.clone(),
        }
    }

    /// The output; `None` if it is a directory, and the remote file has no name of its own.
    pub(crate) fn target(&self) -> Option<PathBuf> {
        let name = || {
            let name = self.file.as_bytes().rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            (!matches!(name, b"" | b"." | b"..")).then(|| OsStr::from_bytes(name))
        };
        match &self.output {
            None => name().map(PathBuf::from),
            Some(output) if is_directory(output) => name().map(|name| output.join(name)),
            Some(output) => Some(output.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Verbosity;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Args::command().debug_assert();
        GetArgs::command().debug_assert();
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
            assert_eq!(Args::try_parse_from(line).unwrap().fetch().target(), expected, "{file} {output:?}");
        }
    }

    #[test]
    fn four_positionals_are_enough() {
        let args = Args::try_parse_from(["dtclient", "host:9000", "8", "remote/path", "out.bin"]).unwrap();
        assert_eq!(args.address.to_string(), "host:9000");
        assert_eq!(args.streams.value(), 8);
        assert_eq!((args.options.engine, args.options.protocol), (Engine::Auto, ProtocolChoice::Auto));
        assert_eq!(args.common.verbosity(), Verbosity::Normal);
    }
}
