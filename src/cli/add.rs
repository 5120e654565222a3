//! `sidegate add`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{ArgGroup, ValueEnum};
use serde_json::{Map, Value, json};
use sidegate::environment::Environment;
use sidegate::mcpserver::ServerName;

use super::output::say;
use super::writing::{failure, how_to_see, open, ourselves, warn_of_unset};
use super::{ConfigDir, Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(group = ArgGroup::new("how").required(true).args(["url", "command"]))]
#[command(
    override_usage = "sidegate add [OPTIONS] <NAME> --url <URL>\n       sidegate add [OPTIONS] <NAME> -- <CMD>..."
)]
#[command(after_help = "Examples:
  sidegate add time -- uvx mcp-server-time
  sidegate add docs --url https://docs.example.com/mcp \\
    --header 'Authorization=Bearer ${DOCS_TOKEN}'

${VAR} and ${VAR:-default} are put in when the definition is read, $$ is a
dollar. A definition that is there is never overwritten.

Exit codes: 0 added, 1 failed, 2 wrong usage, 3 it would be no definition.")]
pub(super) struct AddArguments {
    /// The server's name: 1 to 63 of a-z, 0-9 and '-'
    name: ServerName,
    /// The endpoint of a server that is reached over HTTP
    #[arg(long)]
    url: Option<String>,
    /// How to speak with it [default: streamable-http]
    #[arg(long = "type", value_enum, value_name = "TYPE", conflicts_with = "command")]
    kind: Option<Remote>,
    /// A header of every request, K=V or 'K: V'; may be repeated
    #[arg(long = "header", value_name = "K=V", conflicts_with = "command", value_parser = header)]
    headers: Vec<(String, String)>,
    /// A variable for the command; may be repeated
    #[arg(long = "env", value_name = "K=V", conflicts_with = "url", value_parser = variable)]
    env: Vec<(String, String)>,
    /// Where the command runs [default: the config dir; here, if CMD is a relative path]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    cwd: Option<PathBuf>,
    /// What it is for, up to 500 characters
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// What stands in tool names in place of the server's name
    #[arg(long, value_name = "PREFIX")]
    tool_prefix: Option<String>,
    #[command(flatten)]
    config_dir: ConfigDir,
    /// How to print what was done
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
    /// The command that speaks MCP on stdin and stdout, and its arguments
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Remote {
    /// Streamable HTTP.
    #[value(alias = "http")]
    StreamableHttp,
    /// HTTP with server-sent events, as of MCP 2024-11-05.
    Sse,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() { Err("write NAME=VALUE".to_owned()) } else { Ok((name.to_owned(), value.to_owned())) }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(['=', ':']).ok_or("write NAME=VALUE")?;
    let name = name.trim();
    if name.is_empty() {
        Err("write NAME=VALUE".to_owned())
    } else {
        Ok((name.to_owned(), value.trim().to_owned()))
    }
}

pub(super) fn run(arguments: &AddArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let definitions = open(&arguments.config_dir, environment)?;
    let spec = spec(arguments)?;
    if ourselves(&arguments.config_dir, environment)?.is(&spec) {
        let message = "this server is Sidegate itself, which would offer its own tools as those of a server";
        return Err(Failure::text(Exit::Failed, message)
            .hint("another instance is named by its own address, or by `sidegate stdio --config-dir DIR`"));
    }
    let (definitions, unset) = definitions.assuming_variables(&arguments.name, &spec);
    let written = definitions.create(&arguments.name, &spec).map_err(failure)?;
    match arguments.output {
        OutputFormat::Json => {
            let name = arguments.name.as_str();
            say(&json!({"schema": 1, "name": name, "path": written.path, "unsetVariables": unset})
                .to_string())?;
        }
        OutputFormat::Text => {
            say(&format!("Added the MCP server '{}': {}", arguments.name, written.path.display()))?;
            say(&how_to_see(&arguments.config_dir))?;
            warn_of_unset(&unset);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn spec(arguments: &AddArguments) -> Result<Value, Failure> {
    let mut spec = Map::new();
    let mut set = |key: &str, value: Value| drop(spec.insert(key.to_owned(), value));
    if let Some(url) = &arguments.url {
        let kind = match arguments.kind {
            Some(Remote::Sse) => "sse",
            Some(Remote::StreamableHttp) | None => "streamable-http",
        };
        set("type", kind.into());
        set("url", url.as_str().into());
        if !arguments.headers.is_empty() {
            set("headers", object("--header", &arguments.headers)?);
        }
    } else if let Some((command, args)) = arguments.command.split_first() {
        set("type", "stdio".into());
        set("command", command.as_str().into());
        if !args.is_empty() {
            set("args", args.into());
        }
        if !arguments.env.is_empty() {
            set("env", object("--env", &arguments.env)?);
        }
        if let Some(cwd) = cwd(arguments.cwd.as_deref(), command)? {
            set("cwd", cwd.into());
        }
    }
    if let Some(description) = &arguments.description {
        set("description", description.as_str().into());
    }
    if let Some(prefix) = &arguments.tool_prefix {
        set("toolPrefix", prefix.as_str().into());
    }
    Ok(Value::Object(spec))
}

fn object(flag: &str, entries: &[(String, String)]) -> Result<Value, Failure> {
    let mut object = Map::new();
    for (name, value) in entries {
        if object.insert(name.clone(), value.as_str().into()).is_some() {
            return Err(Failure::text(Exit::Usage, format!("{flag} {name} is given twice")));
        }
    }
    Ok(Value::Object(object))
}

/// What is relative on a command line is meant from here, not from the configuration directory.
fn cwd(given: Option<&Path>, command: &str) -> Result<Option<String>, Failure> {
    let here = match given {
        Some(directory) => directory,
        None if command.contains('/') && Path::new(command).is_relative() && !command.starts_with('$') => {
            Path::new(".")
        }
        None => return Ok(None),
    };
    let absolute = std::path::absolute(here)?.components().collect::<PathBuf>();
    match absolute.to_str() {
        Some(text) => Ok(Some(text.replace('$', "$$"))),
        None => Err(Failure::text(Exit::Usage, format!("the directory {} is not UTF-8", absolute.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_split_once() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(variable("A=b=c"), pair("A", "b=c"));
        assert_eq!(variable("A="), pair("A", ""));
        assert!(variable("A").is_err() && variable("=b").is_err());
        assert_eq!(header("Authorization: Bearer a=b"), pair("Authorization", "Bearer a=b"));
        assert_eq!(header("X=a: b"), pair("X", "a: b"));
        assert!(header("X").is_err() && header(": b").is_err());
    }
}
