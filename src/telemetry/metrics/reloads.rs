//! How long reloads of the gateway take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Histogram, Meter};

use super::definitions::{RELOAD_DURATION, RELOAD_RESULT};

/// Reloads of the embedded gateway take a few milliseconds, those of agentgateway about 300; after 3 s one is given up for
/// the first time.
const BOUNDARIES: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1., 3., 6., 12.];

/// Measures reloads. Clones are the same.
#[derive(Clone)]
pub struct ReloadMetrics {
    duration: Histogram<f64>,
    in_force: Arc<[KeyValue; 1]>,
    failed: Arc<[KeyValue; 1]>,
}

impl ReloadMetrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let result = |result: &'static str| Arc::new([KeyValue::new(RELOAD_RESULT.key, result)]);
        Self {
            duration: RELOAD_DURATION.histogram(meter, &BOUNDARIES),
            in_force: result("in_force"),
            failed: result("failed"),
        }
    }

    /// A change took this long to be in force, or to fail.
    pub fn record(&self, took: Duration, in_force: bool) {
        let attributes = if in_force { &self.in_force } else { &self.failed };
        self.duration.record(took.as_secs_f64(), attributes.as_slice());
    }
}

impl fmt::Debug for ReloadMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReloadMetrics")
    }
}
