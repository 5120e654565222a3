//! One server: opens its session, keeps it, and puts its tools into the catalogue.
//!
//! Invariants: one session at a time; the tools in the catalogue are those of a session that was open; retries never
//! end; after [`Actor::retire`] nothing of the session is left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _};
use http::HeaderMap;
use http::uri::PathAndQuery;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::status::{Board, ServerState};
use crate::aggregator::catalogue::{Member, Tool};
use crate::aggregator::link::{Limits, Link};
use crate::aggregator::registry::Registry;
use crate::aggregator::upstream::{ConnectError, Upstream};
use crate::bridge::Bridge;
use crate::mcpserver::{Definition, ServerName, Transport};
use crate::wire::client::{ClientConfig, Origin, Pool};
use crate::yaml_applier::ROUTE_HEADER;

/// The largest message that a server may send, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// How long calls of a lost session wait for an answer that is still on its way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// How soon after it was told so a list is read anew.
const LIST_AGAIN: Duration = Duration::from_millis(5);

/// What all actors share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) registry: Arc<Registry>,
    pub(super) bridge: Arc<Bridge>,
    pub(super) board: Board,
    pub(super) pool: Pool,
    pub(super) tracker: TaskTracker,
    pub(super) retry: Retry,
    /// How long calls in flight have to end when their session is closed.
    pub(super) drain: Duration,
}

/// How tries slow down.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub longest: Duration,
    /// After this long with a session, failures are forgotten.
    pub healthy_after: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(30),
            healthy_after: Duration::from_secs(60),
        }
    }
}

impl Retry {
    /// The wait after this many failures in a row, with jitter: between 75 % and 100 % of the doubled wait, so that
    /// servers that failed together do not come back together.
    pub(super) fn wait(&self, failures: u32) -> Duration {
        let full = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        // Without random bytes there is no jitter, which is no harm.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        full.mul_f64(0.75 + 0.25 * f64::from(random) / f64::from(u32::MAX))
    }
}

/// A handle to the task that looks after one server.
#[derive(Debug)]
pub(super) struct Actor {
    commands: mpsc::Sender<Command>,
    retired: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Command {
    /// Take over what does not touch the connection.
    Update(Arc<Definition>),
    /// Close the session and end.
    Retire(oneshot::Sender<()>),
}

impl Actor {
    /// Begins to connect a server, at `path` of `origin` with `headers`.
    pub(super) fn start(
        definition: Arc<Definition>,
        origin: watch::Receiver<Arc<Origin>>,
        path: PathAndQuery,
        headers: HeaderMap,
        shared: Arc<Shared>,
    ) -> Self {
        let (commands, receiver) = mpsc::channel(8);
        let link = Link::new(definition.name.clone(), limits(&definition));
        let route_marker = Some(http::HeaderName::from_static(ROUTE_HEADER));
        let config = ClientConfig { origin, path, headers, route_marker, max_message: MAX_MESSAGE };
        let tracker = shared.tracker.clone();
        let retired = Arc::new(AtomicBool::new(false));
        let task_retired = Arc::clone(&retired);
        tracker.spawn(
            Task {
                definition,
                config,
                link,
                shared,
                commands: receiver,
                failures: 0,
                was_open: false,
                retired: task_retired,
            }
            .run(),
        );
        Self { commands, retired }
    }

    /// Takes over a definition that differs only in what does not touch the connection.
    pub(super) async fn update(&self, definition: Arc<Definition>) {
        // A task that has ended was retired.
        let _ = self.commands.send(Command::Update(definition)).await;
    }

