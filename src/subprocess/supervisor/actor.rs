//! The one task that owns the child.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::backoff::Backoff;
use super::super::stop::StopRecipe;
use super::super::tree::Ending;
use super::process::{Launcher, Process};
use super::state::{BoxError, Failure, Running, State};
use super::{RestartPolicy, Service, SupervisorSettings};

/// Answered when a command has done what it promises.
type Done = oneshot::Sender<()>;

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Command {
    Start(Done),
    Stop { now: bool, done: Done },
    Restart { reason: Arc<str>, done: Done },
}

/// What follows when the current process, if any, has gone.
enum After {
    /// The next start. The state is `Starting` already.
    Start,
    /// Nothing, until a command comes. The state says why.
    Rest,
    /// The end of the actor: there is no handle any more.
    Quit,
}

/// What breaks into an activity: a command that changes its course, or `None` for the loss of the last handle.
type Interrupt = Option<Command>;

pub(super) struct Actor<S, L> {
    service: S,
    launcher: L,
    settings: SupervisorSettings,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<State>,
    backoff: Backoff,
    starts: u64,
    /// When the current process was spawned.
    spawned: Option<Instant>,
}

impl<S: Service, L: Launcher> Actor<S, L> {
    pub(super) fn new(
        service: S,
        launcher: L,
        settings: SupervisorSettings,
        commands: mpsc::Receiver<Command>,
        state: watch::Sender<State>,
    ) -> Self {
        let backoff = Backoff::new(settings.backoff);
        Self { service, launcher, settings, commands, state, backoff, starts: 0, spawned: None }
    }

    pub(super) async fn run(mut self) {
        let mut after = After::Rest;
        loop {
            after = match after {
                After::Start => self.live().await,
                After::Rest => self.rest().await,
                After::Quit => break,
            };
        }
        self.enter(State::Stopped, "no handle is left");
    }

    async fn rest(&mut self) -> After {
        let interrupt = self.commands.recv().await;
        self.backoff.reset();
        self.without_process(interrupt)
    }

    /// Follows a command when there is no process to be ended first.
    fn without_process(&mut self, interrupt: Interrupt) -> After {
        let (after, done) = match interrupt {
            None => return After::Quit,
            Some(Command::Stop { done, .. }) => {
                self.enter(State::Stopped, "stop was asked for");
                (After::Rest, done)
            }
            Some(Command::Start(done)) => {
                self.enter(State::Starting { pid: None }, "start was asked for");
                (After::Start, done)
            }
            Some(Command::Restart { reason, done }) => {
                self.enter(State::Starting { pid: None }, &reason);
                (After::Start, done)
            }
        };
        answer(done);
        after
    }

    /// One process, from the question what it is to its end.
    async fn live(&mut self) -> After {
        let spec = tokio::select! {
            spec = self.service.spec() => spec,
            interrupt = interrupt(&mut self.commands) => return self.without_process(interrupt),
        };
        let spec = match spec {
            Ok(spec) => spec,
            Err(error) => return self.fail(Failure::Prepare(error)).await,
        };
        // Not cancelled by commands, which wait the few milliseconds: what is half started could not be waited for.
        let mut process = match self.launcher.launch(spec).await {
            Ok(process) => process,
            Err(error) => return self.fail(Failure::Spawn(error)).await,
        };
        self.starts += 1;
        self.spawned = Some(Instant::now());
        let pid = process.pid();
        self.enter(State::Starting { pid: Some(pid) }, "spawned");

        let limit = self.settings.ready_within;
        let start = tokio::select! {
            biased;
            ending = process.wait() => Start::Ended(ending),
            ready = timeout(limit, self.service.ready(pid)) => match ready {
                Ok(Ok(())) => Start::Ready,
                Ok(Err(error)) => Start::Refused(error),
                Err(_) => Start::TimedOut,
            },
            interrupt = interrupt(&mut self.commands) => Start::Interrupted(interrupt),
        };
        match start {
            Start::Ready => self.serve(process).await,
            Start::Interrupted(interrupt) => self.end(process, interrupt).await,
            Start::Ended(ending) => {
                let tail = self.clear_away(process).await;
                self.fail(Failure::EarlyExit { ending, tail }).await
            }
            Start::Refused(source) => {
                self.give_up(process, "not usable", |tail| Failure::Probe { source, tail }).await
            }
            Start::TimedOut => {
                self.give_up(process, "not ready in time", |tail| Failure::NotReady { limit, tail }).await
            }
        }
    }

    /// A process that is ready, until it ends or is to be ended.
    async fn serve(&mut self, mut process: L::Process) -> After {
        let since = Instant::now();
        self.enter(
            State::Ready(Running { pid: process.pid(), start: self.starts, since }),
            "its probe succeeded",
        );
        let outcome = tokio::select! {
            biased;
            ending = process.wait() => Ok(ending),
            interrupt = interrupt(&mut self.commands) => Err(interrupt),
        };
        let uptime = since.elapsed();
        if uptime >= self.settings.healthy_after {
            self.backoff.reset();
        }
        match outcome {
            Err(interrupt) => self.end(process, interrupt).await,
            Ok(ending) => {
                let tail = self.clear_away(process).await;
                self.fail(Failure::Exit { ending, uptime, tail }).await
            }
        }
    }

    /// Ends a process because of a command.
    async fn end(&mut self, process: L::Process, interrupt: Interrupt) -> After {
        let mut drain = Drain::default();
        let reason: Arc<str> = match &interrupt {
            None => "no handle is left".into(),
            Some(Command::Restart { reason, .. }) => reason.clone(),
            Some(_) => "stop was asked for".into(),
        };
        self.enter(State::Draining { pid: process.pid(), reason: reason.clone() }, &reason);
        drain.note(interrupt);
        let (drain, _) = self.drain(process, drain).await;
        self.conclude(drain).unwrap_or(After::Rest)
    }

