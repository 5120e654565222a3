//! Follows the file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::config::Config;
use super::state::Gateway;
use crate::stamp::Stamp;

/// From the first event of a burst to the reading, so that a burst is read once and a steady stream of events cannot put it off.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Events can be lost; a look at the file's metadata cannot.
const POLL: Duration = Duration::from_secs(1);
/// The same where there are no events: a user has a limited number of watches, and others use them, too.
const POLL_UNWATCHED: Duration = Duration::from_millis(50);

/// Watches the directory, because a rename replaces the file.
pub(super) struct Watcher {
    file: PathBuf,
    gateway: Arc<Gateway>,
    changed: Arc<Notify>,
    /// The text read last, taken or refused.
    text: String,
    seen: Option<Stamp>,
    /// Ends the watch when dropped. None where the directory cannot be watched.
    watch: Option<RecommendedWatcher>,
}

impl Watcher {
    /// Begins to watch; `text` is what the file held when it was loaded.
    pub(super) fn start(file: PathBuf, text: String, gateway: Arc<Gateway>) -> Self {
        let changed = Arc::new(Notify::new());
        let watch = watch(&file, Arc::clone(&changed))
            .inspect_err(|error| {
                let every = POLL_UNWATCHED.as_millis();
                let error: &dyn std::error::Error = error;
                warn!(error, "the directory cannot be watched, so the file is looked at every {every} ms");
            })
            .ok();
        // No stamp yet: the first look reads the file, which may have changed before the watch began.
        changed.notify_one();
        Self { file, gateway, changed, text, seen: None, watch }
    }

    pub(super) async fn run(mut self) {
        let poll = if self.watch.is_some() { POLL } else { POLL_UNWATCHED };
        loop {
            if timeout(poll, self.changed.notified()).await.is_ok() {
                sleep(DEBOUNCE).await;
            }
            self.look().await;
        }
    }

    async fn look(&mut self) {
        let stamp = fs_err::tokio::metadata(&self.file).await.ok().as_ref().map(Stamp::from);
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

/// Notifies `changed` of what happens to the file.
fn watch(file: &Path, changed: Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let name = file.file_name().map(ToOwned::to_owned);
    let mut watch = notify::recommended_watcher(move |result: notify::Result<notify::Event>| match result {
        // Reading the file is an event as well, and would be the next reason to read it.
        Ok(seen) if seen.kind.is_access() => {}
        // Sockets and logs live in the same directory.
        Ok(seen)
            if !seen.need_rescan() && seen.paths.iter().all(|path| path.file_name() != name.as_deref()) => {}
        Ok(_) => changed.notify_one(),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            warn!(error, "events of the configuration's directory were lost");
            changed.notify_one();
        }
    })?;
    let directory = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    watch.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watch)
}
