//! A line in the log for each call, at debug.

use std::time::Duration;

use tracing::debug;

use super::calls::{CallObserver, CallRecord};
use super::secrets::Secrets;

/// The target of the lines, for `SIDEGATE_LOG`: `info,sidegate::calls=debug` shows calls and nothing else of that level.
pub const TARGET: &str = "sidegate::calls";

/// Logs each call when it is over. The names of the fields stay as they are: other programs read them. Durations are in
/// milliseconds.
#[derive(Clone, Debug)]
pub struct CallLines {
    /// What is in no line.
    pub secrets: Secrets,
}

impl CallObserver for CallLines {
    fn finished(&self, call: &CallRecord) {
        if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
            return;
        }
        let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
        let outcome = call.outcome.map_or("", |outcome| outcome.name());
        debug!(
            target: TARGET,
            call = %call.trace.id,
            method = &*call.method,
            subject = call.subject.as_ref().map(|subject| subject.shown(&self.secrets)).as_deref(),
            server = call.server.as_ref().map(|server| server.as_str()),
            route = call.upstream.as_ref().map(|upstream| upstream.route.as_str()),
            session = &*call.session,
            pid = call.pid,
            generation = call.generation.as_deref(),
            outcome,
            error_type = call.outcome.and_then(|outcome| outcome.error_type()).as_deref(),
            error = call.error.as_deref(),
            tries = call.tries,
            queue_ms = milliseconds(call.times.queue),
            upstream_ms = call.times.upstream.map(milliseconds),
            server_ms = call.times.server.map(milliseconds),
            duration_ms = milliseconds(call.times.whole),
            "call"
        );
    }
}
