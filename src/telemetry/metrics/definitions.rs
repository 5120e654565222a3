//! Every instrument there is. Names and attributes of calls are those of the OpenTelemetry conventions for MCP
//! (semantic-conventions-genai, docs/gen-ai/mcp.md, "Metrics"); all others begin with `sidegate.`.

use opentelemetry::metrics::{AsyncInstrument, Histogram, Meter};

/// An attribute of series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Its key.
    pub key: &'static str,
    /// What it says, and where it is left out.
    pub meaning: &'static str,
}

impl Attribute {
    const fn new(key: &'static str, meaning: &'static str) -> Self {
        Self { key, meaning }
    }
}

/// What an instrument does with what it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Sorts values into buckets.
    Histogram,
    /// Only grows; begins with 0 when the instance does.
    Counter,
    /// A sum that grows and shrinks.
    UpDownCounter,
    /// A value that cannot be added to others.
    Gauge,
}

impl Kind {
    /// What it is called in the reference.
    pub fn name(self) -> &'static str {
        match self {
            Self::Histogram => "histogram",
            Self::Counter => "counter",
            Self::UpDownCounter => "up-down counter",
            Self::Gauge => "gauge",
        }
    }
}

/// An instrument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    /// Its name in OTLP.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Its unit, as UCUM writes it; in braces what is counted.
    pub unit: &'static str,
    /// What it says.
    pub description: &'static str,
    /// What tells its series apart.
    pub attributes: &'static [Attribute],
}

/// The JSON-RPC method.
pub const METHOD: Attribute =
    Attribute::new("mcp.method.name", "The JSON-RPC method; `_OTHER` where it is none of MCP.");
/// A tool's name.
pub const TOOL: Attribute = Attribute::new(
    "gen_ai.tool.name",
    "The tool, as the client calls it; only of `tools/call`, and only of tools that there are. `_OTHER` after the first 1000 names.",
);
/// A prompt's name.
pub const PROMPT: Attribute =
    Attribute::new("gen_ai.prompt.name", "The prompt, as the client calls it; as for tools.");
/// What went wrong.
pub const ERROR: Attribute = Attribute::new(
    "error.type",
    "What went wrong: a JSON-RPC code, `tool_error` (a result with `isError`), `timeout`, `cancelled` (the client did not want to wait), or why there was no answer. Left out where all went well.",
);
/// The code of a JSON-RPC error.
pub const STATUS: Attribute =
    Attribute::new("rpc.response.status_code", "The code, where the answer was a JSON-RPC error.");
/// A server's name.
pub const SERVER: Attribute = Attribute::new(
    "sidegate.server",
    "The server. Left out where there is none: the request was answered by Sidegate itself.",
);
/// Where servers stand.
pub const STATE: Attribute = Attribute::new(
    "sidegate.server.state",
    "One of the states that `sidegate status` shows. Each is there, also with 0.",
);
/// How a reload went.
pub const RELOAD_RESULT: Attribute = Attribute::new(
    "sidegate.reload.result",
    "`in_force`: the data port answers the generation. `failed`: it does not, or the configuration was refused or could not be written.",
);
/// Which kind of gateway it is.
pub const GATEWAY_MODE: Attribute =
    Attribute::new("sidegate.gateway.mode", "`agentgateway`, `embedded` or `external`.");
/// The gateway's version.
pub const GATEWAY_VERSION: Attribute =
    Attribute::new("sidegate.gateway.version", "Its version; left out for an external gateway.");
/// The generation that is in force.
pub const GENERATION: Attribute = Attribute::new(
    "sidegate.generation",
    "The generation of its configuration that is in force; left out while there is none.",
);
/// Whose processes.
pub const PROCESS: Attribute = Attribute::new(
    "sidegate.process.role",
    "`sidegate` itself, the `gateway` with what it has started, or the processes of a stdio `server`. Guards are not counted.",
);
/// The server that processes belong to.
pub const PROCESS_SERVER: Attribute =
    Attribute::new("sidegate.server", "The server; only where the role is `server`.");
/// A queue.
pub const QUEUE: Attribute = Attribute::new(
    "sidegate.queue",
    "`client_streams`: notifications for clients that do not read. `server_answers`: answers for servers that do not take them. `spans` and `log_records`: what comes faster than a collector takes it.",
);
/// The version of Sidegate.
pub const VERSION: Attribute = Attribute::new("sidegate.version", "The version of Sidegate.");

