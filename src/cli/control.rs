//! Asking a running instance.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Method;
use serde_json::Value;
use sidegate::admin::control::{ControlError, SOCKET, ask};
use sidegate::admin::status::Status;
use sidegate::config::dirs;
use sidegate::environment::Environment;

use super::waiting::patiently;
use super::words::quoted;
use super::{ConfigDir, Exit, Failure};

/// The variable in which `run` names the instance.
const INSTANCE_VARIABLE: &str = "SIDEGATE_INSTANCE";

/// Which instance is meant.
#[derive(Debug, clap::Args)]
pub(super) struct InstanceSelector {
    #[command(flatten)]
    config_dir: ConfigDir,
    /// Runtime directory of the instance [default: SIDEGATE_INSTANCE, where no --config-dir is given,
    /// or that of the config dir]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
}

impl InstanceSelector {
    /// The instance of this configuration directory, or the one in this runtime directory.
    pub(super) fn new(config_dir: ConfigDir, runtime_dir: Option<PathBuf>) -> Self {
        Self { config_dir, runtime_dir }
    }

    /// The instance's runtime directory; there need not be one.
    pub(super) fn directory(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        match self.named(environment) {
            Some(directory) => Ok(directory),
            None => Ok(dirs::runtime_dir(environment, &self.config_dir(environment)?)),
        }
    }

    /// The configuration directory that is meant where no instance runs.
    pub(super) fn config_dir(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        self.config_dir.resolve(environment)
    }

    /// Whether the configuration directory is another than the usual one.
    pub(super) fn names_config_dir(&self) -> bool {
        self.config_dir.given().is_some()
    }

    /// The runtime directory that somebody has named.
    fn named(&self, environment: &Environment) -> Option<PathBuf> {
        self.runtime_dir
            .clone()
            .or_else(|| self.named_by_run(environment))
            .or_else(|| directory_in(environment, "SIDEGATE_RUNTIME_DIR"))
    }

    /// The runtime directory that `run` has named, where no configuration directory is typed: that is another instance's.
    fn named_by_run(&self, environment: &Environment) -> Option<PathBuf> {
        directory_in(environment, INSTANCE_VARIABLE).filter(|_| self.config_dir.given().is_none())
    }

    /// Asks the instance for what it has.
    pub(super) fn ask(
        &self,
        environment: &Environment,
        method: Method,
        path: &str,
    ) -> Result<Value, Failure> {
        self.ask_patiently(environment, method, path, |_| "waiting for the instance".to_owned())
    }

    /// Asks the instance for what may take long; `waiting` says what is waited for, from what the instance says of itself.
    pub(super) fn ask_patiently(
        &self,
        environment: &Environment,
        method: Method,
        path: &str,
        waiting: impl Fn(Option<Status>) -> String,
    ) -> Result<Value, Failure> {
        let directory = self.directory(environment)?;
        let now = async || waiting(status_in(&directory).await.ok());
        let asked = super::runtime()?.block_on(patiently(ask_in(&directory, method, path), now));
        asked.map_err(|failure| self.explained(environment, failure))
    }

    /// What the instance says of itself.
    pub(super) async fn status(&self, environment: &Environment) -> Result<Status, Failure> {
        let status = status_in(&self.directory(environment)?).await;
        status.map_err(|failure| self.explained(environment, failure))
    }

    /// How the instance that is meant would be started.
    pub(super) fn serve_command(&self) -> String {
        let runtime_dir = self.runtime_dir.as_deref();
        let runtime_dir =
            runtime_dir.map(|dir| format!(" --runtime-dir {}", quoted(dir))).unwrap_or_default();
        format!("sidegate serve{}{runtime_dir}", self.config_dir.flag())
    }

    /// What to do where it does not run and nobody knows of another.
    pub(super) fn advice(&self) -> String {
        let which = if self.runtime_dir.is_some() { "another" } else { "its" };
        format!("start one with `{}`, or name {which} directory with --runtime-dir", self.serve_command())
    }

    /// Says why the instance that is meant does not run, as far as what was typed, or was not, can be the reason.
    fn explained(&self, environment: &Environment, failure: Failure) -> Failure {
        if failure.exit != Exit::NoInstance {
            return failure;
        }
        if self.runtime_dir.is_none() && self.named_by_run(environment).is_some() {
            return failure.hint(format!(
                "{INSTANCE_VARIABLE} names that directory: unset it, or name another with --runtime-dir"
            ));
        }
        match self.config_dir.given() {
            Some(given) if self.named(environment).is_none() && !given.exists() => {
                let message = format!(
                    "no instance runs for the configuration directory {}, which does not exist",
                    given.display()
                );
                Failure { message, ..failure }.hint("name one that does with --config-dir")
            }
            _ if failure.hint.is_none() => failure.hint(self.advice()),
            _ => failure,
        }
    }

