//! Watches the definitions and drives each server from what is desired to what is.
//!
//! Level-triggered: an event only means "look again". Each look reads the whole directory, compares it with what runs,
//! and does what is missing: closes the sessions of servers that have changed or gone, wishes for the new routes, and,
//! once a generation with them is in force, starts an actor for each new server. Servers that have not changed are not
//! touched.
//!
//! | part | owns |
//! | --- | --- |
//! | `detector` | noticing that something has happened |
//! | [`Front`] | the gateway that takes the calls now, and its replacement |
//! | `route` | from a definition to what is needed to dial it |
//! | `actor` | one server: its session, its retries, its tools |
//! | [`status`](ServerStatus) | what users see |
//!
//! Invariants: a directory that cannot be read changes nothing; a file that has become wrong does not stop the server
//! that runs; a server is dialled only through a route that is in force; the route of a session stays until the session
//! is closed.
//!
//! Knows nothing of the wire format.

mod actor;
mod detector;
mod front;
mod route;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::uri::PathAndQuery;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::aggregator::registry::Registry;
use crate::bridge::Bridge;
use crate::error::chain;
use crate::mcpserver::{Definition, Reader, Scan, ServerName, Transport};
use crate::wire::client::Pool;
use crate::yaml_applier::{ApplyError, InForce, ROUTE_PREFIX};
use actor::{Actor, Shared};
use detector::Detector;
use front::Wish;
use route::Way;
use status::Board;

pub use actor::Retry;
pub use front::{Front, FrontGateway, Routes};
pub use route::Surroundings;
pub use status::{ServerState, ServerStatus, Statuses};

/// Sessions that have to be closed get this long before the next generation goes ahead without them; their routes stay
/// until they are done.
const RETIRE_AT_ONCE: Duration = Duration::from_millis(50);

/// What a reconciler works with.
pub struct ReconcilerOptions {
    /// Reads definitions.
    pub reader: Reader,
    /// Where their files are.
    pub directory: PathBuf,
    /// What ways lead through.
    pub surroundings: Surroundings,
    /// How tries slow down.
    pub retry: Retry,
    /// How long calls in flight have to end when their session is closed.
    pub drain: Duration,
}

/// How far the first look has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    Begun,
    /// The routes of all definitions are wished for.
    Wished,
    /// They are in force, and every server has an actor.
    Done,
}

/// A running reconciler.
#[derive(Debug)]
pub struct Reconciler {
    statuses: watch::Receiver<Statuses>,
    progress: watch::Receiver<Progress>,
    rescan: Arc<Notify>,
    stop: CancellationToken,
    tracker: TaskTracker,
    /// Nobody looks after the servers of a reconciler that is dropped.
    _stop_on_drop: DropGuard,
}

impl Reconciler {
    /// Begins to look after the servers of a directory. Its tasks end with [`shutdown`](Self::shutdown).
    pub fn start(
        options: ReconcilerOptions,
        front: Arc<Front>,
        bridge: Arc<Bridge>,
        registry: Arc<Registry>,
    ) -> Self {
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let shared = Arc::new(Shared {
            registry,
            bridge,
            board: Board::new(),
            pool: Pool::new(),
            tracker: tracker.clone(),
            retry: options.retry,
            drain: options.drain,
        });
        let statuses = shared.board.subscribe();
        let (progress_sender, progress) = watch::channel(Progress::Begun);
        let rescan = Arc::new(Notify::new());
        let (retired_sender, retired) = mpsc::unbounded_channel();
        let look = Look {
            options,
            replaced: front.replaced(),
            front,
            shared,
            servers: BTreeMap::new(),
            retired_sender,
            progress: progress_sender,
            problem: None,
            said: BTreeSet::new(),
            rescan: Arc::clone(&rescan),
            stop: stop.clone(),
            failures: 0,
        };
        tracker.spawn(look.run(retired, stop.clone()));
        let _stop_on_drop = stop.clone().drop_guard();
        Self { statuses, progress, rescan, stop, tracker, _stop_on_drop }
    }

    /// All servers, as they change.
    pub fn statuses(&self) -> watch::Receiver<Statuses> {
        self.statuses.clone()
    }

    /// Looks at the definitions again, also without an event.
    pub fn rescan(&self) {
        self.rescan.notify_one();
    }

    /// Waits until the definitions were read for the first time and their routes are wished for, so that a gateway that
    /// is started now gets them all at once.
    pub async fn wished(&self) {
        // As in `settled`.
        let _ = self.progress.clone().wait_for(|progress| *progress >= Progress::Wished).await;
    }

