//! Counters, and their text for Prometheus.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// Upper bounds in microseconds, and as Prometheus is told them, in seconds.
const BUCKETS: [(u64, &str); 8] = [
    (100, "0.0001"),
    (250, "0.00025"),
    (1_000, "0.001"),
    (5_000, "0.005"),
    (25_000, "0.025"),
    (100_000, "0.1"),
    (1_000_000, "1"),
    (10_000_000, "10"),
];

/// The counters of one route.
#[derive(Default)]
pub(super) struct RouteMetrics {
    classes: [AtomicU64; CLASSES.len()],
    /// Not cumulative; the last is what no bound holds.
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl RouteMetrics {
    /// Counts a response whose head took `elapsed`; how long a body streams says nothing of the gateway.
    pub(super) fn count(&self, status: StatusCode, elapsed: Duration) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(1);
        if let Some(counter) = self.classes.get(class) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BUCKETS.len());
        if let Some(counter) = self.buckets.get(bucket) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }
}

/// All counters of the process.
#[derive(Default)]
pub(super) struct Metrics {
    routes: Mutex<BTreeMap<String, Arc<RouteMetrics>>>,
    unrouted: AtomicU64,
    connections: AtomicU64,
    open_connections: AtomicU64,
    reloads: AtomicU64,
    refused_reloads: AtomicU64,
}

impl Metrics {
    /// The counters of a route; they outlive reloads that keep its name.
    pub(super) fn route(&self, name: &str) -> Arc<RouteMetrics> {
        Arc::clone(self.routes().entry(name.to_owned()).or_default())
    }

    /// Forgets all other routes.
    pub(super) fn keep<'a>(&self, names: impl Iterator<Item = &'a str>) {
        let names: BTreeSet<&str> = names.collect();
        self.routes().retain(|name, _| names.contains(name.as_str()));
    }

    pub(super) fn count_unrouted(&self) {
        self.unrouted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_reload(&self, taken: bool) {
        let counter = if taken { &self.reloads } else { &self.refused_reloads };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection as open until the guard is dropped.
    pub(super) fn connection(&self) -> ConnectionGuard<'_> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.open_connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(&self.open_connections)
    }

    fn routes(&self) -> MutexGuard<'_, BTreeMap<String, Arc<RouteMetrics>>> {
        // Nothing that can panic runs under the lock.
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The Prometheus text format, version 0.0.4.
    pub(super) fn render(&self) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            // Writing to a string does not fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for (labels, value) in samples {
                let _ = writeln!(text, "{name}{labels} {value}");
            }
        };
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let single = |counter: &AtomicU64| [(String::new(), read(counter).to_string())];
        family(
            "sidegate_gateway_build_info",
            "gauge",
            "The version of the embedded gateway.",
            &[(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), "1".to_owned())],
        );
        let routes = self.routes();
        let mut requests = Vec::new();
        let mut durations = Vec::new();
        for (name, route) in routes.iter() {
            // A file written by hand may name its routes as it likes.
            let name = name.replace('\\', r"\\").replace('"', r#"\""#).replace('\n', r"\n");
            for (class, counter) in
                CLASSES.iter().zip(&route.classes).filter(|(_, counter)| read(counter) > 0)
            {
                requests
                    .push((format!("{{route=\"{name}\",status=\"{class}\"}}"), read(counter).to_string()));
            }
            let bounds = BUCKETS.iter().map(|(_, label)| *label).chain(["+Inf"]);
            let mut total = 0;
            for (bound, counter) in bounds.zip(&route.buckets) {
                total += read(counter);
                durations.push((format!("_bucket{{route=\"{name}\",le=\"{bound}\"}}"), total.to_string()));
            }
            let micros = read(&route.micros);
            let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            durations.push((format!("_sum{{route=\"{name}\"}}"), seconds));
            durations.push((format!("_count{{route=\"{name}\"}}"), total.to_string()));
        }
        requests.push(("{route=\"\",status=\"4xx\"}".to_owned(), read(&self.unrouted).to_string()));
        family(
            "sidegate_gateway_requests_total",
            "counter",
            "Requests by route and class of status.",
            &requests,
        );
        family(
            "sidegate_gateway_request_duration_seconds",
            "histogram",
            "From the head of a request to the head of its response.",
            &durations,
        );
        family(
            "sidegate_gateway_connections_total",
            "counter",
            "Connections taken on the data port.",
            &single(&self.connections),
        );
        family(
            "sidegate_gateway_connections",
            "gauge",
            "Connections open on the data port.",
            &single(&self.open_connections),
        );
        family(
            "sidegate_gateway_reloads_total",
            "counter",
            "Changes of the file, by whether they were taken.",
            &[
                ("{result=\"taken\"}".to_owned(), read(&self.reloads).to_string()),
                ("{result=\"refused\"}".to_owned(), read(&self.refused_reloads).to_string()),
            ],
        );
        text
    }
}

/// An open connection.
pub(super) struct ConnectionGuard<'a>(&'a AtomicU64);

impl Drop for ConnectionGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_cumulative_and_survive_reloads_by_name() {
        let metrics = Metrics::default();
        metrics.route("a").count(StatusCode::OK, Duration::from_micros(200));
        metrics.route("a").count(StatusCode::BAD_GATEWAY, Duration::from_secs(20));
        metrics.route("gone").count(StatusCode::OK, Duration::ZERO);
        metrics.keep(["a"].into_iter());
        let text = metrics.render();
        for line in [
            r#"sidegate_gateway_requests_total{route="a",status="2xx"} 1"#,
            r#"sidegate_gateway_requests_total{route="a",status="5xx"} 1"#,
            r#"sidegate_gateway_request_duration_seconds_bucket{route="a",le="0.0001"} 0"#,
            r#"sidegate_gateway_request_duration_seconds_bucket{route="a",le="0.00025"} 1"#,
            r#"sidegate_gateway_request_duration_seconds_bucket{route="a",le="+Inf"} 2"#,
            r#"sidegate_gateway_request_duration_seconds_sum{route="a"} 20.000200"#,
            r#"sidegate_gateway_request_duration_seconds_count{route="a"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("gone"));
    }
}