    /// Takes the tools out of the catalogue, lets calls in flight end, and closes the session; returns when that is
    /// done.
    pub(super) async fn retire(self) {
        // What is on its way must not write anything down any more: the server is somebody else's, or nobody's.
        self.retired.store(true, Ordering::Release);
        let (done, wait) = oneshot::channel();
        if self.commands.send(Command::Retire(done)).await.is_ok() {
            // An error means that the task has ended, which is as good.
            let _ = wait.await;
        }
    }
}

fn limits(definition: &Definition) -> Limits {
    Limits { timeout: definition.timeout, call_timeout: definition.call_timeout }
}

struct Task {
    definition: Arc<Definition>,
    config: ClientConfig,
    link: Arc<Link>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    failures: u32,
    /// The last try to open a session succeeded.
    was_open: bool,
    retired: Arc<AtomicBool>,
}

/// What to do next.
enum Next {
    Connect,
    /// Retired; somebody waits to hear it.
    End(Option<oneshot::Sender<()>>),
}

impl Task {
    async fn run(mut self) {
        let done = loop {
            match self.connect_and_serve().await {
                Next::Connect => {}
                Next::End(done) => break done,
            }
        };
        self.shared.registry.withdraw(&self.definition.name);
        self.link.retire();
        if let Some(done) = done {
            // Whoever asked may have lost interest.
            let _ = done.send(());
        }
    }

    /// One session, from its opening to its end.
    async fn connect_and_serve(&mut self) -> Next {
        // A server that has failed stays `failed` until a try succeeds: what is known of it has not changed.
        if self.failures == 0 || self.was_open {
            self.set_state(if self.is_stdio() { ServerState::Starting } else { ServerState::Connecting }, 0);
        }
        let limits = self.link.limits();
        let opening =
            open(self.definition.name.clone(), Arc::clone(&self.shared), self.config.clone(), limits);
        tokio::pin!(opening);
        let opened = loop {
            tokio::select! {
                opened = &mut opening => break opened,
                command = self.commands.recv() => match command {
                    Some(Command::Update(definition)) => self.take_over(definition),
                    Some(Command::Retire(done)) => return Next::End(Some(done)),
                    None => return Next::End(None),
                },
            }
        };
        match opened {
            Ok((upstream, tools)) => {
                let next = self.serve(&upstream, tools).await;
                self.link.set(None);
                match next {
                    Next::Connect => {
                        self.shared.tracker.spawn(close(upstream, LAST_ANSWERS));
                    }
                    Next::End(_) => {
                        self.shared.registry.withdraw(&self.definition.name);
                        self.link.retire();
                        close(upstream, self.shared.drain).await;
                    }
                }
                next
            }
            Err(error) => self.wait_after(&error).await,
        }
    }

    /// Serves a session until it is lost or not wanted any more.
    async fn serve(&mut self, upstream: &Arc<Upstream>, mut tools: Arc<[Tool]>) -> Next {
        let opened = Instant::now();
        self.was_open = true;
        self.link.set(Some(Arc::clone(upstream)));
        self.publish(&tools);
        // A list that is being read anew; everything else is heard meanwhile.
        let listing = Fuse::terminated();
        tokio::pin!(listing);
        loop {
            tokio::select! {
                () = upstream.lost() => {
                    if opened.elapsed() >= self.shared.retry.healthy_after {
                        self.failures = 0;
                    }
                    debug!(server = %self.definition.name, "the session is lost");
                    // It is opened again at once, the first time; its tools stay meanwhile.
                    if self.failures == 0 {
                        self.failures = 1;
                        return Next::Connect;
                    }
                    let lost = ConnectError::Protocol("it ends its sessions".to_owned());
                    return self.wait_after(&lost).await;
                }
                () = upstream.tools_changed(), if listing.is_terminated() => {
                    listing.set(list_again(Arc::clone(upstream), self.link.limits()).fuse());
                }
                listed = &mut listing, if !listing.is_terminated() => match listed {
                    Ok(new) => {
                        tools = new;
                        self.publish(&tools);
                    }
                    // The old list stays: the server has not told another.
                    Err(error) => debug!(server = %self.definition.name, %error, "its new tools cannot be listed"),
                },
                () = sleep_until(opened + self.shared.retry.healthy_after), if self.failures > 0 => {
                    self.failures = 0;
                }
                command = self.commands.recv() => match command {
                    Some(Command::Update(definition)) => {
                        self.take_over(definition);
                        self.publish(&tools);
                    }
                    Some(Command::Retire(done)) => return Next::End(Some(done)),
                    None => return Next::End(None),
                },
            }
        }
    }

