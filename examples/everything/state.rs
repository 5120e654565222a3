//! What outlives one request: per process ([`Shared`]) and per session ([`Session`]).

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rmcp::model::ResourceUpdatedNotificationParam;
use rmcp::{Peer, RoleServer};
use serde::Serialize;

/// A client that reads nothing for this long is left out of a broadcast.
const BROADCAST_LIMIT: Duration = Duration::from_secs(5);

/// State of the whole process, which all sessions see.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    extra_tools: Mutex<BTreeSet<String>>,
    sessions: Mutex<Vec<(Peer<RoleServer>, Arc<Session>)>>,
    pub(crate) sleepers: Sleepers,
}

/// State of one client's session.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The rank of the least severe level that the client wants; 0 is `debug`.
    pub(crate) log_threshold: AtomicUsize,
    pub(crate) subscriptions: Mutex<HashSet<String>>,
}

/// Counts the runs of the `sleep` tool, so that a test can see that calls overlap and that cancelling reaches them.
#[derive(Debug, Default)]
pub(crate) struct Sleepers {
    running: AtomicUsize,
    peak: AtomicUsize,
    cancelled: AtomicUsize,
}

#[derive(Debug, Serialize)]
pub(crate) struct SleepCounts {
    pub(crate) running: usize,
    pub(crate) peak: usize,
    pub(crate) cancelled: usize,
}

/// One run of `sleep`.
pub(crate) struct Sleeper<'a>(&'a Sleepers);

impl Shared {
    pub(crate) fn new(extra_tools: usize) -> Self {
        let names = (1..=extra_tools).map(|number| format!("extra_{number}")).collect();
        Self { extra_tools: Mutex::new(names), ..Self::default() }
    }

    pub(crate) fn extra_tools(&self) -> Vec<String> {
        lock(&self.extra_tools).iter().cloned().collect()
    }

    pub(crate) fn has_extra_tool(&self, name: &str) -> bool {
        lock(&self.extra_tools).contains(name)
    }

    /// False when there is one of that name already.
    pub(crate) fn add_tool(&self, name: &str) -> bool {
        lock(&self.extra_tools).insert(name.to_owned())
    }

    /// False when there is none of that name.
    pub(crate) fn remove_tool(&self, name: &str) -> bool {
        lock(&self.extra_tools).remove(name)
    }

    pub(crate) fn register(&self, peer: Peer<RoleServer>, session: Arc<Session>) {
        lock(&self.sessions).push((peer, session));
    }

    /// Sends `notifications/tools/list_changed` to every session.
    pub(crate) async fn announce_tools(&self) {
        for (peer, _) in self.open_sessions() {
            report(tokio::time::timeout(BROADCAST_LIMIT, peer.notify_tool_list_changed()).await);
        }
    }

    /// Sends `notifications/resources/updated` to the sessions that subscribed to `uri`; returns how many.
    pub(crate) async fn announce_update(&self, uri: &str) -> usize {
        let mut subscribers = self.open_sessions();
        subscribers.retain(|(_, session)| lock(&session.subscriptions).contains(uri));
        for (peer, _) in &subscribers {
            let updated = ResourceUpdatedNotificationParam::new(uri);
            report(tokio::time::timeout(BROADCAST_LIMIT, peer.notify_resource_updated(updated)).await);
        }
        subscribers.len()
    }

    fn open_sessions(&self) -> Vec<(Peer<RoleServer>, Arc<Session>)> {
        let mut sessions = lock(&self.sessions);
        sessions.retain(|(peer, _)| !peer.is_transport_closed());
        sessions.clone()
    }
}

impl Sleepers {
    pub(crate) fn enter(&self) -> Sleeper<'_> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.peak.fetch_max(running, Ordering::SeqCst);
        Sleeper(self)
    }

    pub(crate) fn counts(&self) -> SleepCounts {
        SleepCounts {
            running: self.running.load(Ordering::SeqCst),
            peak: self.peak.load(Ordering::SeqCst),
            cancelled: self.cancelled.load(Ordering::SeqCst),
        }
    }
}

impl Sleeper<'_> {
    pub(crate) fn cancelled(self) {
        self.0.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The sets behind these locks are whole between any two statements, so a panicked holder leaves nothing half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn report<E: std::fmt::Debug>(outcome: Result<Result<(), E>, tokio::time::error::Elapsed>) {
    if !matches!(outcome, Ok(Ok(()))) {
        tracing::warn!(?outcome, "a session missed a notification");
    }
}