    /// Waits until the definitions were read, a generation with them is in force, and every server that starts by
    /// itself has succeeded or failed once.
    pub async fn settled(&self) {
        let mut statuses = self.statuses.clone();
        // An error means that the reconciler has ended: nothing will change any more.
        if self.progress.clone().wait_for(|progress| *progress == Progress::Done).await.is_ok() {
            let all_settled = |all: &Statuses| all.values().all(|status| status.state.is_settled());
            let _ = statuses.wait_for(all_settled).await;
        }
    }

    /// Closes every session, in order, and ends all tasks.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

/// One server as the reconciler knows it.
#[derive(Debug)]
enum Server {
    /// Not dialled: suspended, invalid, unsupported.
    Resting(Option<Arc<Definition>>),
    /// A route is wished for, or in force, and the session is the actor's.
    Active { definition: Arc<Definition>, way: Box<Way>, actor: Option<Actor> },
    /// The session is being closed; its route stays until then.
    Retiring(Box<Way>),
}

struct Look {
    options: ReconcilerOptions,
    front: Arc<Front>,
    replaced: watch::Receiver<u64>,
    shared: Arc<Shared>,
    servers: BTreeMap<ServerName, Server>,
    retired_sender: mpsc::UnboundedSender<ServerName>,
    progress: watch::Sender<Progress>,
    /// What is wrong with the directory, to say it once.
    problem: Option<String>,
    /// What was said of files, to say it once.
    said: BTreeSet<String>,
    rescan: Arc<Notify>,
    stop: CancellationToken,
    /// Wishes in a row that were refused.
    failures: u32,
}

impl Look {
    async fn run(mut self, mut retired: mpsc::UnboundedReceiver<ServerName>, stop: CancellationToken) {
        let mut detector = Detector::new(&self.options.directory);
        loop {
            let look = async {
                self.scan(&mut retired).await;
                self.progress.send_replace(Progress::Done);
                tokio::select! {
                    () = detector.changed() => {}
                    () = self.rescan.notified() => {}
                    // Another gateway may do what the last one could not.
                    Ok(()) = self.replaced.changed() => {}
                    Some(name) = retired.recv() => self.forget_retired(&name),
                }
            };
            if stop.run_until_cancelled(look).await.is_none() {
                break;
            }
        }
        let actors = std::mem::take(&mut self.servers).into_values().filter_map(|server| match server {
            Server::Active { actor, .. } => actor,
            _ => None,
        });
        futures_util::future::join_all(actors.map(Actor::retire)).await;
    }

    /// Reads the directory and does what is missing.
    async fn scan(&mut self, retired: &mut mpsc::UnboundedReceiver<ServerName>) {
        let (reader, directory) = (self.options.reader.clone(), self.options.directory.clone());
        let scan = tokio::task::spawn_blocking(move || reader.scan(&directory)).await;
        let scan = match scan {
            Ok(Ok(scan)) => {
                if self.problem.take().is_some() {
                    info!("the definitions can be read again");
                }
                scan
            }
            Ok(Err(error)) => return self.unreadable(chain(&error)),
            Err(error) => return self.unreadable(error.to_string()),
        };
        self.begin(scan).await;
        self.wait_for_retired(retired).await;
        self.apply().await;
    }

    /// Nothing changes: what cannot be read is not empty.
    fn unreadable(&mut self, why: String) {
        if self.problem.as_ref() != Some(&why) {
            error!("the definitions cannot be read, so everything stays as it is: {why}");
            self.problem = Some(why);
        }
        self.wished();
    }

    fn wished(&self) {
        self.progress.send_if_modified(|progress| {
            let first = *progress == Progress::Begun;
            if first {
                *progress = Progress::Wished;
            }
            first
        });
    }

    /// Compares what is with what is desired, and begins what is to be done.
    async fn begin(&mut self, scan: Scan) {
        let mut seen = BTreeSet::new();
        for entry in scan.entries {
            let Some(name) = entry.name else {
                if let Err(invalid) = &entry.outcome {
                    self.say_once(invalid.to_string());
                }
                continue;
            };
            // Two files of one name have one entry each; both are wrong for the same reason.
            if !seen.insert(name.clone()) {
                continue;
            }
            match entry.outcome {
                Ok(definition) => self.desire(&name, definition).await,
                Err(invalid) => self.hold(&name, &invalid.to_string()),
            }
        }
        let gone: Vec<ServerName> =
            self.servers.keys().filter(|name| !seen.contains(*name)).cloned().collect();
        for name in gone {
            self.retire(&name);
            if !matches!(self.servers.get(&name), Some(Server::Retiring(_))) {
                self.servers.remove(&name);
            }
            self.shared.board.remove(&name);
        }
    }

