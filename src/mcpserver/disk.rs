//! Files that are whole or not there, and never somebody else's change undone.

use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use rustix::fs::{Access, CWD, FlockOperation, RenameFlags};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempPath};

use super::EditError;
use crate::yaml::{self, FileError};

/// Definitions may hold secrets, so a new one is its owner's alone.
const NEW_FILE: u32 = 0o600;
const NEW_DIRECTORY: u32 = 0o700;

/// How long another writer is waited for; ours take milliseconds.
const TURN: Duration = if cfg!(test) { Duration::from_millis(200) } else { Duration::from_secs(5) };
const TURN_PAUSE: Duration = Duration::from_millis(10);

/// Writes a file that must not be there, in a directory that is made where it is missing.
///
/// # Errors
///
/// `None` in place of an error: something of that name is there.
pub(super) fn create(path: &Path, content: &str) -> Result<(), Option<EditError>> {
    let failed = |source| Some(failure(path, source));
    let directory = directory_of(path).map_err(failed)?;
    make_directory(directory).map_err(failed)?;
    let temporary = temporary(path, directory, content.as_bytes()).map_err(failed)?;
    temporary.as_file().sync_all().map_err(failed)?;
    temporary.persist_noclobber(path).map_err(|error| match error.error.kind() {
        io::ErrorKind::AlreadyExists => None,
        _ => failed(error.error),
    })?;
    sync(directory).map_err(failed)
}

/// Writes a file that is ours alone, whatever it was before.
pub(super) fn put(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = directory_of(path)?;
    make_directory(directory)?;
    let temporary = temporary(path, directory, content)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path).map_err(|error| error.error)?;
    sync(directory)
}

/// Removes a file. `false` when there was none.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => {
            sync(directory_of(path)?)?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where writing to `path` goes: symbolic links are followed.
///
/// # Errors
///
/// [`EditError::NotWritable`] where the path leads to nothing that could be replaced, such as another process's file.
pub(super) fn target(path: &Path) -> Result<PathBuf, EditError> {
    fs::canonicalize(path).map_err(|source| EditError::NotWritable { path: path.to_owned(), source })
}

/// Writes a file whose content was `old`; mode and owner stay. The file is found as it was, or as it is wished.
///
/// The new file and the old one change places in one step, so a change that an editor made in between is noticed, and
/// put back.
///
/// # Errors
///
/// [`EditError::Changed`] where the content is not `old` any more.
pub(super) fn replace(target: &Path, old: &[u8], new: &str) -> Result<(), EditError> {
    try_replace(target, old, new).map_err(|error| match error {
        None => EditError::Changed { path: target.to_owned() },
        Some(source) => failure(target, source),
    })
}

