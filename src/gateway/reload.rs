//! Follows the file.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::config::Config;
use super::error::ServeError;
use super::state::Gateway;

/// From the first event of a burst to the reading, so that a burst is read once and a steady stream of events cannot put it off.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Events can be lost; a look at the file's metadata cannot.
const POLL: Duration = Duration::from_secs(1);

/// Watches the directory, because a rename replaces the file.
pub(super) struct Watcher {
    file: PathBuf,
    gateway: Arc<Gateway>,
    changed: Arc<Notify>,
    /// The text read last, taken or refused.
    text: String,
    seen: Option<Stamp>,
    /// Ends the watch when dropped.
    _watch: RecommendedWatcher,
}

/// What changes when a file is replaced or written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl Stamp {
    async fn of(path: &Path) -> Option<Self> {
        let metadata = fs_err::tokio::metadata(path).await.ok()?;
        Some(Self {
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

impl Watcher {
    /// Begins to watch; `text` is what the file held when it was loaded.
    pub(super) fn start(file: PathBuf, text: String, gateway: Arc<Gateway>) -> Result<Self, ServeError> {
        let changed = Arc::new(Notify::new());
        let event = Arc::clone(&changed);
        let name = file.file_name().map(ToOwned::to_owned);
        let mut watch =
            notify::recommended_watcher(move |result: notify::Result<notify::Event>| match result {
                // Reading the file is an event as well, and would be the next reason to read it.
                Ok(seen) if seen.kind.is_access() => {}
                // Sockets and logs live in the same directory.
                Ok(seen)
                    if !seen.need_rescan()
                        && seen.paths.iter().all(|path| path.file_name() != name.as_deref()) => {}
                Ok(_) => event.notify_one(),
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "events of the configuration's directory were lost"
                    );
                    event.notify_one();
                }
            })
            .map_err(ServeError::Watch)?;
        let directory = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        watch.watch(directory, RecursiveMode::NonRecursive).map_err(ServeError::Watch)?;
        // No stamp yet: the first look reads the file, which may have changed before the watch began.
        changed.notify_one();
        Ok(Self { file, gateway, changed, text, seen: None, _watch: watch })
    }

    pub(super) async fn run(mut self) {
        loop {
            if timeout(POLL, self.changed.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let stamp = Stamp::of(&self.file).await;
        if stamp == self.seen {
            return;
        }
        let text = match fs_err::tokio::read_to_string(&self.file).await {
            Ok(text) => text,
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "cannot read the configuration; the last one stays"
                );
                self.seen = stamp;
                return;
            }
        };
        self.seen = stamp;
        if text == self.text {
            return;
        }
        let taken = self.load(&text);
        self.gateway.metrics.count_reload(taken);
        self.text = text;
    }

    fn load(&self, text: &str) -> bool {
        let config = match Config::parse(text) {
            Ok(config) => config,
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "refused the configuration; the last one stays"
                );
                return false;
            }
        };
        match self.gateway.replace(config) {
            Ok(()) => info!("configuration reloaded"),
            Err(error) => {
                error!(
                    error = &error as &dyn std::error::Error,
                    "refused the configuration; the last one stays"
                );
                return false;
            }
        }
        true
    }
}
