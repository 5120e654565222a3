//! Bytes to lines.

use tokio::io::{AsyncRead, AsyncReadExt};

/// How much is read at once: what a Linux pipe holds by default.
const CHUNK: usize = 64 * 1024;

/// Reads lines, and cuts those that are too long.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: R,
    chunk: Vec<u8>,
    limit: usize,
    /// The line so far, at most `limit` bytes of it.
    line: Vec<u8>,
    /// How many bytes of the line were cut off.
    cut: usize,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self { reader, chunk: Vec::with_capacity(CHUNK), limit, line: Vec::new(), cut: 0 }
    }

    /// Reads once; false at the end, of which a read error is one kind. Can be cancelled without losing anything.
    pub(super) async fn fill(&mut self) -> bool {
        self.reader.read_buf(&mut self.chunk).await.is_ok_and(|count| count > 0)
    }

    /// The lines that are complete.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let chunk = std::mem::take(&mut self.chunk);
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let (fits, over) = text.split_at(text.len().min(self.limit.saturating_sub(self.line.len())));
            self.line.extend_from_slice(fits);
            self.cut += over.len();
            if complete {
                lines.push(self.end_line());
            }
        }
        self.chunk = chunk;
        self.chunk.clear();
        lines
    }

    /// The lines that are complete, and the last one also if it is not.
    pub(super) fn take_rest(&mut self) -> Vec<String> {
        let mut lines = self.take_lines();
        if !self.line.is_empty() {
            lines.push(self.end_line());
        }
        lines
    }

    fn end_line(&mut self) -> String {
        let line = self.line.strip_suffix(b"\r").unwrap_or(&self.line);
        let mut text = String::from_utf8_lossy(line).into_owned();
        if self.cut > 0 {
            text.push_str(&format!("… [{} bytes cut]", self.cut));
        }
        self.line.clear();
        self.cut = 0;
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(chunks: &[&str], limit: usize) -> Vec<String> {
        let (mut writer, reader) = tokio::io::duplex(1024);
        let mut lines = Lines::new(reader, limit);
        let mut found = Vec::new();
        for chunk in chunks {
            tokio::io::AsyncWriteExt::write_all(&mut writer, chunk.as_bytes()).await.unwrap();
            assert!(lines.fill().await);
            found.extend(lines.take_lines());
        }
        drop(writer);
        assert!(!lines.fill().await);
        found.extend(lines.take_rest());
        found
    }

    #[tokio::test]
    async fn chunks_do_not_matter() {
        assert_eq!(read(&["a\nb", "c\n\n", "d"], 16).await, ["a", "bc", "", "d"]);
    }

    #[tokio::test]
    async fn long_lines_are_cut_and_say_so() {
        assert_eq!(read(&["abcd", "efgh\nxy\n"], 3).await, ["abc… [5 bytes cut]", "xy"]);
    }

    #[tokio::test]
    async fn carriage_returns_belong_to_the_line_end() {
        assert_eq!(read(&["a\r\nb\rc\r\n"], 16).await, ["a", "b\rc"]);
    }

    #[tokio::test]
    async fn what_is_no_text_is_shown_as_best_we_can() {
        let mut lines = Lines::new(&b"a\xffb\n"[..], 16);
        assert!(lines.fill().await);
        assert_eq!(lines.take_lines(), ["a\u{fffd}b"]);
    }
}
