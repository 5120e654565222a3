//! `sidegate config …`.

mod schema;
mod show;

use std::process::ExitCode;

use sidegate::environment::Environment;

use super::Failure;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every setting with where it comes from
    Show(Box<show::ShowArguments>),
    /// Print a JSON Schema, for editors
    Schema(schema::SchemaArguments),
}

pub(super) fn run(command: ConfigCommand, environment: &Environment) -> Result<ExitCode, Failure> {
    match command {
        ConfigCommand::Show(arguments) => show::run(&arguments, environment),
        ConfigCommand::Schema(arguments) => schema::run(&arguments),
    }
}
