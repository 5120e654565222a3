//! OTLP: what leaves the process for a collector.
//!
//! | part | owns |
//! | --- | --- |
//! | [`settings`] | what is exported, and where to |
//! | `client`, `trouble` | how collectors are reached, and why they are not |
//! | `queue` | where what is exported waits |
//! | `spans`, `logs` | calls as spans, and log records |
//!
//! Invariants: nothing here makes anybody wait, whatever the collector does; what is lost is counted; nothing that may be a
//! secret leaves. Installs nothing for the process: who has a `tracing` subscriber adds the providers to it.
//!
//! Knows nothing of metrics but where they go: who measures builds a reader with [`Telemetry::settings`] and
//! [`Destination::metric_exporter`].

mod client;
mod logs;
mod queue;
pub mod settings;
mod spans;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::logs::{LogExporter as _, SdkLoggerProvider};
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SdkTracer, SdkTracerProvider, SpanExporter as _};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::calls::CallObserver;
use super::sampler::Sampler;
use super::secrets::Secrets;
use super::trace_context::Propagation;
use crate::config::TelemetrySettings;
use crate::environment::Environment;
pub use client::ExportError;
pub use logs::RedactingLoggers;
use logs::{RecordSender, Records};
pub use queue::Losses;
use queue::Queue;
pub use settings::{Destination, ExportSettings};
use spans::{CallSpans, OwnSpans, SpanSender};

/// The name of our instrumentation.
pub const SCOPE: &str = "sidegate";

/// How long what waits is sent for at the end, where nobody knows better.
pub const FLUSH: Duration = Duration::from_secs(2);

/// What is exported while an instance runs, and what nobody may see of it. Cheap to clone; the default exports nothing.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    exports: Option<Arc<Exports>>,
    secrets: Secrets,
}

#[derive(Debug)]
struct Exports {
    settings: ExportSettings,
    spans: Option<Queue<opentelemetry_sdk::trace::SpanData>>,
    tracer: Option<SdkTracerProvider>,
    logs: Option<(Queue<logs::Record>, RedactingLoggers)>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Telemetry {
    /// Nothing is exported.
    pub fn off() -> Self {
        Self::default()
    }

    /// Exports what `config` and the variables say, from now on. Must be called in a runtime.
    ///
    /// # Errors
    ///
    /// Files that are named cannot be used. That nobody answers at an endpoint is none.
    pub fn start(config: &TelemetrySettings, environment: &Environment) -> Result<Self, ExportError> {
        let settings = ExportSettings::resolve(config, environment);
        let secrets = Secrets::default();
        secrets.learn(settings.secrets());
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let spans = match &settings.traces {
            Some(destination) => {
                let mut exporter = destination.span_exporter()?;
                exporter.set_resource(&settings.resource);
                let trouble = destination.trouble.clone();
                let sender = SpanSender { exporter, trouble, secrets: secrets.clone() };
                let (queue, running) = Queue::new("spans", settings.span_batches, sender, stop.clone());
                tracker.spawn(running);
                Some(queue)
            }
            None => None,
        };
        let tracer = spans.clone().map(|queue| {
            SdkTracerProvider::builder()
                .with_span_processor(OwnSpans(queue))
                .with_sampler(SdkSampler::ParentBased(Box::new(SdkSampler::TraceIdRatioBased(
                    settings.sampler.share(),
                ))))
                .with_resource(settings.resource.clone())
                .build()
        });
        let logs = match &settings.logs {
            Some(destination) => {
                let mut exporter = destination.log_exporter()?;
                exporter.set_resource(&settings.resource);
                let trouble = destination.trouble.clone();
                let sender = RecordSender { exporter, trouble, secrets: secrets.clone() };
                let (queue, running) = Queue::new("log records", settings.log_batches, sender, stop.clone());
                tracker.spawn(running);
                let provider = SdkLoggerProvider::builder()
                    .with_log_processor(Records(queue.clone()))
                    .with_resource(settings.resource.clone())
                    .build();
                Some((queue, RedactingLoggers { provider, secrets: secrets.clone() }))
            }
            None => None,
        };
        let exports = Exports { settings, spans, tracer, logs, tracker, stop };
        Ok(Self { exports: Some(Arc::new(exports)), secrets })
    }

    /// What may be in nothing that is exported, logged or said.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What is exported, and where to; `None` where nothing was asked for.
    pub fn settings(&self) -> Option<&ExportSettings> {
        self.exports.as_ref().map(|exports| &exports.settings)
    }

    /// Which traces are recorded, where spans are exported.
    pub fn sampler(&self) -> Option<Sampler> {
        let exports = self.exports.as_ref()?;
        exports.spans.as_ref().map(|_| exports.settings.sampler)
    }

    /// Which contexts of clients servers get.
    pub fn propagation(&self) -> Propagation {
        self.settings().map(|settings| settings.propagation).unwrap_or_default()
    }

    /// Who wants to be told of calls.
    pub fn observers(&self) -> Vec<Arc<dyn CallObserver>> {
        let queue = self.exports.as_ref().and_then(|exports| exports.spans.clone());
        let spans = queue.map(|queue| Arc::new(CallSpans::new(queue, scope())) as Arc<dyn CallObserver>);
        spans.into_iter().collect()
    }

    /// Makes spans of those of `tracing`, where spans are exported.
    pub fn tracer(&self) -> Option<SdkTracer> {
        Some(self.exports.as_ref()?.tracer.as_ref()?.tracer_with_scope(scope()))
    }

    /// Makes log records, where they are exported.
    pub fn loggers(&self) -> Option<RedactingLoggers> {
        Some(self.exports.as_ref()?.logs.as_ref()?.1.clone())
    }

    /// The spans and log records that were not exported.
    pub fn losses(&self) -> (Losses, Losses) {
        let exports = self.exports.as_deref();
        let spans = exports.and_then(|exports| exports.spans.as_ref()).map(Queue::losses);
        let logs = exports.and_then(|exports| exports.logs.as_ref()).map(|(queue, _)| queue.losses());
        (spans.unwrap_or_default(), logs.unwrap_or_default())
    }

    /// Says what was passed over in the environment.
    pub fn warn(&self) {
        for warning in self.settings().into_iter().flat_map(|settings| &settings.warnings) {
            warn!("{warning}");
        }
    }

    /// Sends what waits, and ends; what takes longer than `limit` is given up. Whether all was sent.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        let Some(exports) = &self.exports else { return true };
        exports.stop.cancel();
        exports.tracker.close();
        tokio::time::timeout(limit, exports.tracker.wait()).await.is_ok()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope::builder(SCOPE).with_version(env!("CARGO_PKG_VERSION")).build()
}
