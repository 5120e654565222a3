//! `sidegate status`.

use std::process::ExitCode;

use http::Method;
use sidegate::admin::status::{GatewayStatus, Status};
use sidegate::environment::Environment;

use super::control::InstanceSelector;
use super::output::say;
use super::servers;
use super::table::pairs;
use super::words::{count, duration, since};
use super::{Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  sidegate status --output json\n\nExit codes: 0 it runs, 1 failed, 5 no instance runs."
)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &StatusArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    match arguments.output {
        // As the instance says it, also what this version does not know.
        OutputFormat::Json => {
            say(&arguments.instance.ask(environment, Method::GET, "/v1/status")?.to_string())?;
        }
        OutputFormat::Text => {
            say(&text(&super::runtime()?.block_on(arguments.instance.status(environment))?))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Status) -> String {
    let mut lines = vec![
        ("Endpoint", status.url.clone()),
        ("Page", status.page_url.clone()),
        (
            "Sidegate",
            format!("{}, process {}, up {}", status.version, status.pid, duration(status.uptime_seconds)),
        ),
        ("Config", status.config_dir.display().to_string()),
        ("Runtime", status.runtime_dir.display().to_string()),
    ];
    if let Some(file) = &status.token_file {
        lines.push(("Token", file.display().to_string()));
    }
    lines.extend(gateway(&status.gateway));
    let mut sections = vec![pairs(lines)];
    let problems: Vec<&str> = (status.problems.directory.iter())
        .chain(&status.problems.files)
        .chain(&status.problems.naming)
        .map(String::as_str)
        .collect();
    if !problems.is_empty() {
        sections.push(format!("Problems:\n  {}", problems.join("\n").replace('\n', "\n  ")));
    }
    sections.push(match status.servers.as_slice() {
        [] => "No servers are defined.".to_owned(),
        servers => servers::text(servers),
    });
    sections.join("\n\n")
}

fn gateway(gateway: &GatewayStatus) -> Vec<(&'static str, String)> {
    let what = match &gateway.version {
        Some(version) => format!("{} {version}, {}", gateway.mode, gateway.reason),
        None => format!("{}, {}", gateway.mode, gateway.reason),
    };
    // One that runs elsewhere has no process, no ports and no generation here.
    let (Some(state), Some(ports)) = (&gateway.state, &gateway.ports) else {
        return vec![("Gateway", what)];
    };
    let mut state = state.clone();
    if gateway.pid != 0 {
        state.push_str(&format!(", process {}", gateway.pid));
    }
    for (number, what) in [(gateway.restarts, "restart"), (u64::from(gateway.swaps), "swap")] {
        if number > 0 {
            state.push_str(&format!(", {}", count(usize::try_from(number).unwrap_or(usize::MAX), what)));
        }
    }
    if let Some(error) = &gateway.error {
        state.push_str(&format!("\n{error}"));
    }
    let mut lines = vec![
        ("Gateway", format!("{what}\n{state}")),
        (
            "Ports",
            format!(
                "data {}, admin {}, stats {}, readiness {}",
                ports.data, ports.admin, ports.stats, ports.readiness
            ),
        ),
        ("Generation", gateway.generation.clone().unwrap_or_else(|| "none is in force".to_owned())),
    ];
    if let Some(reload) = &gateway.last_reload {
        let ago = since(reload.at);
        lines.push((
            "Reloaded",
            match &reload.error {
                None => format!("{ago} ago, in force"),
                Some(error) => format!("{ago} ago, not in force: {error}"),
            },
        ));
    }
    lines
}
