//! Where things are, by the XDG Base Directory Specification 0.8.
//!
//! The environment is an argument. Nothing is created here.

use std::io;
use std::path::{Component, Path, PathBuf};

use sha2::{Digest, Sha256};

use super::keys::CONFIG_DIR_VARIABLE;
use crate::environment::Environment;

const NAME: &str = "sidegate";

/// Why a directory is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    /// Neither the variable nor the home directory is set.
    #[error("neither {variable} nor HOME is set to an absolute path")]
    NoHome {
        /// The variable that would do instead.
        variable: &'static str,
    },
    /// A relative path was given and the current directory is not known.
    #[error("the path {} cannot be made absolute", .path.display())]
    Relative {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The configuration directory: `flag`, `SIDEGATE_CONFIG_DIR`, `$XDG_CONFIG_HOME/sidegate` or `~/.config/sidegate`.
/// Always absolute; it need not exist.
///
/// # Errors
///
/// When none of them is set, or a relative path was given and there is no current directory.
pub fn config_dir(environment: &Environment, flag: Option<&Path>) -> Result<PathBuf, DirError> {
    let variable = environment.get_os(CONFIG_DIR_VARIABLE).filter(|value| !value.is_empty()).map(Path::new);
    match flag.or(variable) {
        Some(path) => {
            std::path::absolute(path).map_err(|source| DirError::Relative { path: path.to_owned(), source })
        }
        None => base(environment, "XDG_CONFIG_HOME", ".config"),
    }
}

/// What outlives an instance and is nobody's to edit: `$XDG_STATE_HOME/sidegate` or `~/.local/state/sidegate`.
///
/// # Errors
///
/// When neither variable is set.
pub fn state_dir(environment: &Environment) -> Result<PathBuf, DirError> {
    base(environment, "XDG_STATE_HOME", ".local/state")
}

/// What outlives instances of one configuration directory, which must be absolute: [`state_dir`]`/<hash>`, with the hash
/// that [`runtime_dir`] has.
///
/// # Errors
///
/// As [`state_dir`].
pub fn state_dir_of(environment: &Environment, config_dir: &Path) -> Result<PathBuf, DirError> {
    Ok(state_dir(environment)?.join(hash(config_dir)))
}

/// What can be fetched again: `$XDG_CACHE_HOME/sidegate` or `~/.cache/sidegate`.
///
/// # Errors
///
/// When neither variable is set.
pub fn cache_dir(environment: &Environment) -> Result<PathBuf, DirError> {
    base(environment, "XDG_CACHE_HOME", ".cache")
}

/// The runtime directory of the instance that serves `config_dir`, which must be absolute:
/// `$XDG_RUNTIME_DIR/sidegate/<hash>`, else `/tmp/sidegate-<uid>/<hash>`.
///
/// The hash is that of the canonical path, so links and dots lead to the same instance. Reads links from the file
/// system; a directory that does not exist yet has the hash it will have.
pub fn runtime_dir(environment: &Environment, config_dir: &Path) -> PathBuf {
    let hash = hash(config_dir);
    match absolute(environment, "XDG_RUNTIME_DIR") {
        Some(dir) => dir.join(NAME).join(hash),
        None => PathBuf::from(format!("/tmp/{NAME}-{}", rustix::process::getuid().as_raw())).join(hash),
    }
}

/// What stands for a path in the names of other things, links and dots aside. Reads links from the file system.
pub(crate) fn hash(path: &Path) -> String {
    let digest = Sha256::digest(canonical(path).as_os_str().as_encoded_bytes());
    hex::encode(&digest[..8])
}

fn base(environment: &Environment, variable: &'static str, below_home: &str) -> Result<PathBuf, DirError> {
    absolute(environment, variable)
        .or_else(|| absolute(environment, "HOME").map(|home| home.join(below_home)))
        .map(|dir| dir.join(NAME))
        .ok_or(DirError::NoHome { variable })
}

/// Relative paths in these variables are invalid and ignored, as the specification says.
fn absolute(environment: &Environment, variable: &str) -> Option<PathBuf> {
    environment.get_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The canonical path of what exists of `path`, and the rest as it is.
fn canonical(path: &Path) -> PathBuf {
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        if let Ok(canonical) = existing.canonicalize() {
            return missing
                .iter()
                .rev()
                .fold(canonical, |path, component: &Component<'_>| path.join(component));
        }
        let (Some(parent), Some(last)) = (existing.parent(), existing.components().next_back()) else {
            return path.to_owned();
        };
        missing.push(last);
        existing = parent;
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().copied().collect()
    }

    #[rstest]
    #[case(&[("HOME", "/h")], "/h/.config/sidegate")]
    #[case(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c")], "/c/sidegate")]
    #[case(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "")], "/h/.config/sidegate")]
    #[case(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "relative")], "/h/.config/sidegate")]
    #[case(&[("HOME", "/h"), ("SIDEGATE_CONFIG_DIR", "/s")], "/s")]
    #[case(&[("HOME", "/h"), ("SIDEGATE_CONFIG_DIR", "")], "/h/.config/sidegate")]
    fn config_dirs(#[case] variables: &[(&str, &str)], #[case] expected: &str) {
        assert_eq!(config_dir(&environment(variables), None).unwrap(), Path::new(expected));
        assert_eq!(
            config_dir(&environment(variables), Some(Path::new("/flag"))).unwrap(),
            Path::new("/flag")
        );
    }

    #[test]
    fn relative_flags_become_absolute() {
        assert!(config_dir(&environment(&[]), Some(Path::new("conf"))).unwrap().is_absolute());
    }

    #[test]
    fn other_dirs() {
        let home = environment(&[("HOME", "/h")]);
        assert_eq!(state_dir(&home).unwrap(), Path::new("/h/.local/state/sidegate"));
        assert_eq!(cache_dir(&home).unwrap(), Path::new("/h/.cache/sidegate"));
        let error = cache_dir(&environment(&[])).unwrap_err().to_string();
        assert_eq!(error, "neither XDG_CACHE_HOME nor HOME is set to an absolute path");
    }

    #[cfg(unix)]
    #[test]
    fn one_config_dir_has_one_runtime_dir() {
        let temporary = tempfile::tempdir().unwrap();
        let real = temporary.path().join("real");
        let environment = environment(&[("XDG_RUNTIME_DIR", "/run/user/1")]);
        let before = runtime_dir(&environment, &real);
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink("real", temporary.path().join("link")).unwrap();
        assert_eq!(runtime_dir(&environment, &real), before);
        assert_eq!(runtime_dir(&environment, &temporary.path().join("link/.")), before);
        assert_ne!(runtime_dir(&environment, &temporary.path().join("other")), before);
        assert_eq!(before.parent(), Some(Path::new("/run/user/1/sidegate")));
        let fallback = runtime_dir(&Environment::default(), &real);
        assert!(fallback.to_string_lossy().starts_with("/tmp/sidegate-"), "{fallback:?}");
        assert_eq!(fallback.file_name(), before.file_name());
        let state = state_dir_of(&Environment::from_iter([("HOME", "/h")]), &real).unwrap();
        assert_eq!(state, Path::new("/h/.local/state/sidegate").join(before.file_name().unwrap()));
    }
}
