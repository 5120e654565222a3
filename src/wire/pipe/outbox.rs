//! What waits to be written: bounded, and whoever adds to it is slowed down.
//!
//! A message can be added from where nothing can be awaited. Whoever reads messages from the server does it
//! [at the output's pace](Outbox::at_its_pace), so that a client which does not read is felt by the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytestring::ByteString;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::wire::stdio::write_line;

/// With so many bytes waiting, nothing more is read from the server. One read may go beyond it.
const FULL: usize = 4 << 20;

/// The way to the output. Clones are the same one; the output ends when all are dropped.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    lines: mpsc::UnboundedSender<ByteString>,
    level: Arc<Level>,
}

/// How much waits.
#[derive(Debug)]
struct Level {
    bytes: AtomicUsize,
    full: watch::Sender<bool>,
    /// Nobody reads any more.
    closed: CancellationToken,
}

impl Level {
    /// Tells whether it is full, where that has changed. Looks while nobody else tells, so that the last word is right.
    fn look(&self) {
        self.full.send_if_modified(|full| {
            let waiting = self.bytes.load(Ordering::Acquire);
            // What is added to a closed output waits for nothing.
            let now = !self.closed.is_cancelled() && (waiting >= FULL || (*full && waiting >= FULL / 2));
            std::mem::replace(full, now) != now
        });
    }
}

/// The end of the outbox that writes.
#[derive(Debug)]
pub(super) struct Writer {
    lines: mpsc::UnboundedReceiver<ByteString>,
    level: Arc<Level>,
}

/// An empty outbox.
pub(super) fn outbox() -> (Outbox, Writer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let level = Arc::new(Level {
        bytes: AtomicUsize::new(0),
        full: watch::Sender::new(false),
        closed: CancellationToken::new(),
    });
    (Outbox { lines: sender, level: Arc::clone(&level) }, Writer { lines: receiver, level })
}

impl Outbox {
    /// Adds a message. Where nobody reads any more it is forgotten.
    pub(super) fn push(&self, message: ByteString) {
        self.level.bytes.fetch_add(message.len(), Ordering::AcqRel);
        self.level.look();
        // The writer ends by itself only when the output is closed.
        let _ = self.lines.send(message);
    }

    /// Does `work` whenever there is room, for work that adds messages.
    pub(super) async fn at_its_pace<T>(&self, work: impl Future<Output = T>) -> T {
        let mut full = self.level.full.subscribe();
        tokio::pin!(work);
        loop {
            // The sender is in `self`: waiting cannot fail.
            let _ = full.wait_for(|full| !full).await;
            tokio::select! {
                biased;
                _ = full.wait_for(|full| *full) => {}
                done = &mut work => return done,
            }
        }
    }

    /// Waits until nobody reads any more.
    pub(super) async fn closed(&self) {
        self.level.closed.cancelled().await;
    }
}

impl Writer {
    /// Writes each message as a line, until every [`Outbox`] is dropped and all is written, or nobody reads any more.
    pub(super) async fn run<W: AsyncWrite + Unpin>(mut self, mut output: W) {
        while let Some(line) = self.lines.recv().await {
            if let Err(error) = write_line(&mut output, &line).await {
                debug!(%error, "the output is closed");
                self.level.closed.cancel();
                self.lines.close();
                self.level.look();
                return;
            }
            self.level.bytes.fetch_sub(line.len(), Ordering::AcqRel);
            self.level.look();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn who_adds_waits_for_who_reads() {
        let (outbox, writer) = outbox();
        let (output, mut reader) = tokio::io::duplex(1024);
        let writing = tokio::spawn(writer.run(output));
        let line = ByteString::from("x".repeat(FULL - 1));
        let mut added = 0;
        let mut work = Box::pin(outbox.at_its_pace(async {
            for _ in 0..3 {
                outbox.push(line.clone());
                added += 1;
                tokio::task::yield_now().await;
            }
        }));
        for _ in 0..100 {
            assert_eq!((&mut work).now_or_never(), None);
            tokio::task::yield_now().await;
        }
        let mut read = vec![0; 3 * FULL];
        let (_, all) = tokio::join!(work, reader.read_exact(&mut read));
        all.unwrap();
        assert_eq!(added, 3);
        drop(outbox);
        writing.await.unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_a_closed_output() {
        let (outbox, writer) = outbox();
        let (output, reader) = tokio::io::duplex(1024);
        drop(reader);
        outbox.push("x".repeat(FULL).into());
        writer.run(output).await;
        outbox.closed().await;
        assert_eq!(outbox.at_its_pace(async { 7 }).await, 7);
    }
}
