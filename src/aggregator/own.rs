//! Sessions that a client has for itself, with servers of `isolation: session`.
//!
//! One is opened when the client first uses the server, with what the client has declared, and again when it was lost.
//! It is closed when the client leaves, or the way to the server is retired.
//!
//! Invariants: at most one session a client and server; nothing that a server says in it reaches another client.

use std::sync::{Arc, Mutex, Weak};

use futures_util::future::join_all;
use tokio::sync::OnceCell;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::client::Client;
use super::isolation::Isolation;
use super::ledger::{Audience, Ledger};
use super::level::Level;
use super::link::Link;
use super::upstream::{ConnectError, Introduction, Upstream};
use crate::sync::lock;
use crate::wire::message::Message;

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

    /// The session, which is opened if need be.
    ///
    /// # Errors
    ///
    /// Why there is none, and will be none soon, for the client.
    pub(super) async fn upstream(
        &self,
        link: &Arc<Link>,
        client: &Arc<Client>,
        isolation: &Arc<Isolation>,
    ) -> Result<Arc<Upstream>, String> {
        let cell = self.usable(isolation);
        if let Some(upstream) = cell.upstream.get() {
            return Ok(Arc::clone(upstream));
        }
        // A task of its own: a call that is cancelled must not leave half a session behind, which nobody can close.
        let opening = open_once(
            Arc::clone(link),
            Arc::clone(client),
            Arc::clone(&self.ledger),
            cell,
            Arc::clone(isolation),
        );
        let opened = isolation.dialer.tracker.spawn(link.own_sessions().track_future(opening)).await;
        match opened {
            Ok(Ok(upstream)) => Ok(upstream),
            Ok(Err(why)) => Err(format!("server {} gives no session: {why}", link.server())),
            // Its task cannot be awaited: the runtime ends.
            Err(error) => Err(error.to_string()),
        }
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
    pub(super) fn with(
        &self,
        link: &Arc<Link>,
        client: &Arc<Client>,
        isolation: &Arc<Isolation>,
    ) -> Arc<OwnSession> {
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
        let upstream = Upstream::open(link.terms(ledger), introduction, dialer, is_over).await?;
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
