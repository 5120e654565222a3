//! The instance that runs, and what instances have left behind.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroU16;
use std::path::Path;

use http::Method;
use sidegate::admin::control::{ControlError, SOCKET, ask};
use sidegate::admin::status::{ServerEntry, Status};
use sidegate::config::{Settings, keys};
use sidegate::ports::describe_holder;

use super::super::control::{beside, status_in};
use super::super::words::{count, duration};
use super::super::{Exit, Failure};
use super::Finding;

/// What was found out about the instance in question.
pub(super) struct Running {
    pub(super) status: Option<Status>,
    pub(super) findings: Vec<Finding>,
}

/// The instance in `runtime_dir`, its gateway and its servers.
pub(super) async fn instance(runtime_dir: &Path) -> Result<Running, Failure> {
    let status = match status_in(runtime_dir).await {
        Ok(status) => status,
        Err(failure) if failure.exit == Exit::NoInstance => {
            let left = runtime_dir.join(SOCKET).exists();
            let finding = if left {
                let message = "none runs; the last one was killed, and has left files behind";
                Finding::warning("instance", message, "`sidegate serve` removes them")
            } else {
                Finding::ok("instance", "none runs")
            };
            return Ok(Running { status: None, findings: vec![finding] });
        }
        Err(failure) => {
            let advice = "restart the instance";
            let findings = vec![Finding::problem("instance", failure.message, advice)];
            return Ok(Running { status: None, findings });
        }
    };
    let up = duration(status.uptime_seconds);
    let mut findings =
        vec![Finding::ok("instance", format!("{} (process {}), up {up}", status.url, status.pid))];
    findings.extend(gateway(&status));
    findings.extend(status.servers.iter().filter_map(server));
    if let Some(problem) = &status.problems.directory {
        findings.push(Finding::problem(
            "definitions",
            problem,
            "everything stays as it was until it can be read",
        ));
    }
    let naming = status.problems.naming.iter();
    findings.extend(naming.map(|problem| {
        Finding::warning("names of tools", problem, "set toolPrefix in one of the definitions")
    }));
    Ok(Running { status: Some(status), findings })
}

fn gateway(status: &Status) -> Vec<Finding> {
    let gateway = &status.gateway;
    let subject = "gateway";
    let logs = "see `sidegate logs gateway`";
    // One that runs elsewhere has no process here to be asked about.
    let Some(state) = &gateway.state else {
        return vec![Finding::ok(subject, format!("{}, {}", gateway.mode, gateway.reason))];
    };
    let mut findings = Vec::new();
    let reload_error = gateway.last_reload.as_ref().and_then(|reload| reload.error.as_ref());
    if state != "ready" {
        let why = gateway.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
        findings.push(Finding::problem(subject, format!("{state}{why}"), logs));
    } else if gateway.generation.is_none() {
        findings.push(Finding::problem(subject, "no configuration is in force", logs));
    } else {
        let version = gateway.version.as_deref().unwrap_or_default();
        let what = format!("{} {version} (process {}) is ready", gateway.mode, gateway.pid);
        findings.push(Finding::ok(subject, what));
    }
    if let Some(error) = reload_error {
        findings.push(Finding::problem(subject, format!("its last reload failed: {error}"), logs));
    }
    if gateway.restarts > 0 {
        let times = count(usize::try_from(gateway.restarts).unwrap_or(usize::MAX), "time");
        findings.push(Finding::warning(subject, format!("it had to be started again {times}"), logs));
    }
    findings
}

fn server(server: &ServerEntry) -> Option<Finding> {
    let subject = format!("server {}", server.name);
    let advice = format!("see `sidegate get {}`", server.name);
    if let Some(stale) = &server.stale {
        let message = format!("it stays as it was before its file became wrong: {stale}");
        return Some(Finding::problem(subject, message, "mend the file"));
    }
    match (server.state.as_str(), &server.reason) {
        // The files are looked at below.
        ("invalid", Some(reason)) if reason.contains(".yaml:") || reason.contains(".yml:") => None,
        (state, Some(reason)) => Some(Finding::problem(subject, format!("{state}: {reason}"), advice)),
        (_, None) => None,
    }
}

/// Whether the ports that are set can be listened on; those of our own instance are.
pub(super) fn ports(settings: &Settings, status: Option<&Status>) -> Vec<Finding> {
    let listen = settings.listen.value;
    let ours = |port: u16| {
        status.is_some_and(|status| {
            let own = status
                .gateway
                .ports
                .is_some_and(|ports| [ports.data, ports.admin, ports.stats, ports.readiness].contains(&port));
            own || status.url.contains(&format!(":{port}/"))
        })
    };
    let mut wanted: Vec<(&str, SocketAddr, &str)> = vec![(keys::LISTEN.path, listen, "--listen")];
    let gateway = &settings.gateway.ports;
    for (key, port) in [
        (keys::GATEWAY_PORTS_DATA, gateway.data.value),
        (keys::GATEWAY_PORTS_ADMIN, gateway.admin.value),
        (keys::GATEWAY_PORTS_STATS, gateway.stats.value),
        (keys::GATEWAY_PORTS_READINESS, gateway.readiness.value),
    ] {
        let address = port.map(NonZeroU16::get).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        wanted.extend(address.map(|address| (key.path, address, key.path)));
    }
    wanted.into_iter().map(|(subject, address, setting)| port(subject, address, setting, &ours)).collect()
}

fn port(subject: &str, address: SocketAddr, setting: &str, ours: &dyn Fn(u16) -> bool) -> Finding {
    if address.port() == 0 {
        return Finding::ok(subject, "any free port is taken");
    }
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(subject, format!("{address} is free")),
        Err(_) if ours(address.port()) => {
            Finding::ok(subject, format!("{address} is the running instance's"))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            let holder = describe_holder(address).map(|holder| format!(" by {holder}")).unwrap_or_default();
            Finding::problem(
                subject,
                format!("{address} is taken{holder}"),
                format!("stop that process, or choose another with {setting}; 0 takes any free one"),
            )
        }
        Err(error) => {
            let message = format!("{address} cannot be listened on: {error}");
            Finding::problem(subject, message, format!("choose another with {setting}"))
        }
    }
}

/// Other runtime directories beside this one, and what of them nobody uses any more.
pub(super) async fn others(runtime_dir: &Path) -> Vec<Finding> {
    let mut stale = Vec::new();
    let mut findings = Vec::new();
    for directory in &beside(runtime_dir) {
        match ask(directory, Method::GET, "/v1/status").await {
            Ok(_) => {
                findings.push(Finding::ok("other instances", format!("one runs in {}", directory.display())))
            }
            Err(ControlError::NotRunning { .. }) => stale.push(directory.display().to_string()),
            Err(error) => findings.push(Finding::warning(
                "other instances",
                format!("one in {} does not answer: {error}", directory.display()),
                "restart it",
            )),
        }
    }
    if !stale.is_empty() {
        let message = format!("left by instances that were killed: {}", stale.join(", "));
        findings.push(Finding::warning(
            "runtime directories",
            message,
            "remove them, unless you want to start those instances again",
        ));
    }
    findings
}
