//! `sidegate get`.

use std::process::ExitCode;

use serde_json::{Value, json};
use sidegate::admin::status::ServerEntry;
use sidegate::environment::Environment;
use sidegate::mcpserver::Entry;

use super::control::InstanceSelector;
use super::definitions::{Definitions, secret_names, unknown_server};
use super::output::{say, say_error};
use super::servers;
use super::words::{count, since};
use super::{Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate get time
  sidegate get time --output json

Values that may be secret are shown as ***.

Exit codes: 0 shown, 1 there is no such server, 3 its file is wrong, 5 no
instance runs in the runtime directory that was named.")]
pub(super) struct GetArguments {
    /// The server
    name: String,
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print it
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &GetArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let GetArguments { name, instance, output } = arguments;
    let status = super::runtime()?.block_on(instance.status_if_running(environment))?;
    let config_dir = match &status {
        Some(status) => status.config_dir.clone(),
        None => instance.config_dir(environment)?,
    };
    let definitions = Definitions::read(&config_dir, environment)?;
    let live = status.as_ref().and_then(|status| status.servers.iter().find(|server| server.name == *name));
    let entry = definitions.find(name);
    if entry.is_none() && live.is_none() {
        let running = status.iter().flat_map(|status| &status.servers).map(|server| server.name.as_str());
        let mut known: Vec<&str> = definitions.names().chain(running).collect();
        known.sort_unstable();
        known.dedup();
        return Err(unknown_server(name, known));
    }
    let names = secret_names(&config_dir, environment);
    let definition = entry.and_then(|entry| Some(entry.outcome.as_ref().ok()?.redacted(&names)));
    match output {
        OutputFormat::Json => say(&json(name, live, entry, definition.as_ref()).to_string())?,
        OutputFormat::Text => text(name, status.is_some(), live, entry, definition.as_ref())?,
    }
    match entry.map(|entry| &entry.outcome) {
        Some(Err(invalid)) => Err(Failure::text(Exit::Invalid, invalid.to_string())),
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn json(name: &str, live: Option<&ServerEntry>, entry: Option<&Entry>, definition: Option<&Value>) -> Value {
    let mistakes = entry.and_then(|entry| entry.outcome.as_ref().err()).map(|invalid| &invalid.mistakes[..]);
    json!({
        "schema": 1,
        "name": name,
        "file": entry.map(|entry| &entry.path),
        "valid": definition.is_some(),
        "mistakes": mistakes.unwrap_or_default(),
        "definition": definition,
        "status": live,
    })
}

fn text(
    name: &str,
    running: bool,
    live: Option<&ServerEntry>,
    entry: Option<&Entry>,
    definition: Option<&Value>,
) -> Result<(), Failure> {
    match live {
        Some(server) => {
            let tools = count(server.tools, "tool");
            say(&format!("{name}: {} for {}, {tools}", server.state, since(server.since)))?;
            // What is wrong with the file is said below, as it is now.
            for note in servers::notes(server).iter().filter(|_| definition.is_some()) {
                say(note)?;
            }
        }
        None if running => say(&format!("{name}: not known to the running instance yet"))?,
        None => say(&format!("{name}: not running, as no instance runs"))?,
    }
    match entry {
        Some(entry) => say(&format!("\n# {}", entry.path.display()))?,
        None => say_error("its file has gone"),
    }
    if let Some(definition) = definition {
        // Folded, a long path with a blank in it could be copied from nowhere.
        let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
        let yaml = serde_saphyr::to_string_with_options(definition, options)
            .map_err(|error| Failure::new(Exit::Failed, error))?;
        say(yaml.trim_end())?;
    }
    Ok(())
}
