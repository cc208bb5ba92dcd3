//! The folder whose files are served, and nothing outside it.
//!
//! The kernel resolves every name below the folder (`openat2`), so no `..`, link or race with a rename leads out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat};
use rustix::io::Errno;

use super::SourceFile;
use crate::backend::{Backend, OpenError};
use crate::sync::Lock;

/// How often a resolution is retried that a concurrent rename in the tree disturbed.
const ATTEMPTS: usize = 32;

/// An open folder below which files are opened. It is served under whatever name it has, as long as it exists; when it was removed,
/// the folder that has its path is.
#[derive(Debug)]
pub(crate) struct Root {
    folder: Lock<Arc<OwnedFd>>,
    path: PathBuf,
    resolve: ResolveFlags,
}

impl Root {
    /// Opens the folder at `path`, and makes sure that this system can confine names to it.
    pub(crate) fn new(path: &Path) -> Result<Self, RootError> {
        let path = fs::canonicalize(path)?;
        let folder = Arc::new(open_folder(&path).map_err(io::Error::from)?);
        let root = Self { resolve: resolution(&path), folder: Lock::new(Arc::clone(&folder)), path };
        match root.resolve(OsStr::new(".")) {
            Ok(_) => {}
            // EPERM: forbidden by a sandbox that does not know the call.
            Err(Errno::NOSYS | Errno::PERM) => {
                return Err(RootError::Unconfined("openat2 (Linux 5.6) is missing or forbidden"));
            }
            Err(error) => return Err(RootError::Io(error.into())),
        }
        if reopen(&*folder, OFlags::DIRECTORY).is_err() {
            return Err(RootError::Unconfined("/proc is not mounted"));
        }
        Ok(root)
    }

    /// The folder's absolute path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the regular file `name` for reading; leading slashes mean the folder itself.
    fn open_file(&self, name: &[u8]) -> Result<SourceFile, OpenError> {
        let name = below(name)?;
        if name.is_empty() {
            return Err(OpenError::Directory);
        }
        let place = self.resolve(OsStr::from_bytes(name)).map_err(OpenError::from_resolve)?;
        // The type is checked before the file is opened for reading, as opening a FIFO can hang and opening a device can
        // start it. The file opened then is the file checked, whatever happens to its name.
        let place = File::from(place);
        let kind = place.metadata().map_err(OpenError::Io)?.file_type();
        if !kind.is_file() {
            return Err(if kind.is_dir() { OpenError::Directory } else { OpenError::NotRegular });
        }
        let file = reopen(&place, OFlags::empty()).map_err(unreadable)?;
        SourceFile::new(file).map_err(|error| {
            if error.kind() == io::ErrorKind::FileTooLarge {
                OpenError::Endless
            } else {
                OpenError::Io(error)
            }
        })
    }

    /// The folder, or the one that has its path if it was removed.
    fn folder(&self) -> Arc<OwnedFd> {
        let mut folder = self.folder.lock();
        let is_removed = fstat(&**folder).is_ok_and(|found| found.st_nlink == 0);
        if is_removed && let Ok(again) = open_folder(&self.path) {
            *folder = Arc::new(again);
        }
        Arc::clone(&folder)
    }

    /// What `name` is, without following a link at its end.
    pub(crate) fn stat(&self, name: &[u8]) -> rustix::io::Result<rustix::fs::Stat> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = OsStr::from_bytes(name);
        fstat(rustix::fs::openat2(&*self.folder(), name, flags, Mode::empty(), self.resolve)?)
    }

    /// The folder that `name` resolves to.
    pub(super) fn resolve_folder(&self, name: &OsStr) -> Result<OwnedFd, OpenError> {
        let folder = self.resolve(name).map_err(|error| match error {
            Errno::NOTDIR => OpenError::NoFolder,
            error => OpenError::from_resolve(error),
        })?;
        let kind = fstat(&folder).map(|found| rustix::fs::FileType::from_raw_mode(found.st_mode));
        match kind {
            Ok(kind) if kind.is_dir() => Ok(folder),
            Ok(_) => Err(OpenError::NoFolder),
            Err(error) => Err(OpenError::Io(error.into())),
        }
    }

    /// The place that `name` resolves to, not opened for reading.
    fn resolve(&self, name: &OsStr) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let folder = self.folder();
        let mut result = Err(Errno::AGAIN);
        for _ in 0..ATTEMPTS {
            result = rustix::fs::openat2(&*folder, name, flags, Mode::empty(), self.resolve);
            if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
                break;
            }
        }
        result
    }
}

