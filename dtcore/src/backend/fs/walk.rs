//! Lists what is below a folder: in order, and without following links.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, OFlags, Stat, readlinkat, statat};

use super::root::{below, reopen, unreadable};
use super::{Root, file_nanoseconds};
use crate::backend::OpenError;
use crate::proto::{EntryKind, ListedEntry};

/// How deep folders may be nested: each level holds a descriptor.
const MAX_DEPTH: usize = 128;

/// What is found below a folder.
#[derive(Debug)]
pub(crate) enum WalkItem {
    Entry(ListedEntry),
    /// A folder or name that cannot be read.
    Unreadable(PathBuf, io::Error),
}

/// What is listed of a folder.
pub(crate) struct WalkOptions<'a> {
    /// Whether the folders in it are listed too, and so on.
    pub(crate) recursive: bool,
    /// Which names are left out.
    pub(crate) is_hidden: &'a (dyn Fn(&OsStr) -> bool + Sync),
}

/// A folder that is being listed.
#[derive(Debug)]
struct Level {
    folder: File,
    path: PathBuf,
    /// Sorted, the next one last.
    names: Vec<OsString>,
}

/// A listing that has not begun.
#[derive(Debug)]
pub(crate) struct Walk {
    levels: Vec<Level>,
    /// What is listed if it is no folder.
    file: Option<ListedEntry>,
}

impl Root {
    /// Opens the folder `name` to list it, or finds the file of that name, which is then all there is.
    ///
    /// # Errors
    /// There is no such folder or file, or it cannot be opened.
    pub(crate) fn walk(&self, name: &[u8], options: &WalkOptions<'_>) -> Result<Walk, OpenError> {
        let name = match below(name)? {
            b"" => b".",
            name => name,
        };
        let folder = match self.resolve_folder(OsStr::from_bytes(name)) {
            Ok(folder) => folder,
            Err(OpenError::NoFolder) => {
                return self.file(name).map(|file| Walk { levels: Vec::new(), file: Some(file) });
            }
            Err(error) => return Err(error),
        };
        let folder = reopen(folder, OFlags::DIRECTORY).map_err(unreadable)?;
        let top = Level::open(folder, PathBuf::new(), options)?;
        Ok(Walk { levels: vec![top], file: None })
    }

    fn file(&self, name: &[u8]) -> Result<ListedEntry, OpenError> {
        let end = name.iter().rposition(|byte| *byte == b'/');
        let parent = end.map_or(&b"."[..], |end| name.get(..end).unwrap_or_default());
        let own = name.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let folder = File::from(self.resolve_folder(OsStr::from_bytes(parent))?);
        entry(&folder, Path::new(""), OsStr::from_bytes(own)).map_err(|_| OpenError::NotFound)
    }
}

impl Walk {
    /// Visits the entries in the order of their names' bytes, each folder before what is in it. What cannot be read is visited as that. Ends
    /// early if `visit` breaks.
    pub(crate) fn run(self, options: &WalkOptions<'_>, visit: &mut dyn FnMut(WalkItem) -> ControlFlow<()>) {
        match self.file {
            // That it ends early changes nothing.
            Some(file) => drop(visit(WalkItem::Entry(file))),
            None => descend(self.levels, options, visit),
        }
    }
}

/// Visits everything below the levels that are open.
fn descend(
    mut levels: Vec<Level>,
    options: &WalkOptions<'_>,
    visit: &mut dyn FnMut(WalkItem) -> ControlFlow<()>,
) {
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let path = level.path.join(&name);
        let found = entry(&level.folder, &level.path, &name);
        let below = match &found {
            Ok(entry) if options.recursive && entry.kind == EntryKind::Directory => Some(
                open_below(&level.folder, &name)
                    .and_then(|folder| Level::open(folder, path.clone(), options)),
            ),
            Ok(_) | Err(_) => None,
        };
        let item = match found {
            Ok(entry) => WalkItem::Entry(entry),
            // It was removed since its name was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => WalkItem::Unreadable(path.clone(), error),
        };
        if visit(item).is_break() {
            return;
        }
        let unreadable = match below {
            Some(Ok(_)) if levels.len() >= MAX_DEPTH => {
                io::Error::other("too many directories in each other")
            }
            Some(Ok(below)) => {
                levels.push(below);
                continue;
            }
            Some(Err(error)) => error,
            None => continue,
        };
        if visit(WalkItem::Unreadable(path, unreadable)).is_break() {
            return;
        }
    }
}

impl Level {
    fn open(folder: File, path: PathBuf, options: &WalkOptions<'_>) -> io::Result<Self> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." && !(options.is_hidden)(name) {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable_by(|one, other| other.cmp(one));
        Ok(Self { folder, path, names })
    }
}

/// Opens a folder, and not what a link of that name leads to.
pub(crate) fn open_below(folder: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(folder, name, flags, rustix::fs::Mode::empty())?.into())
}

fn entry(folder: &File, parent: &Path, name: &OsStr) -> io::Result<ListedEntry> {
    let found: Stat = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let kind = match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => EntryKind::Other,
    };
    let target = if kind == EntryKind::Symlink {
        Some(readlinkat(folder, name, Vec::new())?.into_bytes())
    } else {
        None
    };
    let modified = file_nanoseconds(found.st_mtime, found.st_mtime_nsec);
    Ok(ListedEntry {
        path: parent.join(name).as_os_str().as_bytes().to_vec(),
        kind,
        size: if kind == EntryKind::File { u64::try_from(found.st_size).unwrap_or(0) } else { 0 },
        modified: i64::try_from(modified).unwrap_or(0),
        mode: found.st_mode & 0o777,
        target,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn listed(root: &Root, name: &str, recursive: bool) -> Vec<String> {
        let is_hidden: &(dyn Fn(&OsStr) -> bool + Sync) = &|name| name.as_bytes().starts_with(b".");
        let options = WalkOptions { recursive, is_hidden };
        let mut all = Vec::new();
        root.walk(name.as_bytes(), &options).unwrap().run(&options, &mut |found| {
            all.push(match found {
                WalkItem::Entry(entry) => {
                    format!("{} {}", String::from_utf8(entry.path).unwrap(), entry.kind.name())
                }
                WalkItem::Unreadable(path, _) => format!("{} unreadable", path.display()),
            });
            ControlFlow::Continue(())
        });
        all
    }

    #[test]
    fn entries_are_sorted_and_links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("root");
        fs::create_dir_all(base.join("b/deep")).unwrap();
        fs::write(base.join("b/deep/f"), "x").unwrap();
        fs::write(base.join("a"), "").unwrap();
        fs::write(base.join(".hidden"), "").unwrap();
        symlink("..", base.join("c")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, base.join("d"), rustix::fs::Mode::RUSR).unwrap();
        let root = Root::new(&base).unwrap();
        assert_eq!(listed(&root, "", false), ["a file", "b directory", "c symlink", "d other"]);
        let all = ["a file", "b directory", "b/deep directory", "b/deep/f file", "c symlink", "d other"];
        assert_eq!(listed(&root, "/", true), all);
        assert_eq!(listed(&root, "b/deep/", true), ["f file"]);
        assert_eq!(listed(&root, "b/deep/f", true), ["f file"]);
        let options = WalkOptions { recursive: false, is_hidden: &|_| false };
        for name in ["..", "b/../..", "missing", "c/"] {
            assert!(root.walk(name.as_bytes(), &options).is_err(), "{name}");
        }
        let mut n = 0;
        root.walk(b"", &options).unwrap().run(&options, &mut |_| {
            n += 1;
            ControlFlow::Break(())
        });
        assert_eq!(n, 1);
    }
}
