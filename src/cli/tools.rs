//! `sidegate tools`.

use std::process::ExitCode;

use serde_json::{Value, json};
use sidegate::admin::status::{ServerEntry, Status};
use sidegate::environment::Environment;
use sidegate::glob::Glob;
use sidegate::wire::schema::Wanted;

use super::control::InstanceSelector;
use super::mcp::McpClient;
use super::output::{say, say_error};
use super::servers::note;
use super::table::table;
use super::words::similar;
use super::{Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate tools
  sidegate tools 'x_time_*'
  sidegate tools x_time_convert      with its description and its arguments

In a pattern * stands for any text, ? for one character, [a-c] for one of some.

Exit codes: 0 listed, 1 failed or there is no such tool, 2 the pattern is wrong,
5 no instance runs.")]
pub(super) struct ToolsArguments {
    /// Which tools, by their exposed names [default: all]
    glob: Option<Glob>,
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &ToolsArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let (status, tools) = super::runtime()?.block_on(async {
        let status = arguments.instance.status(environment).await?;
        let client = McpClient::connect(&status).await?;
        let tools = client.tools().await;
        client.close().await;
        Ok::<_, Failure>((status, tools?))
    })?;
    let wanted = |tool: &&Value| arguments.glob.as_ref().is_none_or(|glob| glob.matches(name(tool)));
    let found: Vec<&Value> = tools.iter().filter(wanted).collect();
    if arguments.output == OutputFormat::Json {
        say(&json!({"schema": 1, "tools": found}).to_string())?;
    }
    match (found.as_slice(), &arguments.glob) {
        ([], Some(glob)) => {
            let wanted = glob.to_string();
            let part = glob.is_literal() && tools.iter().any(|tool| name(tool).contains(&wanted));
            let failure = unknown_tool(&wanted, &tools, &status);
            return Err(match part {
                true => failure.hint(format!("for a part of a name write `sidegate tools '*{wanted}*'`")),
                false => failure,
            });
        }
        ([], None) if arguments.output == OutputFormat::Text => {
            say_error("There are no tools.");
            say_not_running(&status);
        }
        ([tool], Some(glob)) if glob.is_literal() && arguments.output == OutputFormat::Text => {
            say(&described(tool))?;
        }
        _ if arguments.output == OutputFormat::Text => {
            let rows = found.iter().map(|tool| [name(tool).to_owned(), summary(tool)]);
            say(&table(["TOOL", "DESCRIPTION"], rows))?;
            if arguments.glob.is_none() {
                say_not_running(&status);
            }
        }
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The exposed name of a tool.
pub(super) fn name(tool: &Value) -> &str {
    tool["name"].as_str().unwrap_or_default()
}

/// There is no tool `wanted`; which one was meant, and may it belong to a server that does not run?
pub(super) fn unknown_tool(wanted: &str, tools: &[Value], status: &Status) -> Failure {
    let failure = Failure::text(Exit::Failed, format!("there is no tool {wanted:?}"));
    // The names of a server's tools usually hold its own.
    let silent = |server: &&ServerEntry| server.tools == 0 && wanted.contains(&server.name);
    if let Some(server) = status.servers.iter().filter(silent).max_by_key(|server| server.name.len()) {
        return failure.hint(why_silent(server));
    }
    if let Some(similar) = similar(wanted, tools.iter().map(name)) {
        return failure.hint(format!("did you mean {similar:?}?"));
    }
    match not_running(status) {
        Some(servers) => failure.hint(format!("servers without tools: {servers}; see `sidegate status`")),
        None => failure.hint("see `sidegate tools`"),
    }
}

/// Why a server has no tools, and what to do.
fn why_silent(server: &ServerEntry) -> String {
    let ServerEntry { name, state, .. } = server;
    match &server.reason {
        Some(reason) => note(&format!("{name} is {state}"), reason),
        None if ["stopped", "disconnected"].contains(&&**state) => {
            format!("{name} is {state}: `sidegate start {name}` starts it")
        }
        None => format!("{name} is {state}; see `sidegate get {name}`"),
    }
}

fn say_not_running(status: &Status) {
    if let Some(servers) = not_running(status) {
        say_error(&format!("Servers without tools: {servers}"));
    }
}

fn not_running(status: &Status) -> Option<String> {
    let resting = status.servers.iter().filter(|server| server.tools == 0);
    let names: Vec<String> = resting.map(|server| format!("{} ({})", server.name, server.state)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

/// The first line of the description.
fn summary(tool: &Value) -> String {
    let text = tool["description"].as_str().or(tool["title"].as_str()).unwrap_or_default();
    text.trim().lines().next().unwrap_or_default().to_owned()
}

/// Everything that somebody needs to know to call it.
fn described(tool: &Value) -> String {
    let mut text = name(tool).to_owned();
    if let Some(description) = tool["description"].as_str().filter(|text| !text.trim().is_empty()) {
        text.push_str(&format!("\n\n{}", description.trim()));
    }
    let schema = &tool["inputSchema"];
    let Some(properties) = schema["properties"].as_object().filter(|properties| !properties.is_empty())
    else {
        return text + "\n\nIt takes no arguments.";
    };
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let rows = properties.iter().map(|(name, property)| {
        let needed = if required.contains(&name.as_str()) { "required" } else { "" };
        [name.clone(), Wanted::of(property, schema).describe(), needed.to_owned(), summary(property)]
    });
    text + "\n\n" + &table(["ARGUMENT", "TYPE", "", "DESCRIPTION"], rows)
}
