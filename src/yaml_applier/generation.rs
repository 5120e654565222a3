//! What a gateway answers to say which file is in force and which process read it.

use std::fmt;

use sha2::{Digest, Sha256};

use super::key::RandomSourceError;

/// A random mark of one gateway process.
///
/// The content alone does not prove that the process behind the port is this child: a draining predecessor has answered
/// the same content for seconds.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SpawnNonce([u8; 8]);

impl SpawnNonce {
    /// Draws a new nonce from the system's random source.
    pub fn random() -> Result<Self, RandomSourceError> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).map_err(RandomSourceError)?;
        Ok(Self(bytes))
    }

    /// A nonce of known bytes.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for SpawnNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for SpawnNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpawnNonce({self})")
    }
}

/// The first 8 bytes of the SHA-256 of a rendered file whose generation body is empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ContentHash([u8; 8]);

impl ContentHash {
    pub(super) fn of(text: &str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(digest.iter()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

/// One content in one process: `<content hash>.<spawn nonce>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Which content.
    pub content: ContentHash,
    /// Which process.
    pub nonce: SpawnNonce,
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.content, self.nonce)
    }
}
