//! Servers on the network that the gateway cannot dial: those of `type: sse`, and streamable HTTP at IPv6 addresses.

use std::path::Path;
use std::process::Stdio;

use rstest::rstest;
use serde_json::json;
use tokio::process::Command;

use super::support::definitions::{example, remote, sse, with};
use super::support::leaks;
use super::support::optional::{Through, ipv6_loopback, npm_server_everything, python_with_mcp};
use super::support::scripted::{Offered, Scripted};
use super::support::{McpClient, Sidegate, Upstream, eventually};

/// A server on the official Python SDK. It reports progress, notices cancellations, and knows who called it.
const PYTHON_SERVER: &str = r#"
import asyncio, json, os, socket
import uvicorn
from mcp.server.mcpserver import Context, MCPServer

server = MCPServer("python")
cancelled = 0

@server.tool()
def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

@server.tool()
async def steps(context: Context) -> str:
    "Report progress."
    for step in (1, 2, 3):
        await context.report_progress(step, 3)
    return "done"

@server.tool()
def fail() -> str:
    "Fail."
    raise ValueError("this went wrong")

@server.tool()
def header(name: str, context: Context) -> str:
    "Return a header of the request that this call came with."
    return context.headers.get(name, "none")

@server.tool()
def crash() -> str:
    "End the process."
    os._exit(3)

listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen()
print(json.dumps({"url": f"http://127.0.0.1:{listener.getsockname()[1]}/sse"}), flush=True)
uvicorn.Server(uvicorn.Config(server.sse_app(), log_level="error")).run(sockets=[listener])
"#;

async fn python_server(python: &Path) -> Upstream {
    let mut command = Command::new(python);
    command.args(["-c", PYTHON_SERVER]).stderr(Stdio::null());
    Upstream::start(command).await
}

/// Calls until the server answers again.
async fn called_again(client: &McpClient, tool: &str, arguments: serde_json::Value) -> String {
    eventually("a call", async || {
        let answer = client.call(tool, arguments.clone()).await;
        answer.envelope().result.is_some().then(|| answer.text())
    })
    .await
}