impl Backend for Root {
    type Object = SourceFile;

    fn open(&self, names: &[Vec<u8>]) -> Result<(SourceFile, PathBuf), OpenError> {
        let mut strongest = OpenError::NotFound;
        for name in names {
            match self.open_file(name) {
                Ok(source) => return Ok((source, PathBuf::from(OsStr::from_bytes(name)))),
                Err(error @ (OpenError::Unreadable | OpenError::Io(_))) => return Err(error),
                Err(OpenError::NotFound) => {}
                Err(error) => strongest = error.stronger(strongest),
            }
        }
        Err(strongest)
    }
}

fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
}

/// Below `/` an absolute link is followed and cannot lead out; below any other folder it is rejected.
fn resolution(path: &Path) -> ResolveFlags {
    let scope = if path == Path::new("/") { ResolveFlags::IN_ROOT } else { ResolveFlags::BENEATH };
    scope | ResolveFlags::NO_MAGICLINKS
}

/// A name without leading slashes, which mean the folder itself.
pub(super) fn below(name: &[u8]) -> Result<&[u8], OpenError> {
    let start = name.iter().position(|byte| *byte != b'/').unwrap_or(name.len());
    let name = name.get(start..).unwrap_or_default();
    // The kernel would accept `a/../b`, but no honest client needs it, and so attempts show in the log.
    if name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        Err(OpenError::Outside)
    } else {
        Ok(name)
    }
}

/// Why what was found could not be opened for reading.
pub(super) fn unreadable(error: Errno) -> OpenError {
    match error {
        Errno::ACCESS | Errno::PERM => OpenError::Unreadable,
        error => OpenError::Io(error.into()),
    }
}

/// Opens the file or folder at `place` for reading.
pub(super) fn reopen(place: impl AsFd, flags: OFlags) -> rustix::io::Result<File> {
    let link = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
    rustix::fs::openat(CWD, link, flags, Mode::empty()).map(File::from)
}

