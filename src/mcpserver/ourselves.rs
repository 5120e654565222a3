//! What plainly is Sidegate among the servers of others, which would ask itself for its own things.
//!
//! What is not seen here is found when a session is opened: this is for what other clients have been told of Sidegate, and for
//! mistakes that can be told while somebody is looking.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::Value;
use url::{Host, Url};

/// What other clients call Sidegate, where nobody has chosen another name.
const USUAL_NAME: &str = "sidegate";

/// An instance as the definition of a server may name it.
#[derive(Clone, Debug, Default)]
pub struct Ourselves {
    /// The binary.
    executable: Option<PathBuf>,
    /// The configuration directory.
    config_dir: PathBuf,
    /// Where it listens, or usually does.
    addresses: Vec<SocketAddr>,
}

impl Ourselves {
    /// The instance with the definitions of `config_dir` that listens, or usually does, at these addresses.
    pub fn new(executable: Option<PathBuf>, config_dir: &Path, addresses: Vec<SocketAddr>) -> Self {
        Self { executable, config_dir: config_dir.to_owned(), addresses }
    }

    /// Whether the `spec` of a server is Sidegate. Reads links from the file system.
    pub fn is(&self, spec: &Value) -> bool {
        match spec["url"].as_str() {
            Some(url) => self.is_address(url),
            None => self.is_command(spec),
        }
    }

    /// As [`is`](Self::is), for an entry of another client's file: also where it names an address that a former instance
    /// had.
    pub fn is_entry(&self, original: &str, spec: &Value) -> bool {
        let was_address = || {
            let url = Url::parse(spec["url"].as_str()?).ok()?;
            Some(is_loopback(&url.host()?) && url.path() == "/mcp")
        };
        self.is(spec) || (original == USUAL_NAME && was_address().unwrap_or(false))
    }

    fn is_address(&self, url: &str) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return false };
        self.addresses.iter().any(|own| {
            let is_own = match host {
                Host::Domain(_) => false,
                Host::Ipv4(address) => own.ip() == address,
                Host::Ipv6(address) => own.ip() == address,
            };
            (is_own || is_loopback(&host)) && port == own.port()
        })
    }

    fn is_command(&self, spec: &Value) -> bool {
        let args = spec["args"].as_array().map(Vec::as_slice).unwrap_or_default();
        let args: Vec<&str> = args.iter().filter_map(Value::as_str).collect();
        let command = Path::new(spec["command"].as_str().unwrap_or_default());
        args.contains(&"stdio") && self.is_binary(command) && self.is_of_config_dir(&args)
    }

    fn is_binary(&self, command: &Path) -> bool {
        let own = self.executable.as_deref();
        let name = command.file_name();
        name == Some(USUAL_NAME.as_ref())
            || (name.is_some() && name == own.and_then(Path::file_name))
            || own.is_some_and(|own| is_same(command, own))
    }

    /// Whether `sidegate stdio` with these arguments serves what we do: where they do not say whom, they may.
    fn is_of_config_dir(&self, args: &[&str]) -> bool {
        let value = |name: &str| {
            let next = args.iter().position(|arg| *arg == name).and_then(|at| args.get(at + 1));
            next.copied().or_else(|| args.iter().find_map(|arg| arg.strip_prefix(name)?.strip_prefix('=')))
        };
        value("--runtime-dir").is_none()
            && value("--config-dir").is_none_or(|given| is_same(Path::new(given), &self.config_dir))
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

/// Whether two paths lead to the same. What cannot be read is what it is called.
fn is_same(one: &Path, other: &Path) -> bool {
    let found = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    one == other || found(one) == found(other)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn ours(directory: &Path) -> Ourselves {
        let executable = directory.join("sg-6");
        fs::write(&executable, "").unwrap();
        std::os::unix::fs::symlink(&executable, directory.join("link")).unwrap();
        Ourselves::new(Some(executable), directory, vec![([127, 0, 0, 1], 8090).into()])
    }

    #[rstest]
    #[case("sidegate", &["stdio"], true)]
    #[case("/usr/bin/sidegate", &["--log-format", "json", "stdio"], true)]
    #[case("/elsewhere/sg-6", &["stdio"], true)]
    #[case("DIR/link", &["stdio"], true)]
    #[case("sidegate", &["stdio", "--config-dir", "DIR/."], true)]
    #[case("sidegate", &["stdio", "--config-dir=DIR"], true)]
    #[case("sidegate", &["stdio", "--config-dir", "/elsewhere"], false)]
    #[case("sidegate", &["stdio", "--runtime-dir", "/elsewhere"], false)]
    #[case("sidegate", &["example-server"], false)]
    #[case("DIR/other", &["stdio"], false)]
    #[case("npx", &["stdio"], false)]
    fn a_command_is_known_by_its_file(#[case] command: &str, #[case] args: &[&str], #[case] expected: bool) {
        let directory = tempfile::tempdir().unwrap();
        let put = |text: &str| text.replace("DIR", directory.path().to_str().unwrap());
        let args: Vec<String> = args.iter().map(|arg| put(arg)).collect();
        let spec = json!({"type": "stdio", "command": put(command), "args": args});
        assert_eq!(ours(directory.path()).is(&spec), expected);
    }

    #[rstest]
    #[case("any", "http://localhost:8090/mcp", true)]
    #[case("any", "http://[::1]:8090/mcp/time", true)]
    #[case("any", "http://127.0.0.1:41234/mcp", false)]
    #[case("sidegate", "http://127.0.0.1:41234/mcp", true)]
    #[case("sidegate", "http://127.0.0.1:41234/other", false)]
    #[case("sidegate", "http://example.com:8090/mcp", false)]
    #[case("sidegate", "${URL}", false)]
    fn an_address_is_known_by_its_port_or_name(
        #[case] name: &str,
        #[case] url: &str,
        #[case] expected: bool,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let spec = json!({"type": "streamable-http", "url": url});
        assert_eq!(ours(directory.path()).is_entry(name, &spec), expected);
    }
}
