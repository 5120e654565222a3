//! What tells a file from an earlier state of it without reading it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// Differs when a file was replaced or written. A write that keeps length and time, within the resolution of the file
/// system's clock, is not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}
