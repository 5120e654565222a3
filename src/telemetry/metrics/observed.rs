//! What is looked at when somebody collects: the state of an instance.
//!
//! One look serves all instruments of one collection: the callback of the first instrument takes it, those of the others
//! read it. Callbacks run in the order in which instruments were made.

use std::sync::Arc;

use arc_swap::ArcSwap;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter};

use super::definitions::{self as define, Definition};

/// Says how an instance is.
pub trait Observe: Send + Sync {
    /// At this moment. May block for some milliseconds, to read files of `/proc`.
    fn observe(&self) -> Observation;
}

/// An instance at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// Open sessions of clients.
    pub client_sessions: u64,
    /// Calls under way.
    pub calls_in_flight: u64,
    /// How many servers are in each state, those that none is in included.
    pub states: Vec<(&'static str, u64)>,
    /// Every server.
    pub servers: Vec<ServerObservation>,
    /// The gateway in front.
    pub gateway: GatewayObservation,
    /// What runs.
    pub processes: Vec<ProcessObservation>,
    /// How much each queue has dropped since the start.
    pub dropped: Vec<(&'static str, u64)>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerObservation {
    /// Its name.
    pub name: String,
    /// Whether it can be called.
    pub up: bool,
    /// Its tools in the catalogue.
    pub tools: u64,
    /// Open sessions with it.
    pub sessions: u64,
}

/// A gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayObservation {
    /// `agentgateway`, `embedded` or `external`.
    pub mode: &'static str,
    /// Its version, where it is known.
    pub version: Option<String>,
    /// The generation that is in force.
    pub generation: Option<String>,
    /// Whether its process is ready; `None` where it has none here.
    pub ready: Option<bool>,
    /// How often gateways were started again since the instance began.
    pub restarts: u64,
    /// How often one has taken another's place.
    pub swaps: u64,
}

/// Whose processes they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProcessRole {
    /// Sidegate itself.
    Sidegate,
    /// The gateway.
    Gateway,
    /// The stdio server of this name.
    Server(String),
}

/// The processes of one role together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessObservation {
    /// Whose they are.
    pub role: ProcessRole,
    /// How many.
    pub processes: u64,
    /// Their resident memory in bytes.
    pub memory: u64,
    /// Their open file descriptors.
    pub descriptors: u64,
}

impl ProcessObservation {
    fn attributes(&self) -> Vec<KeyValue> {
        let role = |role: &'static str| KeyValue::new(define::PROCESS.key, role);
        match &self.role {
            ProcessRole::Sidegate => vec![role("sidegate")],
            ProcessRole::Gateway => vec![role("gateway")],
            ProcessRole::Server(server) => {
                vec![role("server"), KeyValue::new(define::PROCESS_SERVER.key, server.clone())]
            }
        }
    }
}

/// Has `source` looked at from now on.
pub(super) fn register(meter: &Meter, source: Arc<dyn Observe>) {
    let latest = Arc::new(ArcSwap::from_pointee(Observation::default()));
    let refresh = Arc::clone(&latest);
    // The first one: see above.
    define::BUILD_INFO.observe(meter, move |instrument| {
        refresh.store(Arc::new(source.observe()));
        instrument.observe(1, &[KeyValue::new(define::VERSION.key, env!("CARGO_PKG_VERSION"))]);
    });
    let each = |definition: Definition, show: fn(&Observation, &dyn AsyncInstrument<u64>)| {
        let latest = Arc::clone(&latest);
        definition.observe(meter, move |instrument| show(&latest.load(), instrument));
    };
    each(define::CLIENT_SESSIONS, |now, shown| shown.observe(now.client_sessions, &[]));
    each(define::IN_FLIGHT, |now, shown| shown.observe(now.calls_in_flight, &[]));
    each(define::SERVERS, |now, shown| {
        for (state, count) in &now.states {
            shown.observe(*count, &[KeyValue::new(define::STATE.key, *state)]);
        }
    });
    each(define::SERVER_UP, |now, shown| servers(now, shown, |server| u64::from(server.up)));
    each(define::SERVER_TOOLS, |now, shown| servers(now, shown, |server| server.tools));
    each(define::SERVER_SESSIONS, |now, shown| servers(now, shown, |server| server.sessions));
    each(define::GATEWAY_INFO, |now, shown| shown.observe(1, &gateway(&now.gateway)));
    each(define::GATEWAY_UP, |now, shown| {
        if let Some(ready) = now.gateway.ready {
            shown.observe(u64::from(ready), &[]);
        }
    });
    each(define::GATEWAY_RESTARTS, |now, shown| shown.observe(now.gateway.restarts, &[]));
    each(define::GATEWAY_SWAPS, |now, shown| shown.observe(now.gateway.swaps, &[]));
    each(define::PROCESSES, |now, shown| processes(now, shown, |tree| tree.processes));
    each(define::MEMORY, |now, shown| processes(now, shown, |tree| tree.memory));
    each(define::DESCRIPTORS, |now, shown| processes(now, shown, |tree| tree.descriptors));
    each(define::DROPPED, |now, shown| {
        for (queue, count) in &now.dropped {
            shown.observe(*count, &[KeyValue::new(define::QUEUE.key, *queue)]);
        }
    });
}

fn servers(now: &Observation, shown: &dyn AsyncInstrument<u64>, value: fn(&ServerObservation) -> u64) {
    for server in &now.servers {
        shown.observe(value(server), &[KeyValue::new(define::SERVER.key, server.name.clone())]);
    }
}

fn processes(now: &Observation, shown: &dyn AsyncInstrument<u64>, value: fn(&ProcessObservation) -> u64) {
    for tree in &now.processes {
        shown.observe(value(tree), &tree.attributes());
    }
}

fn gateway(gateway: &GatewayObservation) -> Vec<KeyValue> {
    let mut attributes = vec![KeyValue::new(define::GATEWAY_MODE.key, gateway.mode)];
    attributes
        .extend(gateway.version.clone().map(|version| KeyValue::new(define::GATEWAY_VERSION.key, version)));
    let generation = gateway.generation.clone();
    attributes.extend(generation.map(|generation| KeyValue::new(define::GENERATION.key, generation)));
    attributes
}
