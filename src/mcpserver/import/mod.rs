//! The servers that other clients have in their files, as definitions.
//!
//! Reads `.mcp.json` (Claude Code), `claude_desktop_config.json` (Claude Desktop), `mcp.json` and `settings.json`
//! (VS Code) and `mcp.json` (Cursor); JSON with comments. Runs nothing, writes nothing, and reads no other file.
//!
//! Invariants: a server is carried over whole or refused with its reason; whatever is left out is said; a text means here
//! what it meant there, `$` included.

mod entry;
mod variables;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use self::variables::Variables;
use super::{Invalid, ServerName};
pub(super) use crate::jsonc::plain;
use crate::yaml;

/// What a file of another client holds.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Import {
    /// Whose file it is.
    pub client: Client,
    /// Its servers, in the order of the file.
    pub servers: Vec<Imported>,
}

/// The client that a file belongs to. It decides what variables mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Claude Code: `mcpServers`, `${NAME}`.
    ClaudeCode,
    /// Claude Desktop: `mcpServers`, no variables.
    ClaudeDesktop,
    /// VS Code: `servers`, `${env:NAME}`, `${input:id}`.
    VsCode,
    /// Cursor: `mcpServers`, `${env:NAME}`.
    Cursor,
}

/// A server of the file.
///
/// `Debug` shows no values.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Imported {
    /// Its name there.
    pub original: String,
    /// Its name here, and its `spec`. May hold secrets.
    pub outcome: Result<(ServerName, Value), String>,
    /// What else there is to say.
    pub notes: Notes,
}

/// Remarks on a server, for people. They hold no values that may be secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notes {
    /// What somebody should do, or should know since it may matter.
    pub attention: Vec<String>,
    /// What was done.
    pub information: Vec<String>,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be read.
    #[error(transparent)]
    Unreadable(Invalid),
    /// It is no JSON.
    #[error("{}: not JSON", .path.display())]
    NotJson {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// It has no servers where a client would look for them.
    #[error("{} has neither \"mcpServers\" nor \"servers\"; is it a file of Claude, Cursor or VS Code?", .path.display())]
    NoServers {
        /// The file.
        path: PathBuf,
    },
}

impl fmt::Debug for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imported")
            .field("original", &self.original)
            .field("outcome", &self.outcome.as_ref().map(|(name, _)| name))
            .field("notes", &self.notes)
            .finish()
    }
}

impl Client {
    fn has_variables(self) -> bool {
        self != Self::ClaudeDesktop
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClaudeCode => "Claude Code",
            Self::ClaudeDesktop => "Claude Desktop",
            Self::VsCode => "VS Code",
            Self::Cursor => "Cursor",
        })
    }
}

impl Notes {
    fn attend(&mut self, note: impl Into<String>) {
        push(&mut self.attention, note.into());
    }

    fn say(&mut self, note: impl Into<String>) {
        push(&mut self.information, note.into());
    }
}

/// The same thing is said once.
fn push(notes: &mut Vec<String>, note: String) {
    if !notes.contains(&note) {
        notes.push(note);
    }
}

/// Reads a file of another client. `home` is the user's home directory, whose files belong to no project. Blocks on the
/// file system.
///
/// # Errors
///
/// The file cannot be read, is no JSON, or has no servers.
pub fn import(path: &Path, home: Option<&Path>) -> Result<Import, ImportError> {
    let content = yaml::read_file(path).map_err(|error| {
        ImportError::Unreadable(Invalid { path: path.to_owned(), mistakes: vec![error.mistake()] })
    })?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    read(&path, home, &String::from_utf8_lossy(&content))
}

pub(super) fn read(path: &Path, home: Option<&Path>, text: &str) -> Result<Import, ImportError> {
    let file: Value = serde_json::from_str(&plain(text))
        .map_err(|source| ImportError::NotJson { path: path.to_owned(), source })?;
    let no_servers = || ImportError::NoServers { path: path.to_owned() };
    // VS Code's settings.json has the same below "mcp".
    let [servers, inputs] = ["servers", "inputs"].map(|key| file.get(key).or_else(|| file["mcp"].get(key)));
    let (servers, vs_code) = match file.get("mcpServers") {
        Some(servers) => (servers, false),
        None => (servers.ok_or_else(no_servers)?, true),
    };
    let servers = servers.as_object().ok_or_else(no_servers)?;
    let client = client(path, servers, vs_code);
    let variables = Variables {
        client,
        project: project(path, home, client),
        inputs: inputs.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default(),
    };
    let mut taken: BTreeMap<ServerName, &str> = BTreeMap::new();
    let servers = servers.iter().map(|(original, entry)| {
        let mut notes = Notes::default();
        let outcome = name_for(original).and_then(|name| {
            if let Some(other) = taken.get(&name) {
                return Err(format!(
                    "it would be called {name:?}, as {other:?} is; rename one of them",
                    name = name.as_str()
                ));
            }
            let spec = entry::spec(entry, &variables, &mut notes)?;
            taken.insert(name.clone(), original);
            if name.as_str() != original {
                notes.say(format!("{original:?} is called {:?} here", name.as_str()));
            }
            Ok((name, spec))
        });
        Imported { original: original.clone(), outcome, notes }
    });
    Ok(Import { client, servers: servers.collect() })
}

fn client(path: &Path, servers: &Map<String, Value>, vs_code: bool) -> Client {
    let named = |name: &str| path.file_name().is_some_and(|file| file == name);
    let in_cursor = path.parent().is_some_and(|parent| parent.ends_with(".cursor"));
    // A file that has been moved shows whose it is by its variables.
    let cursors = || {
        let text = Value::Object(servers.clone()).to_string();
        ["${env:", "${userHome}", "${workspaceFolder"].iter().any(|variable| text.contains(variable))
    };
    match () {
        () if vs_code => Client::VsCode,
        () if named("claude_desktop_config.json") => Client::ClaudeDesktop,
        () if in_cursor => Client::Cursor,
        () if named(".mcp.json") || named(".claude.json") => Client::ClaudeCode,
        () if cursors() => Client::Cursor,
        () => Client::ClaudeCode,
    }
}

/// The directory that a client would run the file's servers in.
fn project(path: &Path, home: Option<&Path>, client: Client) -> Option<PathBuf> {
    let directory = path.parent()?;
    let project = match client {
        Client::ClaudeCode if path.file_name()? == ".mcp.json" => directory,
        Client::VsCode if directory.ends_with(".vscode") => directory.parent()?,
        Client::Cursor if directory.ends_with(".cursor") => directory.parent()?,
        _ => return None,
    };
    (Some(project) != home).then(|| project.to_owned())
}

/// A server name that is as much as possible like `original`.
pub(super) fn name_for(original: &str) -> Result<ServerName, String> {
    let mut name = String::with_capacity(original.len());
    for c in original.chars() {
        if c.is_ascii_alphanumeric() {
            name.push(c.to_ascii_lowercase());
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(ServerName::MAX_LENGTH);
    name.trim_end_matches('-')
        .parse()
        .map_err(|_| "nothing of its name can be used: rename it to letters and digits".to_owned())
}

#[cfg(test)]
mod tests;
