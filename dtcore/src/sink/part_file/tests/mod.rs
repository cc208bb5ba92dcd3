//! Part files that are published, dropped or killed.

mod proving;
mod publishing;
mod resuming;
mod stale;

use super::*;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

fn publish(mut part: PartFile, content: &[u8]) -> Result<PathBuf, Failure> {
    part.file.write_all(content).unwrap();
    crate::sink::part_file::publish(
        part,
        u64::try_from(content.len()).unwrap(),
        Durability::Synced,
        Attributes::default(),
    )
}

/// Leaves the part file as after kill -9.
fn kill(mut part: PartFile) {
    part.state = PartState::Published;
}

fn names(folder: &Path) -> Vec<String> {
    let name = |entry: io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(name).collect();
    names.sort();
    names
}

#[test]
fn output_changes_only_when_published() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    fs::write(&output, "before").unwrap();
    fs::set_permissions(&output, Permissions::from_mode(0o640)).unwrap();
    let part = PartFile::create(&output, Clobber::Replace).unwrap();
    assert_eq!(part.file.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    drop(part);
    assert_eq!(fs::read(&output).unwrap(), b"before");
    publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"after").unwrap();
    assert_eq!(fs::read(&output).unwrap(), b"after");
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(names(folder.path()), ["out"]);
}

/// A complete file may be called like a part file.
#[test]
fn finished_output_is_not_marked() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("x.dtpart");
    publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"finished").unwrap();
    assert!(PartFile::create(&folder.path().join("x"), Clobber::Replace).is_err());
    assert_eq!(fs::read(&output).unwrap(), b"finished");
}

#[test]
fn output_is_published_where_locks_are_absent() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let unlocked = |clobber| {
        let mut part = PartFile::create(&output, clobber).unwrap();
        part.exclusion = Exclusion::Absent;
        part
    };
    publish(unlocked(Clobber::Refuse), b"first").unwrap();
    assert_eq!(
        (fs::read(&output).unwrap(), names(folder.path())),
        (b"first".to_vec(), vec!["out".to_owned()])
    );
    let other = folder.path().join("other");
    let part = unlocked(Clobber::Replace);
    fs::write(&other, "of another transfer").unwrap();
    fs::rename(&other, &part.path).unwrap();
    publish::rename_own(&part.file, &part.path, &output, Clobber::Replace).unwrap_err();
    assert_eq!(fs::read(&output).unwrap(), b"first", "only its own file is published");
    assert_eq!(fs::read(&part.path).unwrap(), b"of another transfer");
}

#[test]
fn second_transfer_to_the_same_output_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let first = PartFile::create(&output, Clobber::Replace).unwrap();
    let second = PartFile::create(&output, Clobber::Replace).unwrap_err();
    assert!(matches!(second, Failure::OutputInUse { .. }));
    drop(first);
    assert!(PartFile::create(&output, Clobber::Replace).is_ok());
}

#[test]
fn replaced_part_file_is_neither_published_nor_removed() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let first = PartFile::create(&output, Clobber::Replace).unwrap();
    fs::remove_file(&first.path).unwrap();
    let second = PartFile::create(&output, Clobber::Replace).unwrap();
    assert!(matches!(publish(first, b"first"), Err(Failure::LocalFile { .. })));
    assert!(!output.exists());
    publish(second, b"second").unwrap();
    assert_eq!(fs::read(&output).unwrap(), b"second");
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn existing_output_is_not_replaced_if_refused() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    let part = PartFile::create(&output, Clobber::Refuse).unwrap();
    fs::write(&output, "created in between").unwrap();
    assert!(matches!(publish(part, b"late"), Err(Failure::OutputExists { .. })));
    assert_eq!(fs::read(&output).unwrap(), b"created in between");
    assert!(matches!(PartFile::create(&output, Clobber::Refuse), Err(Failure::OutputExists { .. })));
    assert_eq!(names(folder.path()), ["out"]);
}

#[test]
fn stale_part_file_is_removed_and_foreign_file_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (output, part) = (folder.path().join("out"), folder.path().join("out.dtpart"));
    let mut killed = PartFile::create(&output, Clobber::Replace).unwrap();
    killed.file.write_all(b"stale").unwrap();
    kill(killed);
    assert_eq!(fs::read(&part).unwrap(), b"stale");
    publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"new").unwrap();
    assert_eq!(fs::read(&output).unwrap(), b"new");

    fs::write(&part, "precious").unwrap();
    assert!(PartFile::create(&output, Clobber::Replace).is_err());
    assert_eq!(fs::read(&part).unwrap(), b"precious");
    fs::remove_file(&part).unwrap();
    std::os::unix::fs::symlink("elsewhere", &part).unwrap();
    assert!(PartFile::create(&output, Clobber::Replace).is_err());
}

#[test]
fn part_file_of_another_transfer_cannot_be_an_output() {
    let folder = tempfile::tempdir().unwrap();
    let first = PartFile::create(&folder.path().join("x"), Clobber::Replace).unwrap();
    let second = PartFile::create(&first.path, Clobber::Replace).unwrap_err();
    assert!(matches!(second, Failure::OutputInUse { .. }));
}

#[test]
fn setuid_is_not_copied() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("out");
    fs::write(&output, "tool").unwrap();
    fs::set_permissions(&output, Permissions::from_mode(0o6755)).unwrap();
    publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"bytes").unwrap();
    assert_eq!(fs::metadata(&output).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn links_are_followed_and_folders_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let (link, target) = (folder.path().join("link"), folder.path().join("target"));
    fs::write(&target, "old").unwrap();
    std::os::unix::fs::symlink("target", &link).unwrap();
    publish(PartFile::create(&link, Clobber::Replace).unwrap(), b"new").unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"new");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink("new", &dangling).unwrap();
    assert!(matches!(PartFile::create(&dangling, Clobber::Refuse), Err(Failure::OutputExists { .. })));
    publish(PartFile::create(&dangling, Clobber::Replace).unwrap(), b"new").unwrap();
    assert_eq!(fs::read(folder.path().join("new")).unwrap(), b"new");
    std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
    let (looping, folder_to_be) = (folder.path().join("loop"), folder.path().join("later/"));
    for path in [folder.path(), Path::new("/"), Path::new(".."), &looping, &folder_to_be] {
        assert!(PartFile::create(path, Clobber::Replace).is_err(), "{}", path.display());
    }
}

#[test]
fn output_with_the_longest_name_has_a_part_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("n".repeat(255));
    publish(PartFile::create(&output, Clobber::Replace).unwrap(), b"x").unwrap();
    assert_eq!(names(folder.path()), ["n".repeat(255)]);
}
