//! One upstream session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt as _, Full, Limited};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::error::{ClientError, Refusal, StatusError, refusal};
use super::events::{Events, next_of, while_reading};
use super::local::Local;
use super::origin::{Lease, Origin};
use super::said::Said;
use super::{Body, Pool};
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc;
use crate::wire::server::{LAST_EVENT_ID, PROTOCOL_VERSION, SESSION_ID};
use crate::wire::version::ProtocolVersion;

/// How much of an error's body is kept for messages, in bytes.
const ERROR_BODY: usize = 600;

/// A GET stream that lived for this long was healthy: connecting again begins with the shortest wait.
const HEALTHY_STREAM: Duration = Duration::from_secs(5);

/// How long we wait by ourselves before a stream is opened again; a server may want longer.
pub(super) const FIRST_WAIT: Duration = Duration::from_millis(50);
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How long the DELETE of a session that was given up may take.
const CLOSE_SOON: Duration = Duration::from_secs(10);

/// The id of our own `initialize`.
const FIRST_ID: u64 = 1;

/// Where a session is, and what goes with every request of it.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Whom to ask; may change while the session is open.
    pub origin: watch::Receiver<Arc<Origin>>,
    /// The path of the MCP endpoint there.
    pub path: PathAndQuery,
    /// Headers of every request; values that are secret are marked sensitive.
    pub headers: HeaderMap,
    /// A header that stands on every answer which passed the server's route; an answer without it is the gateway's
    /// own. `None` where there is no gateway. A gateway that does not mark the answer to `initialize` marks none.
    pub route_marker: Option<HeaderName>,
    /// The same server in this process, where it is: for origins that need not be asked then, and for the end of the session, for
    /// which no origin is needed.
    pub local: Option<Local>,
    /// The largest message taken, in bytes.
    pub max_message: usize,
    /// How long a stream that cannot be resumed at the moment is tried: what is between may be away for a while. Then the caller
    /// gets an error, as asking the request again is not safe.
    pub patience: Duration,
}

impl ClientConfig {
    /// The [`patience`](Self::patience) where a gateway is between, which is mostly back within half a second. Where it is not, or
    /// where the server itself cannot be reached or is busy, less would be to nobody's good.
    pub const WITH_GATEWAY: Duration = Duration::from_secs(30);

    /// The [`patience`](Self::patience) where nothing is between: a server that is gone comes back without the session.
    pub const ALONE: Duration = Duration::from_secs(2);
}

/// An open session with a server.
#[derive(Debug)]
pub struct Session {
    pool: Pool,
    pub(super) config: ClientConfig,
    tracker: TaskTracker,
    id: Option<HeaderValue>,
    /// What was agreed on; `None` until then.
    version: Option<ProtocolVersion>,
    /// The gateway is known not to mark what comes from the server.
    unmarked: bool,
    closed: AtomicBool,
    next_id: AtomicU64,
}

impl Session {
    /// Opens a session: `initialize`, then `notifications/initialized`. Gives the session and the answer.
    ///
    /// `capabilities` and `client_info` are raw JSON objects. Left-overs of responses are read by tasks on `tracker`.
    ///
    /// # Errors
    ///
    /// The server cannot be reached, refuses, or speaks no protocol version that is spoken here.
    pub async fn open(
        pool: Pool,
        config: ClientConfig,
        tracker: TaskTracker,
        capabilities: &str,
        client_info: &str,
    ) -> Result<(Self, Message), ClientError> {
        let params = format!(r#""capabilities":{capabilities},"clientInfo":{client_info}"#);
        Self::open_saying(pool, config, tracker, &params).await
    }

    /// As [`open`](Self::open), with these members in the parameters of `initialize`, raw, besides the version.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_saying(
        pool: Pool,
        config: ClientConfig,
        tracker: TaskTracker,
        params: &str,
    ) -> Result<(Self, Message), ClientError> {
        let params = format!(r#"{{"protocolVersion":"{}",{params}}}"#, ProtocolVersion::LATEST);
        let id = RequestId::number(FIRST_ID);
        let initialize = rpc::request(FIRST_ID, "initialize", &params);
        let (session, answer) = Self::open_for(pool, config, tracker, initialize, &id).await?;
        if session.version.is_some() {
            session.send(rpc::notification("notifications/initialized", None)).await?;
        }
        Ok((session, answer))
    }

    /// Opens a session for somebody else, whose `initialize` request, with this id, is sent as it is. They send
    /// `notifications/initialized` themselves. Where the answer is a JSON-RPC error there is no session.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub async fn open_for(
        pool: Pool,
        config: ClientConfig,
        tracker: TaskTracker,
        initialize: ByteString,
        id: &RequestId,
    ) -> Result<(Self, Message), ClientError> {
        // From here on, dropped at any await or by any error, it closes what the server may have opened.
        let mut session = Self {
            pool,
            config,
            tracker,
            id: None,
            version: None,
            unmarked: false,
            closed: AtomicBool::new(false),
            next_id: AtomicU64::new(FIRST_ID + 1),
        };
        let lease = session.lease();
        let response = session.post(&lease, &[], initialize).await?;
        session.id = response.headers().get(SESSION_ID).cloned();
        session.unmarked = !session.is_marked(response.headers());
        let mut ignore = |said| debug!(?said, "ignored: it came before the session was open");
        let answer = session.read_answer(lease, response, id, &mut ignore).await?;
        if let View::Response { outcome: Ok(result), .. } = answer.view() {
            session.version = Some(agreed_version(result)?);
        }
        Ok((session, answer))
    }

