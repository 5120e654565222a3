//! `sidegate version`.

use std::process::ExitCode;

use serde_json::json;
use sidegate::binary_resolver::DEFAULT_VERSION;

use super::output::say;
use super::{Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sidegate version --output json")]
pub(super) struct VersionArguments {
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &VersionArguments) -> Result<ExitCode, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let agentgateway = DEFAULT_VERSION.to_string();
    match arguments.output {
        OutputFormat::Text => say(&format!("sidegate {version} (agentgateway {agentgateway})"))?,
        OutputFormat::Json => {
            say(&json!({"schema": 1, "version": version, "agentgateway": agentgateway}).to_string())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
