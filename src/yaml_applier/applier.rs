//! The one writer of a gateway's file.
//!
//! Theory of operation: callers put the routes they want into a mailbox that holds only the latest, and wait for the revision
//! they were given. The actor takes the mailbox's content, has it validated, writes it and polls the data port until the
//! gateway answers that generation; meanwhile newer wishes replace each other in the mailbox.
//!
//! A child that is to be started is prepared for first: [`Applier::prepare`] writes the file with the child's nonce, the caller
//! spawns the child, [`Applier::prove`] waits for it. Between the two, and after a reload that did not come into force, only
//! `prepare` touches the file. A `prepare` interrupts a proof under way, because the child it waits for is dead.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{Instrument as _, debug, info, info_span, warn};

use super::generation::{Generation, SpawnNonce};
use super::key::GatewayKey;
use super::plan::{GatewaySettings, Plan, RoutePlan};
use super::probe::{ProbeAnswer, await_generation};
use super::render::RenderError;
use super::route_name::RouteName;
use super::validate::{AcceptError, Accepted, KnownBad, ValidateError, Validator, accept};
use super::write::{self, WriteError};
use crate::telemetry::metrics::ReloadMetrics;
use crate::telemetry::{Cause, LIFECYCLE};

/// What an [`Applier`] works with for the whole life of its gateway.
pub struct ApplierOptions {
    /// The file, in a directory that only the owner can enter.
    pub file: PathBuf,
    /// What does not change between writes.
    pub settings: Arc<GatewaySettings>,
    /// The key whose digest the file holds.
    pub key: GatewayKey,
    /// Judges each candidate before it is written.
    pub validator: Option<Arc<dyn Validator>>,
    /// How long a reload may take before the file is written once more, and then again before the child is given up. A reload
    /// of agentgateway takes 256 to 316 ms; 3 s is what section "Reload" of its notes calls lost.
    pub reload_deadline: Duration,
    /// Measures changes that a running gateway takes over, or does not.
    pub reloads: Option<ReloadMetrics>,
}

/// The place of a wish in the order of wishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(u64);

/// A generation that the data port has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The latest wish that it covers.
    pub revision: Revision,
    /// What the data port answers.
    pub generation: Generation,
    /// The routes that were left out, with the gateway's own words.
    pub refused: Arc<BTreeMap<RouteName, String>>,
}

/// Where the gateway's file stands.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// What the child serves; nothing before the first proof and while a child is being replaced.
    pub in_force: Option<InForce>,
    /// A newer generation is written and not yet in force: a route may be missing for a moment.
    pub pending: bool,
    /// The newest wish that failed, and why. It is not tried again by itself: that takes another wish, or a `prepare`.
    pub failure: Option<(Revision, ApplyError)>,
    /// When the last of these came: another generation in force, or a failure. Nothing before the first.
    pub changed: Option<SystemTime>,
    /// The reload that brought it into force; nothing where a process was started with it.
    pub cause: Cause,
}

/// Why a wish did not come into force.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// It has no form as a file.
    #[error(transparent)]
    Render(Arc<RenderError>),
    /// The gateway refuses it, or cannot be asked.
    #[error(transparent)]
    Validate(Arc<ValidateError>),
    /// The file could not be written.
    #[error(transparent)]
    Write(Arc<WriteError>),
    /// The data port does not answer it. The child must be replaced.
    #[error("generation {generation} is not in force after {waited:?}: asked for it, {}", describe(last))]
    NotInForce {
        /// What was waited for.
        generation: Generation,
        /// For how long in all.
        waited: Duration,
        /// What the port said last, if it was asked.
        last: Option<ProbeAnswer>,
    },
    /// A later `prepare` took the place of this one.
    #[error("another gateway process is being prepared")]
    Superseded,
    /// `prove` without `prepare`.
    #[error("no gateway process has been prepared")]
    NotPrepared,
    /// The applier has ended.
    #[error("the gateway's configuration is no longer looked after")]
    Stopped,
}

fn describe(answer: &Option<ProbeAnswer>) -> String {
    answer.as_ref().map_or_else(|| "nothing was said".to_owned(), ToString::to_string)
}

impl From<AcceptError> for ApplyError {
    fn from(error: AcceptError) -> Self {
        match error {
            AcceptError::Render(source) => Self::Render(Arc::new(source)),
            AcceptError::Validate(source) => Self::Validate(Arc::new(source)),
        }
    }
}

