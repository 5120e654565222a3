//! `sidegate logs`.

mod file;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use sidegate::environment::Environment;

use self::file::LogReader;
use super::control::InstanceSelector;
use super::definitions::Definitions;
use super::output::{Reader, say_error, say_to_reader};
use super::words::similar;
use super::{Exit, Failure, OutputFormat};

/// Between two looks at files that are followed.
const POLL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate logs
  sidegate logs time -f
  sidegate logs gateway -n 1000

The logs are what stdio servers write to stderr, and what the gateway writes.
They stay when an instance ends.

Exit codes: 0 shown, 1 failed or there is no such log, 5 no instance has run
there, 130 interrupted.")]
pub(super) struct LogsArguments {
    /// A server, or gateway [default: all, each line with its name in front]
    name: Option<String>,
    /// Go on with what is written from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many lines of each log
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 100)]
    lines: usize,
    #[command(flatten)]
    instance: InstanceSelector,
    /// How to print them; json is an object a line
    #[arg(long, value_enum, default_value_t)]
    output: OutputFormat,
}

pub(super) fn run(arguments: &LogsArguments, environment: &Environment) -> Result<ExitCode, Failure> {
    let runtime_dir = arguments.instance.directory(environment)?;
    if !runtime_dir.is_dir() {
        let message = format!("no instance has run in {}", runtime_dir.display());
        return Err(Failure::text(Exit::NoInstance, message).hint(arguments.instance.advice()));
    }
    let mut logs = Logs { directory: runtime_dir.join("logs"), readers: BTreeMap::new() };
    let found = logs.names()?;
    if let Some(name) = &arguments.name
        && !found.contains(name)
    {
        if !is_server(name, &arguments.instance, environment)? {
            return Err(unknown_log(name, &found, &logs.directory));
        }
        say_error(&format!("{name} has written nothing yet; only stdio servers write here"));
    }
    if found.is_empty() && !arguments.follow {
        say_error(&format!("nothing has been logged in {}", logs.directory.display()));
    }
    let (mut lines, mut names) = (arguments.lines, found);
    loop {
        for name in names.iter().filter(|name| arguments.name.as_ref().is_none_or(|wanted| wanted == *name)) {
            let new = logs.read(name, lines)?;
            let shown = new.iter().map(|line| arguments.show(name, line));
            if say_to_reader(shown)? == Reader::Gone {
                return Ok(ExitCode::SUCCESS);
            }
        }
        if !arguments.follow {
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(POLL);
        // A log that begins later is shown from its beginning.
        lines = usize::MAX;
        names = logs.names()?;
    }
}

impl LogsArguments {
    fn show(&self, name: &str, line: &str) -> String {
        match (self.output, &self.name) {
            (OutputFormat::Json, _) => json!({"name": name, "line": line}).to_string(),
            (OutputFormat::Text, Some(_)) => line.to_owned(),
            (OutputFormat::Text, None) => format!("{name} | {line}"),
        }
    }
}

/// The logs of an instance.
struct Logs {
    directory: PathBuf,
    readers: BTreeMap<String, LogReader>,
}

impl Logs {
    /// The names of all there are, sorted.
    fn names(&self) -> Result<Vec<String>, Failure> {
        let entries = match std::fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(unreadable(&self.directory, &error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| unreadable(&self.directory, &error))?.file_name();
            names.extend(name.to_str().and_then(|name| name.strip_suffix(".log")).map(str::to_owned));
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What is new in a log since the last time; the first time its last `lines`.
    fn read(&mut self, name: &str, lines: usize) -> Result<Vec<String>, Failure> {
        let path = self.directory.join(format!("{name}.log"));
        let read = match self.readers.get_mut(name) {
            Some(reader) => reader.new_lines(),
            None => LogReader::open(path.clone(), lines).map(|(reader, last)| {
                self.readers.insert(name.to_owned(), reader);
                last
            }),
        };
        read.map_err(|error| unreadable(&path, &error))
    }
}

/// Whether there is a server `name`, in the running instance or in the files.
fn is_server(name: &str, instance: &InstanceSelector, environment: &Environment) -> Result<bool, Failure> {
    match super::runtime()?.block_on(instance.status(environment)) {
        Ok(status) => Ok(status.servers.iter().any(|server| server.name == name)),
        Err(failure) if failure.exit == Exit::NoInstance => {
            let definitions = Definitions::read(&instance.config_dir(environment)?, environment)?;
            Ok(definitions.find(name).is_some())
        }
        Err(failure) => Err(failure),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::text(Exit::Failed, format!("{} cannot be read: {error}", path.display()))
}

fn unknown_log(name: &str, found: &[String], directory: &Path) -> Failure {
    let failure =
        Failure::text(Exit::Failed, format!("there is no log of {name:?} in {}", directory.display()));
    let names = || found.iter().map(String::as_str);
    if let Some(similar) = similar(name, names()) {
        return failure.hint(format!("did you mean {similar:?}?"));
    }
    let there_are = match found {
        [] => "none has been written yet".to_owned(),
        _ => format!("there are logs of {}", names().collect::<Vec<_>>().join(", ")),
    };
    failure.hint(there_are)
}
