//! Who could have changed a file before we run it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::error::ResolveError;

/// The permission to write for everybody.
const OTHERS_WRITE: u32 = 0o002;
/// The permission to write for anybody but the owner.
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;
/// In a directory with this bit, users can remove and rename only their own files.
const STICKY: u32 = 0o1000;

/// A directory we create ourselves, with mode 0700: nobody else may write.
pub(super) fn check_own_directory(path: &Path) -> Result<(), ResolveError> {
    let metadata = directory(path)?;
    check_owner(path, &metadata)?;
    check_mode(path, &metadata, GROUP_OR_OTHERS_WRITE)
}

/// A directory that was there before us, as the one of caches: not for everybody to write.
pub(super) fn check_cache_root(path: &Path) -> Result<(), ResolveError> {
    let metadata = directory(path)?;
    check_owner(path, &metadata)?;
    check_mode(path, &metadata, OTHERS_WRITE)
}

/// The directory of a binary somebody chose: whose it is, is their affair, but not everybody may rename in it.
pub(super) fn check_foreign_directory(path: &Path) -> Result<(), ResolveError> {
    let metadata = directory(path)?;
    if metadata.mode() & STICKY != 0 { Ok(()) } else { check_mode(path, &metadata, OTHERS_WRITE) }
}

/// A file of the cache.
pub(super) fn check_own_binary(path: &Path, metadata: &Metadata) -> Result<(), ResolveError> {
    check_owner(path, metadata)?;
    check_mode(path, metadata, GROUP_OR_OTHERS_WRITE)
}

/// A binary somebody chose.
pub(super) fn check_foreign_binary(path: &Path, metadata: &Metadata) -> Result<(), ResolveError> {
    check_mode(path, metadata, OTHERS_WRITE)
}

fn directory(path: &Path) -> Result<Metadata, ResolveError> {
    std::fs::metadata(path).map_err(ResolveError::io("reading", path))
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), ResolveError> {
    let (owner, us) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == us || owner == 0 {
        return Ok(());
    }
    let problem = format!("belongs to uid {owner}, not to uid {us} or root");
    Err(ResolveError::Unsafe { path: path.to_owned(), problem })
}

fn check_mode(path: &Path, metadata: &Metadata, forbidden: u32) -> Result<(), ResolveError> {
    let mode = metadata.mode() & 0o7777;
    if mode & forbidden == 0 {
        return Ok(());
    }
    let who = if mode & OTHERS_WRITE == 0 { "its group" } else { "everybody" };
    let problem = format!("can be written by {who} (mode {mode:04o})");
    Err(ResolveError::Unsafe { path: path.to_owned(), problem })
}
