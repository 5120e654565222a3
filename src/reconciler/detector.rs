//! Notices that something has happened in a directory. What it was, nobody asks: an event only means "look again".

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

/// After an event that may be one of many (bytes written to a file), quiet is waited for this long.
const QUIET: Duration = Duration::from_millis(50);

/// After an event that ends something (a rename, a file closed, a file removed): only for what came with it.
const MOMENT: Duration = Duration::from_millis(3);

/// However busy the directory is, it is looked at this often.
const LONGEST: Duration = Duration::from_millis(500);

/// Events can be lost, and some file systems have none: the directory is looked at anyway.
const RESCAN: Duration = Duration::from_secs(60);

/// A directory that is not there, or cannot be watched, is tried again this often.
const REARM: Duration = Duration::from_secs(1);

/// Watches one directory.
#[derive(Debug)]
pub(super) struct Detector {
    directory: PathBuf,
    events: mpsc::UnboundedReceiver<Pace>,
    sender: mpsc::UnboundedSender<Pace>,
    watcher: Option<RecommendedWatcher>,
    /// The directory that is watched, to notice another one in its place.
    watched: Option<(u64, u64)>,
}

/// How soon to look after an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Soon,
    WhenQuiet,
}

impl Detector {
    /// Watches `directory`, which may not be there yet.
    pub(super) fn new(directory: &Path) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let mut detector =
            Self { directory: directory.to_owned(), events, sender, watcher: None, watched: None };
        detector.arm();
        detector
    }

    /// Waits until the directory should be looked at. Safe to drop while it waits.
    pub(super) async fn changed(&mut self) {
        let rescan = Instant::now() + RESCAN;
        let pace = loop {
            tokio::select! {
                // The sender is ours: there is always another event to wait for.
                Some(pace) = self.events.recv() => break pace,
                () = sleep_until(rescan) => return,
                () = sleep(REARM) => {
                    if self.arm() {
                        return;
                    }
                }
            }
        };
        self.settle(pace).await;
        self.arm();
    }

    /// Waits until what has begun is over.
    async fn settle(&mut self, mut pace: Pace) {
        let latest = Instant::now() + LONGEST;
        loop {
            let wait = match pace {
                Pace::Soon => MOMENT,
                Pace::WhenQuiet => QUIET,
            };
            tokio::select! {
                Some(next) = self.events.recv() => {
                    pace = if next == Pace::Soon { next } else { pace };
                }
                () = sleep(wait) => return,
                () = sleep_until(latest) => return,
            }
        }
    }

    /// Watches the directory that is at the path now; true when that is another one than before.
    fn arm(&mut self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let now = std::fs::metadata(&self.directory).ok().map(|meta| (meta.dev(), meta.ino()));
        if now == self.watched {
            return false;
        }
        self.watcher = None;
        self.watched = None;
        if now.is_none() {
            // It went away: worth a look.
            return true;
        }
        let sender = self.sender.clone();
        let handler = move |event: notify::Result<notify::Event>| {
            let pace = match event {
                Ok(event) => pace(&event.kind),
                Err(error) => {
                    warn!(%error, "the watch on the definitions has trouble");
                    Some(Pace::WhenQuiet)
                }
            };
            if let Some(pace) = pace {
                // The receiver is gone only when nobody looks any more.
                let _ = sender.send(pace);
            }
        };
        let watcher = notify::recommended_watcher(handler).and_then(|mut watcher| {
            watcher.watch(&self.directory, RecursiveMode::NonRecursive).map(|()| watcher)
        });
        match watcher {
            Ok(watcher) => {
                debug!(directory = %self.directory.display(), "watching");
                self.watcher = Some(watcher);
                self.watched = now;
            }
            Err(error) => {
                let seconds = RESCAN.as_secs();
                warn!(%error, "changes are noticed every {seconds} s only: the directory cannot be watched");
                // Not tried again until another directory is there.
                self.watched = now;
            }
        }
        true
    }
}

fn pace(kind: &EventKind) -> Option<Pace> {
    match kind {
        // What we and others do by reading is no change.
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Pace::Soon),
        EventKind::Access(_) => None,
        EventKind::Modify(ModifyKind::Name(RenameMode::To | RenameMode::From | RenameMode::Both))
        | EventKind::Remove(_)
        // A link is there as a whole.
        | EventKind::Create(CreateKind::Other) => Some(Pace::Soon),
        _ => Some(Pace::WhenQuiet),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn noticed(detector: &mut Detector) {
        // A bound for a test that would hang; the event itself takes milliseconds.
        tokio::time::timeout(Duration::from_secs(20), detector.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn writing_renaming_and_removing_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = Detector::new(dir.path());
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        noticed(&mut detector).await;
        std::fs::rename(&file, dir.path().join("b.yaml")).unwrap();
        noticed(&mut detector).await;
        std::fs::remove_file(dir.path().join("b.yaml")).unwrap();
        noticed(&mut detector).await;
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut detector = Detector::new(dir.path());
        for _ in 0..3 {
            std::fs::read(&file).unwrap();
            std::fs::read_dir(dir.path()).unwrap().count();
        }
        // Whatever reading has caused would be in the channel before what this causes.
        std::fs::write(dir.path().join("marker"), "").unwrap();
        noticed(&mut detector).await;
        assert!(tokio::time::timeout(QUIET, detector.events.recv()).await.is_err());
    }

    #[tokio::test]
    async fn a_directory_that_comes_back_is_watched_again() {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("mcpservers");
        let mut detector = Detector::new(&dir);
        std::fs::create_dir(&dir).unwrap();
        noticed(&mut detector).await;
        std::fs::remove_dir(&dir).unwrap();
        noticed(&mut detector).await;
        std::fs::create_dir(&dir).unwrap();
        noticed(&mut detector).await;
        std::fs::write(dir.join("a.yaml"), "a").unwrap();
        noticed(&mut detector).await;
    }
}
