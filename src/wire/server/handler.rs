//! POST, GET and DELETE.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use super::body::{Body, Pace};
use super::session::{Entry, NoSlot, SessionHandle, SessionId, Table};
use super::under_way::UnderWay;
use super::{
    Endpoint, LAST_EVENT_ID, Opened, PROTOCOL_VERSION, Reply, RequestContext, SESSION_ID, ServerConfig,
};
use crate::wire::json::is_deeper_than;
use crate::wire::message::{Incoming, Message, View};
use crate::wire::rpc::RpcError;
use crate::wire::sse;
use crate::wire::stream::{Dropped, EventReader, event_id};
use crate::wire::version::Era;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// How much of a body that is too large is read on, and for how long, so that its client gets to know.
const DISCARDED_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// How deep objects and arrays of a message may be nested. Servers behind us often read no deeper (`serde_json`: 127), and then
/// cannot even say whose message it was; some read on until their stack ends.
const DEEPEST: usize = 127;

/// A streamable HTTP server: one endpoint and its sessions.
#[derive(Debug)]
pub struct StreamableHttp<E: Endpoint> {
    endpoint: E,
    config: ServerConfig,
    table: Table<E::Session>,
    dropped: Dropped,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl<E: Endpoint> StreamableHttp<E> {
    /// A server without sessions. Its tasks run on `tracker`; `stop` ends the one that expires sessions.
    pub fn new(
        endpoint: E,
        config: ServerConfig,
        tracker: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let table = Table::new(config.max_sessions);
        let dropped = Dropped::default();
        let server = Arc::new(Self { endpoint, config, table, dropped, tracker, stop });
        server.tracker.spawn(Arc::clone(&server).expire_sessions());
        server
    }

    /// What the messages mean.
    pub fn endpoint(&self) -> &E {
        &self.endpoint
    }

    /// How many sessions are open.
    pub fn session_count(&self) -> usize {
        self.table.len()
    }

    /// How many messages were dropped because clients did not read them, since the start.
    pub fn dropped(&self) -> u64 {
        self.dropped.total()
    }

    /// Closes every session and opens no more. Returns when the endpoint has closed them.
    pub async fn close_sessions(&self) {
        let closing = self.table.close().into_iter().map(|entry| self.close(entry));
        futures_util::future::join_all(closing).await;
    }

    /// Answers one HTTP request, whatever its path.
    pub async fn handle(
        self: Arc<Self>,
        request: Request<
            impl http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send,
        >,
    ) -> Response<Body> {
        let (parts, body) = request.into_parts();
        if let Err(error) = self.config.hosts.check(&parts.uri, &parts.headers) {
            debug!(%error, "refused");
            return refusal(
                StatusCode::FORBIDDEN,
                &RpcError::new(RpcError::INVALID_REQUEST, error.to_string()),
            );
        }
        let context = RequestContext { path: parts.uri.path().to_owned(), headers: parts.headers };
        let response = match parts.method {
            Method::POST => self.post(context, body).await,
            Method::GET => self.get(&context),
            Method::DELETE => self.delete(&context).await,
            _ => {
                let error = RpcError::new(RpcError::INVALID_REQUEST, "use POST, GET or DELETE");
                let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, &error);
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, POST, DELETE"));
                Err(Box::new(response))
            }
        };
        response.unwrap_or_else(|refused| *refused)
    }

    async fn post(
        self: &Arc<Self>,
        context: RequestContext,
        body: impl http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send,
    ) -> HandlerResult {
        let accepts = |what| accepts(&context.headers, what);
        if !accepts("application/json") || !accepts("text/event-stream") {
            let why = "a client must accept application/json and text/event-stream";
            return Err(refuse(StatusCode::NOT_ACCEPTABLE, RpcError::INVALID_REQUEST, why));
        }
        if !is_json(&context.headers) {
            let why = "the body must be application/json";
            return Err(refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, RpcError::INVALID_REQUEST, why));
        }
        let body = self.read(&context.headers, body).await?;
        if is_deeper_than(&body, DEEPEST) {
            let why = format!("the message is nested deeper than {DEEPEST} levels");
            return Err(refuse(StatusCode::BAD_REQUEST, RpcError::INVALID_REQUEST, &why));
        }
        let incoming = Message::parse_batch(body)
            .map_err(|error| Box::new(refusal(StatusCode::BAD_REQUEST, &RpcError::from(&error))))?;
        let Era::Session { version } = era(&context.headers)?;