    /// An id that no request of this session has had.
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request, whose id must be `id`, and waits for its answer. What the server says on the way, on the
    /// request's own stream, goes to `on_message`.
    ///
    /// # Errors
    ///
    /// No answer came. An answer that is a JSON-RPC error is an answer.
    pub async fn request(
        &self,
        text: ByteString,
        id: u64,
        on_message: &mut (dyn FnMut(Message) + Send),
    ) -> Result<Message, ClientError> {
        let mut messages_only = |said| {
            if let Said::Message(message) = said {
                on_message(message);
            }
        };
        self.request_and_watch(text, id, &[], &mut messages_only).await
    }

    /// As [`request`](Self::request), for a request of somebody else, who has chosen its id.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    pub async fn request_for(
        &self,
        text: ByteString,
        id: &RequestId,
        on_message: &mut (dyn FnMut(Message) + Send),
    ) -> Result<Message, ClientError> {
        let mut messages_only = |said| {
            if let Said::Message(message) = said {
                on_message(message);
            }
        };
        self.ask(text, id, &[], &mut messages_only).await
    }

    /// As [`request`](Self::request), with `headers` of its own, for whoever also wants to know when the server lets itself
    /// be asked again for the rest of the request's stream.
    ///
    /// # Errors
    ///
    /// As [`request`](Self::request).
    pub async fn request_and_watch(
        &self,
        text: ByteString,
        id: u64,
        headers: &[(HeaderName, HeaderValue)],
        on_said: &mut (dyn FnMut(Said) + Send),
    ) -> Result<Message, ClientError> {
        self.ask(text, &RequestId::number(id), headers, on_said).await
    }

    async fn ask(
        &self,
        text: ByteString,
        id: &RequestId,
        headers: &[(HeaderName, HeaderValue)],
        on_said: &mut (dyn FnMut(Said) + Send),
    ) -> Result<Message, ClientError> {
        let lease = self.lease();
        let response = self.post(&lease, headers, text).await?;
        on_said(Said::Head);
        self.read_answer(lease, response, id, on_said).await
    }

    /// For a request that begins now.
    pub(super) fn lease(&self) -> Lease {
        Lease::take(&self.config.origin, self.config.local.is_some())
    }

    /// The id that the server gave the session, where it has given one.
    pub fn id(&self) -> Option<&str> {
        self.id.as_ref()?.to_str().ok()
    }

    /// Whom requests go to at the moment.
    pub fn origin(&self) -> Arc<Origin> {
        Arc::clone(&self.config.origin.borrow())
    }

    /// The path of the MCP endpoint.
    pub fn path(&self) -> &str {
        self.config.path.path()
    }

    /// The version that was agreed on; `None` where the server has refused to open a session.
    pub fn version(&self) -> Option<ProtocolVersion> {
        self.version
    }

    /// Sends a notification, or an answer to a request of the server.
    ///
    /// # Errors
    ///
    /// The server did not accept it.
    pub async fn send(&self, text: ByteString) -> Result<(), ClientError> {
        let response = self.post(&self.lease(), &[], text).await?;
        self.drain(response.into_body());
        Ok(())
    }

    /// Reads the GET stream for as long as the session lives, connecting again whenever it breaks. Messages go to
    /// `on_message`. Returns `Ok` when the server offers no such stream.
    ///
    /// # Errors
    ///
    /// The session is over ([`ClientError::is_session_lost`]), or the server refuses the stream.
    pub async fn listen(&self, on_message: &mut (dyn FnMut(Message) + Send)) -> Result<(), ClientError> {
        let mut last_event_id: Option<ByteString> = None;
        // What the server wants us to wait is its to say, until it says something else.
        let mut said_wait = Duration::ZERO;
        let mut wait = FIRST_WAIT;
        let mut origins = self.config.origin.clone();
        // The stream through an origin that has been replaced: read on until it ends there.
        let mut old: Option<Events> = None;
        loop {
            let started = Instant::now();
            let mut may_come_after = Duration::ZERO;
            origins.mark_unchanged();
            // Not counted at its origin: it may last for ever, and moves when the origin is replaced.
            let origin = Arc::clone(&self.config.origin.borrow());
            let opening = self.get(&origin, last_event_id.as_ref());
            match while_reading(&mut old, on_message, opening).await {
                Ok(response) => {
                    let mut events = Events::new(response, self.config.max_message);
                    let ended = loop {
                        tokio::select! {
                            message = events.next() => match message {
                                Ok(Some(message)) => {
                                    wait = FIRST_WAIT;
                                    on_message(message);
                                }
                                Ok(None) => break Some(None),
                                Err(error) => break Some(Some(error)),
                            },
                            message = next_of(&mut old) => match message {
                                Ok(Some(message)) => on_message(message),
                                Ok(None) | Err(_) => old = None,
                            },
                            // A sender that has gone sends us nowhere else.
                            Ok(()) = origins.changed() => break None,
                        }
                    };
                    said_wait = events.decoder.retry().unwrap_or(said_wait);
                    last_event_id = events.decoder.last_event_id().cloned().or(last_event_id);
                    match ended {
                        Some(error) => {
                            // One that broke was not ended by the server: what it says meanwhile somebody may wait for.
                            if !matches!(error, Some(ClientError::Body(_))) {
                                may_come_after = said_wait;
                            }
                            debug!(error = error.map(tracing::field::display), "the GET stream ended")
                        }
                        None => {
                            old = Some(events);
                            continue;
                        }
                    }
                }
                Err(error) => match refusal(&error) {
                    Refusal::NoStream => {
                        debug!(%error, "the server offers no GET stream");
                        return Ok(());
                    }
                    Refusal::ForGood if last_event_id.is_some() && !error.is_session_lost() => {
                        debug!(%error, "the GET stream cannot be resumed; a new one is opened");
                        last_event_id = None;
                    }
                    Refusal::ForGood => return Err(error),
                    Refusal::ForNow => {
                        debug!(%error, "the GET stream cannot be opened");
                        may_come_after = error.retry_after().unwrap_or_default();
                        // Where the server allows one at a time, the old one is it.
                        if let Some(mut events) = old.take() {
                            while let Ok(Some(message)) = events.next().await {
                                on_message(message);
                            }
                            continue;
                        }
                    }
                },
            }
            if started.elapsed() >= HEALTHY_STREAM {
                wait = FIRST_WAIT;
            }
            // However eager the server is, failures slow down.
            let pause = tokio::time::sleep(wait.max(may_come_after));
            while_reading(&mut old, on_message, pause).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Ends the session. Servers that do not let clients end sessions (405), or have forgotten it (404), are fine.
    ///
    /// # Errors
    ///
    /// The server could not be reached or failed.
    pub async fn close(&self) -> Result<(), ClientError> {
        if self.id.is_none() || self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        self.delete().await
    }

    async fn delete(&self) -> Result<(), ClientError> {
        // What is ended within this process is not under way at its origin.
        let lease = self.config.local.is_none().then(|| self.lease());
        let origin = lease.as_ref().map_or_else(|| self.origin(), |lease| Arc::clone(&lease.origin));
        match self.exchange(&origin, Method::DELETE, &[], Bytes::new()).await {
            Err(ClientError::Status(error)) if error.status.is_client_error() => Ok(()),
            other => other.map(|response| self.drain(response.into_body())),
        }
    }

    async fn post(
        &self,
        lease: &Lease,
        headers: &[(HeaderName, HeaderValue)],
        text: ByteString,
    ) -> Result<Response<Body>, ClientError> {
        self.exchange(&lease.origin, Method::POST, headers, text.into_bytes()).await
    }

    pub(super) async fn get(
        &self,
        origin: &Origin,
        last_event_id: Option<&ByteString>,
    ) -> Result<Response<Body>, ClientError> {
        let last_event_id = last_event_id.map(|id| HeaderValue::from_str(id)).transpose();
        let last_event_id =
            last_event_id.map_err(|_| ClientError::Protocol("an event id is no text".into()))?;
        let headers: Option<_> = last_event_id.map(|id| (LAST_EVENT_ID, id));
        let response = self.exchange(origin, Method::GET, headers.as_slice(), Bytes::new()).await?;
        if is(&response, "text/event-stream") { Ok(response) } else { Err(unexpected_type(&response)) }
    }

    async fn exchange(
        &self,
        origin: &Origin,
        method: Method,
        own_headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Response<Body>, ClientError> {
        const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
        const JSON: HeaderValue = HeaderValue::from_static("application/json");
        const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
        const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

        let (post, ends) = (method == Method::POST, method == Method::DELETE);
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.clone_from(&self.config.headers);
        headers.extend(origin.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        headers.insert(header::ACCEPT, if post { BOTH } else { EVENTS });
        headers.insert(header::ACCEPT_ENCODING, IDENTITY);
        if post {
            headers.insert(header::CONTENT_TYPE, JSON);
        }
        if let Some(id) = &self.id {
            headers.insert(SESSION_ID, id.clone());
        }
        if let Some(version) = self.version {
            headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(version.as_str()));
        }
        for (name, value) in own_headers {
            headers.insert(name.clone(), value.clone());
        }
        if let Some((name, copy)) = &origin.habits.rewrites
            && let Some(value) = headers.get(name).cloned()
        {
            headers.insert(copy.clone(), value);
        }
        let response = match &self.config.local {
            // A gateway that is down must keep nobody from ending a process of ours.
            Some(local) if origin.habits.adds_nothing || ends => {
                local.ask(request, self.config.route_marker.as_ref()).await
            }
            _ => origin.send(&self.pool, &self.config.path, request).await?,
        };
        if response.status().is_success() { Ok(response) } else { Err(self.status_error(response).await) }
    }

    fn is_marked(&self, headers: &HeaderMap) -> bool {
        self.config.route_marker.as_ref().is_none_or(|marker| headers.contains_key(marker))
    }

    async fn status_error(&self, response: Response<Body>) -> ClientError {
        let (parts, body) = response.into_parts();
        let from_server = self.unmarked || self.is_marked(&parts.headers);
        let mut kept = Vec::new();
        let mut body = body;
        while kept.len() < ERROR_BODY
            && let Some(Ok(frame)) = body.frame().await
        {
            if let Some(data) = frame.data_ref() {
                kept.extend_from_slice(data);
            }
        }
        kept.truncate(ERROR_BODY);
        self.drain(body);
        let body = String::from_utf8_lossy(&kept).into_owned();
        ClientError::Status(Box::new(StatusError {
            status: parts.status,
            headers: parts.headers,
            body,
            from_server,
            in_session: self.id.is_some(),
        }))
    }

    pub(super) async fn collect(&self, body: Body) -> Result<Bytes, ClientError> {
        let limit = self.config.max_message;
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) => Err(match error.downcast::<hyper::Error>() {
                Ok(error) => ClientError::Body(*error),
                Err(_) => ClientError::TooLarge { limit },
            }),
        }
    }

    /// Reads what is left of a response, so that its connection can be used again. What takes longer than a moment is
    /// given up, connection and all.
    pub(super) fn drain(&self, mut body: Body) {
        const MOMENT: Duration = Duration::from_secs(1);
        if matches!(body.frame().now_or_never(), Some(None | Some(Err(_)))) {
            return;
        }
        self.tracker.spawn(async move {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            if tokio::time::timeout(MOMENT, rest).await.is_err() {
                debug!("a response went on after its answer; its connection is closed");
            }
        });
    }
}

