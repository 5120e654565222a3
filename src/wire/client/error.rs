//! What can go wrong with a request to a server.

use http::{HeaderMap, StatusCode, header};

use crate::error::root_cause;
use crate::wire::message::ParseError;
use crate::wire::sse::DecodeError;

/// A request that got no answer, or no usable one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection: nothing was sent.
    #[error("cannot connect: {}", root_cause(&**.0))]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke before the answer's head came: the request may have been executed.
    #[error("the connection broke: {}", root_cause(&**.0))]
    Send(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection broke while the answer's body came.
    #[error("the answer broke off: {0}")]
    Body(#[source] hyper::Error),
    /// An HTTP status that is no success.
    #[error(transparent)]
    Status(Box<StatusError>),
    /// A stream of events that cannot be read.
    #[error("the event stream cannot be read: {0}")]
    Stream(#[from] DecodeError),
    /// Something that is no JSON-RPC message.
    #[error("the answer is {0}")]
    Message(#[from] ParseError),
    /// The answer is larger than allowed.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// Not what a server may answer here.
    #[error("{0}")]
    Protocol(String),
    /// The stream ended, and no answer came.
    #[error("the server ended the response without an answer")]
    NoAnswer,
}

/// How a 400 says that a session is not known, in lower case: agentgateway's own MCP backend ("mcp: invalid session ID
/// header"), the official Python SDK and the examples of the TypeScript one ("Bad Request: No valid session ID provided",
/// "Invalid or missing session ID"), and what is written after them. A server may complain of any other session, of a
/// user's say, in a call that is wrong.
const UNKNOWN_SESSION: [&str; 4] =
    ["invalid session id", "no valid session id", "missing session id", "unknown session id"];

impl ClientError {
    /// Whether the request may have reached the server.
    pub fn was_sent(&self) -> bool {
        match self {
            Self::Connect(_) => false,
            Self::Status(error) => !error.is_gateways_connect_failure() && !error.is_unknown_route(),
            _ => true,
        }
    }

    /// Whether the server says that it does not know the session (any more): 404 as the specification has it, or 400
    /// with the words of those who say so otherwise.
    pub fn is_session_lost(&self) -> bool {
        let Self::Status(error) = self else { return false };
        let known_words = || {
            let body = error.body.to_ascii_lowercase();
            UNKNOWN_SESSION.iter().any(|words| body.contains(words))
        };
        error.in_session
            && error.from_server
            && match error.status {
                StatusCode::NOT_FOUND => true,
                StatusCode::BAD_REQUEST => known_words(),
                _ => false,
            }
    }

    /// How long the server, or the gateway, wants to be left alone.
    pub(super) fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Status(error) => error.retry_after(),
            _ => None,
        }
    }
}

/// An HTTP answer with a status that is no success.
#[derive(Clone, Debug)]
pub struct StatusError {
    /// The status.
    pub status: StatusCode,
    /// All headers.
    pub headers: HeaderMap,
    /// The beginning of the body.
    pub body: String,
    /// The answer came from the server or its route, not from the gateway before it.
    pub from_server: bool,
    /// The request named a session.
    pub in_session: bool,
}

impl StatusError {
    /// What `Retry-After` says, where it is a number of seconds. Servers that give a date are as well off without.
    pub fn retry_after(&self) -> Option<std::time::Duration> {
        let value = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        value.trim().parse().ok().map(std::time::Duration::from_secs)
    }

    /// The gateway could not connect to the server: nothing was sent to it. Other 503s may have been executed.
    fn is_gateways_connect_failure(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
            && self.body.starts_with("upstream call failed: Connect:")
    }

    /// Why the gateway got no answer over a connection: the request may have been executed.
    fn gateways_broken_connection(&self) -> Option<&str> {
        let is_unavailable = self.status == StatusCode::SERVICE_UNAVAILABLE;
        let why = self.body.strip_prefix("upstream call failed: SendRequest:").filter(|_| is_unavailable)?;
        Some(why.trim())
    }

    /// The gateway has no such route (yet).
    fn is_unknown_route(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && !self.from_server
    }
}

impl std::error::Error for StatusError {}

impl std::fmt::Display for StatusError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.is_gateways_connect_failure() {
            let why = self.body.trim_start_matches("upstream call failed: Connect:").trim();
            return write!(f, "the gateway cannot connect to the server: {why}");
        }
        if let Some(why) = self.gateways_broken_connection() {
            return write!(f, "the server has broken the connection off: {why}");
        }
        write!(f, "HTTP {}", self.status)?;
        if self.status.is_redirection()
            && let Some(location) = self.headers.get(header::LOCATION).and_then(|value| value.to_str().ok())
        {
            return write!(
                f,
                ": redirects are not followed; the server points to {location}, use that as url"
            );
        }
        if let Some(wait) = self.retry_after() {
            write!(f, " (it asks to wait {} s)", wait.as_secs())?;
        }
        if self.status == StatusCode::UNAUTHORIZED {
            match self.headers.get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok()) {
                Some(challenge) => write!(f, " (it wants authorization by {challenge})")?,
                None => f.write_str(" (it wants authorization, and does not say of which kind)")?,
            }
        }
        let body = self.body.trim();
        if body.is_empty() { Ok(()) } else { write!(f, ": {body}") }
    }
}

/// What it means that a GET stream cannot be opened.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// There is none, and the session is well.
    NoStream,
    /// There may be one later.
    ForNow,
    /// There is none to be had this way.
    ForGood,
}

pub(super) fn refusal(error: &ClientError) -> Refusal {
    match error {
        ClientError::Status(error) if error.from_server => match error.status {
            StatusCode::METHOD_NOT_ALLOWED => Refusal::NoStream,
            // A server without sessions that knows no GET at all.
            StatusCode::NOT_FOUND if !error.in_session => Refusal::NoStream,
            // Official TypeScript servers allow one stream a session, and take a while to notice that one has broken.
            StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                Refusal::ForNow
            }
            status if status.is_client_error() => Refusal::ForGood,
            _ => Refusal::ForNow,
        },
        // An answer, and no event stream.
        ClientError::Protocol(_) => Refusal::NoStream,
        _ => Refusal::ForNow,
    }
}
