//! A server of releases that fails on request.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::{self, Stream, StreamExt};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_RANGE, LOCATION, RANGE};
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub(super) type Reply = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// A request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// 0 for the first one.
    pub(super) index: usize,
    pub(super) path: String,
    pub(super) range: Option<String>,
    pub(super) if_range: Option<String>,
}

/// Listens on a loopback port until it is dropped.
pub(super) struct ReleaseServer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    _stop: DropGuard,
}

impl ReleaseServer {
    /// Answers each request with what `answer` makes of it.
    pub(super) async fn start(answer: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let stop = CancellationToken::new();
        let (log, answer, token) = (seen.clone(), Arc::new(answer), stop.clone());
        tokio::spawn(token.clone().run_until_cancelled_owned(async move {
            let connections = TaskTracker::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                let (log, answer) = (log.clone(), answer.clone());
                let service = service_fn(move |request| {
                    let seen = note(&log, &request);
                    std::future::ready(Ok::<_, Infallible>(answer(&seen)))
                });
                let serve = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(connection), service);
                connections.spawn(token.clone().run_until_cancelled_owned(async move {
                    // A connection that was cut on purpose ends with an error.
                    drop(serve.await);
                }));
            }
        }));
        Self { address, seen, _stop: stop.drop_guard() }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

fn note(log: &Mutex<Vec<Seen>>, request: &Request<Incoming>) -> Seen {
    let header = |name| {
        request.headers().get(name).map(|value: &http::HeaderValue| value.to_str().unwrap().to_owned())
    };
    let mut log = log.lock().unwrap();
    // A CONNECT has an authority and no path.
    let path = request.uri().to_string();
    let seen = Seen { index: log.len(), path, range: header(RANGE), if_range: header(IF_RANGE) };
    log.push(seen.clone());
    seen
}

fn reply(status: StatusCode, body: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Reply {
    let body = StreamBody::new(body.map(|piece| piece.map(Frame::data)));
    Response::builder().status(status).body(BodyExt::boxed_unsync(body)).unwrap()
}

fn with(mut reply: Reply, name: http::HeaderName, value: &str) -> Reply {
    reply.headers_mut().insert(name, value.parse().unwrap());
    reply
}

pub(super) fn status(code: u16) -> Reply {
    reply(StatusCode::from_u16(code).unwrap(), stream::empty())
}

pub(super) fn redirect(to: &str) -> Reply {
    with(status(302), LOCATION, to)
}

/// The file, or the rest of it when that is asked for and still the same version.
pub(super) fn file(seen: &Seen, content: &[u8], etag: &str) -> Reply {
    let rest = seen.range.as_deref().filter(|_| seen.if_range.as_deref() == Some(etag));
    let start = rest
        .map_or(0, |range| range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap());
    with(if rest.is_some() { part(content, start) } else { whole(content) }, ETAG, etag)
}

/// The file without a name for its version.
pub(super) fn whole(content: &[u8]) -> Reply {
    cut(content, content.len())
}

/// What follows the first `start` bytes, whoever asked for what.
pub(super) fn part(content: &[u8], start: usize) -> Reply {
    let rest = Bytes::copy_from_slice(&content[start..]);
    let reply = reply(StatusCode::PARTIAL_CONTENT, stream::iter([Ok(rest)]));
    with(reply, CONTENT_RANGE, &format!("bytes {start}-{}/{}", content.len() - 1, content.len()))
}

pub(super) fn tagged(reply: Reply, etag: &str) -> Reply {
    with(reply, ETAG, etag)
}

/// Announces the whole file and closes the connection after `sent` bytes of it.
pub(super) fn cut(content: &[u8], sent: usize) -> Reply {
    announced(content, sent, stream::iter([Err(io::Error::other("cut on purpose"))]))
}

/// Announces the whole file and falls silent after `sent` bytes of it.
pub(super) fn stall(content: &[u8], sent: usize) -> Reply {
    announced(content, sent, stream::pending())
}

fn announced(
    content: &[u8],
    sent: usize,
    then: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Reply {
    let piece = Bytes::copy_from_slice(&content[..sent]);
    // hyper sends what it has when a body makes it wait, and drops it when a body fails.
    let pause = stream::once(tokio::task::yield_now()).filter_map(|()| std::future::ready(None));
    let body = stream::iter([Ok(piece)]).chain(pause).chain(then);
    let whole =
        if sent == content.len() { reply(StatusCode::OK, body.take(1)) } else { reply(StatusCode::OK, body) };
    with(whole, CONTENT_LENGTH, &content.len().to_string())
}

/// The whole file, once the gate opens.
pub(super) fn held(content: &[u8], gate: Arc<Notify>) -> Reply {
    let content = Bytes::copy_from_slice(content);
    let body = stream::once(async move {
        gate.notified().await;
        Ok(content)
    });
    reply(StatusCode::OK, body)
}

/// Bytes without end and without an announced length.
pub(super) fn endless() -> Reply {
    reply(StatusCode::OK, stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))))
}
