//! Definition files, and the programs that they name.

use std::path::Path;
use std::sync::Arc;

use sidegate::environment::Environment;
use sidegate::mcpserver::{Definition, Entry, Secret, Transport};
use sidegate::subprocess::{LookupError, lookup};

use super::super::Failure;
use super::super::definitions::{Definitions as Files, secret_names};
use super::super::words::count;
use super::Finding;

/// What the files hold.
pub(super) struct Definitions {
    pub(super) valid: Vec<Arc<Definition>>,
    pub(super) findings: Vec<Finding>,
    /// What definitions give to their servers, and nobody may see.
    pub(super) secrets: Vec<Secret>,
}

/// Every definition file with all of its mistakes.
pub(super) fn definitions(config_dir: &Path, environment: &Environment) -> Result<Definitions, Failure> {
    let subject = "definitions";
    let files = match Files::read(config_dir, environment) {
        Ok(files) => files,
        Err(failure) => {
            let advice = failure.hint.unwrap_or_default();
            let findings = vec![Finding::problem(subject, failure.message, advice)];
            return Ok(Definitions { valid: Vec::new(), findings, secrets: Vec::new() });
        }
    };
    let names = secret_names(config_dir, environment);
    let secrets = Entry::secrets_of(&files.entries, &names, environment);
    let mut valid = Vec::new();
    let mut findings = Vec::new();
    for entry in files.entries {
        match entry.outcome {
            Ok(definition) => valid.push(definition),
            Err(invalid) => {
                let mistakes = invalid.mistakes.iter();
                findings.extend(
                    mistakes.map(|mistake| {
                        Finding::explained(subject, mistake.in_file(&invalid.path).to_string())
                    }),
                );
            }
        }
    }
    let right = format!("{} right in {}", count(valid.len(), "file"), files.directory.display());
    findings.insert(0, Finding::ok(subject, right));
    Ok(Definitions { valid, findings, secrets })
}

/// Whether the commands of stdio servers are there.
pub(super) fn commands(definitions: &[Arc<Definition>], environment: &Environment) -> Vec<Finding> {
    definitions.iter().filter_map(|definition| command(definition, environment)).collect()
}

fn command(definition: &Definition, environment: &Environment) -> Option<Finding> {
    let Transport::Stdio(stdio) = &definition.transport else { return None };
    let subject = format!("server {}", definition.name);
    // A PATH of its own goes before ours.
    let own = stdio.env.iter().find(|(name, _)| name == "PATH").map(|(_, path)| path.expose());
    let path = own.map(std::ffi::OsStr::new).or_else(|| environment.get_os("PATH"));
    let trouble = if !stdio.cwd.is_dir() {
        Some((
            format!("its cwd {} is no directory", stdio.cwd.display()),
            "make it, or correct spec.cwd".to_owned(),
        ))
    } else {
        lookup(stdio.command.as_ref(), path, &stdio.cwd).err().map(|error| {
            let advice = match &error {
                LookupError::NotOnPath { .. } => {
                    format!("install {}, or write its whole path as spec.command", stdio.command)
                }
                LookupError::Missing { .. } => "correct spec.command".to_owned(),
                LookupError::NotExecutable { .. } => "chmod +x, or correct spec.command".to_owned(),
            };
            (error.to_string(), advice)
        })
    };
    Some(match trouble {
        None => Finding::ok(subject, format!("{} is there", stdio.command)),
        // Nobody misses it now.
        Some((message, advice)) if definition.suspended || !definition.auto_start => {
            Finding::warning(subject, message, advice)
        }
        Some((message, advice)) => Finding::problem(subject, message, advice),
    })
}
