//! What can be known of a running instance from outside: its calls, and its log.
//!
//! | part | owns |
//! | --- | --- |
//! | [`calls`] | the calls under way and the last that have ended; whoever observes calls is told of each |
//! | [`call_lines`] | a line in the log for each call |
//! | [`export`] | OTLP: where spans, log records and metrics go, and that nobody waits for it |
//! | [`metrics`] | what is counted and measured, for Prometheus and OTLP |
//! | [`redact`] | texts without what may be secret |
//! | [`sampler`] | which traces are recorded |
//! | [`trace_context`] | W3C Trace Context: ids, and the text of a `traceparent` |
//!
//! Logging is for the binary: the library only emits events; whoever embeds it decides what becomes of them.
//!
//! Knows nothing of how calls are carried.

pub mod call_lines;
pub mod calls;
pub mod export;
pub mod metrics;
pub mod redact;
pub mod sampler;
pub mod trace_context;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use crate::environment::Environment;
use crate::subprocess::TREE_VARIABLE;

/// The variable that says what is logged, in the syntax of `tracing_subscriber::EnvFilter`: `info`, or
/// `info,sidegate::reconciler=debug`.
pub const LOG_VARIABLE: &str = "SIDEGATE_LOG";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Logs to stderr from now on: what [`LOG_VARIABLE`] says, else `default`, in the same syntax. Once a process; later calls
/// do nothing.
pub fn init_logging(format: LogFormat, default: &str, environment: &Environment) {
    let wanted = environment.get(LOG_VARIABLE).ok().flatten().unwrap_or(default);
    let (filter, wrong) = match EnvFilter::try_new(wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (EnvFilter::new(default), Some(error)),
    };
    let no_color = environment.get_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // Whoever supervises us logs our lines with a time of its own.
    let supervised = environment.get_os(TREE_VARIABLE).is_some();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_timer(Time { shown: !supervised })
        .with_target(false)
        // It would be told on stderr, which is what has just failed, by a macro that panics then.
        .log_internal_errors(false)
        .with_ansi(!no_color && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let initialised = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().with_target(true).try_init(),
    };
    if let (Ok(()), Some(error)) = (initialised, wrong) {
        tracing::warn!("{LOG_VARIABLE} is not understood, so it is `{default}`: {error}");
    }
}

/// The time of a line, where it is wanted.
#[derive(Clone, Copy, Debug)]
struct Time {
    shown: bool,
}

impl FormatTime for Time {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        if self.shown { SystemTime.format_time(writer) } else { Ok(()) }
    }
}
