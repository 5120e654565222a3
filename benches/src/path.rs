//! The ways to a server that are compared: who stands in between.

use std::net::TcpListener;
use std::path::{Path as FilePath, PathBuf};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;
use tokio::process::Command;

use crate::Result;
use crate::client::{Session, Target};
use crate::process::Process;

/// How long a peer may take to be of use.
const START: Duration = Duration::from_secs(45);

/// How the server at the end is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Http,
    Stdio,
}

/// Programs that are not ours, where they are.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    pub(crate) sidegate: PathBuf,
    /// Another Sidegate to compare with.
    pub(crate) before: Option<PathBuf>,
    pub(crate) agentgateway: Option<PathBuf>,
    pub(crate) mcp_proxy: Option<PathBuf>,
    /// A Python with fastmcp.
    pub(crate) fastmcp: Option<PathBuf>,
    pub(crate) mcp_hub: Option<PathBuf>,
}

/// A way to a server.
pub(crate) struct Path {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    process: Option<Process>,
    _directory: Option<tempfile::TempDir>,
}

/// What stands at the end of every path.
pub(crate) struct Upstream<'u> {
    pub(crate) url: &'u str,
    pub(crate) command: &'u [String],
}

impl Path {
    /// The process to measure, 0 for none.
    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    pub(crate) async fn end(self) -> Result {
        match self.process {
            Some(process) => process.end().await,
            None => Ok(()),
        }
    }
}

/// Starts every path that is wanted and that there are programs for. What is missing, or does not start, is said on stderr.
pub(crate) async fn start_all(
    programs: &Programs,
    upstream: &Upstream<'_>,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<Vec<Path>> {
    let mut paths = Vec::new();
    for kind in [Kind::Http, Kind::Stdio] {
        for name in NAMES.iter().copied().filter(|name| wanted(name)) {
            match start(name, kind, programs, upstream).await {
                Ok(Some(path)) => paths.push(path),
                Ok(None) => {}
                // Trouble of a peer is not ours, but must not go unnoticed.
                Err(error) if !name.starts_with("sidegate") => {
                    eprintln!("SKIPPED: {name} in front of a {kind:?} server: {error}");
                }
                Err(error) => return Err(format!("{name}: {error}").into()),
            }
        }
    }
    Ok(paths)
}

const NAMES: [&str; 10] = [
    "direct",
    "sidegate, embedded",
    "sidegate before, embedded",
    "sidegate, agentgateway",
    "sidegate before, agentgateway",
    "agentgateway, MCP route",
    "agentgateway, HTTP route",
    "mcp-proxy (Rust)",
    "fastmcp proxy",
    "mcp-hub",
];

/// Starts a path; `None` where there is no such path to a server of this kind.
async fn start(
    name: &'static str,
    kind: Kind,
    programs: &Programs,
    upstream: &Upstream<'_>,
) -> Result<Option<Path>> {
    let agentgateway_program = || given(&programs.agentgateway, "--agentgateway");
    let path = match name {
        "direct" => direct(name, kind, upstream),
        "sidegate, embedded" => sidegate(name, kind, upstream, &programs.sidegate, None).await?,
        "sidegate, agentgateway" => {
            sidegate(name, kind, upstream, &programs.sidegate, Some(agentgateway_program()?)).await?
        }
        "sidegate before, embedded" => match &programs.before {
            Some(before) => sidegate(name, kind, upstream, before, None).await?,
            None => return Ok(None),
        },
        "sidegate before, agentgateway" => match &programs.before {
            Some(before) => sidegate(name, kind, upstream, before, Some(agentgateway_program()?)).await?,
            None => return Ok(None),
        },
        "agentgateway, MCP route" => {
            agentgateway(name, kind, upstream, agentgateway_program()?, mcp_route).await?
        }
        "agentgateway, HTTP route" if kind == Kind::Http => {
            agentgateway(name, kind, upstream, agentgateway_program()?, http_route).await?
        }
        "mcp-proxy (Rust)" => {
            mcp_proxy(name, kind, upstream, given(&programs.mcp_proxy, "--mcp-proxy")?).await?
        }
        "fastmcp proxy" => fastmcp(name, kind, upstream, given(&programs.fastmcp, "--fastmcp")?).await?,
        "mcp-hub" => mcp_hub(name, kind, upstream, given(&programs.mcp_hub, "--mcp-hub")?).await?,
        _ => return Ok(None),
    };
    Ok(Some(path))
}

fn given<'p>(program: &'p Option<PathBuf>, option: &str) -> Result<&'p PathBuf> {
    let program = program.as_ref();
    Ok(program.ok_or_else(|| format!("no {option} (benches/peers installs what can be installed)"))?)
}

