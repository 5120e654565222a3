//! What the metrics of an instance look at.
//!
//! Holds none of it: an instance that is gone is observed as nothing.

use std::sync::{Arc, Weak};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter as _;
use tokio::sync::watch;
use tracing::debug;

use super::StartError;
use super::gateways::Gateways;
use crate::aggregator::endpoint::Aggregate;
use crate::aggregator::registry::Registry;
use crate::bridge::Bridge;
use crate::reconciler::{ServerState, Statuses};
use crate::subprocess::{self, Root, State, Usage};
use crate::telemetry::export::Telemetry;
use crate::telemetry::metrics::{
    GatewayObservation, Metrics, Observation, Observe, Offered, ProcessObservation, ProcessRole,
    ServerObservation,
};
use crate::wire::server::StreamableHttp;

/// The instruments of an instance with these names, read by whoever `telemetry` says.
pub(super) fn start(telemetry: &Telemetry, registry: &Arc<Registry>) -> Result<Arc<Metrics>, StartError> {
    let offered = Arc::clone(registry) as Arc<dyn Offered>;
    let secrets = telemetry.secrets().clone();
    let settings = telemetry.settings();
    let resource = settings.map_or_else(resource, |settings| settings.resource.clone());
    let exports = settings.and_then(|settings| Some((settings.metrics.as_ref()?, settings.metric_interval)));
    let Some((destination, every)) = exports else {
        return Ok(Arc::new(Metrics::new(resource, None, offered, secrets)?));
    };
    let exporter = destination.metric_exporter()?;
    let metrics = Metrics::new(resource, Some(exporter.temporality()), offered, secrets)?;
    metrics.push(exporter, every);
    Ok(Arc::new(metrics))
}

/// What describes an instance to whoever gets its metrics, where nobody has said more.
fn resource() -> Resource {
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    Resource::builder_empty().with_service_name("sidegate").with_attribute(version).build()
}

/// The parts of an instance.
pub(super) struct Parts {
    pub(super) aggregate: Weak<StreamableHttp<Aggregate>>,
    pub(super) registry: Weak<Registry>,
    pub(super) bridge: Weak<Bridge>,
    pub(super) gateways: Weak<Gateways>,
    pub(super) statuses: watch::Receiver<Statuses>,
    pub(super) telemetry: Telemetry,
}

impl Observe for Parts {
    fn observe(&self) -> Observation {
        let parts = (
            self.aggregate.upgrade(),
            self.registry.upgrade(),
            self.bridge.upgrade(),
            self.gateways.upgrade(),
        );
        let (Some(aggregate), Some(registry), Some(bridge), Some(gateways)) = parts else {
            return Observation::default();
        };
        let statuses = self.statuses.borrow().clone();
        let (spans, log_records) = self.telemetry.losses();
        Observation {
            client_sessions: count(aggregate.session_count()),
            calls_in_flight: count(aggregate.endpoint().calls_in_flight()),
            states: states(&statuses),
            servers: servers(&statuses, &registry),
            gateway: gateway(&gateways),
            processes: processes(&bridge, &gateways),
            dropped: vec![
                ("client_streams", aggregate.dropped()),
                ("server_answers", registry.unsent()),
                ("spans", spans.dropped),
                ("log_records", log_records.dropped),
            ],
        }
    }
}

fn states(statuses: &Statuses) -> Vec<(&'static str, u64)> {
    let in_state = |name: &&str| statuses.values().filter(|status| status.state.name() == *name).count();
    ServerState::NAMES.iter().map(|name| (*name, count(in_state(name)))).collect()
}

fn servers(statuses: &Statuses, registry: &Registry) -> Vec<ServerObservation> {
    let catalogue = registry.catalogue();
    let observed = statuses.iter().map(|(name, status)| ServerObservation {
        name: name.to_string(),
        up: status.state.is_up(),
        tools: count(status.tools),
        sessions: catalogue.server(name).map(|member| count(member.link.sessions())).unwrap_or_default(),
    });
    observed.collect()
}

fn gateway(gateways: &Gateways) -> GatewayObservation {
    let info = gateways.info().borrow().clone();
    let in_force = gateways.front().status().and_then(|status| status.in_force);
    GatewayObservation {
        mode: info.mode,
        version: info.version,
        generation: in_force.map(|now| now.generation.to_string()),
        ready: gateways.state().map(|state| matches!(state, State::Ready(_))),
        restarts: gateways.all_restarts(),
        swaps: gateways.swaps().into(),
    }
}

fn processes(bridge: &Bridge, gateways: &Gateways) -> Vec<ProcessObservation> {
    // A gateway that is a task of this process is counted with it.
    let pid = gateways.state().and_then(|state| state.pid());
    let gateway = pid.filter(|pid| *pid != std::process::id()).map(Root::at);
    let servers = bridge.trees();
    let roots: Vec<Root> =
        gateway.into_iter().chain(servers.iter().flat_map(|(_, roots)| roots.iter().copied())).collect();
    let mut used = match subprocess::usage(&roots) {
        Ok(used) => used.into_iter(),
        Err(error) => {
            debug!(%error, "the process table cannot be read");
            return Vec::new();
        }
    };
    let mut of = |role, roots: usize| {
        let together = used.by_ref().take(roots).fold(Usage::default(), Usage::plus);
        observed(role, together)
    };
    let mut all = vec![observed(ProcessRole::Sidegate, Usage::own())];
    all.extend(gateway.map(|_| of(ProcessRole::Gateway, 1)));
    all.extend(
        servers.iter().map(|(server, roots)| of(ProcessRole::Server(server.to_string()), roots.len())),
    );
    all
}

fn observed(role: ProcessRole, usage: Usage) -> ProcessObservation {
    let Usage { processes, memory, descriptors } = usage;
    ProcessObservation { role, processes, memory, descriptors }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