/// `None` in place of an error: somebody else has written the file.
fn try_replace(target: &Path, old: &[u8], new: &str) -> Result<(), Option<io::Error>> {
    // A file that is marked as not to be written is not written, although its directory would allow it.
    rustix::fs::access(target, Access::WRITE_OK).map_err(|error| Some(error.into()))?;
    let metadata = fs::metadata(target)?;
    let directory = directory_of(target)?;
    let temporary = temporary(target, directory, new.as_bytes())?;
    let own = temporary.as_file().metadata()?;
    if (own.uid(), own.gid()) != (metadata.uid(), metadata.gid()) {
        std::os::unix::fs::fchown(temporary.as_file(), Some(metadata.uid()), Some(metadata.gid()))?;
    }
    temporary.as_file().set_permissions(std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
    temporary.as_file().sync_all()?;
    let directory = fs::File::open(directory)?;
    // Sidegate's own writers take turns: what is put back below must not be what another of them builds on.
    take_turn(&directory)?;
    if content(target)? != old {
        return Err(None);
    }
    exchange(&temporary.into_temp_path(), target, old, new.as_bytes())?;
    // The lock goes with the last handle of the directory.
    Ok(directory.sync_all()?)
}

/// Locks the directory, as long as it is open. Who else holds a lock there may be no writer of ours, and never let go.
fn take_turn(directory: &fs::File) -> io::Result<()> {
    let begun = Instant::now();
    loop {
        match rustix::fs::flock(directory.file(), FlockOperation::NonBlockingLockExclusive) {
            // Not every network file system can; the exchange is left.
            Ok(()) | Err(Errno::NOTSUP | Errno::NOLCK | Errno::INVAL | Errno::BADF) => return Ok(()),
            Err(Errno::WOULDBLOCK | Errno::INTR) if begun.elapsed() < TURN => std::thread::sleep(TURN_PAUSE),
            Err(Errno::WOULDBLOCK | Errno::INTR) => {
                let path = directory.path().display();
                let why = format!("another program holds a lock on {path}; end it, or try again later");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Exchanges two files; what comes back must be what was there. It is removed with its `TempPath`.
fn exchange(temporary: &TempPath, target: &Path, old: &[u8], new: &[u8]) -> Result<(), Option<io::Error>> {
    let (mut placed, mut expected) = (new.to_vec(), old.to_vec());
    let mut theirs = false;
    // Each round more is a write by somebody else between two system calls.
    loop {
        match swap(temporary, target) {
            Ok(()) => {}
            // A file system that cannot: the best that is left is to look as late as possible.
            Err(Errno::INVAL | Errno::NOSYS) if !theirs => {
                return if content(target)? == old { Ok(fs::rename(temporary, target)?) } else { Err(None) };
            }
            Err(Errno::NOENT) => return Err(None),
            Err(error) => return Err(Some(error.into())),
        }
        match content(temporary) {
            Ok(back) if back == expected => return if theirs { Err(None) } else { Ok(()) },
            // Another writer was faster. Its text goes back, and what is in its place now must come out.
            Ok(back) => expected = std::mem::replace(&mut placed, back),
            Err(_) => {
                swap(temporary, target).map_err(|error| Some(error.into()))?;
                return Err(None);
            }
        }
        theirs = true;
    }
}

fn swap(one: &Path, other: &Path) -> Result<(), Errno> {
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    yaml::read_file(path).map_err(|error| match error {
        FileError::Io(error) => error,
        FileError::Absent => io::ErrorKind::NotFound.into(),
        FileError::NotAFile | FileError::TooLarge(_) => io::ErrorKind::InvalidData.into(),
    })
}

/// A file beside `path` that no scan takes for a definition, with this content.
fn temporary(path: &Path, directory: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut temporary = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".tmp")
        .permissions(std::fs::Permissions::from_mode(NEW_FILE))
        .tempfile_in(directory)?;
    temporary.write_all(content)?;
    Ok(temporary)
}

fn directory_of(path: &Path) -> io::Result<&Path> {
    path.parent().ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn make_directory(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(NEW_DIRECTORY).create(path)
}

/// A rename that survives a loss of power.
fn sync(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// What a failed operation on `path` means.
pub(super) fn failure(path: &Path, source: io::Error) -> EditError {
    let path = path.to_owned();
    match source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            EditError::NotWritable { path, source }
        }
        _ => EditError::Io { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_lock_of_somebody_else_is_not_waited_for_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        create(&path, "one").unwrap();
        let theirs = fs::File::open(directory.path()).unwrap();
        rustix::fs::flock(theirs.file(), FlockOperation::LockShared).unwrap();
        let error = replace(&path, b"one", "two").unwrap_err();
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.starts_with("another program holds a lock on "), "{source}");
        drop(theirs);
        replace(&path, b"one", "two").unwrap();
        assert_eq!(names(directory.path()), ["a.yaml"]);
    }

    #[test]
    fn a_file_is_made_once() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/a.yaml");
        create(&path, "one").unwrap();
        assert!(matches!(create(&path, "two"), Err(None)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(path.parent().unwrap()), ["a.yaml"]);
    }

    #[test]
    fn a_link_into_the_void_is_a_file_that_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        std::os::unix::fs::symlink("nowhere", &path).unwrap();
        assert!(matches!(create(&path, "one"), Err(None)));
        assert!(!directory.path().join("nowhere").exists());
    }

    #[test]
    fn one_of_many_makes_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|index: usize| {
                    let path = &path;
                    scope.spawn(move || create(path, &index.to_string()).is_ok())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        let winner = made.iter().position(|made| *made).unwrap();
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), winner.to_string());
        assert_eq!(names(directory.path()), ["a.yaml"]);
    }

    #[test]
    fn a_replaced_file_keeps_its_mode() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        replace(&path, b"old", "new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        assert_eq!(names(directory.path()), ["a.yaml"]);
    }

    #[test]
    fn another_text_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        fs::write(&path, "theirs").unwrap();
        assert!(matches!(replace(&path, b"old", "new"), Err(EditError::Changed { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        fs::remove_file(&path).unwrap();
        assert!(replace(&path, b"old", "new").is_err());
        assert_eq!(names(directory.path()), [""; 0]);
    }

    /// What an editor wrote between the last look and the exchange comes back, and ours is gone.
    #[test]
    fn a_change_in_the_last_moment_is_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        fs::write(&path, "theirs").unwrap();
        let ours = temporary(&path, directory.path(), b"ours").unwrap().into_temp_path();
        assert!(matches!(exchange(&ours, &path, b"old", b"ours"), Err(None)));
        drop(ours);
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(names(directory.path()), ["a.yaml"]);
    }

    /// A counter in a file, raised by writers that know nothing of each other: no step is lost.
    #[test]
    fn no_change_is_lost() {
        const ROUNDS: u32 = 50;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.yaml");
        fs::write(&path, "0").unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut done = 0;
                    while done < ROUNDS {
                        let old = fs::read_to_string(&path).unwrap();
                        let next = old.parse::<u32>().unwrap() + 1;
                        match replace(&path, old.as_bytes(), &next.to_string()) {
                            Ok(()) => done += 1,
                            Err(EditError::Changed { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), (4 * ROUNDS).to_string());
        assert_eq!(names(directory.path()), ["a.yaml"]);
    }
}
