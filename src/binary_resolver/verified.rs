//! A binary that may be run, and the proof that it is the one that runs.

use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ResolveError;
use super::{Digest, ReportedVersion, Version};

/// Which file it is, and whether it is still the same: a file that is written to or replaced gets another identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
    /// Bytes.
    size: u64,
    /// Last modification, seconds and nanoseconds since the epoch.
    modified: (i64, i64),
}

impl FileIdentity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// How a binary was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Named by the user; trusted as it is.
    Given,
    /// In the cache, with the pinned digest.
    Cached,
    /// Downloaded just now, with the pinned digest.
    Downloaded,
}

/// Something the user should hear about a binary that is used nevertheless.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A given binary has another version than the one that is asked for.
    OtherVersion {
        /// The binary.
        path: PathBuf,
        /// What it says it is.
        found: ReportedVersion,
        /// What was asked for.
        wanted: Version,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherVersion { path, found, wanted } => {
                write!(f, "{} is agentgateway {found}; this sidegate is made for {wanted}", path.display())
            }
        }
    }
}

/// A binary that may be run.
#[derive(Clone, Debug)]
pub struct Verified {
    pub(super) path: PathBuf,
    pub(super) version: ReportedVersion,
    pub(super) digest: Option<Digest>,
    pub(super) origin: Origin,
    pub(super) warning: Option<Warning>,
    pub(super) identity: FileIdentity,
}

impl Verified {
    /// The absolute path of the executable.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its version: by its own words for a given binary, by its digest for any other.
    pub fn version(&self) -> &ReportedVersion {
        &self.version
    }

    /// The digest it was checked against; `None` for a given binary, which is not checked.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// How it was found.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// What the user should hear about it.
    pub fn warning(&self) -> Option<&Warning> {
        self.warning.as_ref()
    }
}

/// Checks that a process runs the very file that was verified, neither replaced nor written to since.
///
/// To be called after the process has executed the binary and before it is trusted with anything. A given binary was not
/// checked before and can be a script, whose process runs the interpreter: it passes.
///
/// # Errors
///
/// Fails when the process runs another file, or has ended.
#[cfg(target_os = "linux")]
pub fn verify_running(pid: u32, verified: &Verified) -> Result<(), ResolveError> {
    if verified.origin == Origin::Given {
        return Ok(());
    }
    // The link leads to the file that is executed, also after its name was given to another.
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    let running = std::fs::metadata(&exe).map_err(ResolveError::io("reading", &exe))?;
    if FileIdentity::of(&running) == verified.identity {
        Ok(())
    } else {
        Err(ResolveError::OtherFile { pid, path: verified.path.clone() })
    }
}
