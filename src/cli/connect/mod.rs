//! `sidegate connect`: what an MCP client has to be told.

mod clients;
mod edit;
mod file;
mod jsonc;
mod toml;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use sidegate::config::{Overrides, Settings};
use sidegate::environment::Environment;

use self::clients::{Client, Scope, Way};
use self::edit::Edit;
use super::control::InstanceSelector;
use super::mcp::{bearer_token, reachable};
use super::output::{say, say_error};
use super::own_path::own_path;
use super::{Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate connect claude           show what Claude Code has to be told
  sidegate connect cursor --write   write it into ~/.cursor/mcp.json
  sidegate connect vscode --write --scope project
  sidegate connect zed --stdio      a command to start, in place of an address

The address is that of the instance that runs, else the one where `sidegate
serve` would listen. With a token it is told the token; with --stdio it starts
`sidegate stdio`, which reads the token by itself.

--write changes this one entry of the file and nothing else, comments included,
and keeps the old file beside it as FILE.bak, then FILE.bak.1 and so on. A file
in which that cannot be done is left alone.

Exit codes: 0 shown, written, or there already; 1 failed or the file is left
alone; 2 wrong usage.")]
pub(super) struct ConnectArguments {
    /// The client
    #[arg(value_enum)]
    client: Client,
    /// Write it into the client's own file
    #[arg(long)]
    write: bool,
    /// Whose file: that of this user, or that of the project in this directory
    #[arg(long, value_enum, value_name = "SCOPE", default_value_t)]
    scope: Scope,
    /// Let the client start `sidegate stdio`, in place of calling an address
    #[arg(long)]
    stdio: bool,
    /// What the client calls it
    #[arg(long, value_name = "NAME", default_value = "sidegate", value_parser = name)]
    name: String,
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print what was done
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// A name that every client takes, and that TOML takes without quotes.
fn name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("use 1 to 64 letters, digits, '-' and '_'".to_owned())
    }
}