/// From when a client's request was there to when its answer was.
pub const SERVER_DURATION: Definition = Definition {
    name: "mcp.server.operation.duration",
    kind: Kind::Histogram,
    unit: "s",
    description: "How long requests of clients took, from when they were received to when they were answered.",
    attributes: &[METHOD, TOOL, PROMPT, ERROR, STATUS, SERVER],
};
/// From when a request was sent to a server to when its answer was there.
pub const CLIENT_DURATION: Definition = Definition {
    name: "mcp.client.operation.duration",
    kind: Kind::Histogram,
    unit: "s",
    description: "How long requests to servers took, from when they were sent, the last time, to when they were answered.",
    attributes: &[METHOD, TOOL, PROMPT, ERROR, STATUS, SERVER],
};
/// Clients' sessions.
pub const CLIENT_SESSIONS: Definition = Definition {
    name: "sidegate.client.sessions",
    kind: Kind::UpDownCounter,
    unit: "{session}",
    description: "Open sessions of clients.",
    attributes: &[],
};
/// Sessions with servers.
pub const SERVER_SESSIONS: Definition = Definition {
    name: "sidegate.server.sessions",
    kind: Kind::UpDownCounter,
    unit: "{session}",
    description: "Open sessions with servers: one for all clients, and with isolation one more for each client.",
    attributes: &[SERVER],
};
/// Calls under way.
pub const IN_FLIGHT: Definition = Definition {
    name: "sidegate.calls.in_flight",
    kind: Kind::UpDownCounter,
    unit: "{call}",
    description: "Calls that are under way: to servers, and to tools of Sidegate's own.",
    attributes: &[],
};
/// Servers by state.
pub const SERVERS: Definition = Definition {
    name: "sidegate.servers",
    kind: Kind::UpDownCounter,
    unit: "{server}",
    description: "Servers that are defined, by state.",
    attributes: &[STATE],
};
/// Whether a server can be called.
pub const SERVER_UP: Definition = Definition {
    name: "sidegate.server.up",
    kind: Kind::Gauge,
    unit: "",
    description: "Whether the tools of a server can be called: 1 or 0.",
    attributes: &[SERVER],
};
/// How many tools a server has.
pub const SERVER_TOOLS: Definition = Definition {
    name: "sidegate.server.tools",
    kind: Kind::UpDownCounter,
    unit: "{tool}",
    description: "Tools of a server in the catalogue.",
    attributes: &[SERVER],
};
/// The gateway in front.
pub const GATEWAY_INFO: Definition = Definition {
    name: "sidegate.gateway.info",
    kind: Kind::Gauge,
    unit: "",
    description: "The gateway that takes the calls; always 1.",
    attributes: &[GATEWAY_MODE, GATEWAY_VERSION, GENERATION],
};
/// Whether the gateway is ready.
pub const GATEWAY_UP: Definition = Definition {
    name: "sidegate.gateway.up",
    kind: Kind::Gauge,
    unit: "",
    description: "Whether the gateway's process is ready: 1 or 0. Left out for an external gateway.",
    attributes: &[],
};
/// Restarts of gateways.
pub const GATEWAY_RESTARTS: Definition = Definition {
    name: "sidegate.gateway.restarts",
    kind: Kind::Counter,
    unit: "{restart}",
    description: "How often a gateway's process was started again because it had ended.",
    attributes: &[],
};
/// Swaps of gateways.
pub const GATEWAY_SWAPS: Definition = Definition {
    name: "sidegate.gateway.swaps",
    kind: Kind::Counter,
    unit: "{swap}",
    description: "How often another gateway has taken the place of one before it.",
    attributes: &[],
};
/// Reloads of the gateway.
pub const RELOAD_DURATION: Definition = Definition {
    name: "sidegate.gateway.reload.duration",
    kind: Kind::Histogram,
    unit: "s",
    description: "How long changes of the gateway's configuration took, from when they were wished for to when they were in force, or had failed.",
    attributes: &[RELOAD_RESULT],
};
/// Processes.
pub const PROCESSES: Definition = Definition {
    name: "sidegate.processes",
    kind: Kind::UpDownCounter,
    unit: "{process}",
    description: "Processes that run.",
    attributes: &[PROCESS, PROCESS_SERVER],
};
/// Memory of processes.
pub const MEMORY: Definition = Definition {
    name: "sidegate.process.memory",
    kind: Kind::UpDownCounter,
    unit: "By",
    description: "Resident memory of processes; what they share is counted for each.",
    attributes: &[PROCESS, PROCESS_SERVER],
};
/// Descriptors of processes.
pub const DESCRIPTORS: Definition = Definition {
    name: "sidegate.process.descriptors",
    kind: Kind::UpDownCounter,
    unit: "{descriptor}",
    description: "Open file descriptors of processes.",
    attributes: &[PROCESS, PROCESS_SERVER],
};
/// What was dropped.
pub const DROPPED: Definition = Definition {
    name: "sidegate.queue.dropped",
    kind: Kind::Counter,
    unit: "{message}",
    description: "Messages that were dropped because whoever they were for did not take them.",
    attributes: &[QUEUE],
};
/// The version of Sidegate.
pub const BUILD_INFO: Definition = Definition {
    name: "sidegate.build.info",
    kind: Kind::Gauge,
    unit: "",
    description: "The version that runs; always 1.",
    attributes: &[VERSION],
};

