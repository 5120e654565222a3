//! The loop that compares what is desired with what is.
//!
//! | part | owns |
//! | --- | --- |
//! | `desire` | what each file asks for, compared with what there is |
//! | `server` | one server as the loop knows it |
//! | `wish` | the routes that servers need, and what happens once they are in force |
//!
//! Everything here happens one after the other; only the latest wish for routes is under way meanwhile.

mod desire;
mod server;
mod wish;

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::{FusedFuture as _, join_all};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info};

use super::actor::{Actor, Settled, Shared};
use super::detector::Detector;
use super::front::Front;
use super::held::HeldRoutes;
use super::{Problems, ReconcilerOptions};
use crate::error::chain;
use crate::mcpserver::{Entry, Scan, Secret, ServerName};
use crate::yaml_applier::RouteName;
use server::Server;

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
    /// Processes of servers that the bridge serves nothing with any more, and that have not ended yet.
    ending: Vec<(ServerName, TaskTracker)>,
    progress: watch::Sender<Progress>,
    /// What is wrong and belongs to no server.
    problems: watch::Sender<Problems>,
    /// When the configuration that was seen last came into force.
    in_force_since: Option<SystemTime>,
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
            ending: Vec::new(),
            progress,
            problems,
            in_force_since: None,
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
                self.learn_secrets(&scan);
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

    /// Before anybody can say one: what definitions give to their servers.
    fn learn_secrets(&self, scan: &Scan) {
        let ReconcilerOptions { secrets, secret_names, surroundings, .. } = &self.options;
        let values = Entry::secrets_of(&scan.entries, secret_names, &surroundings.environment);
        secrets.learn(values.iter().map(Secret::expose));
    }

    /// What is wrong and belongs to no server, as it may be shown.
    fn shown(&self, problem: &str) -> String {
        self.shared.secrets.redact(problem).into_owned()
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

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Look(done) => {
                let registry = Arc::clone(&self.shared.registry);
                self.shared.tracker.spawn(async move {
                    // What has been withdrawn is not to be seen any more by whoever asked for that.
                    registry.caught_up().await;
                    // They may have lost interest.
                    let _ = done.send(());
                });
            }
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

    fn is_wanted(&self, name: &ServerName) -> bool {
        matches!(self.servers.get(name), Some(Server::Active(_)))
    }

    /// Answers who waits for the end of a server whose sessions are closed, when its processes have ended.
    fn tell_end(&self, name: &ServerName, done: oneshot::Sender<()>) {
        let children = self.ending.iter().filter(|(server, _)| server == name);
        let children: Vec<_> = children.map(|(_, children)| children.clone()).collect();
        self.shared.tracker.spawn(async move {
            for children in children {
                children.wait().await;
            }
            // Whoever asked may have lost interest.
            let _ = done.send(());
        });
    }
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
