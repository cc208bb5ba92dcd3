//! Uploads: `dtclient put`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use dtcli::switch;
use dtcore::{ServerAddress, StreamCount};

use super::place::{RemotePlace, remote_place};
use super::{Common, FileOptions, Streams};

const EXAMPLES: &str = "\
Examples:
  dtclient put today.tar backup.example:/2026/
  dtclient put -s 16 a.iso b.iso backup.example:9000/isos/
  tar c photos | dtclient put - backup.example:/photos.tar

A PLACE is HOST:/PATH, HOST:PORT/PATH or dt://HOST[:PORT]/PATH; the files keep their names if it ends with a slash. An
interrupted upload resumes when the same command is run again. Exit codes are those of 'dtclient --help'.";

/// Uploads files to a dtserver that takes uploads, over parallel streams. The server verifies every byte.
#[derive(Parser, Debug)]
#[command(name = "dtclient put", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct PutArgs {
    /// The files; "-" is standard input
    #[arg(value_name = "LOCAL", required = true)]
    files: Vec<PathBuf>,

    /// Where they go on a server
    #[arg(value_name = "PLACE", value_parser = remote_place)]
    place: RemotePlace,

    #[command(flatten)]
    streams: Streams,

    #[command(flatten)]
    options: PutOptions,

    #[command(flatten)]
    common: Common,
}

/// How a file is uploaded.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct PutOptions {
    /// Replace a file that exists, if the server permits that
    #[arg(long, env = "DT_OVERWRITE", value_parser = switch)]
    pub(crate) overwrite: bool,

    #[command(flatten)]
    pub(crate) file: FileOptions,
}

/// One file to upload.
#[derive(Clone, Debug)]
pub(crate) struct Put {
    pub(crate) server: ServerAddress,
    pub(crate) streams: StreamCount,
    /// `None` is standard input.
    pub(crate) local: Option<PathBuf>,
    /// The name on the server.
    pub(crate) name: OsString,
    pub(crate) options: PutOptions,
    pub(crate) common: Common,
}

impl PutArgs {
    /// The files, in order.
    ///
    /// # Errors
    /// A file has no name that the remote one could have.
    pub(crate) fn puts(self) -> Result<Vec<Put>, String> {
        let Self { files, place, streams, options, common } = self;
        let is_folder = place.path.is_empty() || place.path.as_bytes().ends_with(b"/");
        if files.len() > 1 && !is_folder {
            return Err(format!("several files need a directory: '{place}/'"));
        }
        let put = |local: PathBuf| {
            let local = Some(local).filter(|local| local != Path::new("-"));
            let name = if is_folder {
                let own = local.as_deref().and_then(Path::file_name);
                let own = own.ok_or("the input has no name; add one to PLACE")?;
                joined(&place.path, own)
            } else {
                place.path.clone()
            };
            let (options, common) = (options.clone(), common.clone());
            let (server, streams) = (place.server.clone(), streams.streams);
            Ok(Put { server, streams, local, name, options, common })
        };
        files.into_iter().map(put).collect()
    }
}

fn joined(folder: &OsStr, name: &OsStr) -> OsString {
    let mut joined = folder.to_owned();
    joined.push(name);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        PutArgs::command().debug_assert();
    }

    #[test]
    fn files_keep_their_names_in_a_directory() {
        let puts = |words: &[&str]| {
            let args = PutArgs::try_parse_from(["dtclient put"].iter().chain(words)).unwrap();
            args.puts()
                .map(|puts| puts.into_iter().map(|put| put.name.into_string().unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(puts(&["a/b", "host:/c"]), Ok(vec!["/c".to_owned()]));
        assert_eq!(puts(&["a/b", "host:/c/"]), Ok(vec!["/c/b".to_owned()]));
        assert_eq!(puts(&["a/b", "d", "host:"]), Ok(vec!["b".to_owned(), "d".to_owned()]));
        assert_eq!(puts(&["-", "host:/c"]), Ok(vec!["/c".to_owned()]));
        assert!(puts(&["a", "b", "host:/c"]).is_err());
        assert!(puts(&["-", "host:/c/"]).is_err());
        assert!(puts(&["..", "host:/c/"]).is_err());
    }
}