    /// Writes the failure down and waits for the next try.
    async fn wait_after(&mut self, error: &ConnectError) -> Next {
        self.failures += 1;
        self.was_open = false;
        let retry_in = self.shared.retry.wait(self.failures);
        self.shared.registry.withdraw(&self.definition.name);
        let reason = self.explain(error);
        self.set_state(ServerState::Failed { reason, failures: self.failures, retry_in }, 0);
        let until = Instant::now() + retry_in;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Next::Connect,
                command = self.commands.recv() => match command {
                    Some(Command::Update(definition)) => self.take_over(definition),
                    Some(Command::Retire(done)) => return Next::End(Some(done)),
                    None => return Next::End(None),
                },
            }
        }
    }

    fn take_over(&mut self, definition: Arc<Definition>) {
        self.link.set_limits(limits(&definition));
        self.definition = definition;
    }

    fn publish(&self, tools: &Arc<[Tool]>) {
        if self.retired.load(Ordering::Acquire) {
            return;
        }
        let definition = &self.definition;
        let prefix =
            definition.tool_prefix.as_ref().map_or(definition.name.as_str(), |prefix| prefix.as_str());
        let member =
            Member { prefix: prefix.to_owned(), link: Arc::clone(&self.link), tools: Arc::clone(tools) };
        self.shared.registry.publish(definition.name.clone(), member);
        let state = if self.is_stdio() { ServerState::Running } else { ServerState::Connected };
        self.set_state(state, tools.len());
    }

    fn set_state(&self, state: ServerState, tools: usize) {
        if !self.retired.load(Ordering::Acquire) {
            self.shared.board.set(&self.definition.name, state, tools);
        }
    }

    fn is_stdio(&self) -> bool {
        matches!(self.definition.transport, Transport::Stdio(_))
    }

    /// The error with what the server itself printed last, where it does not say so already.
    fn explain(&self, error: &ConnectError) -> String {
        let lines = match error {
            ConnectError::Timeout(_) if self.is_stdio() => {
                self.shared.bridge.last_lines(&self.definition.name)
            }
            _ => Vec::new(),
        };
        match lines.last() {
            Some(last) => format!("{error}; the last line it printed: {last}"),
            None => error.to_string(),
        }
    }
}

/// Lists the tools of a server that says that they have changed. One that says so all the time is not asked all the time.
async fn list_again(upstream: Arc<Upstream>, limits: Limits) -> Result<Arc<[Tool]>, ConnectError> {
    sleep(LIST_AGAIN).await;
    upstream.list_tools(limits).await
}

/// Lets calls in flight end, and closes a session.
async fn close(upstream: Arc<Upstream>, patience: Duration) {
    let server = upstream.server();
    if tokio::time::timeout(patience, upstream.calls_done()).await.is_err() {
        debug!(%server, ?patience, "calls are cut");
    }
    if let Err(error) = upstream.close().await {
        debug!(%server, %error, "the session could not be closed in order");
    }
}

async fn open(
    name: ServerName,
    shared: Arc<Shared>,
    config: ClientConfig,
    limits: Limits,
) -> Result<(Arc<Upstream>, Arc<[Tool]>), ConnectError> {
    let upstream =
        Upstream::connect(name, shared.pool.clone(), config, limits, shared.tracker.clone()).await?;
    match upstream.list_tools(limits).await {
        Ok(tools) => Ok((upstream, tools)),
        Err(error) => {
            if let Err(error) = upstream.close().await {
                debug!(%error, "the session could not be closed in order");
            }
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let retry = Retry::default();
        for (failures, full) in [(1, 200), (2, 400), (5, 3200), (8, 25_600), (9, 30_000), (1000, 30_000)] {
            let wait = retry.wait(failures).as_secs_f64() * 1000.0;
            assert!(
                wait >= f64::from(full) * 0.75 - 1.0 && wait <= f64::from(full) + 1.0,
                "{failures}: {wait}"
            );
        }
    }
}
