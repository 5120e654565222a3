//! What can be known of a running instance from outside: its calls, and its log.
//!
//! | part | owns |
//! | --- | --- |
//! | [`calls`] | the calls under way and the last that have ended; whoever observes calls is told of each |
//! | [`call_lines`] | a line in the log for each call |
//! | [`export`] | OTLP: where spans, log records and metrics go, and that nobody waits for it |
//! | `lifecycle` | the spans of what goes on besides calls, and what belongs to what |
//! | `logging` | the log on stderr, and what of `tracing` is exported; for the binary |
//! | [`metrics`] | what is counted and measured, for Prometheus and OTLP |
//! | [`sampler`] | which traces are recorded |
//! | [`secrets`] | what is known to be secret, and texts without it |
//! | [`trace_context`] | W3C Trace Context: ids, and the text of a `traceparent` |
//!
//! Knows nothing of how calls are carried.

pub mod call_lines;
pub mod calls;
pub mod export;
mod lifecycle;
mod logging;
pub mod metrics;
pub mod sampler;
pub mod secrets;
pub mod trace_context;

pub use lifecycle::{Cause, LIFECYCLE};
pub use logging::{Hush, LOG_VARIABLE, LogFormat, init_logging};
