//! The loop that compares what is desired with what is.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _, join_all};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use super::actor::{Actor, Approach, Settled, Shared};
use super::detector::Detector;
use super::front::{Front, Refused};
use super::held::{HeldRoutes, RouteLease};
use super::route::{self, Reach, Way};
use super::status::ServerState;
use super::{Problems, ReconcilerOptions};
use crate::error::chain;
use crate::mcpserver::{Definition, Scan, ServerName, Transport};
use crate::yaml_applier::{ApplyError, RouteName};

/// How far the first look has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Progress {
    Begun,
    /// The routes of all definitions are wished for.
    Wished,
    /// They are in force, and every server has an actor.
    Done,
}

/// What can be asked of the loop.
#[derive(Debug)]
pub(super) enum Order {
    /// Look at the files now, and say when that was done.
    Look(oneshot::Sender<()>),
    /// Look at the files now, and want this server even if it does not start by itself. Says how it went; dropped where
    /// the server is not wanted, or has another reason to rest.
    Start(ServerName, Settled),
    /// As `Start`, but with another session than there is.
    Restart(ServerName, Settled),
    /// Look at the files now, and say when nothing of this server is left; dropped where it is wanted again before.
    Rest(ServerName, oneshot::Sender<()>),
}

/// One server as the loop knows it.
#[derive(Debug)]
enum Server {
    /// Not dialled: not wanted, invalid, unsupported.
    Resting(Option<Arc<Definition>>),
    /// Wanted.
    Active(Box<Active>),
}

#[derive(Debug)]
struct Active {
    definition: Arc<Definition>,
    way: Way,
    lease: Arc<RouteLease>,
    /// Its own from when its route is in force.
    actor: Option<Actor>,
    /// The actor is to hear of the definition when its route is in force.
    changed: bool,
    /// Who wants to hear how its start went.
    waiting: Vec<Settled>,
}

pub(super) struct Look {
    options: ReconcilerOptions,
    front: Arc<Front>,
    replaced: watch::Receiver<u64>,
    shared: Arc<Shared>,
    servers: BTreeMap<ServerName, Server>,
    held: HeldRoutes,
    freed: mpsc::UnboundedReceiver<RouteName>,
    /// Servers that do not start by themselves, and that the operator has started.
    started: BTreeSet<ServerName>,
    /// Servers that the project's file defines.
    of_project: BTreeSet<ServerName>,
    /// Who waits for the end of what.
    ends: Vec<(ServerName, oneshot::Sender<()>)>,
    /// Processes of servers that have no route any more, and have not ended yet.
    ending: BTreeMap<ServerName, TaskTracker>,
    progress: watch::Sender<Progress>,
    /// What is wrong and belongs to no server.
    problems: watch::Sender<Problems>,
    /// Wishes in a row that were refused, and when the next one follows.
    failures: u32,
    retry_at: Option<Instant>,
    /// The gateway was replaced: what it can do may be something else.
    everything_anew: bool,
}

impl Look {
    pub(super) fn new(
        options: ReconcilerOptions,
        front: Arc<Front>,
        shared: Arc<Shared>,
        progress: watch::Sender<Progress>,
        problems: watch::Sender<Problems>,
    ) -> Self {
        let (held, freed) = HeldRoutes::new();
        Self {
            options,
            replaced: front.replaced(),
            front,
            shared,
            servers: BTreeMap::new(),
            held,
            freed,
            started: BTreeSet::new(),
            of_project: BTreeSet::new(),
            ends: Vec::new(),
            ending: BTreeMap::new(),
            progress,
            problems,
            failures: 0,
            retry_at: None,
            everything_anew: false,
        }
    }

