//! `dtclient ls`.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use dtcli::{StandardOutput, one_line, say};
use dtcore::{Entry, EntryKind, ListItem};
use serde_json::{Value, json};

use crate::args::ListArgs;
use crate::dates::{date, seconds};
use crate::exit::{self, Failure};
use crate::prepare;
use crate::units::bytes;

/// The exit code where a part could not be listed.
const INCOMPLETE: u8 = 3;

/// The colour of a directory's name, of a link's, and the end of either, as `ls` has them.
const DIRECTORY: &str = "\u{1b}[1;34m";
const LINK: &str = "\u{1b}[1;36m";
const PLAIN: &str = "\u{1b}[0m";

/// Lists a directory.
pub(crate) fn run(args: &ListArgs) -> ExitCode {
    match list(args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(INCOMPLETE),
        Err(failure) => exit::fail(&failure),
    }
}

/// Prints the entries, and returns how many could not be read.
fn list(args: &ListArgs) -> Result<u64, Failure> {
    let runtime = prepare()?;
    let client = args.common.client(args.place.server.clone(), |builder| builder)?;
    let mut listing = client.list(&args.place.path).recursive(args.recursive).hidden(args.all).start();
    let mut out = BufWriter::new(StandardOutput::open().map_err(Failure::StandardOutput)?);
    let is_coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut n_unreadable = 0;
    runtime.block_on(async {
        while let Some(item) = listing.next().await {
            let written = match item? {
                ListItem::Entry(entry) if args.common.json => writeln!(out, "{}", of_entry(&entry)),
                ListItem::Entry(entry) => writeln!(out, "{}", line(&entry, args.long, is_coloured)),
                ListItem::Unreadable { path, reason, .. } => {
                    n_unreadable += 1;
                    let path = one_line(&path.to_string_lossy());
                    say(&format!("dtclient: cannot list {path}: {}", one_line(&reason)));
                    Ok(())
                }
                _ => Ok(()),
            };
            match written {
                // A reader that has closed the pipe has seen enough.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.map_err(Failure::StandardOutput)?,
            }
        }
        Ok::<(), Failure>(())
    })?;
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::StandardOutput(error)),
        _ => Ok(n_unreadable),
    }
}

/// The line of an entry: its name, or what `ls -l` prints.
fn line(entry: &Entry, is_long: bool, is_coloured: bool) -> String {
    let path = shown(&entry.path);
    let slash = if entry.kind == EntryKind::Directory { "/" } else { "" };
    let colour = [(EntryKind::Directory, DIRECTORY), (EntryKind::Symlink, LINK)];
    let colour = colour.into_iter().find(|(kind, _)| is_coloured && *kind == entry.kind);
    let name = match colour {
        Some((_, colour)) => format!("{colour}{path}{PLAIN}{slash}"),
        None => format!("{path}{slash}"),
    };
    if !is_long {
        return name;
    }
    let size = if entry.kind == EntryKind::File { size(entry.size) } else { "-".to_owned() };
    let target = entry.target.as_deref().map_or_else(String::new, |target| format!(" -> {}", shown(target)));
    format!(
        "{}{} {size:>10} {} {name}{target}",
        kind(entry.kind),
        permissions(entry.mode),
        date(entry.modified)
    )
}

/// A name on one line, and without what a terminal would take for a command.
fn shown(path: &Path) -> String {
    one_line(&String::from_utf8_lossy(path.as_os_str().as_bytes()))
}

fn size(size: u64) -> String {
    if size < 1024 { size.to_string() } else { bytes(size) }
}

fn kind(kind: EntryKind) -> char {
    let letters = [(EntryKind::File, '-'), (EntryKind::Directory, 'd'), (EntryKind::Symlink, 'l')];
    letters.into_iter().find(|(known, _)| *known == kind).map_or('?', |(_, letter)| letter)
}

/// `rwxr-x---`
fn permissions(mode: u32) -> String {
    let bits = (0..9).rev().zip("rwxrwxrwx".chars());
    bits.map(|(bit, letter)| if mode >> bit & 1 == 1 { letter } else { '-' }).collect()
}

fn of_entry(entry: &Entry) -> Value {
    let modified: SystemTime = entry.modified;
    let mut object = json!({
        "v": 1,
        "path": entry.path.to_string_lossy(),
        "type": entry.kind.name(),
        "size": entry.size,
        "modified": seconds(modified),
        "mode": entry.mode,
    });
    if let (Some(target), Some(fields)) = (&entry.target, object.as_object_mut()) {
        fields.insert("target".to_owned(), target.to_string_lossy().into());
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_as_ls_prints_them() {
        for (mode, expected) in [(0o755, "rwxr-xr-x"), (0o640, "rw-r-----"), (0, "---------")] {
            assert_eq!(permissions(mode), expected);
        }
    }
}