fn direct(name: &'static str, kind: Kind, upstream: &Upstream<'_>) -> Path {
    let target = match kind {
        Kind::Http => Target::Http(upstream.url.to_owned()),
        Kind::Stdio => Target::Command(upstream.command.to_vec()),
    };
    Path { name, kind, target, process: None, _directory: None }
}

/// Sidegate with one server; with the embedded gateway where no other is given.
async fn sidegate(
    name: &'static str,
    kind: Kind,
    upstream: &Upstream<'_>,
    program: &FilePath,
    gateway: Option<&PathBuf>,
) -> Result<Path> {
    let directory = tempfile::tempdir()?;
    let spec = match kind {
        Kind::Http => json!({"type": "streamable-http", "url": upstream.url}),
        Kind::Stdio => {
            json!({"type": "stdio", "command": upstream.command[0], "args": upstream.command[1..]})
        }
    };
    write_definition(directory.path(), "bench", &spec)?;
    let mut process = Process::start(&mut serve(program, directory.path(), gateway, "servers"))?;
    let target = Target::Http(process.url().await?);
    Ok(Path { name, kind, target, process: Some(process), _directory: Some(directory) })
}

/// The command that serves the definitions in `directory`, and says when it is ready.
pub(crate) fn serve(
    program: &FilePath,
    directory: &FilePath,
    gateway: Option<&PathBuf>,
    wait: &str,
) -> Command {
    let mut command = Command::new(program);
    command.args(["serve", "--ephemeral", "--listen", "127.0.0.1:0", "--output", "json", "--wait", wait]);
    command.arg("--config-dir").arg(directory).env("SIDEGATE_LOG", "warn");
    match gateway {
        None => command.args(["--gateway", "embedded"]),
        Some(binary) => command.args(["--gateway", "agentgateway", "--gateway-binary"]).arg(binary),
    };
    command
}

/// Writes a definition as an editor does: whole, by a rename.
pub(crate) fn write_definition(directory: &FilePath, name: &str, spec: &serde_json::Value) -> Result {
    let definitions = directory.join("mcpservers");
    std::fs::create_dir_all(&definitions)?;
    let text = json!({"apiVersion": "sidegate.dev/v1alpha1", "kind": "MCPServer", "spec": spec});
    let temporary = directory.join(format!("{name}.new"));
    // JSON is YAML.
    std::fs::write(&temporary, text.to_string())?;
    Ok(std::fs::rename(temporary, definitions.join(format!("{name}.yaml")))?)
}

