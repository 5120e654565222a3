//! `sidegate status`.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;
use sidegate::environment::Environment;

use super::control::InstanceSelector;
use super::output::say;
use super::table::table;
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
    let status = arguments.instance.ask(environment, Method::GET, "/v1/status")?;
    match arguments.output {
        OutputFormat::Json => say(&status.to_string())?,
        OutputFormat::Text => say(&text(&status))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn text(status: &Value) -> String {
    let word = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let gateway = &status["gateway"];
    let mut lines = vec![
        format!("Endpoint: {} (process {})", word(&status["url"]), status["pid"]),
        format!(
            "Gateway: {} {} (process {}), {}",
            word(&gateway["mode"]),
            word(&gateway["version"]),
            gateway["pid"],
            word(&gateway["reason"])
        ),
        match gateway["generation"].as_str() {
            Some(generation) => format!("Generation in force: {generation}"),
            None => "Generation in force: none".to_owned(),
        },
    ];
    let servers = status["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if servers.is_empty() {
        lines.push("No servers are defined.".to_owned());
    } else {
        let rows = servers.iter().map(|server| {
            let reason = server["reason"].as_str().or(server["stale"].as_str()).unwrap_or_default();
            [
                word(&server["name"]),
                word(&server["state"]),
                server["tools"].to_string(),
                reason.replace('\n', "; "),
            ]
        });
        lines.push(format!("\n{}", table(["SERVER", "STATE", "TOOLS", ""], rows)));
    }
    lines.join("\n")
}
