//! The place of one release in the cache.
//!
//! `<root>/agentgateway/<version>/` holds
//! - `<asset>`: the executable, there only when its digest was right;
//! - `<asset>.verified`: which file that was, so that a warm start hashes nothing;
//! - `<asset>.changed`: an executable that was found to be another one later, for whoever wants to look at it;
//! - `.lock`: held by whoever changes any of these, with its process id inside;
//! - `.*.part`: unfinished files. Only the holder of the lock has any, so all others are left over from the dead.
//!
//! Everything here blocks.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::error::ResolveError;
use super::safety::{check_cache_root, check_own_binary, check_own_directory};
use super::verified::FileIdentity;
use super::{Digest, Platform, Version};

const TEMPORARY_PREFIX: &str = ".";
const TEMPORARY_SUFFIX: &str = ".part";

/// One release for one platform in the cache.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    root: PathBuf,
    product: PathBuf,
    directory: PathBuf,
    asset: &'static str,
    digest: Digest,
}

/// What a glance at the cache shows.
#[derive(Debug)]
pub(super) enum Glance {
    /// Nothing of that name.
    Absent,
    /// A file that nobody verified, or that was touched since.
    Unverified,
    /// The very file that was verified.
    Verified(FileIdentity),
}

/// What has become of the cached file.
#[derive(Debug)]
pub(super) enum Settled {
    /// Nothing of that name.
    Absent,
    /// The release, and marked as such.
    Verified(FileIdentity),
    /// It was something else, and is at [`Entry::changed_path`] now.
    MovedAside {
        /// The digest it has.
        actual: Digest,
    },
}

/// The right to change an [`Entry`], until it is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

/// The content of the marker file.
#[derive(PartialEq, Serialize, Deserialize)]
struct Marker {
    digest: String,
    file: FileIdentity,
}

impl Entry {
    pub(super) fn new(root: &Path, version: Version, platform: Platform, digest: Digest) -> Self {
        let product = root.join("agentgateway");
        let directory = product.join(version.to_string());
        Self { root: root.to_owned(), product, directory, asset: platform.asset(), digest }
    }

    /// Where the executable is, or would be.
    pub(super) fn path(&self) -> PathBuf {
        self.directory.join(self.asset)
    }

    /// Where an executable is moved that is another one than it was.
    pub(super) fn changed_path(&self) -> PathBuf {
        self.directory.join(format!("{}.changed", self.asset))
    }

    pub(super) fn digest(&self) -> Digest {
        self.digest
    }

    fn marker_path(&self) -> PathBuf {
        self.directory.join(format!("{}.verified", self.asset))
    }

    fn lock_path(&self) -> PathBuf {
        self.directory.join(".lock")
    }

    /// Looks without hashing and without the lock.
    pub(super) fn glance(&self) -> Result<Glance, ResolveError> {
        let Some(file) = self.open()? else { return Ok(Glance::Absent) };
        let identity = self.check(&file)?;
        if self.marker()? == Some(self.marker_for(identity)) {
            Ok(Glance::Verified(identity))
        } else {
            Ok(Glance::Unverified)
        }
    }

