//! A task of this process in the place of a child, for whoever has no helper to run the same in a process of its own.

use std::pin::Pin;

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::super::spec::Spec;
use super::super::stop::StopRecipe;
use super::super::tree::{Ending, SpawnError, Stopped};
use super::process::{Launcher, Process};
use super::state::BoxError;
use crate::error::chain;

/// What a supervised task does. It ends soon after its token is cancelled: it is never cut.
pub type Work = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// Starts tasks. What the spec says of a command does not count.
pub(super) struct TaskLauncher<W> {
    work: W,
    tasks: TaskTracker,
}

impl<W> TaskLauncher<W> {
    pub(super) fn new(work: W, tasks: TaskTracker) -> Self {
        Self { work, tasks }
    }
}

impl<W: FnMut(CancellationToken) -> Work + Send + 'static> Launcher for TaskLauncher<W> {
    type Process = Task;

    async fn launch(&mut self, _: Spec) -> Result<Task, SpawnError> {
        let stop = CancellationToken::new();
        let running = self.tasks.spawn((self.work)(stop.clone()));
        Ok(Task { running, ended: None, _stop_on_drop: stop.clone().drop_guard(), stop })
    }
}

/// A started task. Dropped, it is told to end.
pub(super) struct Task {
    running: JoinHandle<Result<(), BoxError>>,
    /// How it ended, in the terms of processes, and its last words.
    ended: Option<(Ending, Vec<String>)>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

impl Process for Task {
    fn pid(&self) -> u32 {
        std::process::id()
    }

    async fn wait(&mut self) -> Ending {
        if let Some((ending, _)) = &self.ended {
            return *ending;
        }
        let (ending, last_words) = match (&mut self.running).await {
            Ok(Ok(())) => (Ending::Exited(0), Vec::new()),
            Ok(Err(error)) => (Ending::Exited(1), vec![chain(&*error)]),
            Err(error) => (Ending::Exited(1), vec![error.to_string()]),
        };
        self.ended = Some((ending, last_words));
        ending
    }

    async fn stop(&mut self, _: &StopRecipe) -> Stopped {
        self.stop.cancel();
        Stopped { ending: self.wait().await, left: 0 }
    }

    async fn last_words(self) -> Vec<String> {
        self.ended.map(|(_, lines)| lines).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::{Service, State, Supervisor, SupervisorSettings};
    use super::*;
    use crate::subprocess::Helper;

    struct Always;

    impl Service for Always {
        async fn spec(&mut self) -> Result<Spec, BoxError> {
            Ok(Spec::default())
        }

        async fn ready(&mut self, _: u32) -> Result<(), BoxError> {
            Ok(())
        }
    }

    fn supervise(
        work: impl FnMut(CancellationToken) -> Work + Send + 'static,
        tasks: &TaskTracker,
    ) -> Supervisor {
        Supervisor::of_task(Always, work, SupervisorSettings::new("task", Helper::None), tasks)
    }

    #[tokio::test]
    async fn a_stop_waits_for_the_end_and_a_drop_brings_it() {
        let tasks = TaskTracker::new();
        let ends = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&ends);
        let work = move |stop: CancellationToken| -> Work {
            let ends = Arc::clone(&counter);
            Box::pin(async move {
                stop.cancelled().await;
                tokio::task::yield_now().await;
                ends.fetch_add(1, Ordering::SeqCst);
                Ok(())
            })
        };
        let supervisor = supervise(work, &tasks);
        supervisor.start().await;
        assert_eq!(supervisor.ready().await.unwrap().pid, std::process::id());
        supervisor.stop().await;
        assert_eq!(ends.load(Ordering::SeqCst), 1);
        supervisor.start().await;
        supervisor.ready().await.unwrap();
        drop(supervisor);
        tasks.close();
        tasks.wait().await;
        assert_eq!(ends.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_failure_is_told_and_tried_again() {
        let tasks = TaskTracker::new();
        let mut failures = 1;
        let work = move |stop: CancellationToken| -> Work {
            let fails = failures > 0;
            failures -= 1;
            Box::pin(async move {
                if fails {
                    return Err("the port is taken".into());
                }
                stop.cancelled().await;
                Ok(())
            })
        };
        let supervisor = supervise(work, &tasks);
        let mut states = supervisor.watch();
        supervisor.start().await;
        let is_over = |state: &State| matches!(state, State::Backoff { .. });
        let failed = states.wait_for(is_over).await.unwrap().clone();
        let State::Backoff { failure, .. } = failed else { unreachable!() };
        assert!(failure.report().ends_with("its last line: the port is taken"), "{}", failure.report());
        supervisor.ready().await.unwrap();
        supervisor.stop().await;
    }
}
