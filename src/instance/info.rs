//! What an instance says of itself.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::admin::page;
use crate::aggregator::scope::ALL_PATH;

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
    /// `agentgateway`, `embedded` or `external`.
    pub mode: &'static str,
    /// Its version; not known of one that runs elsewhere.
    pub version: Option<String>,
    /// Its process, while it has one here.
    pub pid: Option<u32>,
    /// Its ports.
    pub ports: PortsInfo,
    /// Why it is this one, or where it is.
    #[serde(skip)]
    pub reason: String,
}

/// The ports of a gateway; none of one that runs elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PortsInfo {
    /// Calls to servers.
    pub data: Option<u16>,
    /// Administration.
    pub admin: Option<u16>,
    /// Metrics.
    pub stats: Option<u16>,
    /// Readiness.
    pub readiness: Option<u16>,
}

impl InstanceInfo {
    /// The address of the page for a browser, beside that of the endpoint.
    pub fn page_url(&self) -> String {
        format!("{}{}", self.url.strip_suffix(ALL_PATH).unwrap_or(&self.url), page::ROOT)
    }

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
