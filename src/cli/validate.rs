//! `sidegate validate`.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;
use sidegate::environment::Environment;
use sidegate::instance::definition_reader;
use sidegate::mcpserver::{Invalid, ScanError};

use super::output::{say, say_error};
use super::{ConfigDir, Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  sidegate validate mcpservers/time.yaml")]
pub(super) struct ValidateArguments {
    /// The files to check [default: all in mcpservers/]
    files: Vec<PathBuf>,
    #[command(flatten)]
    config_dir: ConfigDir,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &ValidateArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let config_dir = arguments.config_dir.resolve(environment)?;
    let helper = std::env::current_exe()?;
    let reader = definition_reader(&config_dir, environment, &helper)?;
    let outcomes: Vec<(PathBuf, Option<Invalid>)> = if arguments.files.is_empty() {
        let scan = reader.scan(&reader.definitions_dir()).map_err(|error| {
            let hint = match &error {
                ScanError::NotFound { .. } => "name files, or another directory with --config-dir",
                ScanError::Unreadable { .. } => "check its permissions",
            };
            Failure::new(Exit::Failed, error).hint(hint)
        })?;
        scan.entries.into_iter().map(|entry| (entry.path, entry.outcome.err())).collect()
    } else {
        arguments.files.iter().map(|file| (file.clone(), reader.read_file(file).err())).collect()
    };
    let wrong = outcomes.iter().filter(|(_, invalid)| invalid.is_some()).count();
    match arguments.output {
        OutputFormat::Json => {
            let files: Vec<_> = outcomes
                .iter()
                .map(|(path, invalid)| {
                    let mistakes = invalid.as_ref().map(|invalid| &invalid.mistakes[..]).unwrap_or_default();
                    json!({"path": path, "valid": invalid.is_none(), "mistakes": mistakes})
                })
                .collect();
            say(&json!({"schema": 1, "valid": wrong == 0, "files": files}).to_string())?;
        }
        OutputFormat::Text => {
            for (path, invalid) in &outcomes {
                match invalid {
                    None => say(&format!("{}: valid", path.display()))?,
                    Some(invalid) => say_error(&invalid.to_string()),
                }
            }
            if outcomes.is_empty() {
                say_error(&format!("no definitions in {}", reader.definitions_dir().display()));
            }
        }
    }
    if wrong == 0 { Ok(ExitCode::SUCCESS) } else { Err(Failure::silent(Exit::Invalid)) }
}
