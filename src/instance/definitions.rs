//! Where the definitions of an instance come from.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::StartError;
use crate::config::dirs;
use crate::environment::Environment;
use crate::mcpserver::{Definitions, Reader, ServerName};

/// The variable that stands for our own binary in definitions.
pub const EXE_VARIABLE: &str = "SIDEGATE_EXE";

/// Where the definitions of an instance come from.
#[derive(Clone, Debug)]
pub enum DefinitionsFrom {
    /// `mcpservers/` in this directory, as it changes.
    ConfigDir(PathBuf),
    /// A directory in the runtime directory, which begins with these. It goes away with the runtime directory, so it is for
    /// ephemeral instances.
    These(Vec<(ServerName, Value)>),
}

/// A reader of definitions whose directory is there, so that it can be watched. One that is made is its owner's alone.
pub(super) fn reader(
    config_dir: &Path,
    environment: &Environment,
    helper: Option<&Path>,
) -> Result<Reader, StartError> {
    let failed = |source| StartError::ConfigDir { path: config_dir.to_owned(), source };
    let reader = definition_reader(config_dir, environment, helper).map_err(failed)?;
    let definitions = reader.definitions_dir();
    // Whoever can write there can have a command run as us: the umask does not decide it.
    (DirBuilder::new().recursive(true).mode(0o700).create(&definitions))
        .map_err(|source| StartError::ConfigDir { path: definitions, source })?;
    Ok(reader)
}

/// Writes the definitions that an instance begins with.
pub(super) async fn define(
    definitions: Definitions,
    these: Vec<(ServerName, Value)>,
) -> Result<Definitions, StartError> {
    let writing = tokio::task::spawn_blocking(move || {
        for (name, spec) in these {
            let written = definitions.create(&name, &spec);
            written.map_err(|source| StartError::Server { name, source })?;
        }
        Ok(definitions)
    });
    writing.await.map_err(|error| StartError::Internal(error.to_string()))?
}

/// A reader of the definitions of `config_dir`, in which `${SIDEGATE_EXE}` stands for the binary `helper`, where there
/// is one.
///
/// # Errors
///
/// `config_dir` is relative, and there is no current directory.
pub fn definition_reader(
    config_dir: &Path,
    environment: &Environment,
    helper: Option<&Path>,
) -> io::Result<Reader> {
    let variables = environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    let exe = helper.map(|helper| (EXE_VARIABLE.into(), helper.as_os_str().to_owned()));
    let reader = Reader::new(config_dir, variables.chain(exe).collect())?;
    // Without a home there is nowhere to keep intents; whoever needs to is told that the file cannot be written.
    match dirs::state_dir_of(environment, &std::path::absolute(config_dir)?) {
        Ok(state) => Ok(reader.with_state_dir(&state)),
        Err(_) => Ok(reader),
    }
}
