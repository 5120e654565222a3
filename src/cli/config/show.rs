//! `sidegate config show`.

use std::process::ExitCode;

use serde_json::{Value, json};
use sidegate::config::keys::FILE_NAME;
use sidegate::config::variables::UnknownVariable;
use sidegate::config::{Described, Origin};
use sidegate::environment::Environment;

use super::super::instance::InstanceArguments;
use super::super::output::{say, say_error};
use super::super::table::table;
use super::super::{Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate config show
  sidegate config show --listen 127.0.0.1:0 --output json

The options are those of `sidegate serve`. Values that may be secret are shown
as ***.

Exit codes: 0 shown, 1 failed, 2 the settings are wrong.")]
pub(in super::super) struct ShowArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    /// How to print them
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &ShowArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let file = arguments.instance.config_dir(environment)?.join(FILE_NAME);
    let settings = arguments.instance.settings(false, environment)?.describe();
    match arguments.output {
        OutputFormat::Json => {
            let settings: Vec<Value> = settings.iter().map(json).collect();
            let shown = json!({"schema": 1, "file": file, "settings": settings});
            say(&shown.to_string())?;
        }
        OutputFormat::Text => {
            // The file has one place, which need not stand in every line.
            let whole = file.display().to_string();
            let rows = settings.into_iter().map(|setting| {
                let origin = setting.origin.to_string().replace(&whole, FILE_NAME);
                [setting.key.to_owned(), setting.value, origin]
            });
            say(&table(["SETTING", "VALUE", "FROM"], rows))?;
            say_error(&match file.exists() {
                true => format!("\n{FILE_NAME} is {whole}"),
                false => format!("\nThere is no {whole}; none is needed."),
            });
        }
    }
    for unknown in UnknownVariable::all(environment) {
        say_error(&format!("warning: {unknown}"));
    }
    Ok(ExitCode::SUCCESS)
}

fn json(setting: &Described) -> Value {
    let origin = match &setting.origin {
        Origin::Flag(name) => json!({"kind": "flag", "name": name}),
        Origin::Environment(name) => json!({"kind": "environment", "name": name}),
        Origin::File { path, line, column } => {
            json!({"kind": "file", "path": path, "line": line, "column": column})
        }
        Origin::Default => json!({"kind": "default"}),
    };
    json!({"key": setting.key, "value": setting.value, "origin": origin})
}
