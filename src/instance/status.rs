//! Puts together what an instance says of itself.

use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::gateways::Gateways;
use super::info::{InstanceInfo, PortsInfo};
use crate::admin::status::{GatewayStatus, LastError, Ports, Problems, Reload, SCHEMA, ServerEntry, Status};
use crate::aggregator::catalogue::Catalogue;
use crate::error::chain;
use crate::mcpserver::ServerName;
use crate::reconciler::{self, ServerStatus, Statuses};
use crate::subprocess::State;
use crate::telemetry::secrets::Secrets;

/// What does not change while an instance runs.
pub(super) struct Identity {
    pub(super) info: InstanceInfo,
    pub(super) config_dir: PathBuf,
    /// Whether the port was any free one.
    pub(super) random_port: bool,
    pub(super) started: (SystemTime, Instant),
}

/// The instance at this moment.
pub(super) fn status(
    identity: &Identity,
    gateways: &Gateways,
    statuses: &Statuses,
    problems: &reconciler::Problems,
    catalogue: &Catalogue,
    secrets: &Secrets,
) -> Status {
    let Identity { info, config_dir, random_port, started: (started_at, started) } = identity;
    let now = SystemTime::now();
    Status {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: info.url.clone(),
        random_port: *random_port,
        page_url: info.page_url(),
        pid: info.pid,
        started_at: seconds(*started_at),
        uptime_seconds: started.elapsed().as_secs(),
        config_dir: config_dir.clone(),
        runtime_dir: info.runtime_dir.clone(),
        token_file: info.token_file.clone(),
        gateway: gateway(gateways, secrets),
        servers: statuses.iter().map(|(name, status)| server(name, status, now)).collect(),
        problems: Problems {
            directory: problems.directory.clone(),
            files: problems.files.clone(),
            naming: catalogue.problems().iter().map(|problem| shown(&problem.to_string(), secrets)).collect(),
        },
    }
}

fn gateway(gateways: &Gateways, secrets: &Secrets) -> GatewayStatus {
    let info = gateways.info().borrow().clone();
    let state = gateways.state();
    let front = gateways.front().status().unwrap_or_default();
    let error = match &state {
        Some(State::Backoff { failure, .. } | State::Failed(failure)) => {
            Some(shown(&failure.report(), secrets))
        }
        _ => None,
    };
    let reload_error = front.failure.as_ref().map(|(_, error)| shown(&chain(error), secrets));
    GatewayStatus {
        mode: info.mode.to_owned(),
        version: info.version,
        reason: shown(&info.reason, secrets),
        state: state.as_ref().map(|state| state.name().to_owned()),
        error,
        pid: state.and_then(|state| state.pid()).unwrap_or_default(),
        ports: ports(info.ports),
        restarts: gateways.restarts(),
        swaps: gateways.swaps(),
        generation: front.in_force.map(|now| now.generation.to_string()),
        last_reload: front.changed.map(|at| Reload { at: seconds(at), error: reload_error }),
    }
}

/// `text` without what may be secret.
fn shown(text: &str, secrets: &Secrets) -> String {
    secrets.redact(text).into_owned()
}

fn ports(ports: PortsInfo) -> Option<Ports> {
    let PortsInfo { data, admin, stats, readiness } = ports;
    Some(Ports { data: data?, admin: admin?, stats: stats?, readiness: readiness? })
}

fn server(name: &ServerName, status: &ServerStatus, now: SystemTime) -> ServerEntry {
    let failures = status.state.next_try().map(|(failures, _)| failures);
    ServerEntry {
        name: name.to_string(),
        state: status.state.name().to_owned(),
        since: seconds(status.since),
        tools: status.tools,
        reason: status.state.reason().map(str::to_owned),
        failures,
        // A try that is due is due now.
        retry_in_seconds: status
            .next_try
            .map(|next| next.duration_since(now).unwrap_or_default().as_millis() as f64 / 1e3),
        stale: status.stale.clone(),
        last_error: status
            .last_error
            .as_ref()
            .map(|error| LastError { at: seconds(error.at), message: error.reason.clone() }),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
