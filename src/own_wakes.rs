//! Tasks that wake themselves.
//!
//! Parts of one task that hand something to each other wake it while it runs: the body of a request does so to whoever reads it,
//! an answer to whoever waits for it. The runtime takes each such wake-up for work that another thread could do: it queues the task
//! behind others and wakes a thread to look for it, which costs more than a small call. Here the task is polled again at once.
//!
//! Knows nothing of what the task does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::task::coop::has_budget_remaining;

/// How often a future is polled in a row before others get their turn.
const MOST_POLLS: usize = 8;

/// A future that is polled again at once when it was woken while it was polled.
#[derive(Debug)]
pub(crate) struct PolledAgain<F> {
    future: Pin<Box<F>>,
    shared: Arc<Shared>,
    /// Made of `shared`.
    waker: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    /// A set of the bits below.
    state: AtomicU8,
    /// Whom to wake when nobody polls.
    task: AtomicWaker,
}

/// The future is being polled.
const POLLED: u8 = 1;
/// The future was woken since the last poll began.
const WOKEN: u8 = 2;

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Always written, also where the bit is there already: the next poll must see what came before this wake-up.
        if self.state.fetch_or(WOKEN, Ordering::AcqRel) & POLLED == 0 {
            self.task.wake();
        }
    }
}

impl<F: Future> PolledAgain<F> {
    pub(crate) fn new(future: F) -> Self {
        let shared = Arc::<Shared>::default();
        Self { future: Box::pin(future), waker: Waker::from(Arc::clone(&shared)), shared }
    }
}

impl<F: Future> Future for PolledAgain<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, shared, waker } = self.get_mut();
        shared.task.register(cx.waker());
        for _ in 0..MOST_POLLS {
            shared.state.swap(POLLED, Ordering::AcqRel);
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            let rested = shared.state.compare_exchange(POLLED, 0, Ordering::AcqRel, Ordering::Acquire);
            if rested.is_ok() {
                return Poll::Pending;
            }
            // Without a budget nothing would move before the runtime has had its turn.
            if !has_budget_remaining() {
                break;
            }
        }
        shared.state.swap(0, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Polls once; gives how often the task was woken meanwhile.
    fn poll_once<F: Future>(future: &mut PolledAgain<F>) -> (Poll<F::Output>, usize) {
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        let polled = Pin::new(future).poll(&mut Context::from_waker(&waker));
        (polled, counter.0.load(Ordering::SeqCst))
    }

    #[test]
    fn what_wakes_itself_is_polled_again_and_wakes_nobody() {
        let (sender, mut receiver) = oneshot::channel();
        let mut sender = Some(sender);
        // Whoever waits comes first, so that it is woken.
        let mut future = PolledAgain::new(poll_fn(move |cx| {
            let received = Pin::new(&mut receiver).poll(cx);
            if let Some(sender) = sender.take() {
                sender.send(7).unwrap();
            }
            received
        }));
        assert_eq!(poll_once(&mut future), (Poll::Ready(Ok(7)), 0));
    }

    #[test]
    fn what_never_rests_gives_others_their_turn() {
        let mut polls = 0;
        let mut future = PolledAgain::new(poll_fn(move |cx| {
            polls += 1;
            cx.waker().wake_by_ref();
            if polls > MOST_POLLS { Poll::Ready(polls) } else { Poll::Pending }
        }));
        assert_eq!(poll_once(&mut future), (Poll::Pending, 1));
        assert_eq!(poll_once(&mut future), (Poll::Ready(MOST_POLLS + 1), 0));
    }

    #[test]
    fn others_wake_the_task_that_polled_last() {
        let (sender, receiver) = oneshot::channel();
        let mut future = PolledAgain::new(receiver);
        assert_eq!(poll_once(&mut future), (Poll::Pending, 0));
        let counter = Arc::new(Counter::default());
        let waker = Waker::from(Arc::clone(&counter));
        assert!(Pin::new(&mut future).poll(&mut Context::from_waker(&waker)).is_pending());
        sender.send(7).unwrap();
        assert_eq!(counter.0.load(Ordering::SeqCst), 1);
        assert_eq!(poll_once(&mut future), (Poll::Ready(Ok(7)), 0));
    }

    /// Wake-ups from another thread come at any moment, also between two polls; none is lost.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_up_of_another_thread_is_lost() {
        for round in 0..2000 {
            let (sender, receiver) = oneshot::channel();
            let waiting = tokio::spawn(PolledAgain::new(receiver));
            std::thread::yield_now();
            sender.send(round).unwrap();
            let waiting = tokio::time::timeout(std::time::Duration::from_secs(20), waiting);
            assert_eq!(waiting.await.expect("it was not woken").unwrap(), Ok(round));
        }
    }
}
