//! Streamable HTTP as a server (2025-11-25, basic/transports, "Streamable HTTP").
//!
//! [`StreamableHttp`] owns the sessions and everything that is HTTP; an [`Endpoint`] says what the messages mean. The
//! endpoint answers through a [`Reply`]: where the answer is the first thing it says, and comes soon, it travels as
//! JSON; otherwise the response becomes an event stream, which a client may resume after its connection broke.
//!
//! | part | owns |
//! | --- | --- |
//! | `accept` | listening sockets and their connections |
//! | `body` | response bodies: text, or a stream of events |
//! | `handler` | POST, GET and DELETE |
//! | `origin` | Host and Origin: who may talk to us at all |
//! | `session` | the table of sessions: cap, idle expiry, the streams of each |
//! | `under_way` | a request that is answered soon, or becomes a task of its own |
//!
//! Knows nothing of what a method does, except that `initialize` opens a session.

mod accept;
mod body;
mod handler;
mod origin;
mod session;
mod under_way;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use http::HeaderMap;

pub use accept::{Listener, serve_connections};
pub use body::Body;
pub use handler::StreamableHttp;
pub use origin::{HostPolicy, OriginError};
pub use session::{SessionHandle, SessionId};

use super::message::Message;
use super::rpc::RpcError;
use super::stream::{EventStream, Weight};
use super::version::ProtocolVersion;

/// The name of the session header.
pub const SESSION_ID: http::HeaderName = http::HeaderName::from_static("mcp-session-id");

/// The name of the protocol version header.
pub const PROTOCOL_VERSION: http::HeaderName = http::HeaderName::from_static("mcp-protocol-version");

/// The name of the header with which a stream is resumed.
pub const LAST_EVENT_ID: http::HeaderName = http::HeaderName::from_static("last-event-id");

/// What the messages of a streamable HTTP server mean.
pub trait Endpoint: Send + Sync + 'static {
    /// What the endpoint keeps for one session.
    type Session: Send + Sync + 'static;

    /// Whether an `initialize` may come with this HTTP request, before anything is done for it.
    ///
    /// # Errors
    ///
    /// The client gets status 400 with the error as the answer, and no session.
    fn admit(&self, context: &RequestContext) -> Result<(), RpcError> {
        let _ = context;
        Ok(())
    }

    /// Opens a session for an `initialize` request.
    ///
    /// # Errors
    ///
    /// The client gets the error as the answer, and no session.
    fn initialize(
        &self,
        request: &Message,
        context: &RequestContext,
        handle: &SessionHandle,
    ) -> impl Future<Output = Result<Opened<Self::Session>, RpcError>> + Send;

    /// Takes a request of a session; the answer goes to `reply`. Runs to its end, also where the client goes away.
    fn request(
        &self,
        session: &Arc<Self::Session>,
        request: Message,
        context: &RequestContext,
        reply: Reply,
    ) -> impl Future<Output = ()> + Send;

    /// Takes a notification, or an answer to a request that the endpoint sent.
    fn deliver(&self, session: &Arc<Self::Session>, message: Message) -> impl Future<Output = ()> + Send;

    /// The session is over: deleted, expired, or the server shuts down. Called once for each session.
    fn closed(&self, session: &Arc<Self::Session>) -> impl Future<Output = ()> + Send;
}

/// A session that an endpoint has opened.
#[derive(Debug)]
pub struct Opened<S> {
    /// What the endpoint keeps.
    pub session: Arc<S>,
    /// The whole answer to `initialize`.
    pub response: ByteString,
    /// The version that was agreed on.
    pub version: ProtocolVersion,
}

impl<S> Opened<S> {
    /// The same session as something else.
    pub fn map<T>(self, session: impl FnOnce(Arc<S>) -> T) -> Opened<T> {
        let Self { session: opened, response, version } = self;
        Opened { session: Arc::new(session(opened)), response, version }
    }
}

/// What an endpoint may want to know of the HTTP request that a message came with.
#[derive(Clone, Debug)]
pub struct RequestContext {
    /// The path of the request.
    pub path: String,
    /// Its headers.
    pub headers: HeaderMap,
}

/// Limits and policies of a server.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Bytes that one POST may carry; more is answered with 413.
    pub max_body: usize,
    /// Sessions at once. At the cap the one that was idle for longest goes; where none is idle a new one is refused
    /// with 503.
    pub max_sessions: usize,
    /// A session that has no open request or stream for this long is closed.
    pub session_idle: Duration,
    /// A session whose client sends nothing for this long after `initialize` is closed: it went away before it had the
    /// answer, and nobody else knows the session.
    pub unconfirmed: Duration,
    /// How long a request may take before its response becomes an event stream. Clients and proxies that wait for
    /// headers with a timeout (Node's `fetch`: 300 s) see that the call lives.
    pub json_grace: Duration,
    /// How often a quiet event stream says that it is alive.
    pub keep_alive: Duration,
    /// How long a client whose connection ended before its stream should wait before it comes back.
    pub retry: Duration,
    /// Which streams begin with an event without data.
    pub priming: Priming,
    /// Which hosts and origins are served.
    pub hosts: HostPolicy,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            max_body: 4 << 20,
            max_sessions: 1024,
            session_idle: Duration::from_secs(3600),
            unconfirmed: Duration::from_secs(60),
            json_grace: Duration::from_secs(5),
            keep_alive: Duration::from_secs(15),
            retry: Duration::from_millis(500),
            priming: Priming::AsSpecified,
            hosts: HostPolicy::loopback(),
        }
    }
}

/// Which streams begin with a *priming* event: one without data, from which a client can resume before anything was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priming {
    /// Those of sessions with protocol version 2025-11-25 or later, which has them (basic/transports, "Sending Messages
    /// to the Server", item 6). Clients of older versions may take the empty data for a message, and fail.
    AsSpecified,
    /// All: the clients are known to understand it.
    Always,
}

impl Priming {
    fn is_for(self, version: ProtocolVersion) -> bool {
        self == Self::Always || version >= ProtocolVersion::V2025_11_25
    }
}

/// Where the answer to one request goes, and what belongs to it and comes before.
///
/// Dropped without an answer (the request was cancelled), the stream ends without one.
#[derive(Debug)]
pub struct Reply {
    stream: Arc<EventStream>,
    /// Requests of the same POST that are not answered yet; more than one in a batch.
    unanswered: Arc<AtomicUsize>,
    /// The client's stream begins with an id to resume after.
    primed: bool,
}

impl Reply {
    /// Sends a message that belongs to the request, before its answer.
    pub fn send(&self, message: ByteString, weight: Weight) {
        self.stream.push(message, weight);
    }

    /// Closes the client's connection, without ending the stream: the client comes back for the rest after `retry`
    /// (2025-11-25, basic/transports, "Sending Messages to the Server", item 6). Does nothing where the client's version
    /// has no such thing.
    pub fn send_away(&self, retry: Duration) {
        if self.primed {
            self.stream.send_reader_away(retry);
        }
    }

    /// The stream of messages that belong to the request; it ends with the answer.
    pub fn stream(&self) -> &Arc<EventStream> {
        &self.stream
    }

    /// Sends the answer.
    pub fn answer(self, response: ByteString) {
        if self.unanswered.load(Ordering::Acquire) == 1 {
            self.stream.finish_with(response);
        } else {
            self.stream.push(response, Weight::Required);
        }
        // Drop counts the request as answered, and finishes the stream after the last one.
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.unanswered.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.stream.finish();
        }
    }
}
