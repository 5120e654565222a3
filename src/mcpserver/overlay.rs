//! What the operator wants of servers whose files cannot be written: a file for each, outside of the definitions.
//!
//! Sidegate's own state, in a directory of its own for each configuration directory, and below that for each project that
//! is served with it: a server of a project is another one than its namesake elsewhere, and only who reads the project's
//! file knows that it is gone. What it says counts more than the definition. An entry goes when the definition can be
//! written again, and when it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::entry::ContentHash;
use super::{ServerName, disk};

/// The directory of intents. It need not exist.
#[derive(Clone, Debug)]
pub(super) struct Overlay {
    directory: PathBuf,
}

impl Overlay {
    /// The overlay in `state`, a directory that belongs to one configuration directory.
    pub(super) fn new(state: &Path) -> Self {
        Self { directory: state.join("suspended") }
    }

    /// The overlay of the servers that the project's `file`, an absolute path, defines, in the same `state`.
    pub(super) fn of_project(state: &Path, file: &Path) -> Self {
        let hash = ContentHash::of(file.as_os_str().as_encoded_bytes()).to_string();
        Self::new(&state.join("projects").join(hash))
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn path(&self, name: &ServerName) -> PathBuf {
        self.directory.join(name.as_str())
    }

    /// Whether the server is to be suspended; `None` leaves it to its definition.
    pub(super) fn get(&self, name: &ServerName) -> io::Result<Option<bool>> {
        match fs::read_to_string(self.path(name)) {
            Ok(text) => intent(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All entries, each with what it says or why that is not known.
    pub(super) fn all(&self) -> io::Result<BTreeMap<ServerName, io::Result<bool>>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            entries => entries?,
        };
        let mut all = BTreeMap::new();
        for entry in entries {
            // Files that are just being written have names that are none of servers.
            let Some(name) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if let Some(intent) = self.get(&name).transpose() {
                all.insert(name, intent);
            }
        }
        Ok(all)
    }

    pub(super) fn set(&self, name: &ServerName, suspended: bool) -> io::Result<()> {
        disk::put(&self.path(name), format!("{suspended}\n").as_bytes())
    }

    pub(super) fn remove(&self, name: &ServerName) -> io::Result<()> {
        disk::remove(&self.path(name)).map(drop)
    }

    /// Removes the entries of servers that are not defined any more.
    pub(super) fn retain(&self, defined: &BTreeSet<&ServerName>) -> io::Result<()> {
        for name in self.all()?.keys().filter(|name| !defined.contains(name)) {
            self.remove(name)?;
        }
        Ok(())
    }
}

fn intent(text: &str) -> io::Result<bool> {
    text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_are_kept_until_they_are_removed() {
        let state = tempfile::tempdir().unwrap();
        let overlay = Overlay::new(&state.path().join("hash"));
        let [a, b, c] = ["a", "b", "c"].map(|name| name.parse::<ServerName>().unwrap());
        assert_eq!(overlay.get(&a).unwrap(), None);
        assert!(overlay.all().unwrap().is_empty());
        overlay.remove(&a).unwrap();
        overlay.set(&a, true).unwrap();
        overlay.set(&a, false).unwrap();
        overlay.set(&b, true).unwrap();
        overlay.set(&c, true).unwrap();
        let again = Overlay::new(&state.path().join("hash"));
        assert_eq!((again.get(&a).unwrap(), again.get(&b).unwrap()), (Some(false), Some(true)));
        again.retain(&BTreeSet::from([&b])).unwrap();
        assert_eq!(overlay.all().unwrap().into_keys().collect::<Vec<_>>(), [b]);
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_no_absent_one() {
        let state = tempfile::tempdir().unwrap();
        let overlay = Overlay::new(state.path());
        let name = "a".parse().unwrap();
        overlay.set(&name, true).unwrap();
        fs::write(overlay.path(&name), "perhaps").unwrap();
        assert_eq!(overlay.get(&name).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(overlay.all().unwrap()[&name].is_err());
    }
}
