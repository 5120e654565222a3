//! The resolver against a release server with faults, real files and real processes.

mod cache;
mod download;
mod given;
mod processes;
mod release_server;
mod scripts;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use sidegate::binary_resolver::{
    DEFAULT_VERSION, Digest, Event, Limits, Pin, Platform, Progress, Releases, ResolveError, Resolver,
    Verified,
};
use tempfile::TempDir;

const PLATFORM: Platform = Platform::LinuxAmd64;
const ASSET: &str = "/v1.2.1/agentgateway-linux-amd64";

fn sha256(content: &[u8]) -> Digest {
    Digest::new(Sha256::digest(content).into())
}

/// An asset that no two tests share a byte order of; large enough to come in several pieces.
fn content(seed: u8) -> Vec<u8> {
    (0..200_000u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.backoff = Duration::from_millis(1);
    limits
}

/// A resolver whose default version has the digest of `content`, served by `base`.
fn resolver_with(base: &str, cache: &Path, content: &[u8], limits: Limits) -> Resolver {
    let pin = Pin { version: DEFAULT_VERSION, platform: PLATFORM, digest: sha256(content) };
    let releases = Releases::new(base, vec![pin]).unwrap();
    Resolver::with(releases, cache.to_owned(), Some(PLATFORM), limits)
}

/// A cache directory of its own.
struct Cache {
    temp: TempDir,
}

impl Cache {
    fn new() -> Self {
        Self { temp: tempfile::tempdir().unwrap() }
    }

    fn root(&self) -> PathBuf {
        self.temp.path().join("cache")
    }

    fn directory(&self) -> PathBuf {
        self.root().join("agentgateway/1.2.1")
    }

    fn binary(&self) -> PathBuf {
        self.directory().join(PLATFORM.asset())
    }

    fn resolver(&self, base: &str, content: &[u8]) -> Resolver {
        resolver_with(base, &self.root(), content, limits())
    }

    /// The names in the directory of the version, sorted, without the lock file.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name != ".lock").collect();
        names.sort();
        names
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes down the kinds of events.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn events(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Progress for Recorder {
    fn report(&self, event: Event<'_>) {
        let text = match event {
            Event::Waiting { .. } => "waiting".to_owned(),
            Event::MovedAside { to, .. } => format!("moved to {}", to.file_name().unwrap().display()),
            Event::Started { resumed_at, total, .. } => format!("started at {resumed_at} of {total:?}"),
            Event::Received { .. } => return,
            Event::Retrying { attempt, .. } => format!("try {attempt}"),
            Event::Installed { .. } => "installed".to_owned(),
            other => panic!("unknown event {other:?}"),
        };
        self.0.lock().unwrap().push(text);
    }
}

async fn fetch(resolver: &Resolver) -> Result<Verified, ResolveError> {
    resolver.fetch(DEFAULT_VERSION, &|_: Event<'_>| {}).await
}

/// The error of a download that was tried as often as allowed.
fn last_try(error: ResolveError) -> ResolveError {
    let ResolveError::GaveUp { tries: 3, source, .. } = error else { panic!("{error:?}") };
    *source
}
