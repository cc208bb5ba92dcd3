//! Listings: `dtclient ls`.

use clap::Parser;
use dtcli::switch;

use super::Common;
use super::place::{RemotePlace, remote_place};

const EXAMPLES: &str = "\
Examples:
  dtclient ls files.example:/
  dtclient ls -lR files.example:9000/isos/
  dtclient ls --json files.example:/ | jq -r .path

Entries are sorted by name. Hidden files, and those that transfers leave beside an output, are listed with -a.
Exit codes are those of 'dtclient --help'.";

/// Lists a directory of a dtserver.
#[derive(Parser, Debug)]
#[command(name = "dtclient ls", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct ListArgs {
    /// The directory on a server
    #[arg(value_name = "PLACE", value_parser = remote_place)]
    pub(crate) place: RemotePlace,

    /// Print type, permissions, size and modification time too
    #[arg(short, long, env = "DT_LONG", value_parser = switch)]
    pub(crate) long: bool,

    /// List the directories in it too, and what is in them
    #[arg(short = 'R', long, env = "DT_RECURSIVE", value_parser = switch)]
    pub(crate) recursive: bool,

    /// List hidden files too
    #[arg(short, long, env = "DT_ALL", value_parser = switch)]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) common: Common,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        ListArgs::command().debug_assert();
    }
}
