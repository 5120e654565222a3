//! HTTP/1.1 connections, as a client, that are driven by whoever holds them, and the idle ones.
//!
//! A connection has no task of its own: it moves only while its holder polls it, so a small exchange costs no wake-up of another
//! task, and dropping the exchange drops the connection. While a connection is idle nobody looks at it; that its peer has closed
//! it is noticed before it is used again.
//!
//! Knows nothing of who is dialled, and of what is asked.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::sync::lock;

/// What can be sent as a request's body.
pub(crate) trait Payload:
    http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + Send + 'static
{
}

impl<B> Payload for B where
    B: http_body::Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>>
        + Unpin
        + Send
        + 'static
{
}

/// What carries a connection.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// What moves a connection's bytes.
type Driver<S, B> = http1::Connection<TokioIo<S>, B>;

/// An HTTP/1.1 connection. Whoever holds it drives it: it moves only while it is polled, so what is left of a request is sent
/// on only as fast as its response is read, once there is one.
pub(crate) struct Connection<S: Stream, B: Payload> {
    sender: SendRequest<B>,
    /// Gone once it has ended: only its drop tells a request that is still queued in it that it was not sent.
    driver: Option<Pin<Box<Driver<S, B>>>>,
}

impl<S: Stream, B: Payload> Connection<S, B> {
    /// A connection over `stream`.
    pub(crate) async fn open(stream: S) -> hyper::Result<Self> {
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::pin(driver)) })
    }

    /// Sends one request and waits for the head of its response. A request that comes back was not sent.
    pub(crate) async fn send(
        &mut self,
        request: Request<B>,
    ) -> Result<Response<Incoming>, Box<TrySendError<Request<B>>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            drive(&mut self.driver, cx);
            answer.as_mut().poll(cx)
        })
        .await
        .map_err(Box::new)
    }

    /// Sees what has arrived meanwhile: a server that has closed is noticed here, before a request is lost on it.
    fn is_reusable(&mut self) -> bool {
        drive(&mut self.driver, &mut Context::from_waker(Waker::noop()));
        self.driver.is_some() && self.sender.is_ready()
    }
}

/// Moves bytes both ways.
fn drive<F: Future>(driver: &mut Option<Pin<Box<F>>>, cx: &mut Context<'_>) {
    if let Some(running) = driver
        && running.as_mut().poll(cx).is_ready()
    {
        *driver = None;
    }
}

/// The connections to one peer that nobody uses at the moment, the one used last at the end.
pub(crate) struct Idle<S: Stream, B: Payload> {
    connections: Mutex<Vec<(Connection<S, B>, Instant)>>,
    timeout: Duration,
    most: usize,
}

impl<S: Stream, B: Payload> Idle<S, B> {
    /// None yet. They are not used any more after `timeout`; more than `most` are closed at once.
    pub(crate) fn new(timeout: Duration, most: usize) -> Arc<Self> {
        Arc::new(Self { connections: Mutex::default(), timeout, most })
    }

    /// One that is still open as far as one can tell, the one used last.
    pub(crate) fn take(&self, now: Instant) -> Option<Connection<S, B>> {
        loop {
            let (mut connection, since) = lock(&self.connections).pop()?;
            // The others have been idle for longer still; the sweep closes them.
            if now.duration_since(since) >= self.timeout {
                return None;
            }
            if connection.is_reusable() {
                return Some(connection);
            }
        }
    }

    pub(crate) fn give_back(&self, connection: Connection<S, B>, now: Instant) {
        let mut idle = lock(&self.connections);
        if idle.len() < self.most {
            idle.push((connection, now));
        }
    }

    /// Closes what has been idle for too long. Whether any is left.
    pub(crate) fn close_expired(&self, now: Instant) -> bool {
        let mut idle = lock(&self.connections);
        let fresh = idle.iter().position(|(_, since)| now.duration_since(*since) < self.timeout);
        let fresh = fresh.unwrap_or(idle.len());
        let expired: Vec<_> = idle.drain(..fresh).collect();
        let any_left = !idle.is_empty();
        // Closed outside the lock.
        drop(idle);
        drop(expired);
        any_left
    }
}

impl<S: Stream, B: Payload> std::fmt::Debug for Idle<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Idle").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A connection that carries an exchange, until it is dropped: then it is idle if the exchange has ended on it, else closed.
struct Lease<S: Stream, B: Payload> {
    connection: Option<Connection<S, B>>,
    idle: Arc<Idle<S, B>>,
}

impl<S: Stream, B: Payload> Drop for Lease<S, B> {
    fn drop(&mut self) {
        if let Some(mut connection) = self.connection.take()
            && connection.is_reusable()
        {
            self.idle.give_back(connection, Instant::now());
        }
    }
}

/// The body of a response, which drives the connection that it comes from.
pub(crate) struct Body<S: Stream, B: Payload> {
    // Before the lease: what it leaves unread is seen by the connection before it is judged reusable.
    incoming: Incoming,
    lease: Option<Lease<S, B>>,
}

impl<S: Stream, B: Payload> Body<S, B> {
    /// The body of a response that came over `connection`, which goes to `idle` afterwards.
    pub(crate) fn new(incoming: Incoming, connection: Connection<S, B>, idle: Arc<Idle<S, B>>) -> Self {
        let lease = Lease { connection: Some(connection), idle };
        // A connection that has nothing more to say is of use to others at once.
        let lease = (!http_body::Body::is_end_stream(&incoming)).then_some(lease);
        Self { incoming, lease }
    }

    /// A body whose connection has a task of its own.
    pub(crate) fn driven_elsewhere(incoming: Incoming) -> Self {
        Self { incoming, lease: None }
    }
}

impl<S: Stream, B: Payload> http_body::Body for Body<S, B> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { incoming, lease } = self.get_mut();
        // First what has been read already; asking also lets the connection read on.
        let frame = match (Pin::new(&mut *incoming).poll_frame(cx), &mut *lease) {
            (Poll::Pending, Some(Lease { connection: Some(connection), .. })) => {
                drive(&mut connection.driver, cx);
                Pin::new(incoming).poll_frame(cx)
            }
            (frame, _) => frame,
        };
        if matches!(frame, Poll::Ready(None)) {
            *lease = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use hyper::service::service_fn;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::net::UnixStream;
    use tokio::sync::mpsc;
    use tokio::time::timeout;

    use super::*;

    async fn connection() -> (Connection<UnixStream, Incoming>, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::open(ours).await.unwrap(), theirs)
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
        let idle = Idle::new(Duration::from_secs(3), 2);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let (old, mut old_peer) = connection().await;
        idle.give_back(old, start);
        let (young, _young_peer) = connection().await;
        idle.give_back(young, after(2));
        assert!(idle.close_expired(after(3)));
        assert_eq!(old_peer.read(&mut [0]).await.unwrap(), 0, "the old one is closed");
        assert!(idle.take(after(3)).is_some(), "the young one is kept");
        assert!(idle.take(after(3)).is_none());

        let (expired, _peer) = connection().await;
        idle.give_back(expired, after(3));
        assert!(idle.take(after(6)).is_none(), "not used without a sweep either");
        assert!(!idle.close_expired(after(6)));
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
