//! What the bridge serves, and where: a path for each route.
//!
//! A server whose route changes has two for a while, and its sessions end at the path where they began. What is of the server
//! and not of a route is shared by its paths, and there as long as one of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Target;
use super::openings::Openings;
use crate::mcpserver::ServerName;
use crate::subprocess::{Root, Tail};
use crate::sync::lock;
use crate::yaml_applier::RouteName;

/// What sessions can be opened with at one path.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) server: Arc<Server>,
    pub(super) target: Target,
    /// The output of the newest child.
    pub(super) tail: Mutex<Option<Tail>>,
    /// Ends the sessions of this path.
    pub(super) stop: CancellationToken,
}

/// What the paths of one server share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: ServerName,
    /// Owns its children.
    pub(super) children: TaskTracker,
    /// Its sessions that are being opened.
    pub(super) openings: Arc<Openings>,
    /// Where its children are found in the process table.
    pub(super) roots: Mutex<Vec<Root>>,
}

/// All that is served.
#[derive(Debug, Default)]
pub(super) struct Table {
    paths: HashMap<String, Arc<Served>>,
    servers: HashMap<ServerName, Shared>,
}

#[derive(Debug)]
struct Shared {
    server: Arc<Server>,
    /// How many paths it has.
    paths: usize,
}

impl Table {
    /// What is served at a path.
    pub(super) fn at(&self, path: &str) -> Option<&Arc<Served>> {
        self.paths.get(path)
    }

    /// What is served where a route leads.
    pub(super) fn by(&self, route: &RouteName) -> Option<&Arc<Served>> {
        self.at(route.bridge_path().path())
    }

    /// Serves `target` where `route` leads. The sessions of a new path end with `stop`, too.
    pub(super) fn set(&mut self, route: &RouteName, target: Target, stop: &CancellationToken) {
        let earlier = self.by(route);
        let stop = earlier.map_or_else(|| stop.child_token(), |earlier| earlier.stop.clone());
        let is_new = earlier.is_none();
        let shared = self.servers.entry(route.server().clone()).or_insert_with_key(|name| {
            let server = Server {
                name: name.clone(),
                children: TaskTracker::new(),
                openings: Arc::default(),
                roots: Mutex::default(),
            };
            Shared { server: Arc::new(server), paths: 0 }
        });
        shared.paths += usize::from(is_new);
        let served = Served { server: Arc::clone(&shared.server), target, tail: Mutex::default(), stop };
        self.paths.insert(route.bridge_path().path().to_owned(), Arc::new(served));
    }

    /// Serves nothing any more where `route` leads, and ends the sessions that are left there. Gives the server's children,
    /// where it has no other path.
    pub(super) fn remove(&mut self, route: &RouteName) -> Option<TaskTracker> {
        let served = self.paths.remove(route.bridge_path().path())?;
        served.stop.cancel();
        let shared = self.servers.get_mut(route.server())?;
        shared.paths -= 1;
        if shared.paths > 0 {
            return None;
        }
        self.servers.remove(route.server());
        served.server.children.close();
        Some(served.server.children.clone())
    }

    /// The trees of processes that run, by server.
    pub(super) fn trees(&self) -> Vec<(ServerName, Vec<Root>)> {
        let servers = self.servers.iter();
        let trees = servers.map(|(name, shared)| (name.clone(), lock(&shared.server.roots).clone()));
        trees.filter(|(_, roots)| !roots.is_empty()).collect()
    }
}