    /// A file that is right.
    async fn desire(&mut self, name: &ServerName, definition: Arc<Definition>) {
        let change = match self.servers.get(name) {
            Some(Server::Active { definition: old, .. }) => Some(definition.change_from(old)),
            Some(Server::Resting(Some(old)))
                if **old == *definition && !self.can_be_activated(&definition) =>
            {
                return;
            }
            // Looked at again when the old session is closed.
            Some(Server::Retiring(_)) => return,
            Some(Server::Resting(_)) | None => None,
        };
        match (change, self.servers.get_mut(name)) {
            (Some(change), Some(Server::Active { definition: old, actor, .. }))
                if !change.connection && !change.intent =>
            {
                if !change.is_nothing()
                    && let Some(actor) = actor
                {
                    actor.update(Arc::clone(&definition)).await;
                }
                *old = definition;
                self.shared.board.set_stale(name, None);
            }
            (Some(_), _) => {
                self.retire(name);
                // Without a session there is nothing to wait for.
                if !self.servers.contains_key(name) {
                    self.activate(name, definition);
                }
            }
            (None, _) => self.activate(name, definition),
        }
    }

    /// Whether a server that rests, and whose file is the same, could be dialled now: through another gateway.
    fn can_be_activated(&self, definition: &Definition) -> bool {
        !definition.suspended && definition.auto_start && self.way(definition).is_ok()
    }

    fn way(&self, definition: &Definition) -> Result<Way, String> {
        route::way(definition, &self.options.surroundings, self.front.is_agentgateway())
    }

    /// A server without a session: wishes for its route, or says why it rests.
    fn activate(&mut self, name: &ServerName, definition: Arc<Definition>) {
        let board = &self.shared.board;
        let stdio = matches!(definition.transport, Transport::Stdio(_));
        if definition.suspended || !definition.auto_start {
            board.set(name, if stdio { ServerState::Stopped } else { ServerState::Disconnected }, 0);
            self.servers.insert(name.clone(), Server::Resting(Some(definition)));
            return;
        }
        if definition.family.is_some() {
            self.say_once(format!(
                "server {name}: families are not supported by this version of sidegate; its tools have its own names"
            ));
        }
        match self.way(&definition) {
            Ok(way) => {
                if let Some(target) = &way.target {
                    self.shared.bridge.set(name, target.clone());
                }
                let board = &self.shared.board;
                board.set(name, if stdio { ServerState::Starting } else { ServerState::Connecting }, 0);
                board.set_stale(name, None);
                self.servers
                    .insert(name.clone(), Server::Active { definition, way: Box::new(way), actor: None });
            }
            Err(reason) => {
                self.shared.board.set(name, ServerState::Unsupported { reason }, 0);
                self.servers.insert(name.clone(), Server::Resting(Some(definition)));
            }
        }
    }

    /// A file that is wrong: what runs goes on.
    fn hold(&mut self, name: &ServerName, mistakes: &str) {
        match self.servers.get(name) {
            Some(Server::Active { .. } | Server::Retiring(_)) => {
                self.shared.board.set_stale(name, Some(mistakes.to_owned()));
            }
            Some(Server::Resting(_)) | None => {
                self.servers.insert(name.clone(), Server::Resting(None));
                self.shared.board.set(name, ServerState::Invalid { reason: mistakes.to_owned() }, 0);
            }
        }
    }

    /// Begins to close the session of a server, if it has one. Its tools are out of the catalogue at once.
    fn retire(&mut self, name: &ServerName) {
        if !matches!(self.servers.get(name), Some(Server::Active { .. })) {
            return;
        }
        let Some(Server::Active { way, actor, .. }) = self.servers.remove(name) else { return };
        let Some(actor) = actor else { return };
        self.servers.insert(name.clone(), Server::Retiring(way));
        let (sender, name) = (self.retired_sender.clone(), name.clone());
        self.shared.tracker.spawn(async move {
            actor.retire().await;
            // Nobody listens any more when everything ends.
            let _ = sender.send(name);
        });
    }

