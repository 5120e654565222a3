//! What an instance says of itself: the body of `GET /v1/status`, the same for whoever writes and reads it.
//!
//! Times are seconds since 1970, in UTC. What is not known, or does not apply, is left out. Members are added and
//! never change their meaning; `schema` would change with them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The version of the shape.
pub const SCHEMA: u32 = 1;

/// A running instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of this shape.
    pub schema: u32,
    /// The version of Sidegate that runs.
    pub version: String,
    /// The MCP endpoint.
    pub url: String,
    /// Whether its port was any free one, so that the next instance has another.
    #[serde(default)]
    pub random_port: bool,
    /// The page for a browser.
    #[serde(default)]
    pub page_url: String,
    /// The process.
    pub pid: u32,
    /// When it began.
    pub started_at: u64,
    /// For how long it has run, in seconds.
    pub uptime_seconds: u64,
    /// The directory of `config.yaml` and `mcpservers`.
    pub config_dir: PathBuf,
    /// Where sockets and logs are.
    pub runtime_dir: PathBuf,
    /// The file with the token that clients must send.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// What carries the calls.
    pub gateway: GatewayStatus,
    /// Every server that is defined, sorted by name.
    pub servers: Vec<ServerEntry>,
    /// What is wrong and belongs to no server.
    pub problems: Problems,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// `agentgateway`, `embedded` or `external`.
    pub mode: String,
    /// Its version; not known of one that runs elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Why it is this one, or where it is.
    pub reason: String,
    /// Where its process stands: `starting`, `ready`, `draining`, `backoff`, `failed`, `stopped` or `idle`. One that runs
    /// elsewhere has none here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Why it does not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Its process; 0 while there is none.
    pub pid: u32,
    /// Its ports, where it has them from us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ports: Option<Ports>,
    /// How often this gateway's process was started again because it had ended.
    pub restarts: u64,
    /// How often another gateway has taken the place of one before it.
    pub swaps: u32,
    /// The generation that its data port answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<String>,
    /// How the last change of its file went.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_reload: Option<Reload>,
}

/// The ports of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Calls to servers.
    pub data: u16,
    /// Administration.
    pub admin: u16,
    /// Metrics.
    pub stats: u16,
    /// Readiness.
    pub readiness: u16,
}

/// A change of the gateway's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reload {
    /// When it came into force, or failed.
    pub at: u64,
    /// Why it did not come into force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerEntry {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: String,
    /// Since when.
    pub since: u64,
    /// How many tools it has in the catalogue.
    pub tools: usize,
    /// Why it does not run, where somebody should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How many tries in a row have failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<u32>,
    /// How long until the next try, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_in_seconds: Option<f64>,
    /// Why the version that runs is not the one in the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stale: Option<String>,
    /// What went wrong last, which may be long mended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// What went wrong with a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LastError {
    /// When.
    pub at: u64,
    /// What.
    pub message: String,
}

/// What is wrong and belongs to no server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Problems {
    /// Why the directory of definitions cannot be read; everything stays as it was meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Files whose name is no server's, each with all that is wrong.
    pub files: Vec<String>,
    /// Names of tools that were taken, or are too long.
    pub naming: Vec<String>,
}
