//! The command line: one file a subcommand.
//!
//! Data goes to stdout, everything else to stderr. Exit codes: see [`Exit`].

mod add;
mod call;
mod completions;
mod config;
mod connect;
mod control;
mod definitions;
mod doctor;
mod example_server;
mod explain;
mod gateway;
mod get;
mod import;
mod instance;
mod list;
mod logs;
mod man;
mod mcp;
mod operate;
mod output;
mod own_path;
mod progress;
mod remove;
mod run;
mod serve;
mod servers;
mod signals;
mod status;
mod stdio;
mod table;
mod tools;
mod validate;
mod version;
mod waiting;
mod words;
mod writing;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use sidegate::config::dirs;
use sidegate::environment::Environment;
use sidegate::error::chain;

/// One MCP endpoint over all of your MCP servers.
#[derive(Debug, Parser)]
#[command(name = "sidegate", version, about, max_term_width = 100, propagate_version = true)]
#[command(
    after_help = "Example:\n  sidegate serve\n\nDefinitions are files: ~/.config/sidegate/mcpservers/NAME.yaml"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve all MCP servers on one endpoint, until Ctrl-C
    Serve(Box<serve::ServeArguments>),
    /// Run a command with an instance of its own
    Run(Box<run::RunArguments>),
    /// Serve all MCP servers over stdin and stdout, for clients that start a command
    Stdio(Box<stdio::StdioArguments>),
    /// Show a running instance, its gateway and its servers
    Status(status::StatusArguments),
    /// List the servers and where each of them stands
    List(list::ListArguments),
    /// Show a server: its definition, its file and where it stands
    Get(get::GetArguments),
    /// List the tools that clients see, or describe one
    Tools(tools::ToolsArguments),
    /// Call a tool
    Call(call::CallArguments),
    /// Say what is known of a call: where it went, and where its time went
    Explain(explain::ExplainArguments),
    /// Start a server, also one that was stopped or does not start by itself
    Start(operate::OperateArguments),
    /// Stop a server; it stays stopped until it is started again
    Stop(operate::OperateArguments),
    /// Give a server a new session, and a new process where it is one
    Restart(operate::OperateArguments),
    /// Show what servers and the gateway have written
    Logs(logs::LogsArguments),
    /// Define a server
    Add(Box<add::AddArguments>),
    /// Remove a server's definition
    Remove(remove::RemoveArguments),
    /// Define the servers that another client has
    Import(import::ImportArguments),
    /// Show, or write, what an MCP client has to be told to use Sidegate
    Connect(connect::ConnectArguments),
    /// Look for what is wrong, and say what to do about it
    Doctor(Box<doctor::DoctorArguments>),
    /// Check definition files and say what is wrong with them
    Validate(validate::ValidateArguments),
    /// Show the settings and where each comes from
    #[command(subcommand, after_help = "Example:\n  sidegate config show")]
    Config(config::ConfigCommand),
    /// Fetch, find and check agentgateway; run the embedded gateway
    #[command(subcommand, after_help = "Example:\n  sidegate gateway fetch")]
    Gateway(gateway::GatewayCommand),
    /// A small MCP server over stdin and stdout, to try things with
    #[command(after_help = "Example:\n  sidegate add example -- sidegate example-server")]
    ExampleServer,
    /// Write the manual pages
    Man(man::ManArguments),
    /// Print a script that completes commands in a shell
    Completions(completions::CompletionsArguments),
    /// Print the version
    Version(version::VersionArguments),
}

/// How data is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum OutputFormat {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Where definitions and settings are.
#[derive(Clone, Debug, clap::Args)]
struct ConfigDir {
    /// Directory of config.yaml and mcpservers/ [default: ~/.config/sidegate]
    #[arg(long, value_name = "DIR")]
    config_dir: Option<PathBuf>,
}

impl ConfigDir {
    fn given(&self) -> Option<&Path> {
        self.config_dir.as_deref()
    }

