//! The order in which a binary is looked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::cache::{Entry, Glance, Lock, Settled};
use super::download::{Limits, download};
use super::error::ResolveError;
use super::progress::{Event, Progress};
use super::releases::Releases;
use super::transport::Transport;
use super::verified::{FileIdentity, Origin, Verified};
use super::{Platform, Version, given};

/// How often somebody else's lock is tried.
const LOCK_POLL: Duration = Duration::from_millis(50);

/// What to look for.
#[derive(Clone, Debug)]
pub struct Request {
    /// A binary the user names: used or refused, never replaced by another.
    pub binary: Option<PathBuf>,
    /// The release; for a given binary, the one it is expected to be.
    pub version: Version,
    /// Never download.
    pub offline: bool,
}

/// Finds gateway binaries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    releases: Releases,
    cache: PathBuf,
    platform: Option<Platform>,
    limits: Limits,
}

impl Resolver {
    /// A resolver for this machine that keeps what it downloads below `cache`, normally `$XDG_CACHE_HOME/sidegate`.
    pub fn new(releases: Releases, cache: PathBuf) -> Self {
        Self::with(releases, cache, Platform::current(), Limits::default())
    }

    /// A resolver with everything chosen; without a platform only given binaries are found.
    pub fn with(releases: Releases, cache: PathBuf, platform: Option<Platform>, limits: Limits) -> Self {
        Self { inner: Arc::new(Inner { releases, cache, platform, limits }) }
    }

    /// What can be downloaded, and from where.
    pub fn releases(&self) -> &Releases {
        &self.inner.releases
    }

    /// The binary to run: the given one, else the cached one, else a download.
    ///
    /// Dropping the future gives everything up and leaves no file behind.
    ///
    /// # Errors
    ///
    /// Fails as [`Resolver::given`], [`Resolver::cached`] and [`Resolver::fetch`] do; none of them falls through to the next.
    pub async fn resolve(
        &self,
        request: &Request,
        progress: &dyn Progress,
    ) -> Result<Verified, ResolveError> {
        if let Some(binary) = &request.binary {
            return self.given(binary, request.version).await;
        }
        if !request.offline {
            return self.fetch(request.version, progress).await;
        }
        match self.cached(request.version, progress).await? {
            Some(verified) => Ok(verified),
            None => {
                let path = self.path(request.version)?;
                Err(ResolveError::NotCached { version: request.version, path, offline: true })
            }
        }
    }

    /// Checks a binary the user names: an executable regular file whose `--version` answers. Another version than `wanted` is
    /// a [warning](Verified::warning).
    ///
    /// # Errors
    ///
    /// Fails when it is not that, or when everybody could replace it.
    pub async fn given(&self, binary: &Path, wanted: Version) -> Result<Verified, ResolveError> {
        given::examine(binary, wanted, self.inner.limits.probe).await
    }

    /// The cached binary, without any request. Waits for nobody unless there is a file that has to be hashed.
    ///
    /// A file with another digest is moved aside and reported; there is no cached binary then.
    ///
    /// # Errors
    ///
    /// Fails when the release is not pinned, or the cache is open to others or unreadable.
    pub async fn cached(
        &self,
        version: Version,
        progress: &dyn Progress,
    ) -> Result<Option<Verified>, ResolveError> {
        let entry = self.entry(version)?;
        let identity = match glance(&entry).await? {
            Glance::Verified(identity) => Some(identity),
            Glance::Absent => None,
            Glance::Unverified => match self.turn(&entry, progress).await? {
                Turn::Over(identity) => Some(identity),
                Turn::Ours(lock) => settle(&entry, &lock, progress).await?,
            },
        };
        Ok(identity.map(|identity| verified(version, &entry, identity, Origin::Cached)))
    }

    /// The cached binary, or else a download. Of several processes that want it, one downloads and the others wait.
    ///
    /// # Errors
    ///
    /// Fails before any request when the release is not pinned for this platform.
    pub async fn fetch(&self, version: Version, progress: &dyn Progress) -> Result<Verified, ResolveError> {
        let entry = self.entry(version)?;
        let found = |identity| verified(version, &entry, identity, Origin::Cached);
        if let Glance::Verified(identity) = glance(&entry).await? {
            return Ok(found(identity));
        }
        let lock = match self.turn(&entry, progress).await? {
            Turn::Over(identity) => return Ok(found(identity)),
            Turn::Ours(lock) => lock,
        };
        if let Some(identity) = settle(&entry, &lock, progress).await? {
            return Ok(found(identity));
        }
        let identity = self.download(version, &entry, &lock, progress).await?;
        progress.report(Event::Installed { path: &entry.path() });
        Ok(verified(version, &entry, identity, Origin::Downloaded))
    }

