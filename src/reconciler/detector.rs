//! Notices that something has happened in a directory. What it was, nobody asks: an event only means "look again".

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use crate::stamp::Stamp;

/// After an event that may be one of many (bytes written to a file; a file gone, which an editor makes anew), quiet is
/// waited for this long.
const QUIET: Duration = Duration::from_millis(50);

/// After an event that ends something (a definition renamed into its place, or closed): only for what came with it.
const MOMENT: Duration = Duration::from_millis(3);

/// However busy the directory is, it is looked at this often.
const LONGEST: Duration = Duration::from_millis(500);

/// Even a change that leaves no trace in the stamps is found by then.
const RESCAN: Duration = Duration::from_secs(60);

/// Events can be lost; file systems of other machines have none; and a user has a limited number of watches, which others
/// use, too. So the stamps of the files are compared this often, and a directory that is not there is tried again.
const POLL: Duration = Duration::from_secs(1);

/// Watches one directory.
#[derive(Debug)]
pub(super) struct Detector {
    directory: PathBuf,
    /// The only file in it that matters, where there is one.
    file: Option<OsString>,
    events: mpsc::UnboundedReceiver<Pace>,
    sender: mpsc::UnboundedSender<Pace>,
    watcher: Option<RecommendedWatcher>,
    /// The directory that is watched, to notice another one in its place.
    watched: Option<(u64, u64)>,
    /// Something has begun, and may not be over.
    unrest: Option<Unrest>,
    /// When the last unrest was over.
    over: Option<Instant>,
    /// When to look without an event.
    rescan: Instant,
    /// When to see whether the directory is another one, and to compare stamps.
    poll: Instant,
    /// What was there the last time, and what is being found now.
    stamps: Stamps,
    polling: Option<JoinHandle<Stamps>>,
}

/// The files by name; none for one that is a link to nowhere.
type Stamps = BTreeMap<OsString, Option<Stamp>>;

/// Events that came one after the other.
#[derive(Clone, Copy, Debug)]
struct Unrest {
    pace: Pace,
    /// It followed another one closely: somebody is at it, and each change may mean another process.
    busy: bool,
    first: Instant,
    last: Instant,
}

impl Unrest {
    /// When it counts as over.
    fn end(self) -> Instant {
        let wait = match self.pace {
            Pace::Soon if !self.busy => MOMENT,
            _ => QUIET,
        };
        (self.last + wait).min(self.first + LONGEST)
    }
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
        Self::watch(directory, None)
    }

    /// Watches one file, which may not be there yet. Of what happens elsewhere in its directory nobody hears.
    pub(super) fn of_file(file: &Path) -> Self {
        let directory = file.parent().unwrap_or(Path::new("/"));
        Self::watch(directory, file.file_name().map(OsStr::to_owned))
    }

    fn watch(directory: &Path, file: Option<OsString>) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let now = Instant::now();
        let mut detector = Self {
            directory: directory.to_owned(),
            events,
            sender,
            watcher: None,
            watched: None,
            unrest: None,
            over: None,
            rescan: now + RESCAN,
            poll: now + POLL,
            // Taken before anybody reads the files: what changes later differs from these.
            stamps: stamps(directory, file.as_deref()),
            file,
            polling: None,
        };
        detector.arm();
        detector
    }

    /// Waits until the directory should be looked at. Loses nothing when it is dropped before that.
    pub(super) async fn changed(&mut self) {
        loop {
            let wake = self.unrest.map_or(self.rescan.min(self.poll), Unrest::end);
            tokio::select! {
                // The sender is ours: there is always another event to wait for.
                Some(pace) = self.events.recv() => self.note(pace),
                found = found(&mut self.polling) => {
                    self.polling = None;
                    // The poll that panicked or was cancelled has found nothing; the next one will.
                    if let Ok(found) = found && found != self.stamps {
                        self.stamps = found;
                        self.note(Pace::WhenQuiet);
                    }
                }
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= self.poll {
                        self.poll = now + POLL;
                        self.poll_stamps();
                    }
                    let over = self.unrest.take().is_some();
                    if over {
                        self.over = Some(now);
                    }
                    // What has happened may be that another directory is there.
                    let another = self.arm();
                    if over || another || now >= self.rescan {
                        self.rescan = now + RESCAN;
                        return;
                    }
                }
            }
        }
    }

    fn note(&mut self, pace: Pace) {
        let now = Instant::now();
        self.unrest = Some(match self.unrest {
            None => {
                let busy = self.over.is_some_and(|over| now - over < QUIET);
                Unrest { pace, busy, first: now, last: now }
            }
            // The latest counts: what was put in place may be taken away again.
            Some(unrest) => Unrest { pace, last: now, ..unrest },
        });
    }

    /// Begins to find out what is there now. A directory of another machine may take its time.
    fn poll_stamps(&mut self) {
        if self.polling.is_none() {
            let (directory, file) = (self.directory.clone(), self.file.clone());
            self.polling = Some(tokio::task::spawn_blocking(move || stamps(&directory, file.as_deref())));
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
        let (sender, file) = (self.sender.clone(), self.file.clone());
        let handler = move |event: notify::Result<notify::Event>| {
            let pace = match event {
                Ok(event) if !concerns(&event, file.as_deref()) => None,
                Ok(event) => pace(&event),
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
                let error: &dyn std::error::Error = &error;
                warn!(error, "the directory cannot be watched, so changes are noticed after up to a second");
                // Not tried again until another directory is there.
                self.watched = now;
            }
        }
        true
    }
}

