//! A server that the test plays itself: each request comes to the test, which answers it when and as it likes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::Origin;

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Awaits what must come soon.
#[track_caller]
pub(crate) fn soon<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        let done = tokio::time::timeout(DEADLINE, future).await;
        done.unwrap_or_else(|_| panic!("not within {DEADLINE:?} (awaited at {caller})"))
    }
}

/// A listening socket; its connections end with it.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) origin: Arc<Origin>,
    requests: mpsc::UnboundedReceiver<Asked>,
    _accepting: AbortOnDropHandle<()>,
}

/// A request that waits for its answer. Dropped without one, its connection breaks.
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    answer: oneshot::Sender<Response<Chunks>>,
}

/// The body of a response while it is written. Dropped, the body is at its end.
pub(crate) struct Stream(mpsc::UnboundedSender<io::Result<Bytes>>);

struct Chunks {
    pieces: mpsc::UnboundedReceiver<io::Result<Bytes>>,
    broken: Option<io::Error>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let authority = address.to_string().parse().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        let accepting = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request| ask(request, sender.clone()));
                // How a connection ends is the test's doing.
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        };
        Self {
            address,
            origin: Origin::new(authority, HeaderMap::new()),
            requests,
            _accepting: AbortOnDropHandle::new(tokio::spawn(accepting)),
        }
    }

    /// The next request, which must come.
    #[track_caller]
    pub(crate) fn next(&mut self) -> impl Future<Output = Asked> {
        let next = soon(self.requests.recv());
        async { next.await.unwrap() }
    }

    /// As [`next`](Self::next), without a limit of time: for tests that stop the clock.
    pub(crate) async fn next_at_last(&mut self) -> Asked {
        self.requests.recv().await.unwrap()
    }

    /// No request has come that the test has not taken.
    #[track_caller]
    pub(crate) fn assert_nothing_asked(&mut self) {
        if let Ok(asked) = self.requests.try_recv() {
            panic!("one request too many: {} {:?} {}", asked.method, asked.headers, asked.body);
        }
    }
}

async fn ask(
    request: Request<Incoming>,
    requests: mpsc::UnboundedSender<Asked>,
) -> Result<Response<Chunks>, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
    let (answer, answered) = oneshot::channel();
    requests.send(Asked {
        method: parts.method,
        path: parts.uri.to_string(),
        headers: parts.headers,
        body,
        answer,
    })?;
    Ok(answered.await?)
}

impl Asked {
    /// A header as text; empty where there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Sends the head of an answer.
    pub(crate) fn head(self, status: u16, headers: &[(&str, &str)]) -> Stream {
        let (sender, pieces) = mpsc::unbounded_channel();
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        // A client that has gone does not hear it.
        let _ = self.answer.send(response.body(Chunks { pieces, broken: None }).unwrap());
        Stream(sender)
    }

    /// Answers with a status and a text.
    pub(crate) fn status(self, status: u16, text: &str) {
        self.head(status, &[]).send(text);
    }

    /// Answers with JSON.
    pub(crate) fn json(self, text: &str) {
        self.head(200, &[("content-type", "application/json")]).send(text);
    }

    /// Answers with an event stream.
    pub(crate) fn events(self) -> Stream {
        self.head(200, &[("content-type", "text/event-stream; charset=utf-8")])
    }

    /// Answers `initialize`: the session `s-1` is open.
    pub(crate) fn initialized(self) {
        self.initialized_with(&[("x-route", "1")]);
    }

    /// As [`initialized`](Self::initialized), with these headers.
    pub(crate) fn initialized_with(self, headers: &[(&str, &str)]) {
        assert!(self.body.contains(r#""method":"initialize""#), "{}", self.body);
        let head = [("content-type", "application/json"), ("mcp-session-id", "s-1")];
        self.head(200, &[&head, headers].concat()).send(super::INITIALIZED);
    }
}

impl Stream {
    /// Sends a piece of the body.
    pub(crate) fn send(&self, text: &str) {
        // A client that has gone does not hear it.
        let _ = self.0.send(Ok(Bytes::copy_from_slice(text.as_bytes())));
    }

    /// Sends an event that holds a message.
    pub(crate) fn message(&self, text: &str) {
        self.send(&format!("data: {text}\n\n"));
    }

    /// Cuts the connection.
    pub(crate) fn break_off(self) {
        let _ = self.0.send(Err(io::ErrorKind::ConnectionReset.into()));
    }

    /// Waits until the client has closed the connection.
    pub(crate) async fn given_up(self) {
        soon(self.0.closed()).await;
    }
}

impl http_body::Body for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        match self.pieces.poll_recv(context) {
            Poll::Ready(Some(Err(error))) => {
                // Next time: hyper writes out what it has when there is nothing more, and not when there is an error.
                self.broken = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
            other => other.map(|piece| piece.map(|piece| piece.map(Frame::data))),
        }
    }
}
