//! `sidegate import`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};
use sidegate::environment::Environment;
use sidegate::mcpserver::{Definitions, EditError, Imported, Notes, Ourselves, ServerName, import};

use super::output::{say, say_error};
use super::table::table;
use super::writing::{how_to_see, open, ourselves, unset_variable};
use super::{ConfigDir, Exit, Failure, OutputFormat};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate import .mcp.json --dry-run
  sidegate import ~/.config/Claude/claude_desktop_config.json

Reads the files of Claude Code, Claude Desktop, VS Code and Cursor. Nothing is
run, and the file stays as it is. A server is carried over whole or not at all;
what needs attention is said on stderr. Sidegate itself is left out.

Exit codes: 0 all servers are defined now, 1 one or more are not, 2 wrong usage.")]
pub(super) struct ImportArguments {
    /// The file with the servers
    file: PathBuf,
    /// Replace definitions of the same names; the old ones are kept as NAME.yaml.bak
    #[arg(long)]
    force: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    config_dir: ConfigDir,
    /// How to print what was done
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

/// What became of one server.
struct Done {
    original: String,
    name: Option<ServerName>,
    result: Outcome,
    notes: Notes,
}

enum Outcome {
    Imported(PathBuf),
    Replaced {
        path: PathBuf,
        backup: Option<PathBuf>,
    },
    Unchanged(PathBuf),
    Exists(PathBuf),
    Refused(String),
    /// It is Sidegate.
    LeftOut,
}

impl Outcome {
    /// The word for programs, and with what comes behind it for people.
    fn word(&self) -> &'static str {
        match self {
            Self::Imported(_) => "imported",
            Self::Replaced { .. } => "replaced",
            Self::Unchanged(_) => "unchanged",
            Self::Exists(_) => "exists",
            Self::Refused(_) => "refused",
            Self::LeftOut => "skipped",
        }
    }

    fn is_there(&self) -> bool {
        !matches!(self, Self::Exists(_) | Self::Refused(_))
    }

    fn details(&self) -> String {
        match self {
            Self::Imported(path) | Self::Unchanged(path) => path.display().to_string(),
            Self::Replaced { path, backup: Some(backup) } => {
                format!("{}, the old one is {}", path.display(), backup.display())
            }
            Self::Replaced { path, backup: None } => path.display().to_string(),
            Self::Exists(path) => format!("{} is another; --force replaces it", path.display()),
            Self::Refused(why) => why.clone(),
            Self::LeftOut => "it is Sidegate itself".to_owned(),
        }
    }

    fn path(&self) -> Option<&Path> {
        match self {
            Self::Imported(path)
            | Self::Replaced { path, .. }
            | Self::Unchanged(path)
            | Self::Exists(path) => Some(path),
            Self::Refused(_) | Self::LeftOut => None,
        }
    }
}

pub(super) fn run(arguments: &ImportArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let definitions = open(&arguments.config_dir, environment)?;
    let home = environment.get_os("HOME").map(Path::new);
    let found = import(&arguments.file, home).map_err(|error| Failure::new(Exit::Failed, error))?;
    let ourselves = ourselves(&arguments.config_dir, environment)?;
    let one = |server| one(server, &definitions, &ourselves, arguments);
    let done: Vec<Done> = found.servers.into_iter().map(one).collect();
    match arguments.output {
        OutputFormat::Json => {
            let servers: Vec<_> = done.iter().map(Done::json).collect();
            let report = json!({
                "schema": 1, "client": found.client.to_string(), "dryRun": arguments.dry_run, "servers": servers,
            });
            say(&report.to_string())?;
        }
        OutputFormat::Text => print(&done, &found.client.to_string(), arguments)?,
    }
    if done.iter().all(|done| done.result.is_there()) {
        Ok(ExitCode::SUCCESS)
    } else {
        Err(Failure::silent(Exit::Failed))
    }
}