async fn agentgateway(
    name: &'static str,
    kind: Kind,
    upstream: &Upstream<'_>,
    program: &FilePath,
    route: fn(Kind, &Upstream<'_>) -> Result<serde_json::Value>,
) -> Result<Path> {
    let directory = tempfile::tempdir()?;
    let [data, admin, stats, readiness] = free_ports()?;
    let at = |port| format!("127.0.0.1:{port}");
    let config = json!({
        "config": {"adminAddr": at(admin), "statsAddr": at(stats), "readinessAddr": at(readiness),
                   "logging": {"level": "warn"}},
        "binds": [{"port": data, "listeners": [{"name": "bench", "routes": [route(kind, upstream)?]}]}],
    });
    let file = directory.path().join("agentgateway.yaml");
    std::fs::write(&file, config.to_string())?;
    let mut command = Command::new(program);
    command.arg("-f").arg(&file).stderr(std::fs::File::create(directory.path().join("log"))?);
    let target = Target::Http(format!("http://127.0.0.1:{data}/mcp"));
    started(name, kind, target, &mut command, directory).await
}

/// What agentgateway does as an MCP server of its own.
fn mcp_route(kind: Kind, upstream: &Upstream<'_>) -> Result<serde_json::Value> {
    let target = match kind {
        Kind::Http => json!({"name": "bench", "mcp": {"host": upstream.url}}),
        Kind::Stdio => {
            json!({"name": "bench", "stdio": {"cmd": upstream.command[0], "args": upstream.command[1..]}})
        }
    };
    Ok(
        json!({"name": "bench", "matches": [{"path": {"pathPrefix": "/mcp"}}], "backends": [{"mcp": {"targets": [target]}}]}),
    )
}

/// What agentgateway does as a plain proxy.
fn http_route(_kind: Kind, upstream: &Upstream<'_>) -> Result<serde_json::Value> {
    let host = upstream.url.trim_start_matches("http://").trim_end_matches("/mcp");
    Ok(json!({"name": "bench", "matches": [{"path": {"pathPrefix": "/mcp"}}], "backends": [{"host": host}]}))
}

async fn mcp_proxy(
    name: &'static str,
    kind: Kind,
    upstream: &Upstream<'_>,
    program: &FilePath,
) -> Result<Path> {
    let directory = tempfile::tempdir()?;
    let [port] = free_ports()?;
    let backend = match kind {
        Kind::Http => format!("transport = \"http\"\nurl = \"{}\"", upstream.url),
        Kind::Stdio => format!(
            "transport = \"stdio\"\ncommand = {}\nargs = {}",
            json!(upstream.command[0]),
            json!(upstream.command[1..])
        ),
    };
    let config = format!(
        "[proxy]\nname = \"bench\"\nversion = \"0\"\n[proxy.listen]\nhost = \"127.0.0.1\"\nport = {port}\n\
         [observability]\nlog_level = \"warn\"\n\
         [[backends]]\nname = \"bench\"\n{backend}\n"
    );
    let file = directory.path().join("proxy.toml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(program);
    command.arg("--config").arg(&file);
    command.stderr(std::fs::File::create(directory.path().join("log"))?);
    let target = Target::Http(format!("http://127.0.0.1:{port}/"));
    started(name, kind, target, &mut command, directory).await
}

async fn fastmcp(name: &'static str, kind: Kind, upstream: &Upstream<'_>, python: &FilePath) -> Result<Path> {
    const PROGRAM: &str = r#"
import json, sys
from fastmcp.server import create_proxy
config = json.loads(sys.argv[1])
create_proxy(config, name="bench").run(transport="http", host="127.0.0.1", port=int(sys.argv[2]),
    log_level="error", show_banner=False)
"#;
    let directory = tempfile::tempdir()?;
    let [port] = free_ports()?;
    let config = json!({"mcpServers": {"bench": server_entry(kind, upstream)}});
    let mut command = Command::new(python);
    command.args(["-c", PROGRAM, &config.to_string(), &port.to_string()]);
    command.stderr(std::fs::File::create(directory.path().join("log"))?);
    let target = Target::Http(format!("http://127.0.0.1:{port}/mcp"));
    started(name, kind, target, &mut command, directory).await
}

async fn mcp_hub(
    name: &'static str,
    kind: Kind,
    upstream: &Upstream<'_>,
    program: &FilePath,
) -> Result<Path> {
    let directory = tempfile::tempdir()?;
    let [port] = free_ports()?;
    let file = directory.path().join("hub.json");
    std::fs::write(&file, json!({"mcpServers": {"bench": server_entry(kind, upstream)}}).to_string())?;
    let mut command = Command::new("node");
    command.arg(program).args(["--port", &port.to_string(), "--config"]).arg(&file);
    for variable in ["HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"] {
        command.env(variable, directory.path());
    }
    command.stderr(std::fs::File::create(directory.path().join("log"))?);
    let target = Target::Sse(format!("http://127.0.0.1:{port}/mcp"));
    started(name, kind, target, &mut command, directory).await
}

/// A server as most clients' configurations have it.
fn server_entry(kind: Kind, upstream: &Upstream<'_>) -> serde_json::Value {
    match kind {
        Kind::Http => json!({"url": upstream.url, "type": "http"}),
        Kind::Stdio => json!({"command": upstream.command[0], "args": upstream.command[1..]}),
    }
}

/// A peer, once a session can be opened and the tool is there.
async fn started(
    name: &'static str,
    kind: Kind,
    target: Target,
    command: &mut Command,
    directory: tempfile::TempDir,
) -> Result<Path> {
    let log = directory.path().join("log");
    let mut process = Process::start(command)?;
    process.discard_output();
    let begun = Instant::now();
    loop {
        let opened = Session::open(&target).await;
        let error = match opened {
            Ok(session) => break session.close().await,
            Err(error) => error,
        };
        if let Err(why) = process.is_running().and_then(|()| {
            if begun.elapsed() < START { Ok(()) } else { Err(format!("it is of no use: {error}").into()) }
        }) {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<&str> = said.lines().rev().take(5).collect();
            return Err(format!("{why}; its last lines, newest first: {}", last.join(" | ")).into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Path { name, kind, target, process: Some(process), _directory: Some(directory) })
}

/// Ports that were free a moment ago, for programs that cannot choose one themselves.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut sockets = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let socket = TcpListener::bind("127.0.0.1:0")?;
        *port = socket.local_addr()?.port();
        sockets.push(socket);
    }
    Ok(ports)
}