pub(super) fn run(arguments: &ConnectArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let ConnectArguments { client, name, .. } = arguments;
    let path = client.file(arguments.scope, environment).ok_or_else(|| no_file(arguments))?;
    let way = way(arguments, environment)?;
    if arguments.scope == Scope::Project && matches!(way, Way::Http { token: Some(_), .. }) {
        let message = "a token does not belong into a file of a project, which others get to see";
        return Err(Failure::text(Exit::Usage, message)
            .hint("use --stdio: `sidegate stdio` reads the token by itself"));
    }
    let entry = client.entry(&way);
    let written = if arguments.write { Some(write(*client, &path, name, &entry)?) } else { None };
    match arguments.output {
        OutputFormat::Json => {
            let (result, backup) = match &written {
                None => ("shown", None),
                Some(Written::Already) => ("unchanged", None),
                Some(Written::New { backup }) => ("written", backup.as_ref()),
            };
            let report = json!({
                "schema": 1, "client": client.name(), "file": path, "section": client.section(), "name": name,
                "entry": entry, "result": result, "backup": backup,
            });
            say(&report.to_string())?;
        }
        OutputFormat::Text => print(arguments, &path, &entry, written.as_ref())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn print(
    arguments: &ConnectArguments,
    path: &Path,
    entry: &Value,
    written: Option<&Written>,
) -> Result<(), Failure> {
    let (client, path) = (arguments.client, path.display());
    let writes_itself = client.writes_its_file(arguments.scope);
    match written {
        None => {
            say_error(&format!("{} reads {path}. What it has to have there:\n", client.name()));
            say(&client.shown(&arguments.name, entry))?;
            say_error(
                "\nThe same command with --write puts it there, and leaves the rest of the file as it is.",
            );
            if writes_itself {
                say_error(&format!(
                    "{} writes that file itself while it runs: close it before.",
                    client.name()
                ));
            }
        }
        Some(Written::Already) => say(&format!("{path} says so already"))?,
        Some(Written::New { backup }) => {
            say(&if writes_itself {
                format!(
                    "{0} finds it in {path} when it is started again. It writes that file itself while it runs: \
                     if it runs now, close it and type this once more",
                    client.name()
                )
            } else {
                format!(
                    "{} finds it in {path} now; restart it, or let it read its servers again",
                    client.name()
                )
            })?;
            if let Some(backup) = backup {
                say(&format!("What was there is kept as {}", backup.display()))?;
            }
        }
    }
    Ok(())
}

/// What the client is told.
fn way(arguments: &ConnectArguments, environment: &Environment) -> Result<Way, Failure> {
    let config_dir = arguments.instance.config_dir(environment)?;
    if arguments.stdio || arguments.client.is_stdio_only() {
        if !arguments.stdio {
            say_error(&format!("{} starts commands: it gets `sidegate stdio`.", arguments.client.name()));
        }
        let utf8 = |path: PathBuf| {
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| {
                Failure::text(Exit::Failed, format!("the path {} is not UTF-8", path.display()))
            })
        };
        let mut args = vec!["stdio".to_owned()];
        if arguments.instance.names_config_dir() {
            args.extend(["--config-dir".to_owned(), utf8(config_dir)?]);
        }
        let command = match arguments.scope {
            // Clients that are started from a desktop have another PATH than a shell has.
            Scope::User => utf8(own_path(environment)?)?,
            // Others have it elsewhere.
            Scope::Project => "sidegate".to_owned(),
        };
        return Ok(Way::Stdio { command, args });
    }
    let running = super::runtime()?.block_on(arguments.instance.status_if_running(environment))?;
    let (url, token_file) = match running {
        Some(status) => {
            if status.random_port {
                say_error(
                    "warning: the port of this instance is a random one, and the next instance has another: \
                     use --stdio, or start it with a fixed `listen`",
                );
            }
            (status.url, status.token_file)
        }
        None => {
            let settings = Settings::load(&config_dir, environment, &Overrides::default())
                .map_err(|error| Failure::text(Exit::Usage, error.to_string()))?;
            let address = settings.listen.value;
            if address.port() == 0 {
                let message = "no instance runs, and the next one will listen on any free port";
                return Err(Failure::text(Exit::Failed, message)
                    .hint("use --stdio, or set a fixed `listen` in config.yaml"));
            }
            let serve = arguments.instance.serve_command();
            say_error(&format!("No instance runs: this is where `{serve}` will listen."));
            (format!("http://{address}/mcp"), settings.aggregator.token_file.value)
        }
    };
    let token = token_file.filter(|file| file.exists()).map(|file| bearer_token(&file)).transpose()?;
    Ok(Way::Http { url: reachable(&url)?.to_string(), token })
}

enum Written {
    Already,
    New { backup: Option<PathBuf> },
}

fn write(client: Client, path: &Path, name: &str, entry: &Value) -> Result<Written, Failure> {
    let shown = path.display();
    let left_alone = |why: String| {
        Failure::text(Exit::Failed, format!("{shown} is left as it is: {why}"))
            .hint("without --write the command shows what to put there")
    };
    let failed =
        |error: std::io::Error| Failure::text(Exit::Failed, format!("{shown} cannot be changed: {error}"));
    let old = file::read(path).map_err(failed)?;
    let set = if client.is_toml() { toml::set } else { jsonc::set };
    match set(old.as_deref().unwrap_or_default(), client.section(), name, entry) {
        Err(refusal) => Err(left_alone(refusal.to_string())),
        Ok(Edit::Unchanged) => Ok(Written::Already),
        Ok(Edit::Changed(new)) => {
            let backup = file::replace(path, old.as_deref(), &new).map_err(failed)?;
            Ok(Written::New { backup })
        }
    }
}

fn no_file(arguments: &ConnectArguments) -> Failure {
    match arguments.scope {
        Scope::Project => {
            let message = format!("{} has no file for a project", arguments.client.name());
            Failure::text(Exit::Usage, message).hint("leave --scope out")
        }
        Scope::User => {
            let message = format!(
                "where {}'s file is cannot be said: HOME is not set to an absolute path",
                arguments.client.name()
            );
            Failure::text(Exit::Usage, message).hint("set HOME, or use --scope project")
        }
    }
}
