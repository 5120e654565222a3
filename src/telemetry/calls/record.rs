//! What is known of one request of a client.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::mcpserver::ServerName;
use crate::telemetry::secrets::Secrets;
use crate::telemetry::trace_context::{SpanId, TraceId, TraceParent};

/// A request of a client, from when we had it to when it was answered. Cloning it allocates nothing.
///
/// Texts of clients and servers are cut to [`LONGEST_TEXT`] bytes.
#[derive(Clone, Debug)]
pub struct CallRecord {
    /// Where it stands in its trace.
    pub trace: CallTrace,
    /// The JSON-RPC method.
    pub method: Cow<'static, str>,
    /// What it is about.
    pub subject: Option<Subject>,
    /// The client's JSON-RPC id, raw: `7`, or `"c-1"`.
    pub request_id: Arc<str>,
    /// The client's session, hashed: it tells sessions apart and opens none.
    pub session: Arc<str>,
    /// The protocol version of the client's session.
    pub protocol_version: Option<&'static str>,
    /// The server that it goes to; `None` where we answer ourselves, or nobody could be found to ask.
    pub server: Option<ServerName>,
    /// The way to the server; `None` before it was sent.
    pub upstream: Option<Arc<UpstreamFacts>>,
    /// The JSON-RPC id of the last try at the server; 0 before there was one.
    pub upstream_id: u64,
    /// The generation of the gateway's configuration that was in force when it was sent.
    pub generation: Option<Arc<str>>,
    /// The child that it was written to: only of stdio servers that are ours.
    pub pid: Option<u32>,
    /// When we had it.
    pub started: SystemTime,
    /// How long its parts took.
    pub times: CallTimes,
    /// How often it was sent, or was tried to be.
    pub tries: u32,
    /// How it ended; `None` while it is under way.
    pub outcome: Option<Outcome>,
    /// What went wrong, for a person; without what may be secret.
    pub error: Option<Arc<str>>,
}

/// The longest name, URI, id or message that is kept, in bytes: what a client sends must not fill our memory.
pub const LONGEST_TEXT: usize = 256;

/// What a request is about, in the words of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A tool's name.
    Tool(Arc<str>),
    /// A prompt's name.
    Prompt(Arc<str>),
    /// A resource's URI.
    Resource(Arc<str>),
}

impl Subject {
    /// The name or URI.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tool(text) | Self::Prompt(text) | Self::Resource(text) => text,
        }
    }

    /// The name or URI as it may be shown.
    pub fn shown(&self, secrets: &Secrets) -> Cow<'_, str> {
        secrets.redact(self.as_str())
    }
}

/// Where a call stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallTrace {
    /// The trace: the client's, or a new one. Also the id of the call, for `sidegate explain`.
    pub id: TraceId,
    /// The client's span, where it has sent one.
    pub parent: Option<SpanId>,
    /// The span of what we do for the client.
    pub server_span: SpanId,
    /// The span of what we ask the server.
    pub client_span: SpanId,
    /// Our spans are exported.
    pub exported: bool,
    /// The `traceparent` that the server gets. `None` where there is no span that anybody has: an id of a span that is
    /// never exported would be a parent that is missing.
    pub outgoing: Option<TraceParent>,
}

/// What does not change between the calls of one session with a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamFacts {
    /// The name of its route in the gateway: the server's, or `<server>.1` while there are two.
    pub route: String,
    /// The protocol version.
    pub protocol_version: Option<&'static str>,
    /// The host that is asked: the gateway.
    pub address: String,
    /// Its port.
    pub port: Option<u16>,
}

/// How long the parts of a call took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallTimes {
    /// Waiting until it could be sent: for a session with the server, and between tries of which nothing was sent.
    pub queue: Duration,
    /// From sending it, the last time, to the head of the response.
    pub first_byte: Option<Duration>,
    /// From sending it, the last time, to the answer.
    pub upstream: Option<Duration>,
    /// Of `upstream`, what our own child took: from when it was given the request to when it had answered.
    pub server: Option<Duration>,
    /// From when we had it to when its answer was there.
    pub whole: Duration,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// With a result.
    Ok,
    /// With a result that says that the tool failed (`isError`).
    ToolError,
    /// With a JSON-RPC error of the server, or of ours about the request.
    Error {
        /// The JSON-RPC code.
        code: i64,
    },
    /// The client has cancelled it, or has gone.
    Cancelled,
    /// There was no answer within `spec.callTimeout`.
    Timeout,
    /// There was no answer at all.
    Failed(Failure),
}

/// Why there was no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// There is no session with the server.
    NotConnected,
    /// The gateway, or the server, cannot be connected.
    Connect,
    /// The connection broke, or the answer broke off.
    Broken,
    /// The server, or the gateway, refused it with an HTTP status.
    Status(u16),
    /// What came was no answer.
    Protocol,
    /// The server was removed or restarted.
    Gone,
}

impl Outcome {
    /// How it ended in one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ToolError => "tool_error",
            Self::Error { .. } => "error",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Failed(_) => "failed",
        }
    }

    /// The value of `error.type`; `None` where it went well. There are few: codes of servers that are no codes of JSON-RPC
    /// or MCP are not told apart.
    pub fn error_type(self) -> Option<Cow<'static, str>> {
        Some(Cow::Borrowed(match self {
            Self::Ok => return None,
            Self::ToolError => "tool_error",
            Self::Error { code: code @ (-32768..=-32000) } => return Some(code.to_string().into()),
            Self::Error { .. } => "_OTHER",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
            Self::Failed(Failure::Status(status)) => return Some(status.to_string().into()),
            Self::Failed(failure) => failure.name(),
        }))
    }

    /// Whether there was a result that is no error.
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }
}

impl Failure {
    fn name(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::Connect => "connect",
            Self::Broken => "connection_lost",
            Self::Status(_) => "http_status",
            Self::Protocol => "protocol",
            Self::Gone => "server_gone",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Error { code } => write!(f, "error {code}"),
            Self::Failed(Failure::Status(status)) => write!(f, "failed: HTTP {status}"),
            Self::Failed(failure) => write!(f, "failed: {}", failure.name()),
            other => f.write_str(other.name()),
        }
    }
}

/// `text`, or as much of it as is kept.
pub fn kept(text: &str) -> Arc<str> {
    Arc::from(&text[..text.floor_char_boundary(LONGEST_TEXT)])
}
