//! Connections to one backend: those in use are owned by their calls, the idle ones wait here.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::config::{BackendId, Settings};
use super::dial::{Stream, dial};
use super::tls::{self, SystemRoots};

/// More idle connections than this are closed at once.
const MAX_IDLE: usize = 256;

/// A backend and its idle connections.
pub(super) struct Backend {
    id: BackendId,
    idle: Mutex<Vec<Idle>>,
    idle_timeout: Duration,
    connect_timeout: Duration,
    tls: OnceCell<TlsConnector>,
    roots: Arc<SystemRoots>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

impl Backend {
    pub(super) fn new(id: BackendId, settings: &Settings, roots: Arc<SystemRoots>) -> Self {
        Self {
            id,
            idle: Mutex::default(),
            idle_timeout: settings.pool_idle_timeout,
            connect_timeout: settings.connect_timeout,
            tls: OnceCell::new(),
            roots,
        }
    }

    /// An idle connection that is still open as far as one can tell, the one used last.
    pub(super) fn reuse(&self) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.idle().pop()?;
            // The others have been idle for longer still; the sweep closes them.
            if since.elapsed() >= self.idle_timeout {
                return None;
            }
            if connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    /// A new connection.
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let connecting = async {
            let tls = match &self.id.tls {
                Some(id) => Some(self.tls.get_or_try_init(|| tls::connector(&id.trust, &self.roots)).await?),
                None => None,
            };
            let stream = dial(&self.id, tls).await?;
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (sender, driver) = timeout(self.connect_timeout, connecting)
            .await
            .map_err(|_elapsed| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Connection { sender, driver: Box::pin(driver), ended: false })
    }

    fn give_back(&self, connection: Connection) {
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    pub(super) fn close_expired(&self) {
        let expired: Vec<Idle> = {
            let mut idle = self.idle();
            let fresh = idle.iter().position(|entry| entry.since.elapsed() < self.idle_timeout);
            let expired = fresh.unwrap_or(idle.len());
            idle.drain(..expired).collect()
        };
        // Closed outside the lock.
        drop(expired);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        // Nothing that can panic runs under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An HTTP/1.1 connection. Whoever holds it drives it: it moves only while it is polled.
pub(super) struct Connection {
    sender: SendRequest<Incoming>,
    driver: Pin<Box<http1::Connection<TokioIo<Stream>, Incoming>>>,
    ended: bool,
}

impl Connection {
    /// Sends one request and waits for the head of its response. A request that comes back was not sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<Incoming>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            if !self.ended {
                self.ended = self.driver.as_mut().poll(cx).is_ready();
            }
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(Box::new)
    }

    /// Moves bytes both ways.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.ended {
            self.ended = self.driver.as_mut().poll(cx).is_ready();
        }
    }

    /// Sees what has arrived meanwhile: a server that has closed is noticed here, before a request is lost on it.
    fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.ended && self.sender.is_ready()
    }
}

/// A connection that carries a call, until it is dropped: then it is idle if the call has ended on it, else closed.
pub(super) struct Lease {
    connection: Option<Connection>,
    backend: Arc<Backend>,
}

impl Lease {
    pub(super) fn new(connection: Connection, backend: Arc<Backend>) -> Self {
        Self { connection: Some(connection), backend }
    }

    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection {
            connection.drive(cx);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_reusable()
        {
            self.backend.give_back(connection);
        }
    }
}

/// Asks `body` for its next frame, driving the connection it comes from.
pub(super) fn poll_body<T>(
    lease: &mut Lease,
    cx: &mut Context<'_>,
    mut body: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    // First what has been read already; asking also lets the connection read on.
    match body(cx) {
        Poll::Ready(frame) => Poll::Ready(frame),
        Poll::Pending => {
            lease.drive(cx);
            body(cx)
        }
    }
}