/// Waits for the end of a poll, where there is one.
async fn found(polling: &mut Option<JoinHandle<Stamps>>) -> Result<Stamps, tokio::task::JoinError> {
    match polling {
        Some(polling) => polling.await,
        None => std::future::pending().await,
    }
}

/// What is in the directory, or the one file of it that matters. Nothing where it cannot be read: whoever looks says so.
fn stamps(directory: &Path, file: Option<&OsStr>) -> Stamps {
    let stamp = |name: OsString| {
        let stamp = std::fs::metadata(directory.join(&name)).ok().as_ref().map(Stamp::from);
        (name, stamp)
    };
    match file {
        Some(file) => BTreeMap::from([stamp(file.to_owned())]),
        None => {
            let entries = std::fs::read_dir(directory).into_iter().flatten();
            entries.filter_map(|entry| Some(stamp(entry.ok()?.file_name()))).collect()
        }
    }
}

/// Whether an event is about the file; any is where none is named.
fn concerns(event: &notify::Event, file: Option<&OsStr>) -> bool {
    file.is_none_or(|file| {
        event.need_rescan() || event.paths.iter().any(|path| path.file_name() == Some(file))
    })
}

fn pace(event: &notify::Event) -> Option<Pace> {
    match &event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => Some(Pace::Soon),
        // What we and others do by reading is no change.
        EventKind::Access(_) => None,
        // Both halves of it have been told before.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        // An editor that moves the old file aside has yet to write the new one.
        EventKind::Modify(ModifyKind::Name(RenameMode::To))
            if event.paths.iter().any(|path| is_put_in_place(path)) =>
        {
            Some(Pace::Soon)
        }
        // A link is there as a whole.
        EventKind::Create(CreateKind::Other) => Some(Pace::Soon),
        _ => Some(Pace::WhenQuiet),
    }
}

