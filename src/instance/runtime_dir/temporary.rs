//! Directories that go away with their owner.
//!
//! Each has a lock in it, which ends with the process: what a killed one has left is recognised and removed by the next
//! that makes one in the same place.
//!
//! Tasks of a dropped instance end a little later than its directory, and may be about to make a file in it. So the
//! directory is given another name before it is removed: nobody finds it any more, and who has found it already can get in
//! the way once at most.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tracing::{debug, warn};

use super::{LOCK, RuntimeDirError, take_lock};

/// What the names of the directories begin with, also of those that are being removed.
const PREFIX: &str = "sidegate-ephemeral-";

/// What is added to the name of one that is being removed.
const REMOVED: &str = ".removed";

/// How often a new directory may be taken for one that was left behind.
const TRIES: u32 = 100;

/// How many files may be made in a directory while it is removed: as many as there may be threads for files.
const LATE_FILES: u32 = 512;

/// A directory with a lock in it. Dropped, it is removed with all that is in it.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    removed: bool,
    /// Held until all is removed: nobody takes it for one that was left behind.
    _lock: File,
}

impl Temporary {
    /// A new one below `parent`. What killed instances have left there is removed first.
    pub(super) fn new(parent: &Path) -> Result<Self, RuntimeDirError> {
        let failed = |source| RuntimeDirError::Io { path: parent.to_owned(), source };
        remove_abandoned(parent).map_err(failed)?;
        let mut tries = TRIES;
        loop {
            // The crate leaves it to the umask who may enter a directory.
            let mut builder = tempfile::Builder::new();
            let builder = builder.prefix(PREFIX).permissions(Permissions::from_mode(0o700));
            let directory = builder.tempdir_in(parent).map_err(failed)?;
            match take_lock(directory.path()) {
                Ok(lock) if is_in(&lock, directory.path()) => {
                    return Ok(Self { path: directory.keep(), removed: false, _lock: lock });
                }
                // Until the lock is taken, nobody can tell ours from one that was left behind: another instance that starts
                // has removed it.
                Ok(_) | Err(RuntimeDirError::InUse { .. } | RuntimeDirError::Io { .. }) if tries > 0 => {
                    tries -= 1
                }
                Ok(_) => return Err(failed(io::ErrorKind::NotFound.into())),
                Err(error) => return Err(error),
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it.
    pub(super) fn remove(mut self) -> io::Result<()> {
        self.removed = true;
        remove(&self.path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.removed
            && let Err(error) = remove(&self.path)
        {
            warn!(directory = %self.path.display(), %error, "a directory that was to go away with its instance could not be removed");
        }
    }
}

/// Removes a directory, whoever still wants to make files in it. One that is gone already is none of our business.
fn remove(directory: &Path) -> io::Result<()> {
    let mut name = directory.as_os_str().to_owned();
    name.push(REMOVED);
    let removed = Path::new(&name);
    match std::fs::rename(directory, removed) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        renamed => renamed?,
    }
    let mut late_files = LATE_FILES;
    loop {
        match std::fs::remove_dir_all(removed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && late_files > 0 => {
                late_files -= 1
            }
            done => return done,
        }
    }
}

/// Whether `lock` is the file that is in `directory` now.
fn is_in(lock: &File, directory: &Path) -> bool {
    let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let there = std::fs::metadata(directory.join(LOCK)).map(identity).ok();
    there.is_some() && lock.metadata().map(identity).ok() == there
}

/// Removes the directories of ours below `parent` whose process has ended without doing so.
fn remove_abandoned(parent: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(parent)? {
        let entry = entry?;
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes())
            && entry
                .metadata()
                .is_ok_and(|meta| meta.is_dir() && meta.uid() == rustix::process::geteuid().as_raw());
        // Another process may be removing it as well; what cannot be removed is in nobody's way.
        if is_ours && remove_if_abandoned(&entry.path()).is_ok_and(|removed| removed) {
            debug!(directory = %entry.path().display(), "left by a process that was killed; removed");
        }
    }
    Ok(())
}

/// Removes a directory in which nobody holds the lock. One that is being made may be hit; whoever makes it notices and
/// makes another ([`Temporary::new`]).
fn remove_if_abandoned(directory: &Path) -> io::Result<bool> {
    let is_going = directory.as_os_str().as_encoded_bytes().ends_with(REMOVED.as_bytes());
    match OpenOptions::new().read(true).open(directory.join(LOCK)) {
        // Held until all is removed: nobody moves in meanwhile. Under the other name also what is left after a kill of this
        // process is recognised, which may have no lock in it any more.
        Ok(lock) if lock.try_lock().is_ok() => {
            let removed = if is_going { std::fs::remove_dir_all(directory) } else { remove(directory) };
            removed.map(|()| true)
        }
        Ok(_) => Ok(false),
        // Its process has not got as far, and may not get there any more; or was killed while it removed the directory.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let removed =
                if is_going { std::fs::remove_dir_all(directory) } else { std::fs::remove_dir(directory) };
            removed.map(|()| true)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_instance_left_is_removed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let running = Temporary::new(parent.path()).unwrap();
        let early =
            ["sidegate-ephemeral-early", "sidegate-ephemeral-later"].map(|name| parent.path().join(name));
        early.iter().for_each(|path| std::fs::create_dir(path).unwrap());
        // Killed before it could write its number.
        std::fs::write(early[1].join(LOCK), "").unwrap();
        let others = parent.path().join("not-ours");
        std::fs::create_dir(&others).unwrap();
        let killed = parent.path().join("sidegate-ephemeral-killed");
        std::fs::create_dir_all(killed.join("gateway-1")).unwrap();
        std::fs::write(killed.join(LOCK), "1\n").unwrap();

        let next = Temporary::new(parent.path()).unwrap();
        assert!(!killed.exists() && !early[0].exists() && !early[1].exists());
        assert!(others.exists() && running.path().exists() && next.path().exists());
    }

    #[test]
    fn nobody_else_can_enter_one() {
        let parent = tempfile::tempdir().unwrap();
        let directory = Temporary::new(parent.path()).unwrap();
        assert_eq!(directory.path().metadata().unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn many_that_begin_at_once_do_not_remove_each_other() {
        let parent = tempfile::tempdir().unwrap();
        let directories: Vec<Temporary> = std::thread::scope(|scope| {
            let begin = || (0..20).map(|_| Temporary::new(parent.path()).unwrap()).collect::<Vec<_>>();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(begin)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(directories.len(), 160);
        assert!(directories.iter().all(|directory| directory.path().join(LOCK).exists()));
        drop(directories);
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_being_removed_when_its_instance_was_killed_is_removed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let going = parent.path().join(format!("{PREFIX}x{REMOVED}"));
        std::fs::create_dir(&going).unwrap();
        std::fs::write(going.join("left"), "").unwrap();
        let directory = Temporary::new(parent.path()).unwrap();
        assert!(!going.exists());
        drop(directory);
    }

    /// Who removes it may be killed, too, when the lock has gone and the rest has not.
    #[test]
    fn what_a_killed_instance_left_has_another_name_while_it_is_removed() {
        use notify::{EventKind, RecursiveMode, Watcher as _, event::ModifyKind};
        let parent = tempfile::tempdir().unwrap();
        let killed = parent.path().join(format!("{PREFIX}killed"));
        std::fs::create_dir(&killed).unwrap();
        std::fs::write(killed.join(LOCK), "").unwrap();
        let (sender, events) = std::sync::mpsc::channel();
        let mut watcher = notify::recommended_watcher(sender).unwrap();
        watcher.watch(parent.path(), RecursiveMode::NonRecursive).unwrap();
        assert!(remove_if_abandoned(&killed).unwrap());
        // After all others.
        std::fs::write(parent.path().join("marker"), "").unwrap();
        let events = std::iter::from_fn(|| events.recv_timeout(std::time::Duration::from_secs(20)).ok())
            .map(Result::unwrap)
            .take_while(|event| !event.paths.iter().any(|path| path.ends_with("marker")));
        let ends: Vec<PathBuf> = events
            .filter(|event| {
                matches!(event.kind, EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)))
            })
            .flat_map(|event| event.paths)
            .collect();
        let going = parent.path().join(format!("{PREFIX}killed{REMOVED}"));
        assert_eq!(ends.last(), Some(&going), "{ends:?}");
        assert!(!going.exists() && !killed.exists());
    }

    /// As the log of a child does that says its first words when its instance has been dropped.
    #[test]
    fn it_goes_away_while_somebody_still_makes_files_in_it() {
        for _ in 0..20 {
            let parent = tempfile::tempdir().unwrap();
            let directory = Temporary::new(parent.path()).unwrap();
            let path = directory.path().to_owned();
            let logs = path.join("logs");
            let begun = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    for number in 0..1_000_000 {
                        if number == 10 {
                            begun.wait();
                        }
                        // As a log file does: the directory first, where it is not there.
                        let _ = std::fs::create_dir(&logs);
                        if File::create(logs.join(number.to_string())).is_err() && !path.exists() {
                            break;
                        }
                    }
                });
                begun.wait();
                directory.remove().unwrap();
            });
            assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
        }
    }
}