/// Why a folder cannot be served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RootError {
    #[error("this system cannot confine names to a folder: {0}")]
    Unconfined(&'static str),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl OpenError {
    pub(super) fn from_resolve(error: Errno) -> Self {
        match error {
            // EINVAL: a NUL in the name. ELOOP: a chain of links, or a magic link of /proc.
            Errno::NOENT | Errno::NOTDIR | Errno::INVAL | Errno::LOOP => Self::NotFound,
            Errno::NAMETOOLONG => Self::TooLong,
            Errno::XDEV => Self::Outside,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            error => Self::Io(error.into()),
        }
    }

    fn stronger(self, other: Self) -> Self {
        if matches!(other, Self::Denied) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Object;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Tree {
        _folder: tempfile::TempDir,
        root: Root,
    }

    #[test]
    fn removed_folder_is_served_again_when_there_is_one_at_its_path() {
        let tree = tree();
        let path = tree.root.path().to_owned();
        let content = |name: &[u8]| {
            let (file, _) = tree.root.open(&[name.to_vec()])?;
            let mut content = [0; 16];
            let n = file.read_at(&mut content, 0).unwrap();
            Ok::<_, OpenError>(content[..n].to_vec())
        };
        fs::rename(&path, path.with_extension("moved")).unwrap();
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), "another").unwrap();
        assert_eq!(content(b"f").unwrap(), b"content", "it is served under its new name");
        fs::remove_dir_all(path.with_extension("moved")).unwrap();
        assert_eq!(content(b"f").unwrap(), b"another");
        fs::remove_dir_all(&path).unwrap();
        assert!(matches!(content(b"f"), Err(OpenError::NotFound)));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("f"), "once more").unwrap();
        assert_eq!(content(b"f").unwrap(), b"once more");
        assert!(matches!(content(b"../secret"), Err(OpenError::Outside)));
    }

    /// A served folder `root` next to a file `secret` that must never be served.
    fn tree() -> Tree {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().join("root");
        fs::create_dir_all(base.join("sub")).unwrap();
        fs::write(folder.path().join("secret"), "secret").unwrap();
        fs::write(base.join("f"), "content").unwrap();
        fs::write(base.join("sub/g"), "").unwrap();
        fs::write(base.join("a%20b"), "literal").unwrap();
        fs::write(base.join("a b"), "decoded").unwrap();
        fs::write(base.join("..dots"), "").unwrap();
        symlink("f", base.join("link")).unwrap();
        symlink("../f", base.join("sub/up-and-inside")).unwrap();
        symlink("../secret", base.join("escape")).unwrap();
        symlink(base.join("f"), base.join("absolute")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        symlink(folder.path(), base.join("folder-link")).unwrap();
        rustix::fs::mknodat(CWD, base.join("fifo"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        Tree { root: Root::new(&base).unwrap(), _folder: folder }
    }

    fn outcome(root: &Root, name: &[u8]) -> String {
        match root.open_file(name) {
            Ok(source) => format!("{} bytes", source.size()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn only_regular_files_below_the_folder_open() {
        let tree = tree();
        for (name, expected) in [
            ("f", "7 bytes"),
            ("/f", "7 bytes"),
            ("///f", "7 bytes"),
            ("./f", "7 bytes"),
            ("sub//g", "0 bytes"),
            ("link", "7 bytes"),
            ("sub/up-and-inside", "7 bytes"),
            ("..dots", "0 bytes"),
            ("", "it is a directory"),
            ("/", "it is a directory"),
            (".", "it is a directory"),
            ("sub", "it is a directory"),
            ("sub/", "it is a directory"),
            ("fifo", "not a regular file"),
            ("missing", "no such file"),
            ("f/", "no such file"),
            ("f/x", "no such file"),
            ("loop", "no such file"),
            ("f\0", "no such file"),
            ("f\0/../../secret", "outside the served folder"),
            ("..", "outside the served folder"),
            ("../secret", "outside the served folder"),
            ("sub/../../secret", "outside the served folder"),
            ("sub/../f", "outside the served folder"),
            ("escape", "outside the served folder"),
            ("absolute", "outside the served folder"),
            ("folder-link/secret", "outside the served folder"),
        ] {
            assert_eq!(outcome(&tree.root, name.as_bytes()), expected, "{name:?}");
        }
        assert_eq!(outcome(&tree.root, &[b'x'; 300]), "the name is too long");
        assert_eq!(outcome(&tree.root, &b"x/".repeat(4000)), "the name is too long");
        assert_eq!(outcome(&tree.root, b"\xff\xfe"), "no such file");
    }

    #[test]
    fn literal_name_is_preferred_to_decoded_name() {
        let tree = tree();
        let names = [b"a%20b".to_vec(), b"a b".to_vec()];
        let (source, name) = tree.root.open(&names).unwrap();
        assert_eq!((source.size(), name.to_str()), (7, Some("a%20b")));
        let names = [b"f%20".to_vec(), b"../f".to_vec(), b"missing".to_vec()];
        assert!(matches!(tree.root.open(&names), Err(OpenError::Outside)));
        assert!(matches!(tree.root.open(&[]), Err(OpenError::NotFound)));
    }

    #[test]
    fn unreadable_file_is_not_replaced_by_another() {
        let tree = tree();
        let literal = tree.root.path().join("a%20b");
        fs::set_permissions(&literal, fs::Permissions::from_mode(0o0)).unwrap();
        if File::open(&literal).is_ok() {
            eprintln!("skipped: this user reads everything");
            return;
        }
        let names = [b"a%20b".to_vec(), b"a b".to_vec()];
        assert!(matches!(tree.root.open(&names), Err(OpenError::Unreadable)));
    }

    #[test]
    fn absolute_links_are_followed_below_the_system_root() {
        let tree = tree();
        let system = Root::new(Path::new("/")).unwrap();
        let link = tree.root.path().join("absolute");
        assert_eq!(outcome(&system, link.as_os_str().as_bytes()), "7 bytes");
        assert_eq!(outcome(&system, b"/proc/self/fd/0/x"), "no such file");
    }

    #[test]
    fn only_a_folder_can_be_a_root() {
        let tree = tree();
        for name in ["f", "missing"] {
            assert!(matches!(Root::new(&tree.root.path().join(name)), Err(RootError::Io(_))), "{name}");
        }
    }
}