/// Whether what is renamed to `path` is meant to count: a definition, or the next generation of a ConfigMap volume
/// (`..data`).
fn is_put_in_place(path: &Path) -> bool {
    let is_generation = || path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b".."));
    path.extension().is_some_and(|extension| {
        extension.eq_ignore_ascii_case("yaml") || extension.eq_ignore_ascii_case("yml")
    }) || is_generation()
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
    async fn of_a_file_only_its_own_changes_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".mcp.json");
        let mut detector = Detector::of_file(&file);
        std::fs::write(dir.path().join("other"), "a").unwrap();
        let quiet = tokio::time::timeout(LONGEST, detector.changed()).await;
        assert!(quiet.is_err());
        std::fs::write(&file, "{}").unwrap();
        noticed(&mut detector).await;
        std::fs::write(dir.path().join("new"), "{}").unwrap();
        std::fs::rename(dir.path().join("new"), &file).unwrap();
        noticed(&mut detector).await;
    }

    #[tokio::test]
    async fn an_event_is_not_lost_by_whoever_waits_for_something_else_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = Detector::new(dir.path());
        std::fs::write(dir.path().join("a.yaml"), "a").unwrap();
        let interrupted = async {
            while tokio::time::timeout(Duration::from_millis(1), detector.changed()).await.is_err() {}
        };
        tokio::time::timeout(Duration::from_secs(20), interrupted).await.unwrap();
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
    async fn a_file_that_is_made_anew_was_never_gone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        let mut detector = Detector::new(dir.path());
        std::fs::rename(&file, dir.path().join("a.yaml~")).unwrap();
        // Both events of the rename have come, and nothing that ends anything.
        for _ in 0..2 {
            assert_eq!(detector.events.recv().await, Some(Pace::WhenQuiet));
        }
        std::fs::write(&file, "b").unwrap();
        noticed(&mut detector).await;
        std::fs::remove_file(&file).unwrap();
        assert_eq!(detector.events.recv().await, Some(Pace::WhenQuiet));
        std::fs::rename(dir.path().join("a.yaml~"), &file).unwrap();
        let mut paces = Vec::new();
        while paces.last() != Some(&Pace::Soon) {
            paces.push(detector.events.recv().await.unwrap());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_it_is_looked_at_every_minute() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = Detector::new(dir.path());
        // As on a file system that has none.
        detector.watcher = None;
        let started = Instant::now();
        detector.changed().await;
        assert_eq!(started.elapsed(), RESCAN);
    }

    #[tokio::test(start_paused = true)]
    async fn without_events_changed_files_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = Detector::new(dir.path());
        // As on a file system that has none.
        detector.watcher = None;
        let file = dir.path().join("a.yaml");
        std::fs::write(&file, "a").unwrap();
        noticed(&mut detector).await;
        std::fs::write(&file, "ab").unwrap();
        noticed(&mut detector).await;
        std::os::unix::fs::symlink("nowhere", dir.path().join("b.yaml")).unwrap();
        noticed(&mut detector).await;
        std::fs::write(dir.path().join("nowhere"), "").unwrap();
        noticed(&mut detector).await;
        std::fs::remove_file(&file).unwrap();
        noticed(&mut detector).await;
        let mut of_file = Detector::of_file(&file);
        of_file.watcher = None;
        std::fs::write(&file, "a").unwrap();
        noticed(&mut of_file).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_directory_that_is_never_quiet_is_looked_at_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = Detector::new(dir.path());
        let sender = detector.sender.clone();
        let busy = tokio::spawn(async move {
            while sender.send(Pace::WhenQuiet).is_ok() {
                tokio::time::sleep(QUIET / 2).await;
            }
        });
        let started = Instant::now();
        detector.changed().await;
        assert!((LONGEST..LONGEST + QUIET).contains(&started.elapsed()), "{:?}", started.elapsed());
        busy.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn one_change_is_looked_at_soon_and_many_together() {
        let dir = tempfile::tempdir().unwrap();
        let mut detector = Detector::new(dir.path());
        let sender = detector.sender.clone();
        let waited = async |detector: &mut Detector| {
            let started = Instant::now();
            detector.changed().await;
            started.elapsed()
        };
        sender.send(Pace::Soon).unwrap();
        assert!(waited(&mut detector).await < QUIET / 2);
        tokio::time::sleep(QUIET).await;
        sender.send(Pace::Soon).unwrap();
        assert!(waited(&mut detector).await < QUIET / 2);
        // Right after a look: whoever does that goes on.
        let script = tokio::spawn(async move {
            for _ in 0..200 {
                sender.send(Pace::Soon).unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        let mut looks = 0;
        while !script.is_finished() {
            detector.changed().await;
            looks += 1;
        }
        assert!((4..=6).contains(&looks), "{looks}");
    }

    #[tokio::test]
    async fn another_directory_behind_a_link_is_watched() {
        let parent = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            std::fs::create_dir(parent.path().join(name)).unwrap();
        }
        let link = |to: &str| {
            std::os::unix::fs::symlink(to, parent.path().join("next")).unwrap();
            std::fs::rename(parent.path().join("next"), parent.path().join("mcpservers")).unwrap();
        };
        link("one");
        let mut detector = Detector::new(&parent.path().join("mcpservers"));
        link("two");
        noticed(&mut detector).await;
        std::fs::write(parent.path().join("two/a.yaml"), "a").unwrap();
        noticed(&mut detector).await;
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
