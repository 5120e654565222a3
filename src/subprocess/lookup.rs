//! Finding the file behind a command name.
//!
//! Done here and not by the exec in the child, so that a missing command is a typed error that names where we looked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Why there is no file to run.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// No directory of the search path holds it.
    #[error("{} was not found on PATH ({})", program.display(), search_path.display())]
    NotOnPath {
        /// The command that was looked for.
        program: OsString,
        /// The directories that were searched, colon-separated; empty when there was no `PATH`.
        search_path: OsString,
    },
    /// A command with a slash in it names nothing.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The path that was tried.
        path: PathBuf,
    },
    /// There is a file, but it may not be run: no execute permission, or no regular file.
    #[error("{} is not an executable file", path.display())]
    NotExecutable {
        /// The file.
        path: PathBuf,
    },
}

/// Finds the file that `program` stands for, by the rules of POSIX `execvp`.
///
/// A name with a slash is relative to `cwd`. Any other is looked for in each directory of `search_path`, in which
/// an empty or relative entry is relative to `cwd` too; a file that may not be run is passed over, and reported only when
/// there is no better one.
///
/// # Errors
///
/// [`LookupError`], which says where it was looked for.
pub fn lookup(program: &OsStr, search_path: Option<&OsStr>, cwd: &Path) -> Result<PathBuf, LookupError> {
    if program.as_bytes().contains(&b'/') {
        // Without the dots between, which nobody wants to read.
        let path: PathBuf = cwd.join(program).components().collect();
        return match inspect(&path) {
            Found::Executable => Ok(path),
            Found::NotExecutable => Err(LookupError::NotExecutable { path }),
            Found::Nothing => Err(LookupError::Missing { path }),
        };
    }
    let mut refused = None;
    if !program.is_empty() {
        for directory in search_path.map(std::env::split_paths).into_iter().flatten() {
            let path = cwd.join(directory).join(program);
            match inspect(&path) {
                Found::Executable => return Ok(path),
                Found::NotExecutable => refused = refused.or(Some(path)),
                Found::Nothing => {}
            }
        }
    }
    Err(match refused {
        Some(path) => LookupError::NotExecutable { path },
        None => LookupError::NotOnPath {
            program: program.to_owned(),
            search_path: search_path.unwrap_or_default().to_owned(),
        },
    })
}

enum Found {
    Executable,
    NotExecutable,
    Nothing,
}

fn inspect(path: &Path) -> Found {
    match std::fs::metadata(path) {
        Err(_) => Found::Nothing,
        Ok(meta) if meta.is_file() && accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok() => {
            Found::Executable
        }
        Ok(_) => Found::NotExecutable,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(path: &Path, mode: u32) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn the_first_executable_on_the_path_wins() {
        let dir = tempfile::tempdir().unwrap();
        file(&dir.path().join("a/tool"), 0o644);
        file(&dir.path().join("b/tool"), 0o755);
        file(&dir.path().join("c/tool"), 0o755);
        let found = lookup("tool".as_ref(), Some("a:b:c".as_ref()), dir.path()).unwrap();
        assert_eq!(found, dir.path().join("b/tool"));
    }

    #[test]
    fn a_slash_means_relative_to_the_working_directory() {
        let dir = tempfile::tempdir().unwrap();
        file(&dir.path().join("bin/tool"), 0o755);
        assert_eq!(lookup("bin/tool".as_ref(), None, dir.path()).unwrap(), dir.path().join("bin/tool"));
        let error = lookup("./tool".as_ref(), Some("bin".as_ref()), dir.path()).unwrap_err();
        assert!(matches!(error, LookupError::Missing { .. }), "{error}");
    }

    #[test]
    fn a_miss_names_the_path_that_was_searched() {
        let error = lookup("uvx".as_ref(), Some("/nowhere:/neither".as_ref()), Path::new("/")).unwrap_err();
        assert_eq!(error.to_string(), "uvx was not found on PATH (/nowhere:/neither)");
        assert!(matches!(
            lookup("uvx".as_ref(), None, Path::new("/")),
            Err(LookupError::NotOnPath { search_path, .. }) if search_path.is_empty()
        ));
    }

    #[test]
    fn directories_and_plain_files_are_not_executable() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("tool")).unwrap();
        file(&dir.path().join("text"), 0o600);
        for name in ["tool", "text"] {
            let error = lookup(name.as_ref(), Some(dir.path().as_os_str()), dir.path()).unwrap_err();
            assert!(matches!(error, LookupError::NotExecutable { .. }), "{error}");
        }
    }

    #[test]
    fn an_empty_command_is_never_found() {
        let error = lookup("".as_ref(), Some("/usr/bin".as_ref()), Path::new("/")).unwrap_err();
        assert!(matches!(error, LookupError::NotOnPath { .. }), "{error}");
    }
}