        if let Incoming::Single(message) = &incoming
            && let View::Request { method: "initialize", id, .. } = message.view()
        {
            return self.initialize(message, id, &context).await;
        }
        let entry = self.session(&context)?;
        match incoming {
            Incoming::Single(message) => match message.view() {
                View::Request { .. } => Ok(self.answer(entry, vec![message], context).await),
                View::Notification { .. } | View::Response { .. } => {
                    let _activity = entry.activity();
                    self.endpoint.deliver(&entry.session, message).await;
                    Ok(status(StatusCode::ACCEPTED))
                }
            },
            Incoming::Batch(messages) => {
                let version = version.unwrap_or(entry.version);
                if !version.has_batches() {
                    let why = format!("protocol version {version} has no batches: send one message a POST");
                    return Err(refuse(StatusCode::BAD_REQUEST, RpcError::INVALID_REQUEST, &why));
                }
                self.batch(entry, messages, context).await
            }
        }
    }

    async fn batch(
        self: &Arc<Self>,
        entry: Arc<Entry<E::Session>>,
        messages: Vec<Message>,
        context: RequestContext,
    ) -> HandlerResult {
        let mut requests = Vec::new();
        for message in messages {
            match message.view() {
                View::Request { method: "initialize", .. } => {
                    let why = "initialize cannot be part of a batch";
                    return Err(refuse(StatusCode::BAD_REQUEST, RpcError::INVALID_REQUEST, why));
                }
                View::Request { .. } => requests.push(message),
                View::Notification { .. } | View::Response { .. } => {
                    self.endpoint.deliver(&entry.session, message).await;
                }
            }
        }
        if requests.is_empty() {
            Ok(status(StatusCode::ACCEPTED))
        } else {
            Ok(self.answer(entry, requests, context).await)
        }
    }

    async fn initialize(
        self: &Arc<Self>,
        request: &Message,
        id: &str,
        context: &RequestContext,
    ) -> HandlerResult {
        if context.headers.contains_key(SESSION_ID) {
            let error = RpcError::new(
                RpcError::INVALID_REQUEST,
                "initialize opens a session, so it must not carry Mcp-Session-Id",
            );
            return Err(Box::new(json(StatusCode::BAD_REQUEST, error.response(Some(id)))));
        }
        if let Err(error) = self.endpoint.admit(context) {
            return Err(Box::new(json(StatusCode::BAD_REQUEST, error.response(Some(id)))));
        }
        let (slot, evicted) = self.table.reserve().map_err(|error| {
            let why = match error {
                NoSlot::Full => "too many sessions are open; close one, or raise aggregator.maxSessions",
                NoSlot::ShuttingDown => "shutting down",
            };
            let error = RpcError::new(RpcError::INTERNAL_ERROR, why);
            let mut response = json(StatusCode::SERVICE_UNAVAILABLE, error.response(Some(id)));
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
            Box::new(response)
        })?;
        if let Some(evicted) = evicted {
            info!("too many sessions: the one that was idle for longest is closed");
            let server = Arc::clone(self);
            self.tracker.spawn(async move { server.close(evicted).await });
        }
        let handle = match SessionId::random() {
            Ok(session_id) => SessionHandle::new(session_id, self.dropped.clone()),
            Err(error) => {
                let why = format!("no random bytes for a session id: {error}");
                return Err(refuse(StatusCode::INTERNAL_SERVER_ERROR, RpcError::INTERNAL_ERROR, &why));
            }
        };
        let Opened { session, response, version } =
            match self.endpoint.initialize(request, context, &handle).await {
                Ok(opened) => opened,
                Err(error) => return Ok(json(StatusCode::OK, error.response(Some(id)))),
            };
        let session_id = HeaderValue::from_str(handle.id().as_str());
        let entry = Arc::new(Entry::new(session, version, context.path.clone(), handle));
        let inserted = self.table.insert(slot, entry);
        let (Ok(()), Ok(session_id)) = (inserted.as_ref().map(drop), session_id) else {
            if let Err(entry) = inserted {
                self.close(entry).await;
            }
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, RpcError::INTERNAL_ERROR, "shutting down"));
        };
        let mut response = json(StatusCode::OK, response);
        response.headers_mut().insert(SESSION_ID, session_id);
        Ok(response)
    }

    /// Hands requests to the endpoint, and answers with what comes.
    async fn answer(
        self: &Arc<Self>,
        entry: Arc<Entry<E::Session>>,
        requests: Vec<Message>,
        context: RequestContext,
    ) -> Response<Body> {
        let activity = entry.activity();
        let stream = entry.new_stream();
        let unanswered = Arc::new(AtomicUsize::new(requests.len()));
        let context = Arc::new(context);
        let primed = self.config.priming.is_for(entry.version);
        let mut under_way = UnderWay::new(&self.tracker);
        let alone = requests.len() == 1;
        for request in requests {
            let reply = Reply { stream: Arc::clone(&stream), unanswered: Arc::clone(&unanswered), primed };
            let (server, entry, context) = (Arc::clone(self), Arc::clone(&entry), Arc::clone(&context));
            let work = async move {
                server.endpoint.request(&entry.session, request, &context, reply).await;
                entry.forget_old_streams();
            };
            if alone {
                under_way.begin(work);
            } else {
                self.tracker.spawn(work);
            }
        }
        let mut reader = stream.read();
        let first = under_way.drive_until(|context| reader.poll_next(context));
        let head = match tokio::time::timeout(self.config.json_grace, first).await {
            Ok(Some(first)) if first.last => return json(StatusCode::OK, first.data),
            Ok(Some(first)) => Some((first.number, first.data)),
            Ok(None) | Err(_) => None,
        };
        // What is left of it goes on while the stream is read.
        drop(under_way);
        entry.keep(Arc::clone(&stream));
        let first = head.map(|(number, data)| sse::encode(&event_id(stream.number(), number), &data));
        let primed = primed.then(|| self.priming_event(stream.number()));
        let head = match (primed, first) {
            (Some(primed), Some(first)) => Some([primed, first].concat().into()),
            (primed, first) => primed.or(first),
        };
        self.events(head, reader, activity)
    }

    fn get(self: &Arc<Self>, context: &RequestContext) -> HandlerResult {
        if !accepts(&context.headers, "text/event-stream") {
            let why = "a client must accept text/event-stream";
            return Err(refuse(StatusCode::NOT_ACCEPTABLE, RpcError::INVALID_REQUEST, why));
        }
        era(&context.headers)?;
        let entry = self.session(context)?;
        let last_event_id = context.headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
        let reader = entry.read(last_event_id).ok_or_else(|| {
            let why = "the stream of this Last-Event-ID is not known, or is over";
            refuse(StatusCode::BAD_REQUEST, RpcError::INVALID_REQUEST, why)
        })?;
        // Whoever resumes has an id.
        let prime = last_event_id.is_none() && self.config.priming.is_for(entry.version);
        let head = prime.then(|| self.priming_event(reader.stream_number()));
        Ok(self.events(head, reader, entry.activity()))
    }

    async fn delete(self: &Arc<Self>, context: &RequestContext) -> HandlerResult {
        self.session(context)?;
        if let Some(entry) = session_id(&context.headers).and_then(|id| self.table.remove(id)) {
            self.close(entry).await;
        }
        Ok(status(StatusCode::NO_CONTENT))
    }

    fn session(
        self: &Arc<Self>,
        context: &RequestContext,
    ) -> Result<Arc<Entry<E::Session>>, Box<Response<Body>>> {
        let Some(id) = session_id(&context.headers) else {
            let why = "the Mcp-Session-Id header is missing; send initialize first";
            return Err(refuse(StatusCode::BAD_REQUEST, RpcError::INVALID_REQUEST, why));
        };
        // 404 tells the client to initialize again ("Session Management", item 4).
        let entry = self.table.get(id).filter(|entry| entry.path == context.path);
        if entry.as_ref().is_some_and(|entry| entry.is_ended())
            && let Some(ended) = self.table.remove(id)
        {
            let server = Arc::clone(self);
            self.tracker.spawn(async move { server.close(ended).await });
        }
        entry.filter(|entry| !entry.is_ended()).ok_or_else(|| {
            let why = "this session is not known, or is over; send initialize again";
            refuse(StatusCode::NOT_FOUND, RpcError::INVALID_REQUEST, why)
        })
    }

    async fn read(
        &self,
        headers: &HeaderMap,
        body: impl http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send,
    ) -> Result<Bytes, Box<Response<Body>>> {
        let limit = self.config.max_body;
        let too_large = || {
            let why = format!("the body is larger than {limit} bytes (aggregator.maxBody)");
            let mut refused = refuse(StatusCode::PAYLOAD_TOO_LARGE, RpcError::INVALID_REQUEST, &why);
            // What may be left of the body is not read.
            refused.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            refused
        };
        let mut body = Box::pin(body);
        let declared =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: u64| length > limit as u64) {
            discard(body).await;
            return Err(too_large());
        }
        match Limited::new(body.as_mut(), limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                discard(body).await;
                Err(too_large())
            }
            Err(error) => {
                let why = format!("the body could not be read: {error}");
                Err(refuse(StatusCode::BAD_REQUEST, RpcError::INVALID_REQUEST, &why))
            }
        }
    }

    /// Gives the client an id to resume after, before there is any message.
    fn priming_event(&self, stream: u64) -> Bytes {
        sse::priming(&event_id(stream, 0), self.config.retry)
    }

    fn events(
        &self,
        head: Option<Bytes>,
        reader: EventReader,
        activity: super::session::Activity,
    ) -> Response<Body> {
        let pace = Pace { keep_alive: self.config.keep_alive, retry: self.config.retry };
        let mut response = Response::new(Body::events(head, reader, pace, activity));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, EVENT_STREAM);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
        // Known by reverse proxies that would otherwise hold events back.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    async fn close(&self, entry: Arc<Entry<E::Session>>) {
        self.endpoint.closed(&entry.session).await;
        entry.finish();
    }

    async fn expire_sessions(self: Arc<Self>) {
        let period = (self.config.session_idle.min(self.config.unconfirmed) / 4)
            .clamp(Duration::from_millis(100), Duration::from_secs(60));
        // Only the waiting is cut short: what is taken out of the table must be closed.
        while self.stop.run_until_cancelled(tokio::time::sleep(period)).await.is_some() {
            for entry in self.table.take_expired(self.config.session_idle, self.config.unconfirmed) {
                debug!("a session was idle for too long, or has ended");
                self.close(entry).await;
            }
        }
    }
}

