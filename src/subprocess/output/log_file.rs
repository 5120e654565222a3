//! One child's log file, with one old file beside it.

use std::io;
use std::path::{Path, PathBuf};

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

/// Where a log file is, and how long it may get.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFileSettings {
    /// The directory; made when it is missing and the one above it is there. The file in it is called `<child>.log`, the old one `<child>.log.old`.
    pub directory: PathBuf,
    /// The size, in bytes, at which a new file is begun. A file can be longer by what was read at once.
    pub size_limit: u64,
}

impl LogFileSettings {
    /// A file of up to 5 MiB in `directory`.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into(), size_limit: 5 * 1024 * 1024 }
    }
}

/// A file that is opened when there is something to write, and again after each failure.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    size_limit: u64,
    open: Option<(File, u64)>,
    /// Lines that could not be written since the last that could.
    lost: usize,
}

impl LogFile {
    pub(super) fn new(name: &str, settings: LogFileSettings) -> Self {
        let path = settings.directory.join(format!("{name}.log"));
        Self { path, size_limit: settings.size_limit, open: None, lost: 0 }
    }

    /// Writes the lines, or warns, once for each row of failures, that it cannot.
    pub(super) async fn append(&mut self, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        match self.try_append(lines).await {
            Ok(()) if self.lost > 0 => {
                tracing::warn!(file = %self.path.display(), lost = self.lost, "log file can be written again");
                self.lost = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if self.lost == 0 {
                    tracing::warn!(file = %self.path.display(), %error, "log file cannot be written");
                }
                self.lost += lines.len();
                self.open = None;
            }
        }
    }

    async fn try_append(&mut self, lines: &[String]) -> io::Result<()> {
        let (mut file, size) = match self.open.take() {
            Some((file, size)) if size < self.size_limit => (file, size),
            Some(_) => self.begin().await?,
            None => match open(&self.path).await? {
                (file, size) if size < self.size_limit => (file, size),
                _ => self.begin().await?,
            },
        };
        let mut text = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        file.write_all(text.as_bytes()).await?;
        // The error of a tokio file's write is told by the next operation.
        file.flush().await?;
        self.open = Some((file, size + text.len() as u64));
        Ok(())
    }

    /// Moves the full file aside, in place of the one before it, and begins a new one.
    async fn begin(&self) -> io::Result<(File, u64)> {
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        tokio::fs::rename(&self.path, old).await?;
        open(&self.path).await
    }
}

/// Only for its owner: a child may print secrets.
async fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(directory) = path.parent() {
        // Not those above it: what a child says last must not bring back what was taken away with its owner.
        match tokio::fs::create_dir(directory).await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).await?;
    let size = file.metadata().await?.len();
    Ok((file, size))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn line(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[tokio::test]
    async fn a_full_file_makes_room_and_one_old_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let settings = LogFileSettings { directory: dir.path().join("logs"), size_limit: 4 };
        let mut file = LogFile::new("time", settings);
        for text in ["first", "second", "third"] {
            file.append(&line(text)).await;
        }
        let path = dir.path().join("logs/time.log");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "third\n");
        assert_eq!(std::fs::read_to_string(dir.path().join("logs/time.log.old")).unwrap(), "second\n");
        assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_file_of_an_earlier_run_is_continued() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["one", "two"] {
            LogFile::new("x", LogFileSettings::new(dir.path())).append(&line(text)).await;
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("x.log")).unwrap(), "one\ntwo\n");
    }

    #[tokio::test]
    async fn a_full_disk_is_survived_and_its_end_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let mut file = LogFile::new("x", LogFileSettings::new(dir.path()));
        file.append(&line("lost")).await;
        file.append(&line("lost too")).await;
        assert_eq!(file.lost, 2);
        std::fs::remove_file(&path).unwrap();
        file.append(&line("kept")).await;
        assert_eq!((file.lost, std::fs::read_to_string(&path).unwrap().as_str()), (0, "kept\n"));
    }
}
