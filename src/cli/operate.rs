//! `sidegate start`, `stop` and `restart`.

use std::process::ExitCode;

use http::Method;
use sidegate::environment::Environment;
use sidegate::mcpserver::ServerName;

use super::control::InstanceSelector;
use super::output::say;
use super::{Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Returns when the new state is in force.

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
    let result = arguments.instance.ask(environment, Method::POST, &path)?;
    match arguments.output {
        OutputFormat::Json => say(&result.to_string())?,
        OutputFormat::Text => say(result["message"].as_str().unwrap_or_default())?,
    }
    Ok(ExitCode::SUCCESS)
}
