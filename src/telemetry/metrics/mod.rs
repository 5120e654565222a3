//! Metrics: what an instance counts and measures, as text for Prometheus and, where that is wanted, pushed by OTLP.
//!
//! | part | owns |
//! | --- | --- |
//! | [`definitions`] | each instrument: name, kind, unit, meaning and attributes; the reference is made from them |
//! | [`CallMetrics`] | the durations of calls, and the limits of their labels |
//! | [`ReloadMetrics`] | the durations of the gateway's reloads |
//! | [`Observe`], [`Observation`] | what is looked at when somebody collects |
//! | `push` | the task that pushes |
//!
//! Invariants: an instrument exists only by its definition; nothing is counted twice, whoever reads it; the number of
//! series is bounded, whatever clients send; nothing runs between two collections.
//!
//! Belongs to one instance: nothing is registered globally. Knows nothing of what it is told about, but names.

mod calls;
pub mod definitions;
mod observed;
mod push;
mod reloads;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::metrics::{Meter, MeterProvider as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{Instrument, SdkMeterProvider, Stream, Temporality};
use prometheus::{Registry, TextEncoder};

pub use calls::{CallMetrics, MOST_NAMES, Offered};
use definitions::Definition;
pub use observed::{
    GatewayObservation, Observation, Observe, ProcessObservation, ProcessRole, ServerObservation,
};
use push::{Pushing, Reader};
pub use reloads::ReloadMetrics;

use super::secrets::Secrets;

/// The media type of [`Metrics::text`].
pub const TEXT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The name of what all instruments belong to.
const SCOPE: &str = "sidegate";

/// Series of one instrument; what comes beyond is one series with `otel.metric.overflow`. A last resort: see [`MOST_NAMES`].
const MOST_SERIES: usize = 8000;

/// The instruments of an instance, and those who read them.
#[derive(Debug)]
pub struct Metrics {
    provider: SdkMeterProvider,
    registry: Registry,
    meter: Meter,
    calls: Arc<CallMetrics>,
    reloads: ReloadMetrics,
    reader: Option<Reader>,
    pushing: OnceLock<Pushing>,
}

impl Metrics {
    /// The instruments of the instance that `resource` describes. Prometheus reads them, and where it has a `pushed`
    /// temporality, so does what [`push`](Self::push) begins. `offered` knows which names may be labels; none
    /// holds one of `secrets`.
    ///
    /// # Errors
    ///
    /// [`MetricsError`]: the libraries refuse what they are given, which they should not.
    pub fn new(
        resource: Resource,
        pushed: Option<Temporality>,
        offered: Arc<dyn Offered>,
        secrets: Secrets,
    ) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        let prometheus = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(MetricsError::Prometheus)?;
        let bounded = |instrument: &Instrument| {
            let measures_calls = |definition: &Definition| definition.name == instrument.name();
            let stream = Stream::builder().with_cardinality_limit(MOST_SERIES);
            definitions::CALLS.iter().any(measures_calls).then(|| stream.build().ok()).flatten()
        };
        let mut builder =
            SdkMeterProvider::builder().with_resource(resource).with_reader(prometheus).with_view(bounded);
        let reader = pushed.map(Reader::new);
        if let Some(reader) = &reader {
            builder = builder.with_reader(reader.clone());
        }
        let provider = builder.build();
        let meter = provider.meter(SCOPE);
        let calls = Arc::new(CallMetrics::new(&meter, offered, secrets));
        let reloads = ReloadMetrics::new(&meter);
        Ok(Self { provider, registry, meter, calls, reloads, reader, pushing: OnceLock::new() })
    }

    /// Measures calls.
    pub fn calls(&self) -> &Arc<CallMetrics> {
        &self.calls
    }

    /// Measures reloads of the gateway.
    pub fn reloads(&self) -> &ReloadMetrics {
        &self.reloads
    }

    /// Looks at `source` from now on, whenever somebody collects. To be called once.
    pub fn watch(&self, source: Arc<dyn Observe>) {
        observed::register(&self.meter, source);
    }

    /// Everything at this moment, in Prometheus's text format, version 0.0.4. Looks at the instance, and so may block for some
    /// milliseconds: not for a thread that serves connections.
    ///
    /// # Errors
    ///
    /// There is something that has no form as text.
    pub fn text(&self) -> Result<String, MetricsError> {
        TextEncoder::new().encode_to_string(&self.registry.gather()).map_err(MetricsError::Text)
    }

    /// Pushes everything with `exporter`, `every` so often, until [`shutdown`](Self::shutdown). Only where a temporality was
    /// given, and only once. Needs a runtime.
    pub fn push(&self, exporter: impl PushMetricExporter, every: Duration) {
        if let Some(reader) = &self.reader {
            self.pushing.get_or_init(|| Pushing::start(reader.clone(), exporter, every));
        }
    }

    /// Pushes a last time, where anything is pushed; gives that up after `limit`. Whether it was done.
    pub async fn shutdown(&self, limit: Duration) -> bool {
        match self.pushing.get() {
            Some(pushing) => pushing.end(limit).await,
            None => true,
        }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        // All readers read when they are told to: there is nothing to wait for, and nothing that can fail but that it
        // was done before. Left to the library, it would be in the log.
        let _ = self.provider.shutdown();
    }
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsError {
    /// The reader for Prometheus cannot be registered.
    #[error("the registry for Prometheus cannot be set up")]
    Prometheus(#[source] OTelSdkError),
    /// What was collected has no form as text.
    #[error("the metrics cannot be written as text")]
    Text(#[source] prometheus::Error),
}

#[cfg(test)]
mod tests;
