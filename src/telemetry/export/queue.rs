//! Where what is exported waits: bounded, and never in anybody's way.
//!
//! Whoever has something to export puts it in and goes on. A task takes out what is there, in batches, and sends it; what
//! cannot be sent is lost, and what does not fit is dropped. Both are counted, and said once in a while.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::settings::Batches;

/// How often it is said that something is lost.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// Sends batches.
pub(super) trait Sender<T>: Send + 'static {
    /// Sends one batch; why not, where it cannot be.
    fn send(&mut self, batch: Vec<T>) -> impl Future<Output = Result<(), String>> + Send;
}

/// What was not exported, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// It did not fit into the queue.
    pub dropped: u64,
    /// It could not be sent.
    pub failed: u64,
}

/// The way in. Cheap to clone.
pub(super) struct Queue<T> {
    sender: mpsc::Sender<T>,
    counts: Arc<Counts>,
}

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), counts: Arc::clone(&self.counts) }
    }
}

impl<T> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("losses", &self.counts.losses()).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Counts {
    dropped: AtomicU64,
    failed: AtomicU64,
}

impl Counts {
    fn losses(&self) -> Losses {
        Losses { dropped: self.dropped.load(Ordering::Relaxed), failed: self.failed.load(Ordering::Relaxed) }
    }
}

impl<T: Send + 'static> Queue<T> {
    /// A queue, and what is to be run so that it empties: until `stop`, and then until what is left was sent.
    pub(super) fn new(
        what: &'static str,
        batches: Batches,
        sender: impl Sender<T>,
        stop: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (input, output) = mpsc::channel(batches.most_waiting);
        let counts = Arc::<Counts>::default();
        let complaints = Complaints { what, counts: Arc::clone(&counts), said: Losses::default(), at: None };
        let running = run(output, batches, sender, complaints, stop);
        (Self { sender: input, counts }, running)
    }

    /// Puts something in, or counts it as dropped. Never waits.
    pub(super) fn push(&self, item: T) {
        if self.sender.try_send(item).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was not exported.
    pub(super) fn losses(&self) -> Losses {
        self.counts.losses()
    }
}

async fn run<T: Send + 'static>(
    mut output: mpsc::Receiver<T>,
    batches: Batches,
    mut sender: impl Sender<T>,
    mut complaints: Complaints,
    stop: CancellationToken,
) {
    let most = batches.most_at_once;
    loop {
        let mut batch = Vec::new();
        let filling = async {
            if output.recv_many(&mut batch, most).await == 0 {
                return;
            }
            let more = async {
                let mut room = most - batch.len();
                while room > 0 {
                    match output.recv_many(&mut batch, room).await {
                        0 => return,
                        came => room -= came,
                    }
                }
            };
            // What is there has waited long enough then.
            let _ = tokio::time::timeout(batches.delay, more).await;
        };
        if stop.run_until_cancelled(filling).await.is_none() {
            output.close();
            // What was taken out and not sent yet goes first.
            loop {
                while batch.len() < most
                    && let Ok(item) = output.try_recv()
                {
                    batch.push(item);
                }
                if batch.is_empty() {
                    return;
                }
                complaints.send(&mut sender, std::mem::take(&mut batch)).await;
            }
        }
        if batch.is_empty() {
            // Nobody can put anything in any more.
            return;
        }
        complaints.send(&mut sender, batch).await;
    }
}

/// Says what is lost, and not all the time.
struct Complaints {
    what: &'static str,
    counts: Arc<Counts>,
    said: Losses,
    at: Option<Instant>,
}

impl Complaints {
    async fn send<T: Send>(&mut self, sender: &mut impl Sender<T>, batch: Vec<T>) {
        let count = batch.len() as u64;
        let result = sender.send(batch).await;
        let what = self.what;
        if result.is_err() {
            self.counts.failed.fetch_add(count, Ordering::Relaxed);
        } else if self.at.take_if(|_| self.counts.losses() == self.said).is_some() {
            info!("{what} are exported again");
        }
        let losses = self.counts.losses();
        if losses == self.said || self.at.is_some_and(|at| at.elapsed() < SAY_AGAIN) {
            return;
        }
        let lost = (losses.dropped - self.said.dropped) + (losses.failed - self.said.failed);
        let why = result.err().unwrap_or_else(|| "they came faster than they could be sent".to_owned());
        warn!("{lost} {what} were not exported: {why}; the calls themselves are not concerned");
        (self.said, self.at) = (losses, Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    type Sent = Arc<Mutex<Vec<Vec<u32>>>>;

    struct Recorder {
        sent: Sent,
        failing: bool,
        hanging: bool,
    }

    impl Sender<u32> for Recorder {
        async fn send(&mut self, batch: Vec<u32>) -> Result<(), String> {
            if self.hanging {
                std::future::pending::<()>().await;
            }
            self.sent.lock().unwrap().push(batch);
            if self.failing { Err("nobody listens".to_owned()) } else { Ok(()) }
        }
    }

    const BATCHES: Batches = Batches { most_waiting: 8, most_at_once: 3, delay: Duration::from_secs(5) };

    fn recorder() -> (Recorder, Sent) {
        let sent = Sent::default();
        (Recorder { sent: Arc::clone(&sent), failing: false, hanging: false }, sent)
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_there_goes_in_batches_when_it_is_full_or_has_waited() {
        let (recorder, sent) = recorder();
        let stop = CancellationToken::new();
        let (queue, running) = Queue::new("numbers", BATCHES, recorder, stop.clone());
        let running = tokio::spawn(running);
        for number in 0..4 {
            queue.push(number);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(*sent.lock().unwrap(), [vec![0, 1, 2]]);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(*sent.lock().unwrap(), [vec![0, 1, 2], vec![3]]);
        queue.push(4);
        tokio::time::sleep(Duration::from_secs(1)).await;
        queue.push(5);
        stop.cancel();
        running.await.unwrap();
        assert_eq!(sent.lock().unwrap().last().unwrap(), &[4, 5], "what is left is sent at the end");
        queue.push(6);
        assert_eq!(queue.losses(), Losses { dropped: 1, failed: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_sent_is_counted_and_keeps_nobody_waiting() {
        let (mut recorder, sent) = recorder();
        recorder.failing = true;
        let (queue, running) = Queue::new("numbers", BATCHES, recorder, CancellationToken::new());
        tokio::spawn(running);
        for number in 0..6 {
            queue.push(number);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!((queue.losses().failed, sent.lock().unwrap().len()), (6, 2));

        let (mut recorder, _) = self::recorder();
        recorder.hanging = true;
        let (queue, running) = Queue::new("numbers", BATCHES, recorder, CancellationToken::new());
        tokio::spawn(running);
        tokio::time::sleep(Duration::from_secs(1)).await;
        for number in 0..100 {
            queue.push(number);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        for number in 0..100 {
            queue.push(number);
        }
        let dropped = queue.losses().dropped;
        assert!((180..200).contains(&dropped), "{dropped}: at most what fits, and one batch, is kept");
    }
}
