//! `sidegate config schema`.

use std::process::ExitCode;

use clap::ValueEnum;
use sidegate::{config, mcpserver};

use super::super::Failure;
use super::super::output::say;

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate config schema > config.schema.json
  sidegate config schema mcpserver > mcpserver.schema.json

Editors with a YAML language server find it by a first line in the file:
  # yaml-language-server: $schema=mcpserver.schema.json")]
pub(in super::super) struct SchemaArguments {
    /// Of which file
    #[arg(value_enum, value_name = "FILE", default_value_t)]
    of: Of,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Of {
    /// config.yaml
    #[default]
    Config,
    /// A definition in mcpservers/
    Mcpserver,
}

pub(super) fn run(arguments: &SchemaArguments) -> Result<ExitCode, Failure> {
    let schema = match arguments.of {
        Of::Config => config::SCHEMA,
        Of::Mcpserver => mcpserver::SCHEMA,
    };
    say(schema.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