impl Drop for Session {
    /// A session that nobody has closed is closed all the same, soon: the server may hold a process for it.
    fn drop(&mut self) {
        let (Some(id), false) = (self.id.take(), self.closed.swap(true, Ordering::AcqRel)) else { return };
        // Outside of a runtime everything has ended, and what it had opened with it.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let session = Self {
            pool: self.pool.clone(),
            config: self.config.clone(),
            tracker: self.tracker.clone(),
            id: Some(id),
            version: self.version,
            unmarked: self.unmarked,
            // Its own drop has nothing to do, also when the task is never run.
            closed: AtomicBool::new(true),
            next_id: AtomicU64::new(0),
        };
        self.tracker.spawn_on(
            async move {
                match tokio::time::timeout(CLOSE_SOON, session.delete()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => debug!(%error, "a session that was given up could not be closed"),
                    Err(_) => debug!("a session that was given up could not be closed in time"),
                }
            },
            &runtime,
        );
    }
}

pub(super) fn is(response: &Response<Body>, kind: &str) -> bool {
    let value = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value
        .and_then(|value| value.split(';').next())
        .is_some_and(|value| value.trim().eq_ignore_ascii_case(kind))
}

pub(super) fn unexpected_type(response: &Response<Body>) -> ClientError {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let status = response.status();
    ClientError::Protocol(match kind {
        Some(kind) => {
            format!("the server answered with HTTP {status} and content type {kind:?}, which is not MCP")
        }
        None => format!("the server answered with HTTP {status} and no content, which is no answer"),
    })
}

fn agreed_version(result: &str) -> Result<ProtocolVersion, ClientError> {
    let protocol = |why: String| ClientError::Protocol(format!("the answer to initialize is wrong: {why}"));
    let [version] =
        json::members(result, ["protocolVersion"]).map_err(|error| protocol(error.to_string()))?;
    let version = version.and_then(json::string).ok_or_else(|| protocol("no protocolVersion".to_owned()))?;
    version.parse().map_err(|error: crate::wire::version::UnknownVersion| protocol(error.to_string()))
}
