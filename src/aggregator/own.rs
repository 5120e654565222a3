//! Sessions that a client has for itself, with servers of `isolation: session`.
//!
//! One is opened when the client first uses the server, with what the client has declared, and again when it was lost.
//! It is closed when the client leaves, or the way to the server is retired.
//!
//! Invariants: at most one session a client and server; nothing that a server says in it reaches another client.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::client::Client;
use super::ledger::{Audience, Ledger};
use super::level::Level;
use super::link::Link;
use super::upstream::{ConnectError, Dialer, Introduction, Upstream};
use crate::sync::lock;
use crate::wire::message::Message;

/// How clients get sessions of their own.
pub struct Isolation {
    dialer: Dialer,
    drain: Duration,
    /// Kept as long as there are such sessions.
    _keep: Arc<dyn Any + Send + Sync>,
    /// Fires when sessions are to be had another way, or not any more.
    pub(super) is_over: CancellationToken,
}

impl Isolation {
    /// Sessions are opened with `dialer`. When they are not to be had any more, calls in flight get `drain` to end; until
    /// the last is closed, `keep` is kept.
    pub fn new(dialer: Dialer, drain: Duration, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { dialer, drain, _keep: keep, is_over: CancellationToken::new() }
    }
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolation")
            .field("dialer", &self.dialer)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// The sessions of one client. Servers that are isolated are few: they are looked through.
#[derive(Debug, Default)]
pub(super) struct OwnSessions(Mutex<Vec<Arc<OwnSession>>>);

/// The session of one client with one server, while there is one, and what outlives it.
#[derive(Debug)]
pub(super) struct OwnSession {
    link: Weak<Link>,
    pub(super) ledger: Arc<Ledger>,
    /// The session there is, or is being opened.
    cell: Mutex<Arc<Cell>>,
}

/// One session, opened once. It outlives its way, and must not keep what that keeps.
#[derive(Debug)]
struct Cell {
    is_over: CancellationToken,
    upstream: OnceCell<Arc<Upstream>>,
}

impl Cell {
    fn new(isolation: &Isolation) -> Arc<Self> {
        Arc::new(Self { is_over: isolation.is_over.clone(), upstream: OnceCell::new() })
    }
}

impl OwnSession {
    /// The session there is at the moment, lost or not.
    pub(super) fn current(&self) -> Option<Arc<Upstream>> {
        lock(&self.cell).upstream.get().cloned()
    }

    /// The cell of a session that is not lost, or that is to be opened.
    fn usable(&self, isolation: &Arc<Isolation>) -> Arc<Cell> {
        let mut cell = lock(&self.cell);
        let is_lost = cell.upstream.get().is_some_and(|upstream| upstream.is_lost());
        if is_lost || cell.is_over.is_cancelled() {
            *cell = Cell::new(isolation);
        }
        Arc::clone(&cell)
    }
}

impl OwnSessions {
    fn all(&self) -> Vec<Arc<OwnSession>> {
        lock(&self.0).clone()
    }

    fn open(&self) -> impl Iterator<Item = Arc<Upstream>> {
        self.all().into_iter().filter_map(|own| own.current())
    }

    /// The client's place for a session with the server of `link`.
    fn with(&self, link: &Arc<Link>, client: &Arc<Client>, isolation: &Arc<Isolation>) -> Arc<OwnSession> {
        let mut sessions = lock(&self.0);
        // Ways that are retired have no sessions.
        sessions.retain(|own| own.link.strong_count() > 0);
        let wanted = Arc::downgrade(link);
        if let Some(own) = sessions.iter().find(|own| own.link.ptr_eq(&wanted)) {
            return Arc::clone(own);
        }
        let ledger = Ledger::new(link.server().clone(), Audience::One(Arc::downgrade(client)));
        if let Some(level) = client.level.get() {
            ledger.level.set(level);
        }
        let cell = Mutex::new(Cell::new(isolation));
        let own = Arc::new(OwnSession { link: wanted, ledger, cell });
        sessions.push(Arc::clone(&own));
        own
    }

    /// Passes on what the client says to all its own servers.
    pub(super) fn tell(&self, message: &Message) {
        self.open().for_each(|upstream| upstream.tell(message.text().clone()));
    }

    /// Asks all its own servers for log messages of a level, soon.
    pub(super) fn set_level(&self, level: Level) -> Vec<JoinHandle<()>> {
        let mut asking = Vec::new();
        for own in self.all() {
            if own.ledger.level.set(level) != Some(level)
                && let Some(upstream) = own.current()
            {
                asking.push(upstream.align_level());
            }
        }
        asking
    }

