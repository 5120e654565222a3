//! The way to one server, which outlives its sessions.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::upstream::Upstream;
use crate::mcpserver::ServerName;

/// How long things may take with one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For connecting, `initialize` and lists; also how long a call waits for a session.
    pub timeout: Duration,
    /// For one call; progress begins it again. `None`: no limit.
    pub call_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), call_timeout: None }
    }
}

/// The way to one server: holds the session there is at the moment, if any.
///
/// Whoever connects the server puts sessions in with [`set`](Self::set); calls take them with
/// [`session`](Self::session). A call that finds its session lost says so to the session
/// ([`Upstream::mark_lost`]), and waits here for the next one.
#[derive(Debug)]
pub struct Link {
    server: ServerName,
    limits: Mutex<Limits>,
    current: watch::Sender<Option<Arc<Upstream>>>,
    retired: CancellationToken,
}

impl Link {
    /// A way without a session yet.
    pub fn new(server: ServerName, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            server,
            limits: Mutex::new(limits),
            current: watch::Sender::new(None),
            retired: CancellationToken::new(),
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

    /// Puts a session in, or takes it out.
    pub fn set(&self, upstream: Option<Arc<Upstream>>) {
        self.current.send_replace(upstream);
    }

    /// Takes the session out for good: the server is removed, or starts afresh. Nobody waits here any more.
    pub fn retire(&self) {
        self.retired.cancel();
        self.set(None);
    }

    /// Whether [`retire`](Self::retire) was called.
    pub fn is_retired(&self) -> bool {
        self.retired.is_cancelled()
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
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_a_way_that_is_retired() {
        let link = Link::new("a".parse().unwrap(), Limits::default());
        let started = Instant::now();
        let (session, ()) = tokio::join!(link.session(), async { link.retire() });
        assert!(session.is_none());
        assert!(link.session().await.is_none());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