    /// Hashes the cached binary again, whatever was found out about it before. Changes nothing.
    ///
    /// # Errors
    ///
    /// Fails when there is none, or when it has another digest.
    pub async fn verify(&self, version: Version) -> Result<Verified, ResolveError> {
        let entry = self.entry(version)?;
        let (path, hashed) = (entry.path(), entry.clone());
        match blocking(move || hashed.hash()).await? {
            Some((identity, actual)) if actual == entry.digest() => {
                Ok(verified(version, &entry, identity, Origin::Cached))
            }
            Some((_, actual)) => Err(ResolveError::CacheMismatch { path, expected: entry.digest(), actual }),
            None => Err(ResolveError::NotCached { version, path, offline: false }),
        }
    }

    /// Where the release is in the cache, or would be.
    ///
    /// # Errors
    ///
    /// Fails when the release is not pinned for this platform.
    pub fn path(&self, version: Version) -> Result<PathBuf, ResolveError> {
        Ok(self.entry(version)?.path())
    }

    fn platform(&self) -> Result<Platform, ResolveError> {
        let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
        self.inner.platform.ok_or(ResolveError::UnsupportedPlatform { os, arch })
    }

    fn entry(&self, version: Version) -> Result<Entry, ResolveError> {
        let platform = self.platform()?;
        let digest = self.inner.releases.digest(version, platform)?;
        Ok(Entry::new(&self.inner.cache, version, platform, digest))
    }

    /// Waits for the lock, or until whoever has it has done the work. By polling: a thread that is blocked in `flock`
    /// could not be cancelled.
    async fn turn(&self, entry: &Entry, progress: &dyn Progress) -> Result<Turn, ResolveError> {
        let mut reported = None;
        loop {
            let tried = entry.clone();
            let turn = blocking(move || {
                if let Some(lock) = tried.try_lock()? {
                    return Ok(Ok(Turn::Ours(Arc::new(lock))));
                }
                match tried.glance()? {
                    Glance::Verified(identity) => Ok(Ok(Turn::Over(identity))),
                    Glance::Absent | Glance::Unverified => Ok(Err(tried.lock_holder())),
                }
            });
            let holder = match turn.await? {
                Ok(turn) => return Ok(turn),
                Err(holder) => holder,
            };
            if reported != Some(holder) {
                progress.report(Event::Waiting { pid: holder });
                reported = Some(holder);
            }
            tokio::time::sleep(LOCK_POLL).await;
        }
    }

    async fn download(
        &self,
        version: Version,
        entry: &Entry,
        lock: &Arc<Lock>,
        progress: &dyn Progress,
    ) -> Result<FileIdentity, ResolveError> {
        let limits = &self.inner.limits;
        let (target, held, bounds) = (entry.clone(), lock.clone(), limits.clone());
        let (file, transport) = blocking(move || {
            let transport = Transport::new(bounds.connect, bounds.idle, bounds.max_redirects)?;
            Ok((target.temporary(&held)?, transport))
        })
        .await?;
        let url = self.inner.releases.url(version, self.platform()?);
        // Whatever happens from here on, dropping the file removes it.
        download(&url, entry.digest(), &file, &transport, limits, progress).await?;
        let (target, held) = (entry.clone(), lock.clone());
        blocking(move || target.install(file, &held)).await
    }
}

/// What waiting for the lock ends with.
enum Turn {
    /// The lock.
    Ours(Arc<Lock>),
    /// Somebody else has put the release there.
    Over(FileIdentity),
}

fn verified(version: Version, entry: &Entry, identity: FileIdentity, origin: Origin) -> Verified {
    let digest = Some(entry.digest());
    Verified { path: entry.path(), version: version.into(), digest, origin, warning: None, identity }
}

/// Finds out what is there, by hashing where it must be; moves it aside and reports it when it is not the release.
async fn settle(
    entry: &Entry,
    lock: &Arc<Lock>,
    progress: &dyn Progress,
) -> Result<Option<FileIdentity>, ResolveError> {
    let (target, held) = (entry.clone(), lock.clone());
    let actual = match blocking(move || target.settle(&held)).await? {
        Settled::Absent => return Ok(None),
        Settled::Verified(identity) => return Ok(Some(identity)),
        Settled::MovedAside { actual } => actual,
    };
    let (path, to) = (entry.path(), entry.changed_path());
    progress.report(Event::MovedAside { path: &path, to: &to, expected: entry.digest(), actual });
    Ok(None)
}

async fn glance(entry: &Entry) -> Result<Glance, ResolveError> {
    let entry = entry.clone();
    blocking(move || entry.glance()).await
}

/// Runs file operations where they delay nobody. When the caller gives up they still run to their end, which is near, and
/// keep their lock until then.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ResolveError> + Send + 'static,
) -> Result<T, ResolveError> {
    tokio::task::spawn_blocking(work).await?
}
