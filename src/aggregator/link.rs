//! The way to one server, which outlives its sessions.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::behind::InstanceId;
use super::client::Clients;
use super::isolation::Isolation;
use super::ledger::{Audience, Ledger};
use super::limits::Limits;
use super::said::ListChanges;
use super::upstream::{ConnectError, Dialer, Terms, Upstream};
use crate::mcpserver::ServerName;
use crate::wire::stream::Dropped;

/// The way to one server: holds the session there is at the moment, if any.
///
/// Whoever connects the server puts sessions in with [`set`](Self::set); calls take them with
/// [`session`](Self::session). A call that finds its session lost says so to the session
/// ([`Upstream::mark_lost`]), and waits here for the next one.
#[derive(Debug)]
pub struct Link {
    server: ServerName,
    limits: Mutex<Limits>,
    ledger: Arc<Ledger>,
    lists: Arc<ListChanges>,
    isolation: ArcSwapOption<Isolation>,
    /// Clients' own sessions.
    own_sessions: TaskTracker,
    current: watch::Sender<Option<Arc<Upstream>>>,
    retired: CancellationToken,
    unsent: Dropped,
    identity: InstanceId,
}

impl Link {
    /// A way without a session yet, which `clients` of the instance `identity` will share. `unsent` counts what the server does
    /// not take.
    pub(super) fn new(
        server: ServerName,
        limits: Limits,
        clients: Arc<Clients>,
        unsent: Dropped,
        identity: InstanceId,
    ) -> Arc<Self> {
        Arc::new(Self {
            ledger: Ledger::new(server.clone(), Audience::Shared(clients)),
            lists: Arc::default(),
            isolation: ArcSwapOption::empty(),
            own_sessions: TaskTracker::new(),
            server,
            limits: Mutex::new(limits),
            current: watch::Sender::new(None),
            retired: CancellationToken::new(),
            unsent,
            identity,
        })
    }

    /// The server's name.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// How long things may take.
    pub fn limits(&self) -> Limits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how long things may take, from the next call on.
    pub fn set_limits(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// How clients get sessions of their own from now on, where they do. Those that they have are closed.
    pub fn isolate(&self, isolation: Option<Isolation>) {
        if let Some(old) = self.isolation.swap(isolation.map(Arc::new)) {
            old.is_over.cancel();
        }
    }

    /// How clients get sessions of their own, where they do.
    pub(super) fn isolation(&self) -> Option<Arc<Isolation>> {
        self.isolation.load_full()
    }

    /// Counts clients' own sessions.
    pub(super) fn own_sessions(&self) -> &TaskTracker {
        &self.own_sessions
    }

    /// How many sessions with the server are open.
    pub fn sessions(&self) -> usize {
        let shared = self.current.borrow().as_ref().is_some_and(|upstream| !upstream.is_lost());
        usize::from(shared) + self.own_sessions.len()
    }

    /// What those who share the sessions have in common.
    pub(super) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// What a session of those who share `ledger` begins with.
    pub(super) fn terms(&self, ledger: Arc<Ledger>) -> Terms {
        Terms {
            ledger,
            lists: Arc::clone(&self.lists),
            unsent: self.unsent.clone(),
            timeout: self.limits().timeout,
            identity: self.identity.clone(),
        }
    }

    /// Opens a session for all clients. It is nobody's until it is put in with [`set`](Self::set); its tasks run on the
    /// dialer's tracker and end when it is closed or lost.
    ///
    /// A connection that is refused, and a route that the gateway does not have yet, are tried again within
    /// [`Limits::timeout`], until `given_up`. What was sent by then is answered first.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn connect(
        &self,
        dialer: Dialer,
        given_up: &CancellationToken,
    ) -> Result<Arc<Upstream>, ConnectError> {
        Upstream::connect(self.terms(Arc::clone(&self.ledger)), dialer, given_up).await
    }

    /// Puts a session in, or takes it out. A new one is asked for what its predecessors were.
    pub fn set(&self, upstream: Option<Arc<Upstream>>) {
        if let Some(upstream) = &upstream {
            upstream.restore();
        }
        self.current.send_replace(upstream);
    }

    /// The session there is at the moment, lost or not.
    pub(super) fn current(&self) -> Option<Arc<Upstream>> {
        self.current.borrow().clone()
    }

    /// Takes the session out for good: the server is removed, or starts afresh. Nobody waits here any more.
    pub fn retire(&self) {
        self.retired.cancel();
        self.set(None);
        self.isolate(None);
    }

    /// Whether [`retire`](Self::retire) was called.
    pub fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
    }

    /// Waits until clients' own sessions are closed. For a way that is retired.
    pub async fn own_sessions_closed(&self) {
        self.own_sessions.close();
        self.own_sessions.wait().await;
    }

    /// The session there is at the moment and that is not lost; waits for one if need be, at most
    /// [`Limits::timeout`].
    pub async fn session(&self) -> Option<Arc<Upstream>> {
        // The usual case does not wait, and does not set a timer.
        let usable =
            |upstream: &Option<Arc<Upstream>>| upstream.as_ref().is_some_and(|upstream| !upstream.is_lost());
        {
            let current = self.current.borrow();
            if usable(&current) {
                return current.clone();
            }
        }
        let mut receiver = self.current.subscribe();
        let waiting = self.retired.run_until_cancelled(receiver.wait_for(usable));
        tokio::time::timeout(self.limits().timeout, waiting).await.ok()??.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_way_that_is_retired() {
        let name = "a".parse().unwrap();
        let link =
            Link::new(name, Limits::default(), Arc::default(), Dropped::default(), InstanceId::default());
        let started = Instant::now();
        let (session, ()) = tokio::join!(link.session(), async { link.retire() });
        assert!(session.is_none());
        assert!(link.session().await.is_none());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
