//! The calls of clients, as they are shown: those under way, and the last that have ended.

use std::time::{Duration, SystemTime};

use super::paging::Paged;
use crate::telemetry::calls::{CallLog, CallRecord, Outcome};
use crate::telemetry::secrets::Secrets;

/// How many calls are on a page.
const A_PAGE: usize = 100;

/// One call of a tool, or use of a prompt or a resource.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) at: SystemTime,
    pub(super) method: String,
    /// The tool, the prompt or the resource.
    pub(super) subject: String,
    pub(super) server: Option<String>,
    /// How long it took, or has taken so far.
    pub(super) took: Duration,
    /// How long of that was the gateway's and the server's.
    pub(super) upstream: Option<Duration>,
    pub(super) end: End,
    /// Also the id of its trace.
    pub(super) id: String,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    UnderWay,
    Ok,
    Cancelled,
    /// In words, and what was said.
    Failed(String, Option<String>),
}

/// The calls, the newest first, those under way before all others; of one server, where `server` names one.
pub(super) fn find(log: &CallLog, server: &str, page: usize) -> Paged<Row> {
    // In this order: what ends in between is seen twice, not never.
    let under_way = log.under_way();
    let finished = log.finished();
    let known: std::collections::HashSet<_> = finished.iter().map(|call| call.trace.server_span).collect();
    let under_way = under_way.into_iter().filter(|call| !known.contains(&call.trace.server_span));
    let finished = finished.into_iter().rev();
    let rows = under_way.rev().chain(finished).filter_map(|call| row(call, log.secrets()));
    let rows = rows.filter(|row| server.is_empty() || row.server.as_deref() == Some(server));
    Paged::of(rows.collect(), A_PAGE, page)
}

/// Only what is about something by name: that lists are looked at is no news.
fn row(call: CallRecord, secrets: &Secrets) -> Option<Row> {
    let subject = call.subject.as_ref()?.shown(secrets).into_owned();
    let end = match call.outcome {
        None => End::UnderWay,
        Some(Outcome::Ok) => End::Ok,
        Some(Outcome::Cancelled) => End::Cancelled,
        Some(outcome) => End::Failed(outcome.to_string(), call.error.as_deref().map(str::to_owned)),
    };
    Some(Row {
        at: call.started,
        method: call.method.into_owned(),
        subject,
        server: call.server.map(|server| server.to_string()),
        took: call.times.whole,
        upstream: call.times.upstream,
        end,
        id: call.trace.id.to_string(),
    })
}
