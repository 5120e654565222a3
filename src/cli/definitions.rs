//! Definitions as the commands see them: read from the files, without an instance.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sidegate::config::{Overrides, Settings};
use sidegate::environment::Environment;
use sidegate::instance::definition_reader;
use sidegate::mcpserver::{Entry, ScanError, SecretNames};

use super::words::similar;
use super::{Exit, Failure};

/// The definitions of a configuration directory.
#[derive(Debug)]
pub(super) struct Definitions {
    pub(super) directory: PathBuf,
    pub(super) entries: Vec<Entry>,
}

impl Definitions {
    /// Reads them as an instance would that is started now. A directory that is not there holds none.
    pub(super) fn read(config_dir: &Path, environment: &Environment) -> Result<Self, Failure> {
        let reader = definition_reader(config_dir, environment, Some(&std::env::current_exe()?))?;
        let directory = reader.definitions_dir();
        let entries = match reader.scan(&directory) {
            Ok(scan) => scan.entries,
            Err(ScanError::NotFound { .. }) => Vec::new(),
            Err(error) => return Err(unreadable(error)),
        };
        Ok(Self { directory, entries })
    }

    /// The file that defines `name`.
    pub(super) fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name.as_ref().is_some_and(|known| known.as_str() == name))
    }

    /// The names of all servers.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter_map(|entry| Some(entry.name.as_ref()?.as_str()))
    }
}

/// The directory cannot be read, and what can be done about it.
pub(super) fn unreadable(error: ScanError) -> Failure {
    let hint = match &error {
        ScanError::NotFound { .. } => {
            "define a server with `sidegate add`, or name files, or another directory with --config-dir"
        }
        ScanError::Unreadable { source, .. } if source.kind() == ErrorKind::NotADirectory => {
            "a directory is expected there: move the file away"
        }
        ScanError::Unreadable { .. } => "check its permissions",
    };
    Failure::new(Exit::Failed, error).hint(hint)
}

/// There is no server `name`; which one was meant?
pub(super) fn unknown_server<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Failure {
    let known: Vec<&str> = known.into_iter().collect();
    let failure = Failure::text(Exit::Failed, format!("there is no server {name:?}"));
    match (similar(name, known.iter().copied()), known.is_empty()) {
        (Some(similar), _) => failure.hint(format!("did you mean {similar:?}?")),
        (None, false) => failure.hint(format!("the servers are {}", known.join(", "))),
        (None, true) => failure.hint("none is defined yet: see `sidegate add --help`"),
    }
}

/// The names whose values are secret, as `config.yaml` has them.
pub(super) fn secret_names(config_dir: &Path, environment: &Environment) -> SecretNames {
    // What is wrong with the file is for others to say; the usual names are secret in any case.
    let settings = Settings::load(config_dir, environment, &Overrides::default());
    SecretNames::new(settings.as_ref().map(|settings| &settings.redact.value[..]).unwrap_or_default())
}