#[rstest]
#[tokio::test]
async fn a_python_sse_server_is_served(#[values(Through::Embedded, Through::Agentgateway)] through: Through) {
    let Some(python) = python_with_mcp() else { return };
    let Some(builder) = through.builder() else { return };
    let server = python_server(&python).await;
    let definition = with(sse(&server.url), "headers: {X-Team: core}");
    let sidegate = builder.definition("py", &definition).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;

    let mut names = client.tool_names().await;
    names.sort_unstable();
    assert_eq!(names, ["x_py_add", "x_py_crash", "x_py_fail", "x_py_header", "x_py_steps"]);
    assert_eq!(client.call("x_py_add", json!({"a": 2, "b": 3})).await.text(), "5");
    assert_eq!(client.call("x_py_fail", json!({})).await.value()["isError"], true);
    assert_eq!(client.call("x_py_header", json!({"name": "x-team"})).await.text(), "core");
    assert_eq!(client.call("x_py_header", json!({"name": "x-sidegate-key"})).await.text(), "none");
    let call = json!({"name": "x_py_steps", "arguments": {}, "_meta": {"progressToken": "p"}});
    let mut exchange = client.start("tools/call", call).await;
    for step in 1..=3 {
        let progress = exchange.expect("notifications/progress").await.params();
        assert_eq!(
            (&progress["progressToken"], progress["progress"].as_f64()),
            (&json!("p"), Some(f64::from(step)))
        );
    }
    assert_eq!(exchange.response().await.text(), "done");

    let crashed = client.call("x_py_crash", json!({})).await;
    assert!(crashed.envelope().error.is_some(), "{}", crashed.raw());
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[rstest]
#[tokio::test]
async fn an_npm_sse_server_is_served(#[values(Through::Embedded, Through::Agentgateway)] through: Through) {
    let Some(script) = npm_server_everything() else { return };
    let Some(builder) = through.builder() else { return };
    let mut command = Command::new("node");
    command.arg(script).arg("sse").env("PORT", "0").stdin(Stdio::null()).stdout(Stdio::null());
    let server = command.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let pid = server.id().unwrap();
    let port = eventually("the server's port", async || listening_port(pid)).await;
    let definition = sse(&format!("http://127.0.0.1:{port}/sse"));
    let sidegate = builder.definition("npm", &definition).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.call("x_npm_echo", json!({"message": "ü 🦀"})).await.text(), "Echo: ü 🦀");
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

/// A TCP port that a process listens on.
fn listening_port(pid: u32) -> Option<u16> {
    let inodes: Vec<String> = fs_err::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .filter_map(|entry| fs_err::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| Some(link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let tables = ["tcp", "tcp6"].map(|table| fs_err::read_to_string(format!("/proc/net/{table}")));
    tables.into_iter().flatten().find_map(|table| {
        table.lines().find_map(|line| {
            // Local address, remote address, state (0A: listening), and the inode further on.
            let fields: Vec<&str> = line.split_whitespace().collect();
            let listens =
                *fields.get(3)? == "0A" && inodes.iter().any(|inode| fields.get(9) == Some(&inode.as_str()));
            listens.then(|| u16::from_str_radix(fields[1].rsplit(':').next()?, 16).ok())?
        })
    })
}

/// A port that refuses connections at 127.0.0.1 as long as the socket is kept: `localhost` is not somebody else's then.
fn port_of_ipv6() -> (u16, tokio::net::TcpSocket) {
    let kept = tokio::net::TcpSocket::new_v4().unwrap();
    kept.bind(([127, 0, 0, 1], 0).into()).unwrap();
    (kept.local_addr().unwrap().port(), kept)
}

#[rstest]
#[case::by_address("[::1]")]
#[case::by_name("localhost")]
#[tokio::test]
async fn a_server_that_answers_over_ipv6_only_is_served(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[case] host: &str,
) {
    if !ipv6_loopback() {
        return;
    }
    let Some(builder) = through.builder() else { return };
    let (port, _kept) = port_of_ipv6();
    let server = Upstream::everything_at(&format!("[::1]:{port}"), &[]).await;
    let url = server.url.replace("[::1]", host);
    // So long a server that has gone is waited for.
    let six = with(remote(&url), "timeout: 5");
    let sidegate = builder.definition("six", &six).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let before = client.call("x_six_pid", json!({})).await.text();
    let big = "x".repeat(1 << 20);
    assert!(client.call("x_six_echo", json!({"payload": big})).await.raw().contains(&big));
    // Its own event streams pass as they are, from both ends.
    client.call("x_six_add_tool", json!({"name": "late"})).await;
    eventually("the new tool", async || {
        client.tool_names().await.contains(&"x_six_late".to_owned()).then_some(())
    })
    .await;
    assert_eq!(client.call("x_six_pid", json!({})).await.text(), before);
    // A server that has gone is known not to have been asked.
    let port = server.url.clone();
    server.kill().await;
    let gone = client.call("x_six_pid", json!({})).await;
    assert!(gone.envelope().error.is_some(), "{}", gone.raw());
    let address = port.trim_start_matches("http://").trim_end_matches("/mcp");
    let _again = Upstream::everything_at(address, &[]).await;
    assert_ne!(called_again(&client, "x_six_pid", json!({})).await, before);
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

/// Whoever comes next knows nothing of it.
#[rstest]
#[tokio::test]
async fn a_session_is_closed_at_the_server_where_it_began(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    if !ipv6_loopback() {
        return;
    }
    let Some(builder) = through.builder() else { return };
    let one = Scripted::start_at("[::1]:0", Offered::default()).await;
    let two = Scripted::start_at("[::1]:0", Offered::default()).await;
    let sidegate = builder.definition("near", &remote(&one.url)).wait_for_servers().start().await;
    let child = example("everything", &[]);
    let sessions = || {
        let mut processes = leaks::processes(&sidegate.tag);
        processes.retain(|process| process.command.ends_with("/everything"));
        // A child has a guard.
        [one.sessions().len(), two.sessions().len(), processes.len()]
    };
    assert_eq!(sessions(), [1, 0, 0]);
    for (definition, expected) in [
        (remote(&two.url), [0, 1, 0]),
        (child.clone(), [0, 0, 2]),
        (remote(&one.url), [1, 0, 0]),
        (child, [0, 0, 2]),
        (remote(&two.url), [0, 1, 0]),
    ] {
        sidegate.write_definition("near", &definition);
        eventually("one session, and no other", async || (sessions() == expected).then_some(())).await;
    }
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!((one.sessions().len(), two.sessions().len()), (0, 0));
}

#[tokio::test]
async fn an_sse_server_that_is_none_is_failed_with_the_reason() {
    let server = Upstream::everything(&[]).await;
    let definition = sse(&server.url);
    let sidegate = Sidegate::builder().definition("no", &definition).wait_for_servers().start().await;
    sidegate.wait_for_stderr("HTTP 4").await;
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}
