//! The end of a log file.

use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};

/// How much of a file is read at most, in bytes.
const MOST_BYTES: u64 = 128 << 10;

/// How many lines are shown at most.
pub(super) const MOST_LINES: usize = 400;

/// The last lines of a log, the oldest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) lines: Vec<String>,
    /// There are older ones.
    pub(super) is_cut: bool,
}

/// Reads the end of the log called `name` in `directory`. One that was begun a moment ago is continued by the one before it.
///
/// # Errors
///
/// It cannot be read. That there is none is no error: nothing was written yet.
pub(super) async fn tail(directory: &Path, name: &str) -> io::Result<Tail> {
    let path = directory.join(format!("{name}.log"));
    let (mut text, mut is_cut) = end_of(&path).await?;
    if !is_cut && text.iter().filter(|byte| **byte == b'\n').count() < MOST_LINES {
        let (mut older, older_is_cut) = end_of(&old(&path)).await?;
        older.append(&mut text);
        (text, is_cut) = (older, older_is_cut);
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<&str> = text.lines().collect();
    if is_cut && !lines.is_empty() {
        // The first is not whole.
        lines.remove(0);
    }
    let over = lines.len().saturating_sub(MOST_LINES);
    let lines = lines.drain(over..).map(str::to_owned).collect();
    Ok(Tail { lines, is_cut: is_cut || over > 0 })
}

fn old(path: &Path) -> PathBuf {
    let mut old = path.to_owned().into_os_string();
    old.push(".old");
    old.into()
}

/// The end of a file, and whether there is more.
async fn end_of(path: &Path) -> io::Result<(Vec<u8>, bool)> {
    let mut file = match fs_err::tokio::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
        Err(error) => return Err(error),
    };
    let size = file.metadata().await?.len();
    let start = size.saturating_sub(MOST_BYTES);
    file.seek(io::SeekFrom::Start(start)).await?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).await?;
    Ok((bytes, start > 0))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[tokio::test]
    async fn the_end_of_both_files_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
        assert_eq!(tail(directory.path(), "a").await.unwrap(), Tail::default());
        write("a.log", "3\n4");
        write("a.log.old", "1\n2\n");
        let read = tail(directory.path(), "a").await.unwrap();
        assert_eq!(read, Tail { lines: ["1", "2", "3", "4"].map(str::to_owned).into(), is_cut: false });

        let mut many = String::new();
        (0..MOST_LINES + 10).for_each(|n| writeln!(many, "{n}").unwrap());
        write("a.log", &many);
        let read = tail(directory.path(), "a").await.unwrap();
        assert!(read.is_cut && read.lines.len() == MOST_LINES && read.lines[0] == "10");

        let long = "é".repeat(usize::try_from(MOST_BYTES).unwrap());
        write("a.log", &format!("{long}\nlast\n"));
        let read = tail(directory.path(), "a").await.unwrap();
        assert_eq!(read, Tail { lines: vec!["last".to_owned()], is_cut: true });
    }
}
