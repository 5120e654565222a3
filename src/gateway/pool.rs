//! Connections to one backend.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::config::{BackendId, Settings};
use super::dial::{Stream, dial};
use super::tls::{self, SystemRoots};
use crate::http1;

/// More idle connections to a backend than this are closed at once.
const MOST_IDLE: usize = 256;

/// A connection to a backend.
pub(super) type Connection = http1::Connection<Stream, Incoming>;

/// The body of a backend's response.
pub(super) type Body = http1::Body<Stream, Incoming>;

/// A backend and its idle connections.
pub(super) struct Backend {
    id: BackendId,
    idle: Arc<http1::Idle<Stream, Incoming>>,
    connect_timeout: Duration,
    tls: OnceCell<TlsConnector>,
    roots: Arc<SystemRoots>,
}

impl Backend {
    pub(super) fn new(id: BackendId, settings: &Settings, roots: Arc<SystemRoots>) -> Self {
        Self {
            id,
            idle: http1::Idle::new(settings.pool_idle_timeout, MOST_IDLE),
            connect_timeout: settings.connect_timeout,
            tls: OnceCell::new(),
            roots,
        }
    }

    /// An idle connection that is still open as far as one can tell.
    pub(super) fn reuse(&self) -> Option<Connection> {
        self.idle.take(Instant::now())
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let connecting = async {
            let tls = match &self.id.tls {
                Some(id) => Some(self.tls.get_or_try_init(|| tls::connector(&id.trust, &self.roots)).await?),
                None => None,
            };
            let stream = dial(&self.id, tls).await?;
            Connection::open(stream).await.map_err(io::Error::other)
        };
        timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// The body of a response that came over `connection`, which is idle afterwards.
    pub(super) fn body(&self, incoming: Incoming, connection: Connection) -> Body {
        Body::new(incoming, connection, Arc::clone(&self.idle))
    }

    /// Closes what has been idle for too long.
    pub(super) fn close_expired(&self, now: Instant) {
        self.idle.close_expired(now);
    }
}