/// A handle to the actor that owns a gateway's file.
#[derive(Clone)]
pub struct Applier {
    wanted: Arc<watch::Sender<Wanted>>,
    commands: mpsc::Sender<Command>,
    status: watch::Receiver<Status>,
}

impl Applier {
    /// Starts the actor on `tasks`; it ends when `cancel` is cancelled. Nothing is written before the first `prepare`.
    pub fn start(options: ApplierOptions, tasks: &TaskTracker, cancel: CancellationToken) -> Self {
        let (wanted, wanted_rx) = watch::channel(Wanted::default());
        let (commands, commands_rx) = mpsc::channel(1);
        let (status_tx, status) = watch::channel(Status::default());
        let actor = Actor {
            options,
            wanted: wanted_rx,
            commands: Inbox { receiver: commands_rx, next: None },
            status: status_tx,
            child: Child::None,
            known_bad: KnownBad::default(),
        };
        tasks.spawn(async move {
            cancel.run_until_cancelled_owned(actor.run()).await;
        });
        Self { wanted: Arc::new(wanted), commands, status }
    }

    /// Wishes for these routes, instead of all that was wished for before, and returns at once.
    pub fn apply(&self, routes: BTreeMap<RouteName, RoutePlan>) -> Revision {
        let mut revision = Revision::default();
        self.wanted.send_modify(|wanted| {
            wanted.revision.0 += 1;
            wanted.since = Some(Instant::now());
            wanted.routes = Arc::new(routes);
            revision = wanted.revision;
        });
        revision
    }

    /// Waits until `revision` or a later wish is in force, or has failed. Before the first `prove` that can be long.
    pub async fn in_force(&self, revision: Revision) -> Result<InForce, ApplyError> {
        let mut status = self.status.clone();
        let settled = status
            .wait_for(|status| {
                status.in_force.as_ref().is_some_and(|now| now.revision >= revision)
                    || status.failure.as_ref().is_some_and(|(failed, _)| *failed >= revision)
            })
            .await
            .map_err(|_closed| ApplyError::Stopped)?;
        match (&settled.in_force, &settled.failure) {
            (Some(now), _) if now.revision >= revision => Ok(now.clone()),
            (_, Some((_, error))) => Err(error.clone()),
            _ => Err(ApplyError::Stopped),
        }
    }

    /// Writes the latest wish for a process that is about to be started; the old one, if any, must have been reaped. Nothing is
    /// in force from here until [`prove`](Self::prove) returns.
    pub async fn prepare(&self, nonce: SpawnNonce) -> Result<Generation, ApplyError> {
        self.command(|reply| Command::Prepare { nonce, reply }).await
    }

    /// Waits at most `patience` for the process that was prepared for to answer its generation.
    pub async fn prove(&self, patience: Duration) -> Result<InForce, ApplyError> {
        self.command(|reply| Command::Prove { patience, reply }).await
    }

    /// Where the file stands, for readers that follow it.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    async fn command<T>(
        &self,
        make: impl FnOnce(oneshot::Sender<Result<T, ApplyError>>) -> Command,
    ) -> Result<T, ApplyError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(make(reply)).await.map_err(|_closed| ApplyError::Stopped)?;
        answer.await.map_err(|_closed| ApplyError::Stopped)?
    }
}

#[derive(Clone, Default)]
struct Wanted {
    revision: Revision,
    /// When it was wished for.
    since: Option<Instant>,
    routes: Arc<BTreeMap<RouteName, RoutePlan>>,
}

enum Command {
    Prepare { nonce: SpawnNonce, reply: oneshot::Sender<Result<Generation, ApplyError>> },
    Prove { patience: Duration, reply: oneshot::Sender<Result<InForce, ApplyError>> },
}

/// Commands, of which one may be put back.
struct Inbox {
    receiver: mpsc::Receiver<Command>,
    next: Option<Command>,
}

impl Inbox {
    /// Cancel safe.
    async fn next(&mut self) -> Option<Command> {
        match self.next.take() {
            Some(command) => Some(command),
            None => self.receiver.recv().await,
        }
    }

