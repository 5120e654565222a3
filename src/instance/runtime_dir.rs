//! The directory of one running instance: sockets, the gateway's file, logs.
//!
//! Only its owner can enter it. A lock says that an instance uses it; the lock ends with the process, so what a killed
//! instance left is recognised and removed by the next.

mod temporary;

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::admin::control::SOCKET;
use temporary::Temporary;

/// The longest path of a Unix socket on Linux, in bytes (`sun_path`, without its final zero).
const LONGEST_SOCKET_PATH: usize = 107;

/// A runtime directory in use by this instance.
#[derive(Debug)]
pub(super) struct RuntimeDir {
    path: PathBuf,
    hold: Hold,
    /// Where the bridge's socket is, when the path of the directory is too long for one.
    sockets: Option<Temporary>,
}

/// What says that the directory is in use.
#[derive(Debug)]
enum Hold {
    /// The lock, as long as it is open. The directory stays.
    Lock { _lock: File },
    /// An ephemeral instance takes the whole directory away.
    Temporary(Temporary),
}

/// What is in the directory.
const LOCK: &str = "lock";
/// What gateways have: a directory each, and what they are asked about.
const GATEWAY_PREFIX: &str = "gateway-";
const CANDIDATE_PREFIX: &str = "candidate-";
const BRIDGE_SOCKET: &str = "bridge.sock";
const INSTANCE_FILE: &str = "instance.json";
const LOGS: &str = "logs";
const CONFIG: &str = "config";

impl RuntimeDir {
    /// Takes `path`, making it where it is not there.
    pub(super) fn take(path: &Path) -> Result<Self, RuntimeDirError> {
        let failed = |source| RuntimeDirError::Io { path: path.to_owned(), source };
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(parent).map_err(failed)?;
            check_parent(parent)?;
        }
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        // Not followed: a link would be somebody else's say on where our sockets are.
        let meta = std::fs::symlink_metadata(path).map_err(failed)?;
        if !meta.is_dir() || meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(RuntimeDirError::NotOurs { path: path.to_owned() });
        }
        if meta.mode() & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        }
        let lock = take_lock(path)?;
        Self::open(path.to_owned(), Hold::Lock { _lock: lock })
    }

    /// A new one below `parent`, which goes away with the instance.
    pub(super) fn ephemeral(parent: &Path) -> Result<Self, RuntimeDirError> {
        let directory = Temporary::new(parent)?;
        Self::open(directory.path().to_owned(), Hold::Temporary(directory))
    }

    fn open(path: PathBuf, hold: Hold) -> Result<Self, RuntimeDirError> {
        remove_leftovers(&path).map_err(|source| RuntimeDirError::Io { path: path.clone(), source })?;
        let mut directory = Self { path, hold, sockets: None };
        if directory.path.join(BRIDGE_SOCKET).as_os_str().len() > LONGEST_SOCKET_PATH {
            directory.sockets = Some(Temporary::new(Path::new("/tmp"))?);
        }
        Ok(directory)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The bridge's socket.
    pub(super) fn bridge_socket(&self) -> PathBuf {
        self.sockets.as_ref().map_or(self.path.as_path(), Temporary::path).join(BRIDGE_SOCKET)
    }

    /// A configuration directory for definitions that nobody else has.
    pub(super) fn definitions(&self) -> PathBuf {
        self.path.join(CONFIG)
    }

    /// The logs of children.
    pub(super) fn logs(&self) -> PathBuf {
        self.path.join(LOGS)
    }

    /// Says, for whoever looks for the instance, what it is.
    pub(super) fn write_instance(&self, json: &str) -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.path)?;
        file.write_all(json.as_bytes())?;
        file.persist(self.path.join(INSTANCE_FILE)).map_err(|error| error.error)?;
        Ok(())
    }

    /// Takes away what only a running instance has; logs stay.
    pub(super) fn clear(mut self) -> io::Result<()> {
        let sockets = self.sockets.take().map_or(Ok(()), Temporary::remove);
        let own = match self.hold {
            Hold::Temporary(directory) => directory.remove(),
            Hold::Lock { .. } if self.path.exists() => remove_leftovers(&self.path),
            Hold::Lock { .. } => Ok(()),
        };
        own.and(sockets)
    }
}