/// Those that measure calls.
pub(super) const CALLS: [Definition; 2] = [SERVER_DURATION, CLIENT_DURATION];

/// All of them, in the order of the reference.
pub const ALL: [Definition; 18] = [
    SERVER_DURATION,
    CLIENT_DURATION,
    IN_FLIGHT,
    CLIENT_SESSIONS,
    SERVER_SESSIONS,
    SERVERS,
    SERVER_UP,
    SERVER_TOOLS,
    GATEWAY_INFO,
    GATEWAY_UP,
    GATEWAY_RESTARTS,
    GATEWAY_SWAPS,
    RELOAD_DURATION,
    PROCESSES,
    MEMORY,
    DESCRIPTORS,
    DROPPED,
    BUILD_INFO,
];

impl Definition {
    /// Its name in Prometheus's text: without dots, with the unit, and `_total` for counters (OpenTelemetry,
    /// "Prometheus and OpenMetrics Compatibility", "Metric Metadata").
    pub fn prometheus_name(&self) -> String {
        let name = self.name.replace('.', "_");
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let total = if self.kind == Kind::Counter { "_total" } else { "" };
        format!("{name}{unit}{total}")
    }

    /// The histogram that this defines, with `boundaries`.
    pub(super) fn histogram(&self, meter: &Meter, boundaries: &[f64]) -> Histogram<f64> {
        let builder = meter.f64_histogram(self.name).with_description(self.description).with_unit(self.unit);
        builder.with_boundaries(boundaries.to_vec()).build()
    }

    /// Has `observe` called whenever somebody collects.
    pub(super) fn observe(
        &self,
        meter: &Meter,
        observe: impl Fn(&dyn AsyncInstrument<u64>) + Send + Sync + 'static,
    ) {
        let Self { name, description, unit, .. } = *self;
        // Built is registered; the handles are of no further use.
        match self.kind {
            Kind::Counter => {
                let builder = meter.u64_observable_counter(name).with_callback(observe);
                builder.with_description(description).with_unit(unit).build();
            }
            Kind::Gauge => {
                let builder = meter.u64_observable_gauge(name).with_callback(observe);
                builder.with_description(description).with_unit(unit).build();
            }
            Kind::UpDownCounter | Kind::Histogram => {
                let observe = move |sum: &dyn AsyncInstrument<i64>| observe(&Signed(sum));
                let builder = meter.i64_observable_up_down_counter(name).with_callback(observe);
                builder.with_description(description).with_unit(unit).build();
            }
        }
    }
}

/// An instrument for what has a sign, told what has none.
struct Signed<'i>(&'i dyn AsyncInstrument<i64>);

impl AsyncInstrument<u64> for Signed<'_> {
    fn observe(&self, measurement: u64, attributes: &[opentelemetry::KeyValue]) {
        self.0.observe(i64::try_from(measurement).unwrap_or(i64::MAX), attributes);
    }
}
