//! A server that is defined in code.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::mcpserver::{Isolation, literal};

/// A server for [`InstanceBuilder::server`](super::InstanceBuilder::server), by the rules of definition files: what is
/// wrong with it is said when the instance is started.
///
/// Texts mean themselves: a `$` is a dollar.
///
/// ```
/// use sidegate::Server;
///
/// let time = Server::stdio("uvx").arg("mcp-server-time").env("TZ", "Europe/Berlin");
/// let docs = Server::http("https://docs.example.com/mcp").header("Authorization", "Bearer abc");
/// ```
#[derive(Clone, PartialEq)]
pub struct Server {
    kind: Kind,
    settings: Map<String, Value>,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Stdio { command: PathBuf, args: Vec<String>, env: BTreeMap<String, String>, cwd: Option<PathBuf> },
    Remote { kind: &'static str, url: String, headers: BTreeMap<String, String> },
}

impl Server {
    /// A command that speaks MCP on stdin and stdout. It is looked up on `PATH`, or relative to its working directory
    /// where it holds a slash. It runs in the current directory, and ends with its session.
    pub fn stdio(command: impl Into<PathBuf>) -> Self {
        let (args, env) = (Vec::new(), BTreeMap::new());
        Self::new(Kind::Stdio { command: command.into(), args, env, cwd: None })
    }

    /// A server that is reached over streamable HTTP.
    pub fn http(url: impl Into<String>) -> Self {
        Self::remote("streamable-http", url.into())
    }

    /// A server that is reached over HTTP with server-sent events, as of MCP 2024-11-05.
    pub fn sse(url: impl Into<String>) -> Self {
        Self::remote("sse", url.into())
    }

    fn remote(kind: &'static str, url: String) -> Self {
        Self::new(Kind::Remote { kind, url, headers: BTreeMap::new() })
    }

    fn new(kind: Kind) -> Self {
        Self { kind, settings: Map::new() }
    }

    /// Adds an argument to the command.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        match &mut self.kind {
            Kind::Stdio { args, .. } => args.push(arg.into()),
            Kind::Remote { .. } => return self.with("args", json!([literal(&arg.into())])),
        }
        self
    }

    /// Adds arguments to the command.
    #[must_use]
    pub fn args<A: Into<String>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Self::arg)
    }

    /// Sets a variable for the command.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        match &mut self.kind {
            Kind::Stdio { env, .. } => drop(env.insert(name.into(), value.into())),
            Kind::Remote { .. } => return self.with("env", json!({name.into(): literal(&value.into())})),
        }
        self
    }

    /// Passes on variables of the instance's environment that commands do not get by themselves: a name, or a pattern
    /// such as `AWS_*`. A later list replaces an earlier one.
    #[must_use]
    pub fn inherit_env<N: Into<String>>(self, names: impl IntoIterator<Item = N>) -> Self {
        self.with("inheritEnv", names.into_iter().map(Into::into).collect::<Vec<String>>().into())
    }

    /// Where the command runs.
    #[must_use]
    pub fn current_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        match &mut self.kind {
            Kind::Stdio { cwd, .. } => *cwd = Some(directory.into()),
            Kind::Remote { .. } => return self.with("cwd", directory.into().to_string_lossy().into()),
        }
        self
    }

    /// Sets a header of every request.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        match &mut self.kind {
            Kind::Remote { headers, .. } => drop(headers.insert(name.into(), value.into())),
            Kind::Stdio { .. } => return self.with("headers", json!({name.into(): literal(&value.into())})),
        }
        self
    }

    /// What it is for, up to 500 characters.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.with("description", text.into().into())
    }

    /// What stands in the names of its tools in place of its own.
    #[must_use]
    pub fn tool_prefix(self, prefix: impl Into<String>) -> Self {
        self.with("toolPrefix", prefix.into().into())
    }

    /// Makes it a member of a family, whose tools have an argument `argument` that names the member.
    #[must_use]
    pub fn family(self, name: impl Into<String>, argument: impl Into<String>) -> Self {
        self.with("family", json!({"name": name.into(), "instanceArg": argument.into()}))
    }

    /// Whether all clients share a session with it, which is so by default.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        let word = match isolation {
            Isolation::Shared => "shared",
            Isolation::Session => "session",
        };
        self.with("isolation", word.into())
    }

    /// Whether it is started with the instance, which is so by default.
    #[must_use]
    pub fn auto_start(self, auto_start: bool) -> Self {
        self.with("autoStart", auto_start.into())
    }

    /// How long connecting, initializing and listing may take: 1 to 300 seconds, and 30 by default. Parts of a second count
    /// as a whole one.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        self.with("timeout", whole_seconds(timeout).into())
    }

    /// How long a call may be silent; zero, the default, is no limit. Parts of a second count as a whole one.
    #[must_use]
    pub fn call_timeout(self, timeout: Duration) -> Self {
        self.with("callTimeout", whole_seconds(timeout).into())
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.settings.insert(key.to_owned(), value);
        self
    }

    /// The `spec` of its definition. Relative paths are relative to `here`, which is absolute.
    ///
    /// # Errors
    ///
    /// A path that is not UTF-8.
    pub(super) fn spec(&self, here: &Path) -> Result<Value, PathBuf> {
        let text = |path: &Path| path.to_str().map(literal).ok_or_else(|| path.to_owned());
        let texts = |texts: &BTreeMap<String, String>| -> Map<String, Value> {
            texts.iter().map(|(name, value)| (name.clone(), literal(value).into())).collect()
        };
        let mut spec = Map::new();
        match &self.kind {
            Kind::Stdio { command, args, env, cwd } => {
                let args: Vec<String> = args.iter().map(|arg| literal(arg)).collect();
                spec.insert("type".to_owned(), "stdio".into());
                spec.insert("command".to_owned(), text(command)?.into());
                spec.insert("args".to_owned(), args.into());
                spec.insert("env".to_owned(), texts(env).into());
                spec.insert("cwd".to_owned(), text(&here.join(cwd.as_deref().unwrap_or(here)))?.into());
            }
            Kind::Remote { kind, url, headers } => {
                spec.insert("type".to_owned(), (*kind).into());
                spec.insert("url".to_owned(), literal(url).into());
                spec.insert("headers".to_owned(), texts(headers).into());
            }
        }
        spec.extend(self.settings.clone());
        Ok(Value::Object(spec))
    }
}

