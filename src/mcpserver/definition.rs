//! What a definition says, once it is known to be right.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde_json::{Map, Value};
use url::Url;

use super::auth::Auth;
use super::{Secret, ServerName};

/// One MCPServer, valid and with its variables put in. Only [`Reader`](super::Reader) makes one.
///
/// `Debug` shows no value that may be a secret: neither environment values nor header values, arguments or URL paths.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Definition {
    /// The identity: the stem of the file.
    pub name: ServerName,
    /// How the server is reached.
    pub transport: Transport,
    /// At most 500 characters, may be empty.
    pub description: String,
    /// Stands for the name inside of exposed names.
    pub tool_prefix: Option<ToolPrefix>,
    /// The family whose tools the server shares.
    pub family: Option<Family>,
    /// Whether the server is started without being asked.
    pub auto_start: bool,
    /// The operator wants it not to run.
    pub suspended: bool,
    /// For connecting, initialising and listing; 1 to 300 seconds.
    pub timeout: Duration,
    /// For one call without progress; `None` waits as long as the client does.
    pub call_timeout: Option<Duration>,
    /// Who shares an upstream session.
    pub isolation: Isolation,
    /// How the gateway treats the traffic.
    pub route: Route,
    /// agentgateway route policies, passed through as they are.
    pub policies: Map<String, Value>,
    /// How the user is authenticated with the server.
    pub auth: Auth,
    /// The values that `${VAR}` put into this definition, for redaction.
    pub substituted: Vec<Secret>,
}

/// How a server is reached.
#[derive(Clone, Debug, PartialEq)]
pub enum Transport {
    /// A child process, spoken to over its stdin and stdout.
    Stdio(Stdio),
    /// MCP's streamable HTTP.
    StreamableHttp(Remote),
    /// The HTTP+SSE transport of MCP 2024-11-05.
    Sse(Remote),
}

impl Transport {
    /// Its `spec.type`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Stdio(_) => "stdio",
            Self::StreamableHttp(_) => "streamable-http",
            Self::Sse(_) => "sse",
        }
    }
}

/// A command that speaks MCP on stdin and stdout.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Stdio {
    /// The program: looked up on PATH, or relative to `cwd` when it holds a slash. Not empty.
    pub command: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables set for it, in the order of the file. Names are not empty and hold no `=`.
    pub env: Vec<(String, Secret)>,
    /// Variables passed on besides the default list.
    pub inherit_env: Vec<EnvPattern>,
    /// Where it runs; absolute.
    pub cwd: PathBuf,
}

impl fmt::Debug for Stdio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stdio")
            .field("command", &self.command)
            .field("args", &format_args!("[{} of them]", self.args.len()))
            .field("env", &self.env)
            .field("inherit_env", &self.inherit_env)
            .field("cwd", &self.cwd)
            .finish()
    }
}

/// A server that is reached by URL.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Remote {
    /// `http` or `https`, with a host, without user info and fragment.
    pub url: Url,
    /// Sent on every connection, in the order of the file. Values are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some providers put the key into the path.
        f.debug_struct("Remote")
            .field("origin", &self.url.origin().ascii_serialization())
            .field("headers", &self.headers)
            .finish()
    }
}

/// Servers that offer the same tools for different instances of something.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Family {
    /// The family's name, which stands in the names of the shared tools.
    pub name: ToolPrefix,
    /// The argument that chooses the member.
    pub instance_arg: ArgumentName,
}

/// Who shares an upstream session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// All clients share one.
    #[default]
    Shared,
    /// Each client has its own.
    Session,
}

/// How the gateway treats a server's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// As plain HTTP, byte for byte.
    #[default]
    Http,
    /// Through agentgateway's own MCP backend.
    Mcp,
}

/// A part of exposed tool names: `^[a-zA-Z][a-zA-Z0-9_-]*$`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolPrefix(String);

impl ToolPrefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ToolPrefix {
    type Err = InvalidToolPrefix;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = text.starts_with(|c: char| c.is_ascii_alphabetic())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidToolPrefix) }
    }
}

impl fmt::Display for ToolPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no part of a tool name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not usable in tool names; use a letter, then letters, digits, '_' and '-'")]
pub struct InvalidToolPrefix;

/// The name of a tool's argument: 1 to 64 of letters, digits, `_`, `.` and `-`, which is what common model APIs take
/// as a property name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ArgumentName(String);

impl ArgumentName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ArgumentName {
    type Err = InvalidArgumentName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidArgumentName) }
    }
}

impl fmt::Display for ArgumentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no argument name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not usable as an argument name; use 1 to 64 letters, digits, '_', '.' and '-'")]
pub struct InvalidArgumentName;

/// The name of an environment variable, or the beginning of names when it ends with `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvPattern(String);

impl EnvPattern {
    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the variable `name` is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.0,
        }
    }
}

impl FromStr for EnvPattern {
    type Err = InvalidEnvPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.strip_suffix('*').unwrap_or(text);
        let valid = !text.is_empty() && !name.contains(['*', '=', '\0']);
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidEnvPattern) }
    }
}

/// A text that names no environment variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not the name of an environment variable; write a name such as HTTP_PROXY, or its beginning and '*'")]
pub struct InvalidEnvPattern;

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("time", true)]
    #[case("T-1_x", true)]
    #[case("", false)]
    #[case("1x", false)]
    #[case("_x", false)]
    #[case("a b", false)]
    #[case("é", false)]
    fn tool_prefixes(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<ToolPrefix>().is_ok(), valid);
    }

    #[rstest]
    #[case("NPM_CONFIG_*", "NPM_CONFIG_REGISTRY", true)]
    #[case("NPM_CONFIG_*", "npm_config_registry", false)]
    #[case("FOO", "FOO", true)]
    #[case("FOO", "FOOD", false)]
    #[case("*", "ANYTHING", true)]
    fn env_patterns(#[case] pattern: &str, #[case] name: &str, #[case] matches: bool) {
        assert_eq!(pattern.parse::<EnvPattern>().unwrap().matches(name), matches);
    }

    #[rstest]
    #[case("")]
    #[case("A=B")]
    #[case("*_KEY")]
    #[case("A\0")]
    fn texts_that_are_no_env_pattern(#[case] text: &str) {
        assert!(text.parse::<EnvPattern>().is_err());
    }
}
