//! Writing somebody else's file: whole or not at all, with the old one kept, and not over what they write meanwhile.

use std::fs::DirBuilder;
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

/// The largest file that is edited, in bytes.
const LARGEST: u64 = 64 << 20;

/// The text of a file; `None` where there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<String>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(meta) if !meta.is_file() => Err(io::Error::other("not a regular file")),
        Ok(meta) if meta.len() > LARGEST => Err(io::Error::other("too large")),
        Ok(_) => std::fs::read_to_string(path).map(Some),
    }
}

/// Puts `new` in the place of `old`; gives where the old text is kept. A link stays, and what it leads to is written;
/// the mode stays, and a new file is for its owner only, as is a directory that is made for it.
pub(super) fn replace(path: &Path, old: Option<&str>, new: &str) -> io::Result<Option<PathBuf>> {
    let target = if old.is_some() { path.canonicalize()? } else { path.to_owned() };
    let directory = target.parent().unwrap_or(Path::new("/"));
    if old.is_none() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(new.as_bytes())?;
    file.as_file().sync_all()?;
    let Some(old) = old else {
        // Whoever was faster has written something that nobody has seen.
        file.persist_noclobber(&target).map_err(|error| error.error)?;
        return Ok(None);
    };
    std::fs::set_permissions(file.path(), std::fs::metadata(&target)?.permissions())?;
    let backup = keep(&target, old)?;
    if std::fs::read_to_string(&target)? != old {
        return Err(io::Error::other("it was changed by somebody else at the same time; try again"));
    }
    file.persist(&target).map_err(|error| error.error)?;
    Ok(Some(backup))
}

/// Keeps a text beside its file, under a name that is free, with the file's mode.
fn keep(target: &Path, text: &str) -> io::Result<PathBuf> {
    let mode = std::fs::metadata(target)?.permissions();
    let directory = target.parent().unwrap_or(Path::new("/"));
    let mut number = 0;
    loop {
        let mut backup = target.as_os_str().to_owned();
        backup.push(if number == 0 { ".bak".to_owned() } else { format!(".bak.{number}") });
        let mut file = NamedTempFile::new_in(directory)?;
        file.write_all(text.as_bytes())?;
        std::fs::set_permissions(file.path(), mode.clone())?;
        match file.persist_noclobber(&backup) {
            Ok(_) => return Ok(backup.into()),
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => return Err(error.error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn what_was_there_is_kept_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        assert_eq!(read(&at("new/file")).unwrap(), None);
        assert_eq!(replace(&at("new/file"), None, "a").unwrap(), None);
        assert_eq!(std::fs::metadata(at("new/file")).unwrap().permissions().mode() & 0o777, 0o600);

        std::fs::set_permissions(at("new/file"), std::fs::Permissions::from_mode(0o640)).unwrap();
        symlink("new/file", at("link")).unwrap();
        assert_eq!(replace(&at("link"), Some("a"), "b").unwrap(), Some(at("new/file.bak")));
        assert_eq!(replace(&at("link"), Some("b"), "c").unwrap(), Some(at("new/file.bak.1")));
        let texts = ["link", "new/file", "new/file.bak", "new/file.bak.1"];
        assert_eq!(texts.map(|name| read(&at(name)).unwrap().unwrap()), ["c", "c", "a", "b"]);
        assert!(at("link").is_symlink());
        for name in ["new/file", "new/file.bak"] {
            assert_eq!(std::fs::metadata(at(name)).unwrap().permissions().mode() & 0o777, 0o640, "{name}");
        }
    }

    #[test]
    fn what_somebody_else_wrote_is_not_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "theirs").unwrap();
        assert!(replace(&path, Some("mine"), "b").unwrap_err().to_string().contains("try again"));
        assert!(replace(&path, None, "b").is_err());
        assert_eq!(read(&path).unwrap().unwrap(), "theirs");
    }

    #[test]
    fn only_files_are_read() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path()).is_err());
    }
}
