//! Publishing: a part file that is complete and verified becomes the output.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, fsync, renameat_with, syncfs};
use rustix::io::Errno;

use super::copy::private_path;
use super::lock::Exclusion;
use super::naming::folder_of;
use super::{Attributes, Clobber, Durability, PartFile, PartState};
use crate::failure::Failure;
use crate::sink::sidecar::{self, is_named, unmark};
use crate::sys::filesystem;

/// Truncates the part file to `len` bytes, gives it these attributes, and renames it to the output, atomically.
///
/// With [`Durability::Synced`] the bytes and the name are on the disk when this returns.
pub(crate) fn publish(
    mut part: PartFile,
    len: u64,
    durability: Durability,
    attributes: Attributes,
) -> Result<PathBuf, Failure> {
    let local = |action, path: &Path| {
        let path = path.to_owned();
        move |source| Failure::local(action, path, len, source)
    };
    if part.file.metadata().map_err(local("inspect", &part.path))?.len() < len {
        return Err(part.changed_by_other("publish"));
    }
    part.file.set_len(len).map_err(local("truncate", &part.path))?;
    // Some file systems report a full disk or a quota only on write-back.
    if durability == Durability::Synced
        || filesystem::defers_errors(&part.file).map_err(local("inspect", &part.path))?
    {
        part.file.sync_all().map_err(local("sync", &part.path))?;
    }
    // The open file was verified, but another one may have its name.
    if !is_named(&part.file, &part.path) {
        return Err(part.changed_by_other("publish"));
    }
    if let Some(output) = part.in_place.take() {
        return write_in_place(part, output, len, durability, attributes);
    }
    if !part.output.exists() {
        sidecar::apply_umask(&part.file).map_err(local("set the mode of", &part.path))?;
    }
    attributes.apply(&part.file).map_err(local("set the mode of", &part.path))?;
    match part.exclusion {
        Exclusion::Locked => rename(&part.path, &part.output, part.clobber)?,
        Exclusion::Absent => rename_own(&part.file, &part.path, &part.output, part.clobber)?,
    }
    if !is_named(&part.file, &part.output) {
        return Err(part.changed_by_other("publish"));
    }
    let state = std::mem::replace(&mut part.state, PartState::Published);
    // With the mark, the output would be taken for a part file if its name is that of one.
    unmark(&part.file);
    let synced = match durability {
        Durability::Synced => sync_name(&part.file, folder_of(&part.output)),
        Durability::Cached => Ok(()),
    };
    if let PartState::Journaled(journal) = state {
        // A journal that cannot be removed describes no part file, and the next transfer removes it.
        let _ = journal.remove();
    }
    synced.map_err(local("sync", folder_of(&part.output)))?;
    Ok(part.output.clone())
}

/// Copies the part file over the output. Until that is done, the part file and its journal stay: the same transfer, started again,
/// does no more than this.
fn write_in_place(
    mut part: PartFile,
    mut output: File,
    len: u64,
    durability: Durability,
    attributes: Attributes,
) -> Result<PathBuf, Failure> {
    let failed = |source| Failure::local("write", &part.output, len, source);
    let copied = part.file.try_clone().and_then(|mut file| {
        file.rewind()?;
        io::copy(&mut file, &mut output)
    });
    if copied.map_err(failed)? != len {
        return Err(part.changed_by_other("publish"));
    }
    output.set_len(len).map_err(failed)?;
    attributes.apply(&output).map_err(failed)?;
    if durability == Durability::Synced || filesystem::defers_errors(&output).map_err(failed)? {
        output.sync_all().map_err(failed)?;
    }
    if let PartState::Journaled(journal) = std::mem::replace(&mut part.state, PartState::Empty) {
        let _ = journal.remove();
    }
    // Dropping it removes the part file.
    Ok(part.output.clone())
}

/// Writes the name of `file` in `folder` to the disk, where that is possible.
fn sync_name(file: &File, folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => match fsync(&folder) {
            // The file system cannot sync folders; the name is written when it decides.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => Ok(()),
            result => Ok(result?),
        },
        // A folder that cannot be read is synced with its file system.
        Err(_) => Ok(syncfs(file)?),
    }
}

/// Renames `part` to `output`, atomically, and never over an output that must stay.
fn rename(part: &Path, output: &Path, clobber: Clobber) -> Result<(), Failure> {
    let result = match clobber {
        Clobber::Replace => fs::rename(part, output),
        Clobber::Refuse => match renameat_with(CWD, part, CWD, output, RenameFlags::NOREPLACE) {
            // The file system does not support the flag; creating a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match fs::hard_link(part, output) {
                    // A part file with two names would be no part file for the next transfer.
                    Ok(()) => fs::remove_file(part).inspect_err(|_| drop(fs::remove_file(output))),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
                    // Without hard links either, an empty file holds the name against others until it is replaced.
                    Err(_) => sidecar::create(output, 0o600).and_then(|_| {
                        fs::rename(part, output).inspect_err(|_| drop(fs::remove_file(output)))
                    }),
                }
            }
            result => result.map_err(io::Error::from),
        },
    };
    result.map_err(|source| {
        if source.kind() == io::ErrorKind::AlreadyExists {
            Failure::OutputExists { path: output.to_owned() }
        } else {
            Failure::local("rename into place", output, 0, source)
        }
    })
}

/// Renames the part file to `output`, although another transfer may give its name to another file at any moment.
pub(super) fn rename_own(file: &File, part: &Path, output: &Path, clobber: Clobber) -> Result<(), Failure> {
    let failed = |source| Failure::local("rename into place", output, 0, source);
    let private = private_path(part).map_err(failed)?;
    fs::rename(part, &private).map_err(failed)?;
    // What has the private name keeps it.
    let renamed = if is_named(file, &private) {
        rename(&private, output, clobber)
    } else {
        let text = "another process has replaced its partial file";
        Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, text)))
    };
    renamed.inspect_err(|_| {
        // It is not this transfer's, or is to be resumed.
        let _ = rename(&private, part, Clobber::Refuse);
    })
}