/// Values can be secrets.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.kind {
            Kind::Stdio { .. } => "stdio",
            Kind::Remote { kind, .. } => kind,
        };
        f.debug_struct("Server").field("type", &kind).finish_non_exhaustive()
    }
}

/// Rounded up: what is short must not become none at all.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_themselves_and_paths_are_meant_from_here() {
        let server = Server::stdio("./run").args(["$HOME", "a"]).env("K", "${V}").current_dir("sub");
        let spec = json!({
            "type": "stdio", "command": "./run", "args": ["$$HOME", "a"], "env": {"K": "$${V}"}, "cwd": "/src$$/sub",
        });
        assert_eq!(server.spec(Path::new("/src$")), Ok(spec));
        let server =
            Server::http("http://h/$").header("X", "$").description("d$").timeout(Duration::from_secs(5));
        let spec = json!({
            "type": "streamable-http", "url": "http://h/$$", "headers": {"X": "$$"}, "description": "d$", "timeout": 5,
        });
        assert_eq!(server.spec(Path::new("/")), Ok(spec));
    }

    #[test]
    fn what_does_not_belong_to_its_type_stays_to_be_refused() {
        let spec =
            Server::http("http://h").arg("a").env("A", "b").current_dir("c").spec(Path::new("/")).unwrap();
        assert_eq!(
            (&spec["args"], &spec["env"], &spec["cwd"]),
            (&json!(["a"]), &json!({"A": "b"}), &json!("c"))
        );
        let spec = Server::stdio("x").header("A", "b").spec(Path::new("/")).unwrap();
        assert_eq!(spec["headers"], json!({"A": "b"}));
    }

    #[test]
    fn a_limit_below_a_second_is_one() {
        let spec = |timeout| Server::stdio("x").call_timeout(timeout).spec(Path::new("/")).unwrap();
        for (milliseconds, seconds) in [(0, 0), (1, 1), (500, 1), (1000, 1), (1500, 2)] {
            assert_eq!(spec(Duration::from_millis(milliseconds))["callTimeout"], seconds);
        }
        let spec = Server::stdio("x").timeout(Duration::from_millis(200)).spec(Path::new("/")).unwrap();
        assert_eq!(spec["timeout"], 1);
    }

    #[test]
    fn debug_shows_no_secret() {
        let server = Server::http("http://hunter22").header("A", "hunter22");
        assert!(!format!("{server:?}").contains("hunter22"));
    }
}