/// Carries one server over.
fn one(
    server: Imported,
    definitions: &Definitions,
    ourselves: &Ourselves,
    arguments: &ImportArguments,
) -> Done {
    let Imported { original, outcome, mut notes, .. } = server;
    let (name, spec) = match outcome {
        Ok(carried) => carried,
        Err(why) => return Done { original, name: None, result: Outcome::Refused(why), notes },
    };
    if ourselves.is_entry(&original, &spec) {
        return Done { original, name: None, result: Outcome::LeftOut, notes: Notes::default() };
    }
    let (definitions, unset) = definitions.assuming_variables(&name, &spec);
    let result = write(&definitions, &name, &spec, arguments).unwrap_or_else(|error| {
        Outcome::Refused(match error {
            EditError::Invalid(invalid) => {
                invalid.mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
            }
            error => Failure::new(Exit::Failed, error).message,
        })
    });
    for note in unset.iter().map(|variable| unset_variable(variable)) {
        if !notes.attention.contains(&note) {
            notes.attention.push(note);
        }
    }
    Done { original, name: Some(name), result, notes }
}

fn write(
    definitions: &Definitions,
    name: &ServerName,
    spec: &Value,
    arguments: &ImportArguments,
) -> Result<Outcome, EditError> {
    definitions.validate(name, spec)?;
    let new_path = || definitions.directory().join(format!("{name}.yaml"));
    match definitions.get(name) {
        Err(EditError::NotFound { .. }) if arguments.dry_run => Ok(Outcome::Imported(new_path())),
        Err(EditError::NotFound { .. }) => match definitions.create(name, spec) {
            Ok(written) => Ok(Outcome::Imported(written.path)),
            // Somebody was faster.
            Err(EditError::AlreadyExists { path, .. }) => Ok(Outcome::Exists(path)),
            Err(error) => Err(error),
        },
        Err(error) => Err(error),
        Ok(stored) if stored.resource.as_ref().is_some_and(|resource| resource["spec"] == *spec) => {
            Ok(Outcome::Unchanged(stored.path))
        }
        Ok(stored) if !arguments.force => Ok(Outcome::Exists(stored.path)),
        Ok(stored) if arguments.dry_run => Ok(Outcome::Replaced { path: stored.path, backup: None }),
        Ok(_) => {
            let written = definitions.create_or_replace(name, spec)?;
            Ok(Outcome::Replaced { path: written.path, backup: written.backup })
        }
    }
}

fn print(done: &[Done], client: &str, arguments: &ImportArguments) -> Result<(), Failure> {
    let file = arguments.file.display();
    if done.is_empty() {
        say_error(&format!("no servers in {file} (of {client})"));
        return Ok(());
    }
    let rows = done.iter().map(|done| {
        let name = done.name.as_ref().map(ToString::to_string).unwrap_or_default();
        [done.original.clone(), name, done.result.word().to_owned(), done.result.details()]
    });
    say(&table([client, "NAME", "RESULT", ""], rows))?;
    for done in done {
        let name = &done.original;
        for note in &done.notes.attention {
            say_error(&format!("attention: {name}: {note}"));
        }
        for note in &done.notes.information {
            say_error(&format!("note: {name}: {note}"));
        }
    }
    if arguments.dry_run {
        say_error("nothing was written (--dry-run)");
    } else if done.iter().any(|done| matches!(done.result, Outcome::Imported(_) | Outcome::Replaced { .. })) {
        say_error(&how_to_see(&arguments.config_dir));
    }
    Ok(())
}

impl Done {
    fn json(&self) -> Value {
        let mut value = json!({
            "original": self.original,
            "name": self.name.as_ref().map(ServerName::as_str),
            "result": self.result.word(),
            "path": self.result.path(),
            "attention": self.notes.attention,
            "information": self.notes.information,
        });
        match &self.result {
            Outcome::Refused(why) => value["reason"] = why.as_str().into(),
            Outcome::Replaced { backup: Some(backup), .. } => value["backup"] = json!(backup),
            _ => {}
        }
        value
    }
}