    /// Closes every session. For a client that has gone.
    pub(super) async fn close(&self) {
        join_all(self.open().map(|upstream| async move { close(&upstream).await })).await;
    }
}

/// Why a client gets no session with a server.
#[derive(Debug)]
pub(super) enum NoSession {
    /// The server has none for anybody.
    NotConnected,
    /// The server gives this client none of its own, and why, for the client.
    Refused(String),
}

impl Link {
    /// What those who share the session that `client` uses have in common.
    pub(super) fn ledger_of(self: &Arc<Self>, client: &Arc<Client>) -> Arc<Ledger> {
        match self.isolation() {
            Some(isolation) => Arc::clone(&client.own.with(self, client, &isolation).ledger),
            None => Arc::clone(self.ledger()),
        }
    }

    /// The session that `client` uses, lost or not, where there is one.
    pub(super) fn current_of(self: &Arc<Self>, client: &Arc<Client>) -> Option<Arc<Upstream>> {
        match self.isolation() {
            Some(isolation) => client.own.with(self, client, &isolation).current(),
            None => self.current(),
        }
    }

    /// The session that `client` uses: that of all, or its own, which is opened if need be.
    ///
    /// # Errors
    ///
    /// There is none, and will be none soon.
    pub(super) async fn session_of(
        self: &Arc<Self>,
        client: &Arc<Client>,
    ) -> Result<Arc<Upstream>, NoSession> {
        let server = self.server();
        // Also of use where clients have their own: a server that has no session for us has none for them.
        let Some(shared) = self.session().await else {
            return Err(NoSession::NotConnected);
        };
        let Some(isolation) = self.isolation() else { return Ok(shared) };
        let own = client.own.with(self, client, &isolation);
        let cell = own.usable(&isolation);
        if let Some(upstream) = cell.upstream.get() {
            return Ok(Arc::clone(upstream));
        }
        // A task of its own: a call that is cancelled must not leave half a session behind, which nobody can close.
        let opening = open_once(
            Arc::clone(self),
            Arc::clone(client),
            Arc::clone(&own.ledger),
            cell,
            Arc::clone(&isolation),
        );
        let opened = isolation.dialer.tracker.spawn(self.own_sessions().track_future(opening)).await;
        match opened {
            Ok(Ok(upstream)) => Ok(upstream),
            Ok(Err(why)) => Err(NoSession::Refused(format!("server {server} gives no session: {why}"))),
            // Its task cannot be awaited: the runtime ends.
            Err(error) => Err(NoSession::Refused(error.to_string())),
        }
    }
}

/// Opens the session of a cell, where nobody else has.
async fn open_once(
    link: Arc<Link>,
    client: Arc<Client>,
    ledger: Arc<Ledger>,
    cell: Arc<Cell>,
    isolation: Arc<Isolation>,
) -> Result<Arc<Upstream>, String> {
    let opening = async {
        let us = format!(r#"{{"name":"sidegate","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
        let introduction = Introduction {
            capabilities: &client.declared.capabilities,
            info: client.declared.info.as_deref().unwrap_or(&us),
        };
        let (dialer, is_over) = (isolation.dialer.clone(), &isolation.is_over);
        let upstream = Upstream::open(&link, ledger, introduction, dialer, is_over).await?;
        upstream.restore();
        let keeping = keep(Arc::clone(&client), Arc::clone(&upstream), Arc::clone(&isolation));
        // Counted with the way, so that whoever retires it can wait.
        isolation.dialer.tracker.spawn(link.own_sessions().track_future(keeping));
        Ok(upstream)
    };
    match isolation.is_over.run_until_cancelled(cell.upstream.get_or_try_init(|| opening)).await {
        Some(Ok(upstream)) => Ok(Arc::clone(upstream)),
        Some(Err(error)) => Err(ConnectError::to_string(&error)),
        None => Err("it is being stopped or changed".to_owned()),
    }
}

/// Closes a session when nobody may use it any more.
async fn keep(client: Arc<Client>, upstream: Arc<Upstream>, isolation: Arc<Isolation>) {
    tokio::select! {
        () = upstream.lost() => return,
        () = client.closed.cancelled() => {}
        () = isolation.is_over.cancelled() => {
            if tokio::time::timeout(isolation.drain, upstream.calls_done()).await.is_err() {
                debug!(server = %upstream.server(), "calls are cut");
            }
        }
    }
    close(&upstream).await;
}

async fn close(upstream: &Upstream) {
    if let Err(error) = upstream.close().await {
        debug!(server = %upstream.server(), %error, "a client's own session could not be closed in order");
    }
}
