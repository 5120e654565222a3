//! Logging for the binary. The library only emits events; whoever embeds it decides what becomes of them.

use std::io::{self, IsTerminal as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{FilterExt as _, FilterFn, dynamic_filter_fn, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

use super::LIFECYCLE;
use super::export::Telemetry;
use super::secrets::Secrets;
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

/// Whether a person is being told something that log lines would stand between: lines that are no warnings are left out
/// then, and warnings of which the person is told. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Hush {
    is_on: Arc<AtomicBool>,
    told: &'static str,
}

impl Hush {
    /// Off; when it is on, warnings with the target `told` are left out as well.
    pub fn new(told: &'static str) -> Self {
        Self { is_on: Arc::default(), told }
    }

    /// Leaves lines out from now on, or no more.
    pub fn set(&self, is_on: bool) {
        self.is_on.store(is_on, Ordering::Relaxed);
    }

    fn lets_pass(&self, metadata: &Metadata<'_>) -> bool {
        let counts = *metadata.level() <= Level::WARN && metadata.target() != self.told;
        counts || !self.is_on.load(Ordering::Relaxed)
    }
}

/// Logs to stderr from now on: what [`LOG_VARIABLE`] says, else `default`, in the same syntax; without what may be a
/// secret, and while `hush` is on without what is said otherwise. The same lines are exported, where `telemetry` exports logs, and
/// spans where it exports those. Once a process; later calls do nothing.
pub fn init_logging(
    format: LogFormat,
    default: &str,
    environment: &Environment,
    telemetry: &Telemetry,
    hush: &Hush,
) {
    let wanted = environment.get(LOG_VARIABLE).ok().flatten().unwrap_or(default);
    let (wanted, wrong) = match EnvFilter::try_new(wanted) {
        Ok(_) => (wanted, None),
        Err(error) => (default, Some(error)),
    };
    let no_color = environment.get_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    // Whoever supervises us logs our lines with a time of its own.
    let supervised = environment.get_os(TREE_VARIABLE).is_some();
    let lines = tracing_subscriber::fmt::layer()
        .with_timer(Time { shown: !supervised })
        // It would be told on stderr, which is what has just failed, by a macro that panics then.
        .log_internal_errors(false)
        .with_ansi(!no_color && io::stderr().is_terminal())
        .with_writer(Redacting(telemetry.secrets().clone()));
    let lines = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().with_target(true).boxed(),
    };
    let hush = hush.clone();
    let passed = dynamic_filter_fn(move |metadata, _| hush.lets_pass(metadata));
    let records = telemetry.loggers().map(|loggers| {
        let records = OpenTelemetryTracingBridge::new(&loggers);
        records.with_filter(EnvFilter::new(wanted).and(filter_fn(is_ours)))
    });
    let spans = telemetry.tracer().map(|tracer| {
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(filter_fn(is_lifecycle))
    });
    let initialised = tracing_subscriber::registry()
        .with(lines.with_filter(EnvFilter::new(wanted).and(for_people()).and(passed)))
        .with(records)
        .with(spans)
        .try_init();
    if let (Ok(()), Some(error)) = (initialised, wrong) {
        tracing::warn!(
            "{LOG_VARIABLE} is ignored, and `{default}` used: {error}; write info, or info,sidegate::reconciler=debug"
        );
    }
}

/// What exporters say of themselves is said by us, once in a while.
fn for_people() -> FilterFn {
    filter_fn(|metadata| !is_lifecycle(metadata) && !metadata.target().starts_with("opentelemetry"))
}

/// Not what the connections to the collector say: each export would give more to export.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    // Not `is_event`: who asks whether an event would be logged does so as neither, and what this says is taken for the event.
    !metadata.is_span() && metadata.target().starts_with("sidegate")
}

fn is_lifecycle(metadata: &Metadata<'_>) -> bool {
    metadata.target() == LIFECYCLE
}

/// Writes whole lines to stderr, without what may be a secret.
#[derive(Clone, Debug)]
struct Redacting(Secrets);

impl<'w> MakeWriter<'w> for Redacting {
    type Writer = Self;

    fn make_writer(&'w self) -> Self {
        self.clone()
    }
}

impl Write for Redacting {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        io::stderr().lock().write_all(self.0.redact(&text).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
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