/// Reads on for a while and forgets what it reads. A connection that is closed while its client writes is reset, and
/// then the client may never see the answer (RFC 9112 section 9.6).
async fn discard(body: impl http_body::Body<Data = Bytes> + Unpin) {
    let mut left = DISCARDED_BYTES;
    let reading = async {
        let mut body = body;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    if tokio::time::timeout(DISCARD_TIME, reading).await.is_err() {
        debug!("a body that is too large does not end");
    }
}

/// Refusals are boxed: a response is large, and they are rare.
type HandlerResult = Result<Response<Body>, Box<Response<Body>>>;

fn era(headers: &HeaderMap) -> Result<Era, Box<Response<Body>>> {
    let version = headers.get(PROTOCOL_VERSION).map(|value| value.to_str().unwrap_or("(not text)"));
    Era::of(version)
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, RpcError::INVALID_REQUEST, &error.to_string()))
}

fn session_id(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION_ID)?.to_str().ok()
}

/// Whether the client takes `what`. One that says nothing takes anything (RFC 9110 section 12.5.1).
fn accepts(headers: &HeaderMap, what: &str) -> bool {
    let mut values = headers.get_all(header::ACCEPT).iter().peekable();
    if values.peek().is_none() {
        return true;
    }
    let ranges = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    ranges.map(|range| range.split(';').next().unwrap_or_default().trim()).any(|range| {
        let whole_type = range.strip_suffix("/*").is_some_and(|kind| what.split('/').next() == Some(kind));
        range == "*/*" || range.eq_ignore_ascii_case(what) || whole_type
    })
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, text: ByteString) -> Response<Body> {
    let mut response = Response::new(Body::text(text.into_bytes()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

fn refusal(status: StatusCode, error: &RpcError) -> Response<Body> {
    json(status, error.response(None))
}

fn refuse(status: StatusCode, code: i32, why: &str) -> Box<Response<Body>> {
    Box::new(refusal(status, &RpcError::new(code, why)))
}

#[cfg(test)]
mod tests;