    /// What the instance says of itself; `None` where none runs and nobody has said that one does.
    pub(super) async fn status_if_running(
        &self,
        environment: &Environment,
    ) -> Result<Option<Status>, Failure> {
        match self.status(environment).await {
            Ok(status) => Ok(Some(status)),
            Err(failure) if failure.exit == Exit::NoInstance && self.named(environment).is_none() => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

fn directory_in(environment: &Environment, variable: &str) -> Option<PathBuf> {
    environment.get_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// What the instance in `directory` says of itself.
pub(super) async fn status_in(directory: &Path) -> Result<Status, Failure> {
    let value = ask_in(directory, Method::GET, "/v1/status").await?;
    serde_json::from_value(value).map_err(|error| {
        Failure::text(Exit::Failed, format!("the instance says something else than expected: {error}"))
            .hint("it may run another version of sidegate: restart it")
    })
}

async fn ask_in(directory: &Path, method: Method, path: &str) -> Result<Value, Failure> {
    let (status, body) = match ask(directory, method, path).await {
        Ok(answer) => answer,
        Err(ControlError::NotRunning { source, .. }) => return Err(not_running(directory, &source).await),
        Err(error) => return Err(Failure::new(Exit::Failed, error)),
    };
    let value: Value = serde_json::from_str(&body).map_err(|error| {
        Failure::text(Exit::Failed, format!("the instance answered with no JSON: {error}"))
    })?;
    if status.is_success() {
        Ok(value)
    } else {
        let why = value["error"].as_str().unwrap_or(&body).to_owned();
        Err(Failure::text(Exit::Failed, why))
    }
}

/// Where another instance of this user runs, the hint names it.
async fn not_running(directory: &Path, source: &io::Error) -> Failure {
    // Longer than any instance that is well needs, and short enough for a hint.
    const MOMENT: Duration = Duration::from_secs(1);
    let why = match source.kind() {
        io::ErrorKind::NotFound if !directory.exists() => ": there is no such directory".to_owned(),
        io::ErrorKind::NotFound => String::new(),
        io::ErrorKind::ConnectionRefused => ": the last one was killed".to_owned(),
        _ => format!(": {source}"),
    };
    let failure =
        Failure::text(Exit::NoInstance, format!("no instance runs in {}{why}", directory.display()));
    for other in beside(directory) {
        let asking = ask(&other, Method::GET, "/v1/status");
        if let Ok(Ok(_)) = tokio::time::timeout(MOMENT, asking).await {
            let shown = other.display();
            return failure
                .hint(format!("one runs in {shown}: name it with --runtime-dir {}", quoted(&other)));
        }
    }
    failure
}

/// The runtime directories of this user beside `directory` that have, or had, an instance: those of other configuration
/// directories.
pub(super) fn beside(directory: &Path) -> Vec<PathBuf> {
    let ours = rustix::process::geteuid().as_raw();
    // Where nothing can be listed, nothing is beside it.
    let entries = directory.parent().and_then(|parent| std::fs::read_dir(parent).ok());
    let paths = entries.into_iter().flatten().flatten().map(|entry| entry.path());
    let mut beside: Vec<PathBuf> = paths
        .filter(|path| path != directory && path.join(SOCKET).exists())
        .filter(|path| path.symlink_metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == ours))
        .collect();
    beside.sort();
    beside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_goes_before_what_is_in_the_environment() {
        let config_dir = |given: bool| ConfigDir { config_dir: given.then(|| PathBuf::from("/c")) };
        let runtime_dir = |given: bool| given.then(|| PathBuf::from("/typed"));
        let both = [("HOME", "/h"), (INSTANCE_VARIABLE, "/run"), ("SIDEGATE_RUNTIME_DIR", "/runtime")];
        let of_config_dir = dirs::runtime_dir(&Environment::from_iter([("HOME", "/h")]), Path::new("/c"));
        for (runtime, config, variables, expected, is_named) in [
            (true, true, &both[..], "/typed", true),
            (false, false, &both, "/run", true),
            // An instance with that configuration directory would have it, too.
            (false, true, &both, "/runtime", true),
            (false, true, &both[..2], of_config_dir.to_str().unwrap(), false),
        ] {
            let selector = InstanceSelector::new(config_dir(config), runtime_dir(runtime));
            let environment = Environment::from_iter(variables.iter().copied());
            let found = selector.directory(&environment).unwrap_or_else(|failure| panic!("{failure:?}"));
            assert_eq!(found, Path::new(expected), "{runtime} {config} {variables:?}");
            assert_eq!(selector.named(&environment).is_some(), is_named);
        }
    }
}