    /// Gives sessions that are being closed a moment, so that the usual change is one generation and not two.
    async fn wait_for_retired(&mut self, retired: &mut mpsc::UnboundedReceiver<ServerName>) {
        let retiring = |servers: &BTreeMap<ServerName, Server>| {
            servers.values().any(|server| matches!(server, Server::Retiring(_)))
        };
        let moment = tokio::time::sleep(RETIRE_AT_ONCE);
        tokio::pin!(moment);
        let mut closed = false;
        while retiring(&self.servers) {
            tokio::select! {
                Some(name) = retired.recv() => {
                    self.forget_retired(&name);
                    closed = true;
                }
                () = &mut moment => break,
            }
        }
        if closed {
            // Their files, as far as they are still there, have been passed over.
            let (reader, directory) = (self.options.reader.clone(), self.options.directory.clone());
            if let Ok(Ok(scan)) = tokio::task::spawn_blocking(move || reader.scan(&directory)).await {
                self.begin(scan).await;
            }
        }
    }

    fn forget_retired(&mut self, name: &ServerName) {
        if matches!(self.servers.get(name), Some(Server::Retiring(_))) {
            self.servers.remove(name);
            self.shared.bridge.remove(name);
        }
    }

    /// Wishes for the routes, and starts whoever waits for one of them.
    async fn apply(&mut self) {
        let routes = self.servers.iter().filter_map(|(name, server)| match server {
            Server::Active { way, .. } | Server::Retiring(way) => Some((name.clone(), way.route.clone())),
            Server::Resting(_) => None,
        });
        let routes: Routes = routes.collect();
        let in_force = loop {
            let wish = self.front.apply(routes.clone());
            self.wished();
            match wait_until_in_force(&wish).await {
                Ok(in_force) => break in_force,
                // That gateway has ended; the one in its place is to be asked.
                Err(ApplyError::Stopped) if !self.front.is_current(&wish) => {}
                Err(error) => {
                    let reason = format!("the gateway's configuration stays as it was: {}", chain(&error));
                    error!("{reason}");
                    return self.wait_to_apply(reason);
                }
            }
        };
        self.failures = 0;
        for (name, server) in &mut self.servers {
            let Server::Active { definition, way, actor } = server else { continue };
            if let Some(reason) = in_force.refused.get(name) {
                self.shared.board.set(name, ServerState::Invalid { reason: reason.clone() }, 0);
            } else if actor.is_none() {
                let headers: HeaderMap = way.headers.iter().cloned().collect();
                let (origin, path) = (self.front.origin(), dial_path(name));
                *actor = Some(Actor::start(
                    Arc::clone(definition),
                    origin,
                    path,
                    headers,
                    Arc::clone(&self.shared),
                ));
            }
        }
    }

    /// Says of the servers that wait for a route why they have none, and when it is tried again.
    fn wait_to_apply(&mut self, reason: String) {
        self.failures += 1;
        let retry_in = self.shared.retry.wait(self.failures);
        for (name, server) in &self.servers {
            if matches!(server, Server::Active { actor: None, .. }) {
                let (reason, failures) = (reason.clone(), self.failures);
                self.shared.board.set(name, ServerState::Failed { reason, failures, retry_in }, 0);
            }
        }
        let rescan = Arc::clone(&self.rescan);
        let waiting = async move {
            tokio::time::sleep(retry_in).await;
            rescan.notify_one();
        };
        let stop = self.stop.clone();
        self.shared.tracker.spawn(stop.run_until_cancelled_owned(waiting));
    }

    fn say_once(&mut self, what: String) {
        if !self.said.contains(&what) {
            warn!("{what}");
            self.said.insert(what);
        }
    }
}

/// Waits for a generation with the wish, however long the gateway needs.
async fn wait_until_in_force(wish: &Wish) -> Result<InForce, ApplyError> {
    let mut status = wish.status();
    loop {
        // Before the question: what happens between its answer and the next wait must wake us.
        status.mark_unchanged();
        match wish.in_force().await {
            // The gateway's process is being replaced: its successor gets the same wish.
            Err(error @ (ApplyError::NotInForce { .. } | ApplyError::Superseded)) => {
                warn!("{}", chain(&error));
                if status.changed().await.is_err() {
                    return Err(ApplyError::Stopped);
                }
            }
            settled => return settled,
        }
    }
}

/// The path at which the gateway serves a server.
fn dial_path(name: &ServerName) -> PathAndQuery {
    // A server name is a path segment as it is.
    format!("{ROUTE_PREFIX}{name}").parse().unwrap_or_else(|_| PathAndQuery::from_static("/"))
}
