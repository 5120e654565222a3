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
    pub(super) fn reuse(&self, now: Instant) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.idle().pop()?;
            // The others have been idle for longer still; the sweep closes them.
            if now.duration_since(since) >= self.idle_timeout {
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
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }

    fn give_back(&self, connection: Connection, now: Instant) {
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push(Idle { connection, since: now });
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn close_expired(&self, now: Instant) {
        let expired: Vec<Idle> = {
            let mut idle = self.idle();
            let fresh = idle.iter().position(|entry| now.duration_since(entry.since) < self.idle_timeout);
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

type Driver = Pin<Box<http1::Connection<TokioIo<Stream>, Incoming>>>;

/// An HTTP/1.1 connection. Whoever holds it drives it: it moves only while it is polled, so what is left of a request is sent
/// on only as fast as its response is read, once there is one.
pub(super) struct Connection {
    sender: SendRequest<Incoming>,
    /// Gone once it has ended: only its drop tells a request that is still queued in it that it was not sent.
    driver: Option<Driver>,
}

impl Connection {
    /// Sends one request and waits for the head of its response. A request that comes back was not sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<Incoming>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(Box::new)
    }

    /// Moves bytes both ways.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.driver, cx);
    }

    /// Sees what has arrived meanwhile: a server that has closed is noticed here, before a request is lost on it.
    fn is_reusable(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        *driver = None;
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
            self.backend.give_back(connection, Instant::now());
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;

    use super::*;

    async fn connection() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (sender, driver) = http1::handshake(TokioIo::new(Stream::Unix(ours))).await.unwrap();
        (Connection { sender, driver: Some(Box::pin(driver)) }, theirs)
    }

    /// Returns when the runtime has seen every socket event that came before.
    async fn events_seen() {
        let (mut one, mut other) = UnixStream::pair().unwrap();
        one.write_all(b"x").await.unwrap();
        other.read_u8().await.unwrap();
    }

    /// A request as a server receives it; there is no other way to make one.
    async fn request() -> Request<Incoming> {
        let (mut client, server) = duplex(1024);
        client.write_all(b"POST /x HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let (requests, mut received) = mpsc::unbounded_channel();
        let service = service_fn(move |request| {
            requests.send(request).unwrap();
            std::future::pending::<Result<Response<Full<Bytes>>, hyper::Error>>()
        });
        let serving =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(server), service);
        tokio::select! {
            _ = serving => panic!("served nothing"),
            request = received.recv() => request.unwrap(),
        }
    }

    #[tokio::test]
    async fn idle_connections_are_closed_in_time() {
        let settings = Settings {
            data: std::num::NonZeroU16::MIN,
            admin: "127.0.0.1:1".parse().unwrap(),
            stats: "127.0.0.1:1".parse().unwrap(),
            readiness: "127.0.0.1:1".parse().unwrap(),
            log_level: None,
            pool_idle_timeout: Duration::from_secs(3),
            connect_timeout: Duration::from_secs(1),
        };
        let address = super::super::config::Address::Unix("/nowhere".into());
        let backend = Backend::new(BackendId { address, tunnel: None, tls: None }, &settings, Arc::default());
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let (old, mut old_peer) = connection().await;
        backend.give_back(old, start);
        let (young, _young_peer) = connection().await;
        backend.give_back(young, after(2));
        backend.close_expired(after(3));
        assert_eq!(old_peer.read(&mut [0]).await.unwrap(), 0, "the old one is closed");
        assert!(backend.reuse(after(3)).is_some(), "the young one is kept");
        assert!(backend.reuse(after(3)).is_none());

        let (expired, _peer) = connection().await;
        backend.give_back(expired, after(3));
        assert!(backend.reuse(after(6)).is_none(), "not used without a sweep either");
    }

    #[tokio::test]
    async fn an_ended_connection_is_not_reused() {
        let (mut connection, peer) = connection().await;
        assert!(connection.is_reusable());
        drop(peer);
        events_seen().await;
        assert!(!connection.is_reusable());
    }

    /// The server closes between the look at the connection and the request.
    #[tokio::test]
    async fn a_request_that_meets_the_end_of_its_connection_comes_back() {
        let request = request().await;
        let (mut connection, peer) = connection().await;
        assert!(connection.is_reusable());
        drop(peer);
        events_seen().await;
        let sent = timeout(Duration::from_secs(20), connection.send(request)).await.expect("still waits");
        let returned = sent.expect_err("nobody answers").take_message().expect("was not sent");
        assert_eq!(returned.uri(), "/x");
    }
}