    /// Runs `work` to its end unless a command arrives, which is then the next one.
    async fn unless_commanded<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            Some(command) = self.receiver.recv(), if self.next.is_none() => {
                self.next = Some(command);
                None
            }
        }
    }
}

/// What is known of the process behind the data port.
#[derive(Clone)]
enum Child {
    None,
    Prepared(InForce),
    Running(SpawnNonce),
}

struct Actor {
    options: ApplierOptions,
    wanted: watch::Receiver<Wanted>,
    commands: Inbox,
    status: watch::Sender<Status>,
    child: Child,
    known_bad: KnownBad,
}

impl Actor {
    async fn run(mut self) {
        loop {
            let running = match self.child {
                Child::Running(nonce) => Some(nonce),
                Child::None | Child::Prepared(_) => None,
            };
            tokio::select! {
                biased;
                command = self.commands.next() => match command {
                    None => return,
                    Some(Command::Prepare { nonce, reply }) => {
                        // A caller that has gone away has no use for the answer.
                        drop(reply.send(self.prepare(nonce).await));
                    }
                    Some(Command::Prove { patience, reply }) => drop(reply.send(self.prove(patience).await)),
                },
                Ok(()) = self.wanted.changed(), if running.is_some() => {
                    if let Some(nonce) = running {
                        self.roll_out(nonce).instrument(info_span!(target: LIFECYCLE, "sidegate.reload")).await;
                    }
                }
            }
        }
    }

    async fn prepare(&mut self, nonce: SpawnNonce) -> Result<Generation, ApplyError> {
        self.child = Child::None;
        self.status.send_modify(|status| {
            // The wish is tried again, so an earlier failure of it says nothing any more.
            *status = Status { pending: true, changed: status.changed, ..Status::default() };
        });
        let wanted = self.wanted.borrow_and_update().clone();
        let result = async {
            let file = self.options.file.clone();
            blocking(move || write::remove_leftovers(&file)).await?;
            let accepted = self.accept(&wanted, nonce).await?;
            self.write(&accepted, false).await?;
            Ok(accepted)
        }
        .await;
        match result {
            Ok(accepted) => {
                let generation = accepted.rendered.generation;
                self.child = Child::Prepared(covering(&wanted, &accepted));
                debug!(%generation, "gateway configuration prepared");
                Ok(generation)
            }
            Err(error) => {
                self.fail(wanted.revision, &error);
                Err(error)
            }
        }
    }

    async fn prove(&mut self, patience: Duration) -> Result<InForce, ApplyError> {
        let Child::Prepared(prepared) = self.child.clone() else { return Err(ApplyError::NotPrepared) };
        match self.await_in_force(prepared.generation, patience).await {
            Some(Ok(())) => {
                self.child = Child::Running(prepared.generation.nonce);
                self.succeed(prepared.clone());
                Ok(prepared)
            }
            Some(Err(last)) => {
                let error = ApplyError::NotInForce {
                    generation: prepared.generation,
                    waited: patience,
                    last: Some(last),
                };
                self.fail(prepared.revision, &error);
                Err(error)
            }
            None => Err(ApplyError::Superseded),
        }
    }

    /// Brings the latest wish into force in the running child. Interrupted by a command, it leaves the rest to `prepare`, which
    /// writes the latest wish anyway.
    async fn roll_out(&mut self, nonce: SpawnNonce) {
        let wanted = self.wanted.borrow_and_update().clone();
        let before = self.generation();
        if let Some(in_force) = self.try_to_roll_out(nonce, &wanted).await
            && let (Some(reloads), Some(since)) = (&self.options.reloads, wanted.since)
            // What was wished for again has taken no time.
            && !(in_force && self.generation() == before)
        {
            reloads.record(since.elapsed(), in_force);
        }
    }

    fn generation(&self) -> Option<Generation> {
        self.status.borrow().in_force.as_ref().map(|now| now.generation)
    }