/// Removes what only a running instance has.
fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let begins_with = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        if begins_with(GATEWAY_PREFIX) && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if begins_with(CANDIDATE_PREFIX)
            || [BRIDGE_SOCKET, SOCKET, INSTANCE_FILE].iter().any(|known| name == *known)
        {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Whoever can rename our directory can put another in its place, and with it sockets and configuration: nobody but us
/// and root may have a say in the parent. A sticky one, like `/tmp`, lets only owners rename.
fn check_parent(parent: &Path) -> Result<(), RuntimeDirError> {
    let failed = |source| RuntimeDirError::Io { path: parent.to_owned(), source };
    // Followed: where a link of ours leads is our own say; a link of somebody else's is in a parent of theirs.
    let meta = std::fs::metadata(parent).map_err(failed)?;
    let ours = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
    let others_write = meta.mode() & 0o022 != 0;
    let sticky = meta.mode() & 0o1000 != 0;
    if ours && (!others_write || sticky) {
        Ok(())
    } else {
        Err(RuntimeDirError::NotSafe { path: parent.to_owned() })
    }
}

fn take_lock(path: &Path) -> Result<File, RuntimeDirError> {
    let failed = |source| RuntimeDirError::Io { path: path.to_owned(), source };
    let options =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).to_owned();
    let mut file = options.open(path.join(LOCK)).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // Only for the message.
            let _ = file.read_to_string(&mut pid);
            return Err(RuntimeDirError::InUse { path: path.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

/// Why a runtime directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeDirError {
    /// An instance runs in it.
    #[error(
        "the runtime directory {} is in use by another sidegate{}",
        .path.display(),
        .pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, where it has said so.
        pid: Option<u32>,
    },
    /// It is no directory, or belongs to someone else.
    #[error("the runtime directory {} is not a directory of this user", .path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
    },
    /// Others could put something else in its place.
    #[error("others can write to {}, where the runtime directory is", .path.display())]
    NotSafe {
        /// The directory above it.
        path: PathBuf,
    },
    /// The file system refuses something.
    #[error("the runtime directory {} cannot be used", .path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl RuntimeDirError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::InUse { .. } => {
                "use that instance, stop it, or give this one another directory with --runtime-dir"
            }
            Self::NotOurs { .. } | Self::NotSafe { .. } | Self::Io { .. } => {
                "give another directory with --runtime-dir"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the umask.
    fn private_dir() -> tempfile::TempDir {
        let private = std::fs::Permissions::from_mode(0o700);
        tempfile::Builder::new().permissions(private).tempdir().unwrap()
    }

    #[test]
    fn two_instances_cannot_share_one() {
        let parent = private_dir();
        let path = parent.path().join("a/b");
        let first = RuntimeDir::take(&path).unwrap();
        let error = RuntimeDir::take(&path).unwrap_err();
        let pid = std::process::id();
        assert!(
            error.to_string().ends_with(&format!("in use by another sidegate (process {pid})")),
            "{error}"
        );
        first.clear().unwrap();
        drop(RuntimeDir::take(&path).unwrap());
    }

    #[test]
    fn only_its_owner_can_enter_and_leftovers_are_removed() {
        let parent = private_dir();
        let path = parent.path().join("a");
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::create_dir(path.join("gateway-7")).unwrap();
        std::fs::write(path.join("gateway-7/agentgateway.yaml"), "old").unwrap();
        std::fs::write(path.join("candidate-7.yaml"), "old").unwrap();
        let directory = RuntimeDir::take(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o700);
        let left: Vec<_> =
            std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [LOCK]);
    }

    #[test]
    fn a_parent_that_others_can_write_to_is_refused() {
        let parent = private_dir();
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let path = parent.path().join("a");
        assert!(matches!(RuntimeDir::take(&path), Err(RuntimeDirError::NotSafe { .. })));
        std::fs::set_permissions(parent.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(RuntimeDir::take(&path).is_ok());
    }

    #[test]
    fn a_link_is_not_followed() {
        let parent = private_dir();
        let path = parent.path().join("link");
        std::os::unix::fs::symlink(parent.path(), &path).unwrap();
        assert!(matches!(RuntimeDir::take(&path), Err(RuntimeDirError::NotOurs { .. })));
    }

    #[test]
    fn an_ephemeral_one_goes_away() {
        let parent = private_dir();
        let directory = RuntimeDir::ephemeral(parent.path()).unwrap();
        let path = directory.path().to_owned();
        directory.write_instance("{}").unwrap();
        assert!(path.join(INSTANCE_FILE).exists());
        directory.clear().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_long_path_gets_its_socket_elsewhere() {
        let parent = private_dir();
        let path = parent.path().join("x".repeat(150));
        let directory = RuntimeDir::take(&path).unwrap();
        let socket = directory.bridge_socket();
        std::os::unix::net::UnixListener::bind(&socket).unwrap();
        directory.clear().unwrap();
        assert!(!socket.exists());
    }
}
