//! What is found where definitions are kept.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Definition, Invalid, ServerName};

/// What is in a directory of definitions at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan {
    /// One entry a file, sorted by path; behind them one for each server of the project's file.
    pub entries: Vec<Entry>,
    /// Set where it is not known what the project's file defines. Servers that it had defined are not gone.
    pub unread: Option<Unread>,
}

/// A project's file that is there and wrong as a whole.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Unread {
    /// What is wrong.
    pub invalid: Invalid,
    /// Whether the operator wants servers of the project to be suspended, where that is known.
    pub intents: BTreeMap<ServerName, bool>,
}

/// One definition.
///
/// Two equal entries mean the same; whoever looks for changes compares entries, not hashes alone, since an outcome
/// depends on other things as well (another file of the same name, say).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Entry {
    /// The file, in the directory as it was given.
    pub path: PathBuf,
    /// The name its stem gives; `None` when that is no server name.
    pub name: Option<ServerName>,
    /// The hash of its content; `None` when it could not be read whole.
    pub hash: Option<ContentHash>,
    /// The definition, or everything that is wrong.
    pub outcome: Result<Arc<Definition>, Invalid>,
    /// Whether the operator wants the server to be suspended, where that is kept beside the file: a definition says it
    /// already, a file that is wrong cannot.
    pub intent: Option<bool>,
}

/// The SHA-256 of a file's content. `Display` is lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of `content`.
    pub fn of(content: &[u8]) -> Self {
        Self(Sha256::digest(content).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
