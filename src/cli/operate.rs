//! `sidegate start`, `stop` and `restart`.

use std::process::ExitCode;

use http::Method;
use sidegate::admin::status::Status;
use sidegate::environment::Environment;
use sidegate::mcpserver::ServerName;

use super::control::InstanceSelector;
use super::output::say;
use super::words::similar;
use super::{Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidegate stop time && sidegate start time

Returns when the new state is in force.

Exit codes: 0 done, or so already; 1 failed; 5 no instance runs.")]
pub(super) struct OperateArguments {
    /// Name of the server
    #[arg(value_name = "NAME")]
    server: ServerName,
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print the result
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(
    arguments: &OperateArguments,
    action: &str,
    environment: &Environment,
) -> Result<ExitCode, Failure> {
    let path = format!("/v1/servers/{}/{action}", arguments.server);
    let waiting = |status: Option<Status>| waiting(arguments.server.as_str(), action, status.as_ref());
    let result = match arguments.instance.ask_patiently(environment, Method::POST, &path, waiting) {
        Err(failure) if failure.message.ends_with("not found") => {
            // The words of the management tools are others.
            let message = format!("there is no server {:?}", arguments.server.as_str());
            return Err(with_guess(Failure { message, ..failure }, arguments, environment));
        }
        result => result?,
    };
    match arguments.output {
        OutputFormat::Json => say(&result.to_string())?,
        OutputFormat::Text => say(result["message"].as_str().unwrap_or_default())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is waited for, and what keeps it.
fn waiting(server: &str, action: &str, status: Option<&Status>) -> String {
    let mut text = match action {
        "stop" => format!("waiting until nothing of {server} is left"),
        _ => format!("waiting until {server} can be called"),
    };
    let gateway = status.and_then(|status| status.gateway.state.as_deref());
    let known = status.and_then(|status| status.servers.iter().find(|entry| entry.name == server));
    match (gateway, known) {
        (Some(state), _) if state != "ready" => text.push_str(&format!("; the gateway is {state}")),
        (_, Some(entry)) if action != "stop" => {
            text.push_str(&format!("; it is {}", entry.state));
            if let Some(reason) = &entry.reason {
                text.push_str(&format!(": {reason}"));
            }
        }
        _ => {}
    }
    text
}

/// A server that is not known, and which one may be meant.
fn with_guess(failure: Failure, arguments: &OperateArguments, environment: &Environment) -> Failure {
    // Only for the hint: that there is no such server was said already.
    let status =
        super::runtime().and_then(|runtime| runtime.block_on(arguments.instance.status(environment)));
    let Ok(status) = status else { return failure };
    // One whose file has just been removed may still be shown.
    let names = status.servers.iter().map(|server| server.name.as_str());
    let names = names.filter(|name| *name != arguments.server.as_str());
    match similar(arguments.server.as_str(), names) {
        Some(similar) => failure.hint(format!("did you mean {similar:?}?")),
        None => failure.hint("see `sidegate list`"),
    }
}
