//! `sidegate list`.

use std::process::ExitCode;

use serde_json::{Value, json};
use sidegate::environment::Environment;

use super::control::InstanceSelector;
use super::definitions::Definitions;
use super::output::{say, say_error};
use super::servers;
use super::table::table;
use super::{Failure, OutputFormat};

/// The state of a server where no instance runs.
const NOT_RUNNING: &str = "not_running";

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate list
  sidegate list --output json

Without a running instance the servers are those of the definition files, and
none of them runs.

Exit codes: 0 listed, 1 failed, 5 no instance runs in the runtime directory that
was named.")]
pub(super) struct ListArguments {
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &ListArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let status = super::runtime()?.block_on(arguments.instance.status_if_running(environment))?;
    match status {
        Some(status) => match arguments.output {
            OutputFormat::Json => {
                let servers = json!({"schema": 1, "running": true, "servers": status.servers});
                say(&servers.to_string())?;
            }
            OutputFormat::Text if status.servers.is_empty() => {
                say_error(&format!(
                    "no servers are defined in {}",
                    status.config_dir.join("mcpservers").display()
                ));
            }
            OutputFormat::Text => say(&servers::text(&status.servers))?,
        },
        None => offline(arguments, environment)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn offline(arguments: &ListArguments, environment: &Environment) -> Result<(), Failure> {
    let definitions = Definitions::read(&arguments.instance.config_dir(environment)?, environment)?;
    let servers: Vec<Offline> = definitions.entries.iter().map(Offline::of).collect();
    if arguments.output == OutputFormat::Json {
        let servers: Vec<Value> = servers.iter().map(Offline::json).collect();
        say(&json!({"schema": 1, "running": false, "servers": servers}).to_string())?;
        return Ok(());
    }
    if servers.is_empty() {
        say_error(&format!("no servers are defined in {}", definitions.directory.display()));
    } else {
        let rows = servers.iter().map(|server| [server.name.clone(), server.state.replace('_', " ")]);
        say(&table(["SERVER", "STATE"], rows))?;
        for server in &servers {
            if let Some(reason) = &server.reason {
                say_error(&servers::note(&format!("{} is {}", server.name, server.state), reason));
            }
        }
    }
    say_error(&format!(
        "No instance runs: this is what the files say. Start one with `{}`.",
        arguments.instance.serve_command()
    ));
    Ok(())
}

/// A server of which only the file is known.
struct Offline {
    name: String,
    file: String,
    state: &'static str,
    reason: Option<String>,
}

impl Offline {
    fn of(entry: &sidegate::mcpserver::Entry) -> Self {
        let file = entry.path.display().to_string();
        Self {
            // A file whose name is no server's stands for itself.
            name: entry.name.as_ref().map_or_else(
                || entry.path.file_name().unwrap_or_default().display().to_string(),
                ToString::to_string,
            ),
            state: if entry.outcome.is_ok() { NOT_RUNNING } else { "invalid" },
            reason: entry.outcome.as_ref().err().map(ToString::to_string),
            file,
        }
    }

    /// In the shape of a running one, as far as it goes.
    fn json(&self) -> Value {
        let mut value = json!({"name": self.name, "state": self.state, "file": self.file});
        if let Some(reason) = &self.reason {
            value["reason"] = reason.as_str().into();
        }
        value
    }
}
