//! The file on disk: whole or not there, never readable by others.

use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

/// Owner may read. Release builds of agentgateway overwrite a writable file when their admin port is told to.
const MODE: u32 = 0o400;

/// A file that could not be written. The last version, if any, is still in place.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the gateway configuration {}", path.display())]
pub struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Whether a write changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The file holds new bytes.
    Written,
    /// The file held these bytes already.
    Unchanged,
}

/// Writes `text` unless the file holds it already.
pub(super) fn write(path: &Path, text: &str) -> Result<Outcome, WriteError> {
    match fs::read(path) {
        Ok(bytes) if bytes == text.as_bytes() => return Ok(Outcome::Unchanged),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(WriteError { path: path.to_owned(), source }),
    }
    replace(path, text).map(|()| Outcome::Written)
}

/// Writes `text` by rename, even if the file holds it already: a new inode is what every watcher notices.
pub(super) fn replace(path: &Path, text: &str) -> Result<(), WriteError> {
    try_replace(path, text).map_err(|source| WriteError { path: path.to_owned(), source })
}

fn try_replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temp = tempfile::Builder::new()
        .prefix(&temp_prefix(path)?)
        .suffix(TEMP_SUFFIX)
        .permissions(std::fs::Permissions::from_mode(MODE))
        .tempfile_in(directory)?;
    temp.write_all(text.as_bytes())?;
    temp.as_file().sync_all()?;
    temp.persist(path).map_err(|error| error.error)?;
    fs::File::open(directory)?.sync_all()
}

const TEMP_SUFFIX: &str = ".tmp";

fn temp_prefix(path: &Path) -> io::Result<String> {
    let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(format!(".{name}."))
}

/// Removes what a writer that was killed between creation and rename has left. Only the file's one writer may call it.
pub(super) fn remove_leftovers(path: &Path) -> Result<(), WriteError> {
    let sweep = || -> io::Result<()> {
        let prefix = temp_prefix(path)?;
        for entry in fs::read_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(&prefix) && name.ends_with(TEMP_SUFFIX)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    };
    sweep().map_err(|source| WriteError { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

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
    fn a_write_replaces_the_file_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agentgateway.yaml");
        assert_eq!(write(&path, "one").unwrap(), Outcome::Written);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        let first = fs::metadata(&path).unwrap().ino();
        let held = fs::File::open(&path).unwrap();
        assert_eq!(write(&path, "one").unwrap(), Outcome::Unchanged);
        assert_eq!(fs::metadata(&path).unwrap().ino(), first);
        assert_eq!(write(&path, "two").unwrap(), Outcome::Written);
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(io::read_to_string(held).unwrap(), "one", "a reader of the last version keeps it whole");
        assert_eq!(names(directory.path()), ["agentgateway.yaml"]);
    }

    #[test]
    fn only_leftovers_of_this_file_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("agentgateway.yaml");
        for name in
            [".agentgateway.yaml.Xy12.tmp", ".agentgateway.2.yaml.Xy12.tmp", "agentgateway.yaml", "notes.tmp"]
        {
            fs::write(directory.path().join(name), "").unwrap();
        }
        remove_leftovers(&path).unwrap();
        assert_eq!(
            names(directory.path()),
            [".agentgateway.2.yaml.Xy12.tmp", "agentgateway.yaml", "notes.tmp"]
        );
    }

    #[test]
    fn a_failure_names_the_file_and_keeps_the_source() {
        let directory = tempfile::tempdir().unwrap();
        let error = write(&directory.path().join("gone/agentgateway.yaml"), "one").unwrap_err();
        assert!(error.to_string().ends_with("gone/agentgateway.yaml"), "{error}");
        assert_eq!(error.source.kind(), io::ErrorKind::NotFound);
    }
}
