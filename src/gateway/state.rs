//! What calls are served from: one immutable snapshot, swapped whole.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::time::{MissedTickBehavior, interval};

use super::config::{BackendId, Config, Settings};
use super::metrics::Metrics;
use super::pool::Backend;
use super::route::{Route, Table};
use super::tls::SystemRoots;

/// The gateway as all of its tasks share it.
pub(super) struct Gateway {
    pub(super) metrics: Metrics,
    settings: Settings,
    snapshot: ArcSwap<Snapshot>,
    roots: Arc<SystemRoots>,
}

/// One configuration in force.
pub(super) struct Snapshot {
    pub(super) routes: Table,
    config: Config,
    backends: HashMap<BackendId, Arc<Backend>>,
}

/// A reload that would need a restart.
#[derive(Debug, thiserror::Error)]
#[error("the config: block and the data port are read once, at start; restart the gateway to change them")]
pub(super) struct SettingsChanged;

impl Gateway {
    pub(super) fn new(config: Config) -> Self {
        let (settings, roots, metrics) = (config.settings.clone(), Arc::default(), Metrics::default());
        let snapshot = Snapshot::new(config, &HashMap::new(), &roots, &metrics);
        Self { metrics, settings, snapshot: ArcSwap::from_pointee(snapshot), roots }
    }

    pub(super) fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Puts another configuration in force for the calls to come. Backends that stay keep their connections.
    pub(super) fn replace(&self, config: Config) -> Result<(), SettingsChanged> {
        if config.settings != self.settings {
            return Err(SettingsChanged);
        }
        let old = self.snapshot.load_full();
        self.snapshot.store(Arc::new(Snapshot::new(config, &old.backends, &self.roots, &self.metrics)));
        Ok(())
    }
}

impl Snapshot {
    fn new(
        config: Config,
        old: &HashMap<BackendId, Arc<Backend>>,
        roots: &Arc<SystemRoots>,
        metrics: &Metrics,
    ) -> Self {
        let mut backends: HashMap<BackendId, Arc<Backend>> = HashMap::new();
        let mut routes = Table::default();
        for written in &config.routes {
            let route = Route::new(written, metrics.route(&written.name), |forward| {
                let backend = backends.entry(forward.backend.clone()).or_insert_with(|| {
                    old.get(&forward.backend).cloned().unwrap_or_else(|| {
                        Arc::new(Backend::new(forward.backend.clone(), &config.settings, Arc::clone(roots)))
                    })
                });
                Arc::clone(backend)
            });
            routes.insert(&written.paths, Arc::new(route));
        }
        metrics.keep(config.routes.iter().map(|route| route.name.as_str()));
        Self { routes, config, backends }
    }

    pub(super) fn dump(&self) -> Result<Bytes, serde_json::Error> {
        self.config.dump().map(Bytes::from)
    }
}

/// Closes connections that have been idle for too long; a pool by itself only looks when it is asked for one.
pub(super) async fn sweep(gateway: Arc<Gateway>) {
    let mut ticks = interval((gateway.settings.pool_idle_timeout / 2).max(Duration::from_millis(100)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = ticks.tick().await;
        for backend in gateway.snapshot().backends.values() {
            backend.close_expired(now);
        }
    }
}