    /// Runs until `stop`, and closes every session then.
    pub(super) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>, stop: CancellationToken) {
        let mut detector = Detector::new(&self.options.directory);
        let mut project = self.options.reader.project_file().map(Detector::of_file);
        let reconciling = async {
            self.scan().await;
            let applying = self.wish();
            tokio::pin!(applying);
            loop {
                let mut look = true;
                tokio::select! {
                    granted = &mut applying, if !applying.is_terminated() => {
                        self.applied(granted);
                        continue;
                    }
                    () = detector.changed() => {}
                    () = changed(&mut project) => {}
                    Some(order) = orders.recv() => {
                        self.scan().await;
                        self.obey(order).await;
                        look = false;
                    }
                    // Another gateway may do what the last one could not.
                    Ok(()) = self.replaced.changed() => self.everything_anew = true,
                    Some(name) = self.freed.recv() => {
                        self.free(&name);
                        look = false;
                    }
                    () = at(self.retry_at) => {}
                }
                if look {
                    self.scan().await;
                }
                applying.set(self.wish());
            }
        };
        stop.run_until_cancelled(reconciling).await;
        let actors = std::mem::take(&mut self.servers).into_values().filter_map(|server| match server {
            Server::Active(active) => active.actor,
            Server::Resting(_) => None,
        });
        join_all(actors.map(Actor::retire)).await;
    }

    /// Reads the directory and begins what is to be done.
    async fn scan(&mut self) {
        let (reader, directory) = (self.options.reader.clone(), self.options.directory.clone());
        let scan = tokio::task::spawn_blocking(move || reader.scan(&directory)).await;
        match scan {
            Ok(Ok(scan)) => {
                if self.problems.send_if_modified(|problems| problems.directory.take().is_some()) {
                    info!("the definitions can be read again");
                }
                self.begin(scan).await;
            }
            Ok(Err(error)) => self.unreadable(chain(&error)),
            Err(error) => self.unreadable(error.to_string()),
        }
        self.everything_anew = false;
    }

    /// Nothing changes: what cannot be read is not empty.
    fn unreadable(&mut self, why: String) {
        self.problems.send_if_modified(|problems| {
            let new = problems.directory.as_ref() != Some(&why);
            if new {
                error!("the definitions cannot be read, so everything stays as it is: {why}");
                problems.directory = Some(why);
            }
            new
        });
    }

    /// Compares what is with what is desired, and begins what is to be done.
    async fn begin(&mut self, scan: Scan) {
        let mut seen = BTreeSet::new();
        let mut nameless = Vec::new();
        let project = self.options.reader.project_file().map(Path::to_owned);
        if let Some(unread) = &scan.unread {
            let mistakes = unread.invalid.to_string();
            // What it defines is not known, so what runs goes on.
            for name in self.of_project.clone() {
                if scan.entries.iter().all(|entry| entry.name.as_ref() != Some(&name)) {
                    self.hold(&name, &mistakes, unread.intents.get(&name).copied());
                    seen.insert(name);
                }
            }
            nameless.push(mistakes);
        } else {
            self.of_project.clear();
        }
        let definitions = scan.entries.iter().filter_map(|entry| entry.outcome.as_ref().ok());
        let to_ask = definitions.filter(|definition| self.wants_reach(definition)).cloned().collect();
        let reaches = Reach::of_all(to_ask).await;
        for entry in scan.entries {
            let Some(name) = entry.name else {
                if let Err(invalid) = &entry.outcome {
                    nameless.push(invalid.to_string());
                }
                continue;
            };
            // Two files of one name have one entry each; both are wrong for the same reason.
            if !seen.insert(name.clone()) {
                continue;
            }
            if project.as_ref() == Some(&entry.path) {
                self.of_project.insert(name.clone());
            }
            match entry.outcome {
                Ok(definition) => {
                    let reach = reaches.get(&name).copied();
                    self.desire(&name, definition, reach).await;
                }
                Err(invalid) => self.hold(&name, &invalid.to_string(), entry.intent),
            }
        }
        self.problems.send_if_modified(|problems| {
            // Said once, as long as it is so.
            nameless
                .iter()
                .filter(|problem| !problems.files.contains(problem))
                .for_each(|new| warn!("{new}"));
            let new = problems.files != nameless;
            problems.files = nameless;
            new
        });
        let gone: Vec<ServerName> =
            self.servers.keys().filter(|name| !seen.contains(*name)).cloned().collect();
        for name in gone {
            self.retire(&name);
            self.servers.remove(&name);
            self.started.remove(&name);
            self.shared.board.remove(&name);
        }
    }

    /// Whether a server with this definition is to run.
    fn is_wanted_by(&self, definition: &Definition) -> bool {
        !definition.suspended && (definition.auto_start || self.started.contains(&definition.name))
    }

    /// The definition that is known of a server.
    fn known(&self, name: &ServerName) -> Option<&Arc<Definition>> {
        match self.servers.get(name)? {
            Server::Active(active) => Some(&active.definition),
            Server::Resting(definition) => definition.as_ref(),
        }
    }

    /// Whether [`desire`](Self::desire) has to know who reaches the server.
    fn wants_reach(&self, definition: &Definition) -> bool {
        match self.servers.get(&definition.name) {
            // Not asked again: whoever answers where by now, the way that there is works.
            Some(Server::Active(active)) => definition.change_from(&active.definition).connection,
            Some(Server::Resting(_)) | None => self.is_wanted_by(definition),
        }
    }

    /// A file that is right. `reach` is asked for where it is not known.
    async fn desire(&mut self, name: &ServerName, definition: Arc<Definition>, reach: Option<Reach>) {
        let wanted = self.is_wanted_by(&definition);
        let active = matches!(self.servers.get(name), Some(Server::Active(_)));
        let same = self.known(name).is_some_and(|known| **known == *definition);
        if same && active == wanted && !self.everything_anew {
            // Also where the file was wrong in between. What waits for its route is judged with that.
            if !matches!(self.servers.get(name), Some(Server::Active(active)) if active.changed) {
                self.shared.board.set_stale(name, None);
            }
            return;
        }
        if !wanted {
            return self.rest(name, definition);
        }
        let reach = match (self.servers.get(name), reach) {
            (Some(Server::Active(active)), _) if !self.wants_reach(&definition) => active.way.reach(),
            (_, Some(reach)) => reach,
            (_, None) => Reach::of(&definition).await,
        };
        let gateway = self.front.kind();
        match route::way(&definition, &self.options.surroundings, gateway, reach) {
            Ok(way) => match self.servers.get_mut(name) {
                Some(Server::Active(active)) => {
                    active.take_over(name, definition, way, &mut self.held);
                    self.shared.board.set_stale(name, None);
                }
                Some(Server::Resting(_)) | None => self.activate(name, definition, way),
            },
            // The same that could not be dialled before: nothing new is to be said.
            Err(_) if same && !active && known_state_is_unsupported(&self.shared, name) => {}
            Err(reason) => {
                self.retire(name);
                self.shared.board.set(name, ServerState::Unsupported { reason }, 0);
                self.servers.insert(name.clone(), Server::Resting(Some(definition)));
            }
        }
    }

    /// A server that is not wanted.
    fn rest(&mut self, name: &ServerName, definition: Arc<Definition>) {
        self.retire(name);
        let stdio = matches!(definition.transport, Transport::Stdio(_));
        let state = if stdio { ServerState::Stopped } else { ServerState::Disconnected };
        self.shared.board.set(name, state, 0);
        self.shared.board.set_stale(name, None);
        if definition.suspended {
            self.started.remove(name);
        }
        self.servers.insert(name.clone(), Server::Resting(Some(definition)));
    }

    /// A server that has no session yet.
    fn activate(&mut self, name: &ServerName, definition: Arc<Definition>, way: Way) {
        let stdio = matches!(definition.transport, Transport::Stdio(_));
        let board = &self.shared.board;
        board.set(name, if stdio { ServerState::Starting } else { ServerState::Connecting }, 0);
        board.set_stale(name, None);
        let lease = self.held.lease(name, &way.route);
        let active = Active { definition, way, lease, actor: None, changed: false, waiting: Vec::new() };
        self.servers.insert(name.clone(), Server::Active(Box::new(active)));
    }

    /// A file that is wrong: what runs goes on, unless the operator wants it to rest.
    fn hold(&mut self, name: &ServerName, mistakes: &str, intent: Option<bool>) {
        match self.servers.get(name) {
            Some(Server::Active(active)) if intent == Some(true) => {
                self.rest(name, Arc::clone(&active.definition));
                self.started.remove(name);
                self.shared.board.set_stale(name, Some(mistakes.to_owned()));
            }
            Some(Server::Resting(Some(_))) if intent == Some(true) => {
                self.shared.board.set_stale(name, Some(mistakes.to_owned()));
            }
            Some(Server::Active(_)) => self.shared.board.set_stale(name, Some(mistakes.to_owned())),
            Some(Server::Resting(_)) | None => {
                self.servers.insert(name.clone(), Server::Resting(None));
                self.shared.board.set(name, ServerState::Invalid { reason: mistakes.to_owned() }, 0);
            }
        }
    }

    /// Begins to close the sessions of a server, if it has some. Its tools are out of the catalogue at once.
    fn retire(&mut self, name: &ServerName) {
        if matches!(self.servers.get(name), Some(Server::Active(_)))
            && let Some(Server::Active(active)) = self.servers.remove(name)
            && let Some(actor) = active.actor
        {
            self.shared.tracker.spawn(actor.retire());
        }
    }

    fn free(&mut self, name: &RouteName) {
        let server = name.server();
        if self.held.free(name) && !self.held.has(server) {
            self.ending.retain(|_, children| !children.is_empty());
            if let Some(children) = self.shared.bridge.remove(server) {
                self.ending.insert(server.clone(), children);
            }
        }
    }

    async fn obey(&mut self, order: Order) {
        match order {
            // Whoever asked may have lost interest.
            Order::Look(done) => drop(done.send(())),
            Order::Start(name, settled) => {
                self.want(&name).await;
                if let Some(Server::Active(active)) = self.servers.get_mut(&name) {
                    match &active.actor {
                        Some(actor) => actor.nudge(settled),
                        None => active.waiting.push(settled),
                    }
                }
            }
            Order::Restart(name, settled) => {
                self.want(&name).await;
                if let Some(Server::Active(active)) = self.servers.get_mut(&name) {
                    match &active.actor {
                        Some(actor) => actor.restart(settled),
                        None => active.waiting.push(settled),
                    }
                }
            }
            Order::Rest(name, done) if self.is_wanted(&name) || self.held.has(&name) => {
                self.ends.push((name, done));
            }
            Order::Rest(name, done) => self.tell_end(&name, done),
        }
    }

    /// Wants a server that does not start by itself.
    async fn want(&mut self, name: &ServerName) {
        if let Some(Server::Resting(Some(definition))) = self.servers.get(name)
            && !definition.auto_start
            && !definition.suspended
        {
            let definition = Arc::clone(definition);
            self.started.insert(name.clone());
            self.desire(name, definition, None).await;
        }
    }

    /// Wishes for the routes there have to be.
    fn wish(&mut self) -> Fuse<impl Future<Output = Result<Refused, ApplyError>> + Send + use<>> {
        let front = Arc::clone(&self.front);
        let routes = self.held.routes();
        let wish = front.apply(routes.clone());
        self.retry_at = None;
        self.progress.send_if_modified(|progress| {
            let first = *progress == Progress::Begun;
            if first {
                *progress = Progress::Wished;
            }
            first
        });
        async move {
            let mut wish = wish;
            loop {
                match wish.granted().await {
                    // That gateway has ended; the one in its place is to be asked.
                    Err(ApplyError::Stopped) if !front.is_current(&wish) => {
                        wish = front.apply(routes.clone())
                    }
                    settled => return settled,
                }
            }
        }
        .fuse()
    }

    /// The latest wish has been granted, or not.
    fn applied(&mut self, outcome: Result<Refused, ApplyError>) {
        match outcome {
            Ok(refused) => {
                self.failures = 0;
                self.go_on(&refused);
            }
            Err(error) => {
                let reason = format!("the gateway's configuration stays as it was: {}", chain(&error));
                error!("{reason}");
                self.wait_to_apply(&reason);
            }
        }
        for (name, done) in std::mem::take(&mut self.ends) {
            if self.is_wanted(&name) {
                // Dropped: somebody else wants it to run.
            } else if self.held.has(&name) {
                self.ends.push((name, done));
            } else {
                self.tell_end(&name, done);
            }
        }
        self.progress.send_if_modified(|progress| {
            let first = *progress != Progress::Done;
            *progress = Progress::Done;
            first
        });
    }

    fn is_wanted(&self, name: &ServerName) -> bool {
        matches!(self.servers.get(name), Some(Server::Active(_)))
    }

    /// Answers who waits for the end of a server whose sessions are closed, when its processes have ended.
    fn tell_end(&self, name: &ServerName, done: oneshot::Sender<()>) {
        let children = self.ending.get(name).cloned();
        self.shared.tracker.spawn(async move {
            if let Some(children) = children {
                children.wait().await;
            }
            // Whoever asked may have lost interest.
            let _ = done.send(());
        });
    }

    /// Tells the actors of all servers whose routes are in force now, and who had to wait for that.
    fn go_on(&mut self, refused: &Refused) {
        for (name, server) in &mut self.servers {
            let Server::Active(active) = server else { continue };
            if let Some(reason) = refused.get(active.lease.name()) {
                match (&active.actor, active.changed) {
                    (Some(_), true) => self.shared.board.set_stale(name, Some(reason.clone())),
                    _ => {
                        if let Some(actor) = active.actor.take() {
                            self.shared.tracker.spawn(actor.retire());
                        }
                        self.shared.board.set(name, ServerState::Invalid { reason: reason.clone() }, 0);
                    }
                }
                active.tell_waiting(reason);
                continue;
            }
            // Not before: as long as a new way is not taken, what there is is opened again as it was.
            if let Some(target) = &active.way.target
                && (active.changed || active.actor.is_none())
            {
                self.shared.bridge.set(name, target.clone());
            }
            match &active.actor {
                None => {
                    let (definition, approach) = (Arc::clone(&active.definition), active.approach());
                    let shared = Arc::clone(&self.shared);
                    let actor = Actor::start(definition, approach, self.front.origin(), shared);
                    active.waiting.drain(..).for_each(|settled| actor.nudge(settled));
                    active.actor = Some(actor);
                }
                Some(actor) if active.changed => {
                    self.shared.board.set_stale(name, None);
                    actor.change(Arc::clone(&active.definition), active.approach());
                }
                Some(_) => {}
            }
            active.changed = false;
        }
    }

    /// Says of the servers that wait for a route why they have none, and when it is tried again.
    fn wait_to_apply(&mut self, reason: &str) {
        self.failures += 1;
        let retry_in = self.shared.retry.wait(self.failures);
        self.retry_at = Some(Instant::now() + retry_in);
        for (name, server) in &mut self.servers {
            if let Server::Active(active) = server
                && active.actor.is_none()
            {
                let (reason, failures) = (reason.to_owned(), self.failures);
                active.tell_waiting(&reason);
                self.shared.board.set(name, ServerState::Failed { reason, failures, retry_in }, 0);
            }
        }
    }
}