    /// Creates the directories, for this user only, and takes the lock; `None` when somebody else has it.
    pub(super) fn try_lock(&self) -> Result<Option<Lock>, ResolveError> {
        create_private(&self.directory)?;
        self.check_directories()?;
        let path = self.lock_path();
        let failed = |action| ResolveError::io(action, &path);
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let mut file = options.open(&path).map_err(failed("opening"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(failed("locking")(error)),
        }
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(failed("writing"))?;
        Ok(Some(Lock { _file: file }))
    }

    /// Who has the lock, for a message; `None` when it has not said so yet.
    pub(super) fn lock_holder(&self) -> Option<u32> {
        std::fs::read_to_string(self.lock_path()).ok()?.parse().ok()
    }

    /// Hashes the file; `None` when there is none.
    pub(super) fn hash(&self) -> Result<Option<(FileIdentity, Digest)>, ResolveError> {
        let Some(mut file) = self.open()? else { return Ok(None) };
        let identity = self.check(&file)?;
        let digest = hash(&mut file).map_err(ResolveError::io("reading", &self.path()))?;
        // What is written while it is read has another time afterwards than before.
        let after = self.check(&file)?;
        if after == identity {
            Ok(Some((identity, digest)))
        } else {
            Err(ResolveError::Unstable { path: self.path() })
        }
    }

    /// Makes sure that a file that is there is the release and marked as such. What is not is moved out of the way and
    /// loses its permission to be executed.
    pub(super) fn settle(&self, lock: &Lock) -> Result<Settled, ResolveError> {
        if let Glance::Verified(identity) = self.glance()? {
            return Ok(Settled::Verified(identity));
        }
        match self.hash()? {
            None => Ok(Settled::Absent),
            Some((identity, actual)) if actual == self.digest => {
                self.mark(identity, lock)?;
                Ok(Settled::Verified(identity))
            }
            Some((_, actual)) => {
                self.move_aside(lock)?;
                Ok(Settled::MovedAside { actual })
            }
        }
    }

    fn move_aside(&self, _lock: &Lock) -> Result<(), ResolveError> {
        let (from, to) = (self.path(), self.changed_path());
        std::fs::rename(&from, &to).map_err(ResolveError::io("moving aside", &from))?;
        std::fs::set_permissions(&to, Permissions::from_mode(0o600))
            .map_err(ResolveError::io("restricting", &to))?;
        remove_if_there(&self.marker_path())
    }

    /// A file to download into, after removing those of the dead.
    pub(super) fn temporary(&self, _lock: &Lock) -> Result<NamedTempFile, ResolveError> {
        let failed = || ResolveError::io("reading", &self.directory);
        for found in std::fs::read_dir(&self.directory).map_err(failed())? {
            let found = found.map_err(failed())?;
            let name = found.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(TEMPORARY_PREFIX) && name.ends_with(TEMPORARY_SUFFIX) {
                tracing::debug!(path = %found.path().display(), "removing a file that an interrupted download left over");
                remove_if_there(&found.path())?;
            }
        }
        self.new_temporary()
    }

    /// Gives a complete and verified download its name, so that it survives a crash of the machine.
    pub(super) fn install(&self, download: NamedTempFile, lock: &Lock) -> Result<FileIdentity, ResolveError> {
        let path = self.path();
        let file = download.as_file();
        file.set_permissions(Permissions::from_mode(0o755))
            .map_err(ResolveError::io("making executable", &path))?;
        file.sync_all().map_err(ResolveError::io("writing", &path))?;
        let file = download.persist(&path).map_err(|error| ResolveError::io("naming", &path)(error.error))?;
        let metadata = file.metadata().map_err(ResolveError::io("reading", &path))?;
        // Before anybody is told to execute it: a file that is open for writing cannot be executed.
        drop(file);
        let directory = File::open(&self.directory).and_then(|directory| directory.sync_all());
        directory.map_err(ResolveError::io("writing", &self.directory))?;
        let identity = FileIdentity::of(&metadata);
        self.mark(identity, lock)?;
        Ok(identity)
    }

    fn new_temporary(&self) -> Result<NamedTempFile, ResolveError> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(TEMPORARY_PREFIX).suffix(TEMPORARY_SUFFIX);
        builder.tempfile_in(&self.directory).map_err(ResolveError::io("creating a file in", &self.directory))
    }

    fn open(&self) -> Result<Option<File>, ResolveError> {
        let path = self.path();
        // NONBLOCK: opening a FIFO must not wait for a writer.
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                Err(ResolveError::Unsafe { path, problem: "is a symbolic link".to_owned() })
            }
            Err(error) => Err(ResolveError::io("opening", &path)(error)),
        }
    }

    fn check(&self, file: &File) -> Result<FileIdentity, ResolveError> {
        let path = self.path();
        self.check_directories()?;
        let metadata = file.metadata().map_err(ResolveError::io("reading", &path))?;
        if !metadata.is_file() {
            return Err(ResolveError::NotExecutable { path, problem: "is not a regular file" });
        }
        check_own_binary(&path, &metadata)?;
        Ok(FileIdentity::of(&metadata))
    }

    fn check_directories(&self) -> Result<(), ResolveError> {
        check_cache_root(&self.root)?;
        check_own_directory(&self.product)?;
        check_own_directory(&self.directory)
    }

    fn marker_for(&self, file: FileIdentity) -> Marker {
        Marker { digest: self.digest.to_string(), file }
    }

    /// `None` also for a marker that cannot be understood: the file is hashed then, and the marker written anew.
    fn marker(&self) -> Result<Option<Marker>, ResolveError> {
        let path = self.marker_path();
        match std::fs::read(&path) {
            Ok(content) => Ok(serde_json::from_slice(&content).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ResolveError::io("reading", &path)(error)),
        }
    }

    fn mark(&self, file: FileIdentity, _lock: &Lock) -> Result<(), ResolveError> {
        let path = self.marker_path();
        let mut temporary = self.new_temporary()?;
        serde_json::to_writer(&mut temporary, &self.marker_for(file))
            .map_err(|error| ResolveError::io("writing", &path)(error.into()))?;
        temporary.persist(&path).map_err(|error| ResolveError::io("writing", &path)(error.error))?;
        Ok(())
    }
}

fn create_private(path: &Path) -> Result<(), ResolveError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(ResolveError::io("creating", path))
}

fn remove_if_there(path: &Path) -> Result<(), ResolveError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ResolveError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

fn hash(file: &mut File) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest::new(hasher.finalize().into())),
            // `read` never returns more than the length of the buffer.
            count => hasher.update(&buffer[..count]),
        }
    }
}
