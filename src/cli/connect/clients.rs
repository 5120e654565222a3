//! Whom Sidegate can be connected to: where their files are, and what they want in them.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};
use sidegate::environment::Environment;

use super::edit::Edit;
use super::toml;

/// An MCP client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    /// Claude Code
    Claude,
    /// Claude Desktop
    ClaudeDesktop,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
    /// Codex CLI
    Codex,
    /// Gemini CLI
    Gemini,
    /// Windsurf
    Windsurf,
    /// Zed
    Zed,
}

/// For whom a client is to know of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Scope {
    /// For this user, everywhere
    #[default]
    User,
    /// For whoever works in this directory
    Project,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The endpoint, and the token where one is wanted.
    Http { url: String, token: Option<String> },
    /// A command to start.
    Stdio { command: String, args: Vec<String> },
}

impl Client {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Claude => "Claude Code",
            Self::ClaudeDesktop => "Claude Desktop",
            Self::Cursor => "Cursor",
            Self::Vscode => "VS Code",
            Self::Codex => "Codex",
            Self::Gemini => "Gemini CLI",
            Self::Windsurf => "Windsurf",
            Self::Zed => "Zed",
        }
    }

    /// Whether it starts commands and does nothing else.
    pub(super) fn is_stdio_only(self) -> bool {
        // Its file takes commands; remote servers are added in its settings, for an account.
        self == Self::ClaudeDesktop
    }

    /// Whether it keeps state of its own in that file, and may write over what is put there while it runs.
    pub(super) fn writes_its_file(self, scope: Scope) -> bool {
        (self, scope) == (Self::Claude, Scope::User)
    }

    /// Whether its file is TOML; those of the others are JSON.
    pub(super) fn is_toml(self) -> bool {
        self == Self::Codex
    }

    /// The object in its file that holds servers.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::Vscode => "servers",
            Self::Zed => "context_servers",
            Self::Codex => "mcp_servers",
            _ => "mcpServers",
        }
    }

    /// Its file; `None` where it has none of that scope, or there is no home.
    pub(super) fn file(self, scope: Scope, environment: &Environment) -> Option<PathBuf> {
        let home = || environment.get_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let config = || {
            let given = environment.get_os("XDG_CONFIG_HOME").map(PathBuf::from);
            given.filter(|path| path.is_absolute()).or_else(|| Some(home()?.join(".config")))
        };
        match scope {
            Scope::User => match self {
                Self::Claude => Some(home()?.join(".claude.json")),
                Self::ClaudeDesktop => Some(config()?.join("Claude/claude_desktop_config.json")),
                Self::Cursor => Some(home()?.join(".cursor/mcp.json")),
                Self::Vscode => Some(config()?.join("Code/User/mcp.json")),
                Self::Codex => Some(home()?.join(".codex/config.toml")),
                Self::Gemini => Some(home()?.join(".gemini/settings.json")),
                Self::Windsurf => Some(home()?.join(".codeium/windsurf/mcp_config.json")),
                Self::Zed => Some(config()?.join("zed/settings.json")),
            },
            Scope::Project => {
                let file = match self {
                    Self::Claude => ".mcp.json",
                    Self::Cursor => ".cursor/mcp.json",
                    Self::Vscode => ".vscode/mcp.json",
                    Self::Codex => ".codex/config.toml",
                    Self::Gemini => ".gemini/settings.json",
                    Self::Zed => ".zed/settings.json",
                    Self::ClaudeDesktop | Self::Windsurf => return None,
                };
                std::path::absolute(Path::new(file)).ok()
            }
        }
    }

    /// What stands for Sidegate in its file.
    pub(super) fn entry(self, way: &Way) -> Value {
        let mut entry = match way {
            Way::Http { url, token } => {
                let mut entry = match self {
                    Self::Claude | Self::Vscode => json!({"type": "http", "url": url}),
                    Self::Gemini => json!({"httpUrl": url}),
                    Self::Windsurf => json!({"serverUrl": url}),
                    Self::ClaudeDesktop | Self::Cursor | Self::Codex | Self::Zed => json!({"url": url}),
                };
                if let Some(token) = token {
                    let headers = if self == Self::Codex { "http_headers" } else { "headers" };
                    entry[headers] = json!({"Authorization": format!("Bearer {token}")});
                }
                return entry;
            }
            Way::Stdio { command, args } => json!({"command": command, "args": args}),
        };
        if matches!(self, Self::Claude | Self::Vscode)
            && let Value::Object(fields) = &mut entry
        {
            fields.shift_insert(0, "type".to_owned(), "stdio".into());
        }
        entry
    }

    /// How its file would look that had nothing else.
    pub(super) fn shown(self, name: &str, entry: &Value) -> String {
        if self.is_toml()
            && let Ok(Edit::Changed(text)) = toml::set("", self.section(), name, entry)
        {
            return text.trim_end().to_owned();
        }
        let file = json!({self.section(): {name: entry}});
        format!("{file:#}")
    }
}
