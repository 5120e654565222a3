//! Pushing metrics to whoever does not ask for them.
//!
//! A task collects and exports, one time after the other; what a collector does not take is forgotten, as the next figures say
//! the same. At the end it does so once more.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::reader::MetricReader;
use opentelemetry_sdk::metrics::{InstrumentKind, ManualReader, Pipeline, Temporality};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// Reads when it is told to. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Reader(Arc<ManualReader>);

impl Reader {
    pub(super) fn new(temporality: Temporality) -> Self {
        Self(Arc::new(ManualReader::builder().with_temporality(temporality).build()))
    }
}

impl MetricReader for Reader {
    fn register_pipeline(&self, pipeline: Weak<Pipeline>) {
        self.0.register_pipeline(pipeline);
    }

    fn collect(&self, metrics: &mut ResourceMetrics) -> OTelSdkResult {
        self.0.collect(metrics)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn temporality(&self, kind: InstrumentKind) -> Temporality {
        self.0.temporality(kind)
    }
}

/// A task that pushes. Dropped, it pushes a last time, and nobody waits.
pub(super) struct Pushing {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Pushing {
    /// Pushes what `reader` reads `every` so often.
    pub(super) fn start(reader: Reader, exporter: impl PushMetricExporter, every: Duration) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        tracker.spawn(run(reader, exporter, every, stop.clone()));
        tracker.close();
        Self { tracker, stop }
    }

    /// Pushes a last time; gives that up after `limit`. Whether it was done.
    pub(super) async fn end(&self, limit: Duration) -> bool {
        self.stop.cancel();
        tokio::time::timeout(limit, self.tracker.wait()).await.is_ok()
    }
}

impl fmt::Debug for Pushing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pushing")
    }
}

impl Drop for Pushing {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn run(reader: Reader, exporter: impl PushMetricExporter, every: Duration, stop: CancellationToken) {
    let mut failing = false;
    loop {
        let last = stop.run_until_cancelled(tokio::time::sleep(every)).await.is_none();
        let pushed = push(&reader, &exporter).await;
        match &pushed {
            Ok(()) if failing => info!("metrics are exported again"),
            // Once: it is the same the next time.
            Err(error) if !failing => warn!(%error, "metrics are not exported; calls are not concerned"),
            Ok(()) | Err(_) => {}
        }
        failing = pushed.is_err();
        if last {
            return;
        }
    }
}

async fn push(reader: &Reader, exporter: &impl PushMetricExporter) -> OTelSdkResult {
    let reader = reader.clone();
    // It reads files of every child.
    let collecting = tokio::task::spawn_blocking(move || {
        let mut metrics = ResourceMetrics::default();
        reader.collect(&mut metrics).is_ok().then_some(metrics)
    });
    let collected = collecting.await.map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?;
    match collected {
        Some(metrics) => exporter.export(&metrics).await,
        // Those who measure are gone.
        None => Ok(()),
    }
}
