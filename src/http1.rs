//! HTTP/1.1 connections, as a client, that are driven by whoever holds them, and the idle ones.
//!
//! A connection has no task of its own: it moves only while its holder polls it, so a small exchange costs no wake-up of another
//! task, and dropping the exchange drops the connection. While a connection is idle nobody looks at it; that its peer has closed
//! it is noticed before it is used again.
//!
//! The exception: a response may end before its request was sent (RFC 9110, section 7.5: what is left is sent all the same). Then
//! nobody is left who would poll, and the rest of the request is sent by a task of [`Idle`].
//!
//! Knows nothing of who is dialled, and of what is asked.

mod backlog;
mod idle;

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use backlog::{Backlog, Watched};
pub(crate) use idle::Idle;

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
type Driver<S, B> = http1::Connection<TokioIo<Watched<S>>, B>;

/// An HTTP/1.1 connection. Whoever holds it drives it: it moves only while it is polled, so what is left of a request is sent
/// on only as fast as its response is read, once there is one.
pub(crate) struct Connection<S: Stream, B: Payload> {
    sender: SendRequest<B>,
    /// Gone once it has ended: only its drop tells a request that is still queued in it that it was not sent.
    driver: Option<Pin<Box<Driver<S, B>>>>,
    /// What is written but not sent. A request that is a single buffer is written as a whole at once.
    backlog: Backlog,
}

impl<S: Stream, B: Payload> Connection<S, B> {
    /// A connection over `stream`.
    pub(crate) async fn open(stream: S) -> hyper::Result<Self> {
        let (stream, backlog) = Watched::new(stream);
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
        Ok(Self { sender, driver: Some(Box::pin(driver)), backlog })
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
        self.is_free()
    }

    /// Whether there is nothing left to do on it, as far as was seen when it was driven last.
    fn is_free(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready() && !self.backlog.is_some()
    }

    /// Drives it until it is free, or has ended.
    async fn finish(&mut self) {
        poll_fn(|cx| {
            // hyper sees that a request is done when it is asked after the last byte was sent.
            drive(&mut self.driver, cx);
            drive(&mut self.driver, cx);
            if self.driver.is_none() || self.is_free() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
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

/// A connection that carries an exchange, until it is dropped.
struct Lease<S: Stream, B: Payload> {
    connection: Option<Connection<S, B>>,
    idle: Arc<Idle<S, B>>,
    /// Whether the response was read to its end; else nobody wants the exchange any more.
    read: bool,
}

impl<S: Stream, B: Payload> Drop for Lease<S, B> {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        if connection.is_reusable() {
            self.idle.give_back(connection, Instant::now());
        } else if self.read && connection.driver.is_some() {
            self.idle.finish(connection);
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
        let read = http_body::Body::is_end_stream(&incoming);
        let lease = Lease { connection: Some(connection), idle, read };
        // A connection that has nothing more to say is of use to others at once.
        Self { incoming, lease: (!read).then_some(lease) }
    }

    /// A body whose connection has a task of its own.
    pub(crate) fn driven_elsewhere(incoming: Incoming) -> Self {
        Self { incoming, lease: None }
    }
}

impl<S: Stream, B: Payload> Drop for Body<S, B> {
    fn drop(&mut self) {
        // Whoever knows the length does not ask for what comes after the last byte.
        if let Some(lease) = &mut self.lease
            && http_body::Body::is_end_stream(&self.incoming)
        {
            lease.read = true;
        }
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
        if matches!(frame, Poll::Ready(None))
            && let Some(mut lease) = lease.take()
        {
            lease.read = true;
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
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::stream;
    use http_body_util::{BodyExt as _, Full, StreamBody};
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

    /// Sends a request with `body`, answered with `answer` as soon as the server has seen its beginning.
    async fn answered_early<B: Payload>(
        body: B,
        answer: &str,
    ) -> (Body<UnixStream, B>, Arc<Idle<UnixStream, B>>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut connection = Connection::open(ours).await.unwrap();
        let serving = async {
            theirs.read_exact(&mut [0; 4]).await.unwrap();
            theirs.write_all(answer.as_bytes()).await.unwrap();
        };
        let request = Request::post("/x").body(body).unwrap();
        let (response, ()) = tokio::join!(connection.send(request), serving);
        let idle = Idle::new(Duration::from_secs(20), 2);
        let Ok(response) = response else { panic!("not answered") };
        let body = Body::new(response.into_body(), connection, Arc::clone(&idle));
        (body, idle, theirs)
    }

    /// Waits until a connection is of use to others.
    async fn freed<B: Payload>(idle: &Arc<Idle<UnixStream, B>>) {
        let free = async {
            while idle.take(Instant::now()).is_none() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(20), free).await.expect("the connection is lost");
    }

    #[tokio::test]
    async fn a_request_is_sent_on_when_its_response_has_ended() {
        const SIZE: usize = 4 << 20;
        let request = Full::new(Bytes::from(vec![b'x'; SIZE]));
        let (body, idle, mut server) =
            answered_early(request, "HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
        drop(body);
        assert!(idle.take(Instant::now()).is_none(), "a second request would wait for the first");
        let receive = async {
            let (mut chunk, mut received) = (vec![0; 64 << 10], 0);
            while received < SIZE {
                let count = server.read(&mut chunk).await.unwrap();
                assert!(count > 0, "the connection was cut");
                received += chunk[..count].iter().filter(|byte| **byte == b'x').count();
            }
        };
        timeout(Duration::from_secs(20), receive).await.expect("nobody sends the rest");
        freed(&idle).await;
    }

    #[tokio::test]
    async fn a_request_is_passed_on_when_its_response_has_ended() {
        for read_to_the_end in [false, true] {
            let (sender, receiver) = mpsc::unbounded_channel();
            let frames = stream::unfold(receiver, async |mut receiver| {
                let data: Bytes = receiver.recv().await?;
                Some((Ok::<_, Infallible>(Frame::data(data)), receiver))
            });
            sender.send(Bytes::from_static(b"first")).unwrap();
            let request = StreamBody::new(Box::pin(frames));
            let (mut body, idle, mut server) =
                answered_early(request, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ok");
            if read_to_the_end {
                assert!(body.frame().await.is_none());
            }
            drop(body);
            sender.send(Bytes::from_static(b"last")).unwrap();
            drop(sender);
            let mut received = Vec::new();
            let receive = async {
                while !received.ends_with(b"4\r\nlast\r\n0\r\n\r\n") {
                    assert!(server.read_buf(&mut received).await.unwrap() > 0, "the connection was cut");
                }
            };
            timeout(Duration::from_secs(20), receive).await.expect("nobody sends the rest");
            freed(&idle).await;
        }
    }

    #[tokio::test]
    async fn a_response_that_nobody_reads_ends_the_connection() {
        let (body, idle, mut server) =
            answered_early(Full::default(), "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\no").await;
        drop(body);
        let mut rest = Vec::new();
        timeout(Duration::from_secs(20), server.read_to_end(&mut rest)).await.expect("still open").unwrap();
        assert!(idle.take(Instant::now()).is_none());
    }
}
