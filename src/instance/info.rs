//! What an instance says of itself.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

/// An instance: the shape of the line that `serve --output json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstanceInfo {
    /// The version of this shape.
    pub schema: u32,
    /// The MCP endpoint.
    pub url: String,
    /// Our process.
    pub pid: u32,
    /// Where sockets and files are.
    pub runtime_dir: PathBuf,
    /// The file with the token that clients must send.
    pub token_file: Option<PathBuf>,
    /// The gateway, as it was at start.
    pub gateway: GatewayInfo,
}

/// A gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayInfo {
    /// `agentgateway` or `embedded`.
    pub mode: &'static str,
    /// Its version.
    pub version: String,
    /// Its process; 0 while there is none.
    pub pid: u32,
    /// Its ports.
    pub ports: PortsInfo,
    /// Why it is this one.
    #[serde(skip)]
    pub reason: String,
}

/// The ports of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortsInfo {
    /// Calls to servers.
    pub data: u16,
    /// Administration.
    pub admin: u16,
    /// Metrics.
    pub stats: u16,
    /// Readiness.
    pub readiness: u16,
}

impl InstanceInfo {
    /// The content of `instance.json`: the same, and when the instance began, in seconds since 1970.
    pub(super) fn file(&self) -> String {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut json = serde_json::to_value(self).unwrap_or_default();
        if let Some(object) = json.as_object_mut() {
            object.insert("startedAt".to_owned(), started.into());
        }
        format!("{json}\n")
    }
}
