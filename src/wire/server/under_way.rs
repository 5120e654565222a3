//! A request on its way to its answer.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

/// The work for one request. The task of its connection does it, as long as that has nothing else to do: most requests are
/// answered soon, and a task of their own would only mean to wake each other. Dropped before its end, the work goes on as a
/// task: a client that goes away does not cancel its request (2025-11-25, basic/transports, "Sending Messages to the
/// Server", item 6).
pub(super) struct UnderWay {
    work: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    tracker: TaskTracker,
}

impl UnderWay {
    /// No work yet. What is left of it becomes a task of `tracker`.
    pub(super) fn new(tracker: &TaskTracker) -> Self {
        Self { work: None, tracker: tracker.clone() }
    }

    /// The work to do.
    pub(super) fn begin(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.work = Some(Box::pin(work));
    }

    /// Works until `poll` has something.
    pub(super) async fn drive_until<T>(&mut self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        poll_fn(|context| {
            // Taken out while it is polled: what has panicked must not go on as a task.
            if let Some(mut work) = self.work.take()
                && work.as_mut().poll(context).is_pending()
            {
                self.work = Some(work);
            }
            poll(context)
        })
        .await
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        // Outside of a runtime everything has ended.
        if let Ok(runtime) = Handle::try_current() {
            self.tracker.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_that_nobody_waits_for_goes_on() {
        let (tracker, (go, gone)) = (TaskTracker::new(), oneshot::channel::<()>());
        let (done, is_done) = oneshot::channel();
        let mut under_way = UnderWay::new(&tracker);
        under_way.begin(async {
            gone.await.unwrap();
            done.send(()).unwrap();
        });
        assert!(under_way.drive_until(|_| Poll::<()>::Pending).now_or_never().is_none());
        assert_eq!(tracker.len(), 0);
        drop(under_way);
        go.send(()).unwrap();
        is_done.await.unwrap();
        tracker.close();
        tracker.wait().await;
    }

    #[tokio::test]
    async fn work_is_done_where_it_is_waited_for() {
        let tracker = TaskTracker::new();
        let (done, mut is_done) = oneshot::channel();
        let mut under_way = UnderWay::new(&tracker);
        under_way.begin(async { done.send(7).unwrap() });
        let seen = under_way.drive_until(|context| is_done.poll_unpin(context)).now_or_never();
        assert_eq!(seen, Some(Ok(7)));
        drop(under_way);
        assert!(tracker.is_empty());
    }
}