    /// Whether it has come into force; `None` where a command came first.
    async fn try_to_roll_out(&mut self, nonce: SpawnNonce, wanted: &Wanted) -> Option<bool> {
        let validating = accept(
            plan(&self.options, wanted, nonce),
            self.options.validator.as_deref(),
            &mut self.known_bad,
        );
        let validating = validating.instrument(info_span!(target: LIFECYCLE, "sidegate.reload.validate"));
        let accepted = match self.commands.unless_commanded(validating).await {
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => return Some(self.fail(wanted.revision, &error.into())),
            None => return self.leave_to_prepare(),
        };
        let generation = accepted.rendered.generation;
        self.status.send_modify(|status| status.pending = true);
        let patience = self.options.reload_deadline;
        let mut last = None;
        for again in [false, true] {
            if again {
                warn!(%generation, answer = describe(&last), "gateway has not reloaded; writing its file once more");
            }
            if let Err(error) = self.write(&accepted, again).await {
                return Some(self.fail(wanted.revision, &error));
            }
            match self.await_in_force(generation, patience).await {
                Some(Ok(())) => {
                    self.succeed(covering(wanted, &accepted));
                    return Some(true);
                }
                Some(Err(answer)) => last = Some(answer),
                None => return self.leave_to_prepare(),
            }
        }
        self.child = Child::None;
        self.status.send_modify(|status| status.in_force = None);
        Some(self.fail(wanted.revision, &ApplyError::NotInForce { generation, waited: patience * 2, last }))
    }

    fn leave_to_prepare(&mut self) -> Option<bool> {
        self.wanted.mark_changed();
        None
    }

    async fn accept(&mut self, wanted: &Wanted, nonce: SpawnNonce) -> Result<Accepted, ApplyError> {
        let plan = plan(&self.options, wanted, nonce);
        Ok(accept(plan, self.options.validator.as_deref(), &mut self.known_bad).await?)
    }

    async fn write(&self, accepted: &Accepted, even_if_equal: bool) -> Result<(), ApplyError> {
        let (file, text) = (self.options.file.clone(), accepted.rendered.text.clone());
        let writing = blocking(move || {
            if even_if_equal { write::replace(&file, &text) } else { write::write(&file, &text).map(drop) }
        });
        writing.instrument(info_span!(target: LIFECYCLE, "sidegate.reload.write")).await
    }

    /// `None` when a command came first.
    async fn await_in_force(
        &mut self,
        generation: Generation,
        patience: Duration,
    ) -> Option<Result<(), ProbeAnswer>> {
        let deadline = Instant::now() + patience;
        let span =
            info_span!(target: LIFECYCLE, "sidegate.reload.prove", "sidegate.generation" = %generation);
        let probing =
            await_generation(self.options.settings.ports.data, &self.options.key, generation, deadline)
                .instrument(span);
        self.commands.unless_commanded(probing).await
    }

    fn succeed(&self, now: InForce) {
        let (before, changed) = {
            let status = self.status.borrow();
            (status.in_force.as_ref().map(|before| before.generation), status.changed)
        };
        // Definitions are looked at every minute, mostly to find that nothing has changed.
        let changed = if before == Some(now.generation) {
            debug!(generation = %now.generation, "gateway configuration in force as before");
            changed
        } else {
            info!(generation = %now.generation, refused = now.refused.len(), "gateway configuration in force");
            Some(SystemTime::now())
        };
        self.status.send_replace(Status {
            in_force: Some(now),
            changed,
            cause: Cause::current(),
            ..Status::default()
        });
    }

    /// It is not in force: `false`.
    fn fail(&self, revision: Revision, error: &ApplyError) -> bool {
        warn!(error = error as &dyn std::error::Error, "gateway configuration not in force");
        self.status.send_modify(|status| {
            status.pending = false;
            status.failure = Some((revision, error.clone()));
            status.changed = Some(SystemTime::now());
        });
        false
    }
}

fn plan(options: &ApplierOptions, wanted: &Wanted, nonce: SpawnNonce) -> Plan {
    Plan {
        settings: Arc::clone(&options.settings),
        key: options.key.digest(),
        nonce,
        routes: BTreeMap::clone(&wanted.routes),
    }
}

fn covering(wanted: &Wanted, accepted: &Accepted) -> InForce {
    InForce {
        revision: wanted.revision,
        generation: accepted.rendered.generation,
        refused: Arc::new(accepted.refused.clone()),
    }
}

async fn blocking(work: impl FnOnce() -> Result<(), WriteError> + Send + 'static) -> Result<(), ApplyError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| ApplyError::Write(Arc::new(error))),
        // The runtime is shutting down.
        Err(_cancelled) => Err(ApplyError::Stopped),
    }
}
