//! Renders a set of servers as agentgateway configuration, writes it atomically and proves that it is in force.
//!
//! Owns the gateway's file: one [`Applier`] a gateway child is the only writer of that child's file. [`Plan::render`] is
//! pure; [`Applier`] is an actor that takes the latest wanted routes, validates, writes and proves them.
//!
//! Invariants:
//! - the file is never written again before the last write is in force, because closer renames starve agentgateway's watcher;
//! - a generation counts as in force only when the data port has answered it, with this run's key and this child's nonce;
//! - the file is complete whenever it is visible under its name, was never readable by others, and holds no key, only its digest.
//!
//! Knows nothing of definitions, processes and MCP sessions.

mod applier;
mod cel;
mod generation;
mod key;
mod plan;
mod policy;
mod probe;
mod render;
mod route_name;
mod validate;
mod write;

pub use applier::{Applier, ApplierOptions, ApplyError, InForce, Revision, Status};
pub use generation::{ContentHash, Generation, SpawnNonce};
pub use key::{GatewayKey, KeyDigest, KeyError, RandomSourceError};
pub use plan::{
    BridgeDial, Dial, DialHost, GatewayPorts, GatewaySettings, HttpBackend, InvalidDialHost, InvalidLogLevel,
    LogLevel, McpTarget, OtlpProtocol, Plan, RouteBackend, RoutePlan, SpanExport,
};
pub use policy::PolicyError;
pub use probe::ProbeAnswer;
pub use render::{RenderError, Rendered};
pub use route_name::RouteName;
pub use validate::{ValidateError, Validator};
pub use write::WriteError;

/// The header that carries the key of a gateway on every call to its data port.
pub const KEY_HEADER: &str = "x-sidegate-key";
/// The response header that tells an answer of a server from one of the gateway itself; its value is the server's name.
pub const ROUTE_HEADER: &str = "x-sidegate-route";
/// The request header that carries the trace context which the gateway puts back as `traceparent`.
pub const TRACEPARENT_HEADER: &str = "x-sidegate-traceparent";
/// The path on the data port that answers with the generation in force.
pub const GENERATION_PATH: &str = "/.sidegate/generation";
/// The path prefix of every server's route, to be followed by its name.
pub const ROUTE_PREFIX: &str = "/mcp/";
