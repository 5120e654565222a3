//! `sidegate remove`.

use std::process::ExitCode;

use serde_json::json;
use sidegate::environment::Environment;
use sidegate::mcpserver::{EditError, ServerName};

use super::definitions::{Definitions, unknown_server};
use super::output::say;
use super::writing::{failure, open};
use super::{ConfigDir, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidegate remove time

Of a symbolic link the link is removed, not the file that it leads to.

Exit codes: 0 removed, 1 there is none, or it failed.")]
pub(super) struct RemoveArguments {
    /// The server's name
    name: ServerName,
    #[command(flatten)]
    config_dir: ConfigDir,
    /// How to print what was done
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &RemoveArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let definitions = open(&arguments.config_dir, environment)?;
    let path = definitions.delete(&arguments.name).map_err(|error| match error {
        EditError::NotFound { name } => match known(arguments, environment) {
            Ok(known) => unknown_server(name.as_str(), known.names()),
            Err(failure) => failure,
        },
        error => failure(error),
    })?;
    match arguments.output {
        OutputFormat::Json => {
            say(&json!({"schema": 1, "name": arguments.name.as_str(), "path": path}).to_string())?;
        }
        OutputFormat::Text => {
            say(&format!("Removed the MCP server '{}': {}", arguments.name, path.display()))?;
            say("A running instance stops it by itself.")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn known(arguments: &RemoveArguments, environment: &Environment) -> Result<Definitions, Failure> {
    Definitions::read(&arguments.config_dir.resolve(environment)?, environment)
}
