//! Asking a running instance.

use std::path::PathBuf;

use http::Method;
use serde_json::Value;
use sidegate::admin::control::{ControlError, ask};
use sidegate::config::dirs;
use sidegate::environment::Environment;

use super::{ConfigDir, Exit, Failure};

/// The variable in which `run` names the instance.
const INSTANCE_VARIABLE: &str = "SIDEGATE_INSTANCE";

/// Which instance is meant.
#[derive(Debug, clap::Args)]
pub(super) struct InstanceSelector {
    #[command(flatten)]
    config_dir: ConfigDir,
    /// Runtime directory of the instance [default: SIDEGATE_INSTANCE, or that of the config dir]
    #[arg(long, value_name = "DIR")]
    runtime_dir: Option<PathBuf>,
}

impl InstanceSelector {
    fn directory(&self, environment: &Environment) -> Result<PathBuf, Failure> {
        if let Some(directory) = &self.runtime_dir {
            return Ok(directory.clone());
        }
        for variable in [INSTANCE_VARIABLE, "SIDEGATE_RUNTIME_DIR"] {
            if let Some(directory) = environment.get_os(variable).filter(|value| !value.is_empty()) {
                return Ok(directory.into());
            }
        }
        Ok(dirs::runtime_dir(environment, &self.config_dir.resolve(environment)?))
    }

    /// Asks the instance.
    pub(super) fn ask(
        &self,
        environment: &Environment,
        method: Method,
        path: &str,
    ) -> Result<Value, Failure> {
        let directory = self.directory(environment)?;
        let asked = super::runtime()?.block_on(ask(&directory, method, path));
        let (status, body) = asked.map_err(|error| match error {
            ControlError::NotRunning { .. } => Failure::text(Exit::NoInstance, error.to_string())
                .hint("start one with `sidegate serve`, or name its directory with --runtime-dir"),
            error => Failure::new(Exit::Failed, error),
        })?;
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
}
