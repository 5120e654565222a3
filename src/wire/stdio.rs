//! Newline-delimited messages over a pipe (2025-11-25, basic/transports, "stdio").

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use memchr::memchr;
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Reads lines, each of at most a given size.
#[derive(Debug)]
pub struct LineReader<R> {
    input: R,
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no line feed.
    scanned: usize,
    /// What is read belongs to a line that was too long.
    skipping: bool,
    limit: usize,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Reads lines of at most `limit` bytes from `input`.
    pub fn new(input: R, limit: usize) -> Self {
        Self { input, buffer: BytesMut::with_capacity(8 << 10), scanned: 0, skipping: false, limit }
    }

    /// The next line without its line end, blank lines left out; `None` at the end of input. A last line without a
    /// line feed counts.
    ///
    /// Safe to drop while it waits: nothing that was read is lost.
    ///
    /// # Errors
    ///
    /// Reading failed, or the line is longer than the limit ([`InvalidData`](io::ErrorKind::InvalidData)); the next call
    /// gives the line after it.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            while let Some(offset) = memchr(b'\n', &self.buffer[self.scanned..]) {
                let mut line = self.buffer.split_to(self.scanned + offset + 1);
                self.scanned = 0;
                if std::mem::take(&mut self.skipping) {
                    continue;
                }
                line.truncate(line.len() - 1);
                if let Some(line) = not_blank(line) {
                    return Ok(Some(line));
                }
            }
            if self.skipping {
                self.buffer.clear();
            }
            self.scanned = self.buffer.len();
            if self.scanned > self.limit {
                self.skipping = true;
                let message = format!("a line is longer than {} bytes", self.limit);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            if self.input.read_buf(&mut self.buffer).await? == 0 {
                self.scanned = 0;
                let rest = self.buffer.split();
                return Ok(if self.skipping { None } else { not_blank(rest) });
            }
        }
    }
}

fn not_blank(mut line: BytesMut) -> Option<Bytes> {
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    if line.iter().all(u8::is_ascii_whitespace) { None } else { Some(line.freeze()) }
}

/// Writes one message as one line. Line ends between its tokens, which JSON allows, become spaces.
///
/// # Errors
///
/// Writing failed.
pub async fn write_line<W: AsyncWrite + Unpin>(output: &mut W, message: &ByteString) -> io::Result<()> {
    // One write for the whole line: a reader is woken once, and a line is never half written because of a cancelled
    // second write.
    let mut line = Vec::with_capacity(message.len() + 1);
    line.extend_from_slice(message.as_bytes());
    for byte in &mut line {
        // JSON strings cannot hold raw control characters (RFC 8259 section 7), so these stand between tokens.
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    line.push(b'\n');
    output.write_all(&line).await?;
    output.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(text: &[u8], limit: usize) -> io::Result<Vec<Bytes>> {
        let mut reader = LineReader::new(text, limit);
        let mut lines = Vec::new();
        while let Some(line) = reader.next().await? {
            lines.push(line);
        }
        Ok(lines)
    }

    #[tokio::test]
    async fn lines_end_with_lf_or_crlf_or_the_input() {
        assert_eq!(lines(b"a\nbc\r\n\n  \nd", 10).await.unwrap(), ["a", "bc", "d"]);
    }

    #[tokio::test]
    async fn a_line_over_the_limit_is_an_error() {
        let error = lines(&[b'x'; 100_000], 10).await.unwrap_err();
        assert_eq!(error.to_string(), "a line is longer than 10 bytes");
    }

    #[tokio::test]
    async fn what_follows_a_line_over_the_limit_can_be_read() {
        let text = [&[b'x'; 100_000], &b"\nnext\n"[..], &[b'y'; 100_000]].concat();
        let mut reader = LineReader::new(&text[..], 10);
        assert!(reader.next().await.is_err());
        assert_eq!(reader.next().await.unwrap().unwrap(), "next");
        assert!(reader.next().await.is_err());
        assert_eq!(reader.next().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_message_is_one_line() {
        let mut out = Vec::new();
        write_line(&mut out, &"{\n \"a\":\r\n 1}".into()).await.unwrap();
        assert_eq!(out, b"{  \"a\":   1}\n");
    }
}