impl Active {
    /// Takes over a definition that is wanted and can be dialled.
    fn take_over(&mut self, name: &ServerName, definition: Arc<Definition>, way: Way, held: &mut HeldRoutes) {
        let change = definition.change_from(&self.definition);
        let same_route = way.route == self.way.route;
        self.definition = definition;
        if change.connection || !same_route {
            self.lease = held.lease(name, &way.route);
            self.way = way;
            self.changed = true;
        } else if !change.is_nothing()
            && let Some(actor) = &self.actor
        {
            actor.update(Arc::clone(&self.definition));
        }
    }

    fn approach(&self) -> Approach {
        Approach {
            path: self.lease.name().path(),
            headers: self.way.headers.iter().cloned().collect(),
            is_child: self.way.is_child(),
            lease: Some(Arc::clone(&self.lease)),
        }
    }

    fn tell_waiting(&mut self, reason: &str) {
        for settled in self.waiting.drain(..) {
            // Whoever asked may have lost interest.
            let _ = settled.send(Err(reason.to_owned()));
        }
    }
}

fn known_state_is_unsupported(shared: &Shared, name: &ServerName) -> bool {
    let statuses = shared.board.subscribe();
    let statuses = statuses.borrow();
    statuses.get(name).is_some_and(|status| matches!(status.state, ServerState::Unsupported { .. }))
}

/// Waits until a file should be looked at; for ever where there is none.
async fn changed(file: &mut Option<Detector>) {
    match file {
        Some(detector) => detector.changed().await,
        None => pending().await,
    }
}

/// Returns at a time; never where there is none.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}
