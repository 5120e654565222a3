//! `sidegate call`.

mod arguments;
mod result;

use std::cell::RefCell;
use std::io::Read as _;
use std::process::ExitCode;

use serde_json::{Map, Value};
use sidegate::environment::Environment;

use self::arguments::Argument;
use super::control::InstanceSelector;
use super::mcp::{McpClient, Outcome};
use super::output::{say, say_error};
use super::signals::Signals;
use super::tools::{self, unknown_tool};
use super::waiting::patiently;
use super::{Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate call x_example_calculate --arg expression='2*(3+4)'
  sidegate call x_time_now --json '{\"zone\": \"Europe/Berlin\"}'
  echo '{\"zone\": \"UTC\"}' | sidegate call x_time_now --json -

A value of --arg is read as the type that the tool asks for: a text as it is,
numbers, true and false, everything else as JSON. `sidegate tools TOOL` shows a
tool's arguments. Ctrl-C cancels the call.

Exit codes: 0 called, 1 the tool or the call failed, 2 wrong arguments, 5 no
instance runs, 130 cancelled.")]
pub(super) struct CallArguments {
    /// The tool, by its exposed name
    tool: String,
    /// An argument for the tool; may be repeated
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    arguments: Vec<Argument>,
    /// All arguments as a JSON object; - reads it from stdin
    #[arg(long, value_name = "TEXT", conflicts_with = "arguments")]
    json: Option<String>,
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print the result; json is the tool's own
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &CallArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let given = arguments.json.as_deref().map(object).transpose()?;
    let outcome = super::runtime()?.block_on(call(arguments, given, environment))?;
    let Outcome::Result(raw) = outcome else {
        return Err(Failure::text(Exit::Interrupted, "the call was cancelled"));
    };
    let result: Value = serde_json::from_str(&raw)
        .map_err(|error| Failure::text(Exit::Failed, format!("the result cannot be read: {error}")))?;
    let failed = result["isError"] == true;
    match (arguments.output, failed) {
        (OutputFormat::Json, _) => say(&raw)?,
        (OutputFormat::Text, false) => say(&result::text(&result))?,
        (OutputFormat::Text, true) => {
            say_error(&format!("error: the tool failed: {}", result::text(&result)))
        }
    }
    if failed { Err(Failure::silent(Exit::Failed)) } else { Ok(ExitCode::SUCCESS) }
}

async fn call(
    arguments: &CallArguments,
    given: Option<Map<String, Value>>,
    environment: &Environment,
) -> Result<Outcome, Failure> {
    let mut signals = Signals::new()?;
    let status = arguments.instance.status(environment).await?;
    let client = McpClient::connect(&status).await?;
    let calling = async {
        let tools = client.tools().await?;
        let tool = tools.iter().find(|tool| tools::name(tool) == arguments.tool);
        let tool = tool.ok_or_else(|| unknown_tool(&arguments.tool, &tools, &status))?;
        let values = match given {
            Some(values) => values,
            None => arguments::typed(&arguments.arguments, tool)?,
        };
        let interrupt = async {
            signals.next().await;
        };
        let told = RefCell::new(format!("waiting for {}", arguments.tool));
        let on_progress = |progress: &Value| {
            *told.borrow_mut() = format!("{}: {}", arguments.tool, result::progress(progress));
        };
        let values = Value::Object(values);
        let calling = client.call(&arguments.tool, &values, interrupt, on_progress);
        patiently(calling, async || told.borrow().clone()).await
    };
    let outcome = calling.await;
    client.close().await;
    outcome
}

/// The arguments as one JSON object.
fn object(text: &str) -> Result<Map<String, Value>, Failure> {
    let mut input = String::new();
    let text = if text == "-" {
        std::io::stdin().read_to_string(&mut input)?;
        &input
    } else {
        text
    };
    let example = "write {\"name\": value}, in single quotes where a shell reads it";
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Failure::text(Exit::Usage, "--json: a JSON object is needed").hint(example)),
        Err(error) => Err(Failure::text(Exit::Usage, format!("--json: not JSON: {error}")).hint(example)),
    }
}
