//! Keeps one long-running child running.
//!
//! # Theory of operation
//!
//! One actor task owns the child and everything about it; a [`Supervisor`] is a handle that sends it commands and reads its
//! [`State`] from a `watch`. What runs is the caller's business: a [`Service`] is asked for a fresh [`Spec`] at each start,
//! and asked whether the started process is ready.
//!
//! ```text
//!            start                spawned, probe ok
//!   Idle ───────────▶ Starting ──────────────────────▶ Ready
//!                      ▲ │  │ stop, restart              │ stop, restart
//!       time or start  │ │  └──────────▶ Draining ◀───────┤
//!                      │ │ exit, not ready  │             │ exit
//!                   Backoff ◀───────────────┼─────────────┘
//!                      │ too many           │
//!                      ▼                    ▼
//!                   Failed               Stopped         (start leads from both to Starting)
//! ```
//!
//! # Invariants
//!
//! Each has a test of its name in `tests.rs` beside this file, or, where processes matter, in `tests/integration/subprocess`.
//!
//! 1. *One tree at a time*: the next one is started only when nothing of the one before it is left.
//! 2. *Quiet states are quiet*: in `Idle`, `Backoff`, `Failed` and `Stopped` no process exists.
//! 3. *Ready means alive*: `Ready` is entered only by a process that has not ended, and left as soon as it has. A probe is
//!    given up at once when the process ends, and the failure has its exit status and last lines.
//! 4. *A stop is a stop*: [`Supervisor::stop`] returns when nothing is left, in whatever state it came, once or twice.
//! 5. *The last command wins*: a start during a stop starts again after it, a stop during a start ends it.
//! 6. *Nobody's child does not exist*: when the last handle is dropped, the tree is killed and the task ends.
//! 7. *Failures slow down*: waits double, and begin anew after a healthy while; a command does not wait.
//! 8. *Fresh each time*: no spec is used for two starts.
//! 9. *Probes are bounded*: one that neither succeeds nor fails in time is a failure.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::actor::{Actor, Command};
use self::process::{Launcher, TreeLauncher};
use self::task::TaskLauncher;
use super::backoff::BackoffSettings;
use super::output::OutputSettings;
use super::spec::{Helper, Spec};
use super::stop::StopRecipe;

mod actor;
mod process;
mod state;
mod task;
#[cfg(test)]
mod tests;

pub use self::state::{BoxError, Failure, NeverReady, Running, State};
pub use self::task::Work;

/// What is supervised.
pub trait Service: Send + 'static {
    /// What to run. Asked before each start; an error counts as a failed start.
    ///
    /// Standard output and standard error are the supervisor's to drain, whatever the spec says of them.
    fn spec(&mut self) -> impl Future<Output = Result<Spec, BoxError>> + Send;

    /// Returns once the process is ready, or with the reason why it will never be.
    ///
    /// Dropped when the process ends, when the time is up, and when a command comes.
    fn ready(&mut self, pid: u32) -> impl Future<Output = Result<(), BoxError>> + Send;
}

/// When failures end the trying.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Never.
    Always,
    /// When this many restarts in a row have failed too; 0 is no restart at all.
    AtMost(u32),
}

/// How a child is supervised.
#[derive(Clone, Debug)]
pub struct SupervisorSettings {
    /// The child's name, in the log and of its log file.
    pub name: String,
    /// What guards the tree.
    pub helper: Helper,
    /// How long a process may take from its spawn to readiness.
    pub ready_within: Duration,
    /// How a process is ended.
    pub stop: StopRecipe,
    /// How failures slow down.
    pub backoff: BackoffSettings,
    /// The time in `Ready` after which earlier failures are forgotten.
    pub healthy_after: Duration,
    /// When failures end the trying.
    pub restart: RestartPolicy,
    /// What happens to the child's output.
    pub output: OutputSettings,
}

impl SupervisorSettings {
    /// 30 s to get ready, SIGTERM and 10 s to end, backoff from 200 ms to 30 s, forgotten after 60 s, no end of trying.
    pub fn new(name: impl Into<String>, helper: Helper) -> Self {
        Self {
            name: name.into(),
            helper,
            ready_within: Duration::from_secs(30),
            stop: StopRecipe::terminate(Duration::from_secs(10)),
            backoff: BackoffSettings::default(),
            healthy_after: Duration::from_secs(60),
            restart: RestartPolicy::Always,
            output: OutputSettings::default(),
        }
    }
}

/// A handle to a supervised child. The child is killed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Supervisor {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
}

impl Supervisor {
    /// Makes a supervisor, in [`State::Idle`]. Its tasks run on `tasks` and end after the last handle.
    pub fn new(service: impl Service, settings: SupervisorSettings, tasks: &TaskTracker) -> Self {
        let launcher = TreeLauncher::new(&settings, tasks.clone());
        Self::with_launcher(service, launcher, settings, tasks)
    }

    /// As [`new`](Self::new), for a task of this process instead of a child: `work` is called for each start. The task's
    /// process is ours; of the service's [`Spec`] nothing counts.
    pub fn of_task(
        service: impl Service,
        work: impl FnMut(CancellationToken) -> Work + Send + 'static,
        settings: SupervisorSettings,
        tasks: &TaskTracker,
    ) -> Self {
        Self::with_launcher(service, TaskLauncher::new(work, tasks.clone()), settings, tasks)
    }

    fn with_launcher(
        service: impl Service,
        launcher: impl Launcher,
        settings: SupervisorSettings,
        tasks: &TaskTracker,
    ) -> Self {
        let (commands, inbox) = mpsc::channel(16);
        let (publisher, state) = watch::channel(State::Idle);
        tasks.spawn(Actor::new(service, launcher, settings, inbox, publisher).run());
        Self { commands, state }
    }

    /// Starts the child, or tries again now when it waits for its next try. Does nothing to one that is started already.
    ///
    /// Returns when the state says so; [`ready`](Self::ready) waits for the outcome.
    pub async fn start(&self) {
        self.send(Command::Start).await;
    }

    /// Ends the child by its recipe; returns when nothing of it is left. It is not started again until it is told to.
    pub async fn stop(&self) {
        self.send(|done| Command::Stop { now: false, done }).await;
    }

    /// Ends the child at once, also when it is being stopped already; returns when nothing of it is left.
    pub async fn kill(&self) {
        self.send(|done| Command::Stop { now: true, done }).await;
    }

    /// Ends the child by its recipe and starts it again, without the wait that a failure costs.
    ///
    /// Returns when the end has begun; [`ready`](Self::ready) waits for the new process.
    pub async fn restart(&self, reason: impl Into<Arc<str>>) {
        let reason = reason.into();
        self.send(|done| Command::Restart { reason, done }).await;
    }

    /// The state now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// The state, as it changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits until the child is ready, however many tries that takes. Waits in [`State::Idle`] too.
    ///
    /// # Errors
    ///
    /// When it is stopped or given up.
    pub async fn ready(&self) -> Result<Running, NeverReady> {
        let mut state = self.state.clone();
        let settled = |state: &State| matches!(state, State::Ready(_) | State::Failed(_) | State::Stopped);
        match state.wait_for(settled).await.as_deref() {
            Ok(State::Ready(running)) => Ok(*running),
            Ok(State::Failed(failure)) => Err(NeverReady::Failed(failure.clone())),
            Ok(_) | Err(_) => Err(NeverReady::Stopped),
        }
    }

    /// Sends a command and waits for what it promises; an actor that is gone has nothing running.
    async fn send(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, wait) = oneshot::channel();
        if self.commands.send(command(done)).await.is_ok() {
            wait.await.ok();
        }
    }
}
