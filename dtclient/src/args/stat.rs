//! Questions about a file: `dtclient stat`.

use clap::Parser;

use super::Common;
use super::place::{RemotePlace, remote_place};

const EXAMPLES: &str = "\
Examples:
  dtclient stat files.example:/isos/debian.iso
  dtclient stat --json files.example:9000/isos/debian.iso

Digests are printed if the server knows them without reading the file. Exit codes are those of 'dtclient --help'.";

/// Prints what a dtserver knows of a file: size, modification time and digests.
#[derive(Parser, Debug)]
#[command(name = "dtclient stat", version, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct StatArgs {
    /// The file on a server
    #[arg(value_name = "PLACE", value_parser = remote_place)]
    pub(crate) place: RemotePlace,

    #[command(flatten)]
    pub(crate) common: Common,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        StatArgs::command().debug_assert();
    }
}
