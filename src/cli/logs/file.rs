//! One log file that grows, and is moved aside when it is full.

use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// Reads whole lines, each once.
#[derive(Debug)]
pub(super) struct LogReader {
    path: PathBuf,
    file: File,
    /// The beginning of a line whose end is not written yet.
    begun: Vec<u8>,
}

impl LogReader {
    /// Opens a log; gives its last `lines`, also from the file before it.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn open(path: PathBuf, lines: usize) -> io::Result<(Self, Vec<String>)> {
        let file = File::open(&path)?;
        let mut reader = Self { path, file, begun: Vec::new() };
        let mut last = reader.rest()?;
        if last.len() < lines {
            let mut old = reader.path.clone().into_os_string();
            old.push(".old");
            match std::fs::read(old) {
                Ok(mut content) => {
                    let mut older = take_lines(&mut content);
                    older.append(&mut last);
                    last = older;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        let unwanted = last.len().saturating_sub(lines);
        last.drain(..unwanted);
        Ok((reader, last))
    }

    /// What was written since the last time, also where another file was begun meanwhile.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub(super) fn new_lines(&mut self) -> io::Result<Vec<String>> {
        let now = match std::fs::metadata(&self.path) {
            Ok(now) => now,
            // Moved aside, and the next one is not there yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.rest(),
            Err(error) => return Err(error),
        };
        let ours = self.file.metadata()?;
        if (now.dev(), now.ino()) == (ours.dev(), ours.ino()) {
            if ours.len() < self.file.stream_position()? {
                // Somebody has emptied it.
                self.file.rewind()?;
                self.begun.clear();
            }
            return self.rest();
        }
        // Nothing is written to a file any more that was moved aside.
        let mut lines = self.rest()?;
        if !self.begun.is_empty() {
            lines.push(text(&std::mem::take(&mut self.begun)));
        }
        self.file = File::open(&self.path)?;
        lines.append(&mut self.rest()?);
        Ok(lines)
    }

    fn rest(&mut self) -> io::Result<Vec<String>> {
        self.file.read_to_end(&mut self.begun)?;
        Ok(take_lines(&mut self.begun))
    }
}

/// Takes the whole lines out of `bytes`.
fn take_lines(bytes: &mut Vec<u8>) -> Vec<String> {
    let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else { return Vec::new() };
    let whole: Vec<u8> = bytes.drain(..=end).collect();
    whole[..end].split(|byte| *byte == b'\n').map(text).collect()
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs::{OpenOptions, rename, write};
    use std::io::Write as _;

    use super::*;

    fn append(path: &std::path::Path, text: &str) {
        OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_last_lines_come_from_both_files() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        write(directory.path().join("a.log.old"), "1\n2\n3\n").unwrap();
        write(&path, "4\n5\nbegun").unwrap();
        let last = |lines| LogReader::open(path.clone(), lines).unwrap().1;
        assert_eq!(last(3), ["3", "4", "5"]);
        assert_eq!(last(2), ["4", "5"]);
        assert_eq!(last(100), ["1", "2", "3", "4", "5"]);
        assert!(last(0).is_empty());
    }

    #[test]
    fn every_line_comes_once_across_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        append(&path, "1\n2");
        let (mut reader, last) = LogReader::open(path.clone(), 10).unwrap();
        assert_eq!(last, ["1"]);
        assert!(reader.new_lines().unwrap().is_empty());
        append(&path, "2\n3\n");
        assert_eq!(reader.new_lines().unwrap(), ["22", "3"]);

        append(&path, "4\n5");
        rename(&path, directory.path().join("a.log.old")).unwrap();
        assert_eq!(reader.new_lines().unwrap(), ["4"]);
        append(&path, "6\n7\n");
        assert_eq!(reader.new_lines().unwrap(), ["5", "6", "7"]);

        write(&path, "8\n").unwrap();
        assert_eq!(reader.new_lines().unwrap(), ["8"]);
    }

    #[test]
    fn what_is_no_text_is_shown_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        write(&path, b"\xff\n\n").unwrap();
        assert_eq!(LogReader::open(path, 10).unwrap().1, ["\u{fffd}", ""]);
    }
}