    /// What has to be typed for the same directory, behind the name of a command.
    fn flag(&self) -> String {
        self.given().map(|dir| format!(" --config-dir {}", words::quoted(dir))).unwrap_or_default()
    }

    fn resolve(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        dirs::config_dir(environment, self.config_dir.as_deref())
            .map_err(|error| Failure::new(Exit::Usage, error).hint("give one with --config-dir"))
    }
}

/// The exit codes, which scripts rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// Something failed.
    Failed = 1,
    /// The arguments or settings are wrong.
    Usage = 2,
    /// Definitions are wrong.
    Invalid = 3,
    /// There is no gateway.
    Gateway = 4,
    /// There is no instance to ask.
    NoInstance = 5,
    /// Interrupted before it was done.
    Interrupted = 130,
}

/// What a command that failed tells its user.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    /// What and why; nothing where it was said already.
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with an error and everything behind it.
    fn new(exit: Exit, error: impl std::error::Error + 'static) -> Self {
        Self { exit, message: chain(&error), hint: None }
    }

    /// A failure in our own words.
    fn text(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// A failure of which everything was said.
    fn silent(exit: Exit) -> Self {
        Self::text(exit, "")
    }

    /// Tells the user.
    fn say(&self) {
        if !self.message.is_empty() {
            let hint = self.hint.as_ref().map(|hint| format!("\n\nhint: {hint}")).unwrap_or_default();
            output::say_error(&format!("error: {}{hint}", self.message));
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn maybe_hint(mut self, hint: Option<&str>) -> Self {
        self.hint = hint.map(str::to_owned);
        self
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error)
    }
}

/// Runs the command that the arguments name.
pub(crate) fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let wrong = error.use_stderr();
            return match error.print() {
                // Help into a closed pipe is nobody's loss.
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    Failure::text(Exit::Failed, format!("the help cannot be written: {error}")).say();
                    ExitCode::from(Exit::Failed as u8)
                }
                _ => ExitCode::from(if wrong { Exit::Usage as u8 } else { 0 }),
            };
        }
    };
    let environment: Environment = std::env::vars_os().collect();
    run(arguments.command, &environment).unwrap_or_else(|failure| {
        failure.say();
        ExitCode::from(failure.exit as u8)
    })
}

fn run(command: Command, environment: &Environment) -> Result<ExitCode, Failure> {
    match command {
        Command::Serve(arguments) => serve::run(*arguments, environment),
        Command::Run(arguments) => Ok(run::run(&arguments, environment)),
        Command::Stdio(arguments) => stdio::run(&arguments, environment),
        Command::Status(arguments) => status::run(&arguments, environment),
        Command::List(arguments) => list::run(&arguments, environment),
        Command::Get(arguments) => get::run(&arguments, environment),
        Command::Tools(arguments) => tools::run(&arguments, environment),
        Command::Call(arguments) => call::run(&arguments, environment),
        Command::Explain(arguments) => explain::run(&arguments, environment),
        Command::Start(arguments) => operate::run(&arguments, "start", environment),
        Command::Stop(arguments) => operate::run(&arguments, "stop", environment),
        Command::Restart(arguments) => operate::run(&arguments, "restart", environment),
        Command::Logs(arguments) => logs::run(&arguments, environment),
        Command::Add(arguments) => add::run(&arguments, environment),
        Command::Remove(arguments) => remove::run(&arguments, environment),
        Command::Import(arguments) => import::run(&arguments, environment),
        Command::Connect(arguments) => connect::run(&arguments, environment),
        Command::Doctor(arguments) => doctor::run(&arguments, environment),
        Command::Validate(arguments) => validate::run(&arguments, environment),
        Command::Config(command) => config::run(command, environment),
        Command::Gateway(command) => gateway::run(command, environment),
        Command::ExampleServer => example_server::run(),
        Command::Man(arguments) => man::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Version(arguments) => version::run(&arguments),
    }
}

/// A runtime for commands that wait for things.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_multi_thread().enable_all().build()?)
}