    /// Ends a process because it is of no use.
    async fn give_up(
        &mut self,
        process: L::Process,
        reason: &str,
        failure: impl FnOnce(Vec<String>) -> Failure,
    ) -> After {
        self.enter(State::Draining { pid: process.pid(), reason: reason.into() }, reason);
        let (drain, tail) = self.drain(process, Drain::default()).await;
        let failure = failure(tail);
        match self.conclude(drain) {
            Some(after) => after,
            None => self.fail(failure).await,
        }
    }

    /// Ends a process while listening to what is to follow; returns that, and the last lines.
    async fn drain(&mut self, mut process: L::Process, mut drain: Drain) -> (Drain, Vec<String>) {
        if !drain.now {
            let recipe = self.settings.stop.clone();
            let mut stop = std::pin::pin!(process.stop(&recipe));
            while !drain.now {
                tokio::select! {
                    _ = &mut stop => break,
                    command = self.commands.recv() => drain.note(command),
                }
            }
        }
        let tail = self.clear_away(process).await;
        (drain, tail)
    }

    /// Turns the last command that came during a drain into what follows; `None` when there was none.
    fn conclude(&mut self, drain: Drain) -> Option<After> {
        let after = match drain.next? {
            Next::Quit => After::Quit,
            Next::Rest => {
                self.enter(State::Stopped, "ended");
                After::Rest
            }
            Next::Start(reason) => {
                self.enter(State::Starting { pid: None }, &reason);
                After::Start
            }
        };
        drain.stops.into_iter().for_each(answer);
        Some(after)
    }

    /// Ends what is left of a process, and returns its last lines.
    async fn clear_away(&mut self, mut process: L::Process) -> Vec<String> {
        let pid = process.pid();
        let stopped = process.stop(&StopRecipe::kill()).await;
        if stopped.left > 0 {
            tracing::error!(child = %self.settings.name, pid, left = stopped.left, "processes that cannot be ended are left");
        }
        process.last_words().await
    }

    /// Counts a failure and waits for the next try, if there is to be one.
    async fn fail(&mut self, failure: Failure) -> After {
        let failure = Arc::new(failure);
        let wait = self.backoff.fail(chance());
        let failures = self.backoff.failures();
        let reason = failure.report();
        if matches!(self.settings.restart, RestartPolicy::AtMost(restarts) if failures > restarts) {
            self.enter(State::Failed(failure), &reason);
            return After::Rest;
        }
        let retry_at = Instant::now() + wait;
        self.enter(State::Backoff { failure, failures, retry_at }, &reason);
        tokio::select! {
            () = sleep_until(retry_at) => {
                self.enter(State::Starting { pid: None }, "the next try is due");
                After::Start
            }
            interrupt = self.commands.recv() => self.without_process(interrupt),
        }
    }

    fn enter(&mut self, next: State, reason: &str) {
        let from = self.state.borrow().name();
        let pid = next.pid().or_else(|| self.state.borrow().pid());
        let uptime = self.spawned.map(|spawned| tracing::field::debug(spawned.elapsed()));
        if next.pid().is_none() {
            self.spawned = None;
        }
        let (child, to) = (&self.settings.name, next.name());
        if matches!(next, State::Backoff { .. } | State::Failed(_)) {
            tracing::warn!(%child, from, to, pid, uptime, reason, "child changed state");
        } else if from == to {
            // More is known of the same state.
            tracing::debug!(%child, to, pid, uptime, reason, "child goes on");
        } else {
            tracing::info!(%child, from, to, pid, uptime, reason, "child changed state");
        }
        self.state.send_replace(next);
    }
}

/// How a start came out.
enum Start {
    Ready,
    Ended(Ending),
    Refused(BoxError),
    TimedOut,
    Interrupted(Interrupt),
}

/// What has been asked for while a process is being ended.
#[derive(Default)]
struct Drain {
    next: Option<Next>,
    /// Whether the recipe is to be cut short.
    now: bool,
    stops: Vec<Done>,
}

enum Next {
    Start(Arc<str>),
    Rest,
    Quit,
}

impl Drain {
    fn note(&mut self, interrupt: Interrupt) {
        match interrupt {
            None => {
                self.next = Some(Next::Quit);
                self.now = true;
            }
            Some(Command::Stop { now, done }) => {
                self.next = Some(Next::Rest);
                self.now |= now;
                self.stops.push(done);
            }
            Some(Command::Start(done)) => {
                // A drain for a restart goes on to its own start.
                if !matches!(self.next, Some(Next::Start(_))) {
                    self.next = Some(Next::Start("start was asked for".into()));
                }
                answer(done);
            }
            Some(Command::Restart { reason, done }) => {
                self.next = Some(Next::Start(reason));
                answer(done);
            }
        }
    }
}

/// Waits for a command that a started or starting process must give way to.
async fn interrupt(commands: &mut mpsc::Receiver<Command>) -> Interrupt {
    loop {
        match commands.recv().await {
            Some(Command::Start(done)) => answer(done),
            other => return other,
        }
    }
}

fn answer(done: Done) {
    // Whoever asked may have stopped waiting.
    done.send(()).ok();
}

/// A number in `0.0..=1.0`; without randomness in the system, always the same, which costs only the jitter.
fn chance() -> f64 {
    getrandom::u32().map_or(0.0, |number| f64::from(number) / f64::from(u32::MAX))
}
