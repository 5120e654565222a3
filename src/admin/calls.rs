//! What an instance says of calls: the body of `GET /v1/calls/ID`, the same for whoever writes and reads it.
//!
//! Times are microseconds; what is not known is left out. Members are added and never change their meaning; `schema`
//! would change with them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::telemetry::calls::{CallLog, CallRecord, MOST_FINISHED};
use crate::telemetry::secrets::Secrets;
use crate::telemetry::trace_context::{InvalidId, TraceId};

/// The version of the shape.
pub const SCHEMA: u32 = 1;

/// The calls with one id: those of one trace. A client that begins no traces has one call a trace.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calls {
    /// The version of this shape.
    pub schema: u32,
    /// The calls, oldest first.
    pub calls: Vec<Call>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    /// Its id, which is that of its trace.
    pub id: String,
    /// The JSON-RPC method.
    pub method: String,
    /// What it is about: a tool, a prompt or a resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The client's JSON-RPC id, as JSON.
    pub request_id: String,
    /// The client's session, hashed.
    pub session: String,
    /// The client's span that it belongs to, where the client has told one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_span: Option<String>,
    /// Our spans of it are exported.
    pub exported: bool,
    /// The server; none where Sidegate has answered itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The route in the gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The generation of the gateway's configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// The process that answered, where it is a child of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// When we had it, in milliseconds since 1970.
    pub started_at_millis: u64,
    /// How often it was sent, or was tried to be.
    pub tries: u32,
    /// How it ended; none while it is under way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// What kind of error it ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<String>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From when we had it to the answer, or to now.
    pub whole_micros: u64,
    /// Waiting until it could be sent.
    pub queue_micros: u64,
    /// From sending it to the head of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_byte_micros: Option<u64>,
    /// From sending it to the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_micros: Option<u64>,
    /// What our own child took of that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_micros: Option<u64>,
    /// What the gateway, and the ways to and from it, took of that; known where the server's time is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway_micros: Option<u64>,
}

/// Why there is nothing to say.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnknownCall {
    /// No call can have that id.
    #[error("{id:?} is no id of a call: {source}")]
    Invalid {
        /// What was given.
        id: String,
        /// Why.
        source: InvalidId,
    },
    /// No call that is remembered has it.
    #[error(
        "no call {id} is known: the last {MOST_FINISHED} calls since the start are remembered: {remembered} so far, and {under_way} are under way{oldest}"
    )]
    NotFound {
        /// What was given.
        id: TraceId,
        /// How many calls are remembered.
        remembered: usize,
        /// How many are under way.
        under_way: usize,
        /// Since when, in words.
        oldest: String,
    },
}

/// The calls with an id.
///
/// # Errors
///
/// See [`UnknownCall`].
pub fn find(log: &CallLog, id: &str) -> Result<Calls, UnknownCall> {
    let wanted: TraceId = id.parse().map_err(|source| UnknownCall::Invalid { id: id.to_owned(), source })?;
    // First those under way: one that ends meanwhile is found among the others.
    let under_way = log.under_way();
    let finished = log.finished();
    let all = finished.iter().chain(&under_way);
    let mut calls: Vec<Call> =
        all.filter(|call| call.trace.id == wanted).map(|call| Call::of(call, log.secrets())).collect();
    calls.dedup_by(|later, earlier| later.request_id == earlier.request_id && later.outcome.is_none());
    if calls.is_empty() {
        let oldest = finished.first().map_or_else(String::new, |oldest| {
            let ago = SystemTime::now().duration_since(oldest.started).unwrap_or_default();
            format!("; the oldest began {} s ago", ago.as_secs())
        });
        let (remembered, under_way) = (finished.len(), under_way.len());
        return Err(UnknownCall::NotFound { id: wanted, remembered, under_way, oldest });
    }
    Ok(Calls { schema: SCHEMA, calls })
}

impl Call {
    fn of(call: &CallRecord, secrets: &Secrets) -> Self {
        let times = &call.times;
        let subject = call.subject.as_ref().map(|subject| subject.shown(secrets).into_owned());
        Self {
            id: call.trace.id.to_string(),
            method: call.method.to_string(),
            subject,
            request_id: call.request_id.to_string(),
            session: call.session.to_string(),
            parent_span: call.trace.parent.map(|span| span.to_string()),
            exported: call.trace.exported,
            server: call.server.as_ref().map(ToString::to_string),
            route: call.upstream.as_ref().map(|upstream| upstream.route.clone()),
            generation: call.generation.as_deref().map(str::to_owned),
            pid: call.pid,
            started_at_millis: started_millis(call.started),
            tries: call.tries,
            outcome: call.outcome.map(|outcome| outcome.name().to_owned()),
            error_type: call.outcome.and_then(|outcome| outcome.error_type()).map(Into::into),
            error: call.error.as_deref().map(str::to_owned),
            whole_micros: micros(times.whole),
            queue_micros: micros(times.queue),
            first_byte_micros: times.first_byte.map(micros),
            upstream_micros: times.upstream.map(micros),
            server_micros: times.server.map(micros),
            gateway_micros: times
                .upstream
                .zip(times.server)
                .map(|(upstream, server)| micros(upstream.saturating_sub(server))),
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn started_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
