//! `sidegate validate`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;
use sidegate::environment::Environment;
use sidegate::instance::definition_reader;
use sidegate::mcpserver::{Invalid, Reader, ServerName};

use super::definitions::unreadable;
use super::output::{say, say_error};
use super::words::similar;
use super::{ConfigDir, Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate validate
  sidegate validate time
  sidegate validate mcpservers/time.yaml

Exit codes: 0 all are valid, 1 failed, 3 some are not.")]
pub(super) struct ValidateArguments {
    /// What to check: files, directories of them, or names of servers [default: all in mcpservers/]
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
    let reader = definition_reader(&config_dir, environment, Some(&helper))?;
    let outcomes: Vec<(PathBuf, Option<Invalid>)> = if arguments.files.is_empty() {
        outcomes_in(&reader, &reader.definitions_dir())?
    } else {
        let mut outcomes = Vec::new();
        for file in &arguments.files {
            if file.is_dir() {
                outcomes.extend(outcomes_in(&reader, file)?);
            } else if let Some(defined) = file_of(&reader, file) {
                let invalid = reader.read_file(&defined).err();
                outcomes.push((defined, invalid));
            } else {
                outcomes.push((file.clone(), reader.read_file(file).err()));
            }
        }
        outcomes
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
                    Some(invalid) => {
                        say_error(&invalid.to_string());
                        if let Some(meant) = meant_by(&reader, path) {
                            say_error(&format!("\nhint: did you mean {meant:?}?"));
                        }
                    }
                }
            }
            if outcomes.is_empty() {
                let looked_at = match arguments.files.first() {
                    Some(directory) => directory.clone(),
                    None => reader.definitions_dir(),
                };
                say_error(&format!("no definitions in {}", looked_at.display()));
            }
        }
    }
    if wrong == 0 { Ok(ExitCode::SUCCESS) } else { Err(Failure::silent(Exit::Invalid)) }
}

/// All definitions of a directory.
fn outcomes_in(reader: &Reader, directory: &Path) -> Result<Vec<(PathBuf, Option<Invalid>)>, Failure> {
    let scan = reader.scan(directory).map_err(unreadable)?;
    Ok(scan.entries.into_iter().map(|entry| (entry.path, entry.outcome.err())).collect())
}

/// The file of the server `name`, where there is no file of that path.
fn file_of(reader: &Reader, name: &Path) -> Option<PathBuf> {
    let server: ServerName = name.to_str().filter(|_| !name.exists())?.parse().ok()?;
    let extensions = ["yaml", "yml"].into_iter();
    let mut files =
        extensions.map(|extension| reader.definitions_dir().join(format!("{server}.{extension}")));
    files.find(|file| file.exists())
}

/// The server whose name is nearly `name`, where there is neither a file nor a server of that name.
fn meant_by(reader: &Reader, name: &Path) -> Option<String> {
    let name = name.to_str().filter(|_| !name.exists())?;
    // Only for the hint: whoever wants to know of the directory names it.
    let scan = reader.scan(&reader.definitions_dir()).ok()?;
    let names = scan.entries.iter().filter_map(|entry| entry.path.file_stem()?.to_str());
    similar(name, names).map(str::to_owned)
}
