//! Servers that do not answer as they should, played over raw sockets: each call gets an error of its own that says why,
//! is sent once, and the next call works.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::support::McpClient;
use super::support::definitions::{remote, with};
use super::support::optional::Through;

/// What is answered to a call of the tool with this name, whose id is put in for `ID`; and what its caller gets to know.
const TOOLS: &[(&str, &str, &str)] = &[
    ("fine", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\nANSWER", "done"),
    (
        "twice",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ANSWER\n\ndata: ANSWER\n\n",
        "done",
    ),
    (
        "half_event",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ANSWER\n",
        "the server ended the response without an answer",
    ),
    (
        "wrong_id",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":\"ID\",\"result\":{}}",
        "the server answered something else than request",
    ),
    (
        "wrong_id_in_a_stream",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"ID\",\"result\":{}}\n\n",
        "the server ended the response without an answer",
    ),
    ("no_json", "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n<html>", "the answer is not JSON"),
    (
        "accepted",
        "HTTP/1.1 202 Accepted\r\ncontent-type: text/plain\r\n\r\nAccepted",
        "HTTP 202 Accepted and content type \"text/plain\", which is not MCP",
    ),
    (
        "too_many",
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\n\r\nslow down",
        "HTTP 429 Too Many Requests (it asks to wait 7 s): slow down",
    ),
    (
        "challenged",
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer realm=\"x\"\r\n\r\n",
        "(it wants authorization by Bearer realm=\"x\")",
    ),
    (
        "unauthorized",
        "HTTP/1.1 401 Unauthorized\r\n\r\n",
        "(it wants authorization, and does not say of which kind)",
    ),
    ("failed", "HTTP/1.1 500 Internal Server Error\r\n\r\noops", "HTTP 500 Internal Server Error: oops"),
    ("busy", "HTTP/1.1 503 Service Unavailable\r\n\r\nbusy", "HTTP 503 Service Unavailable: busy"),
    (
        "moved",
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
        "redirects are not followed; the server points to http://127.0.0.1:1/",
    ),
    ("hangs_up", "", "server bad did not answer"),
    ("never", "", "no answer within 1 s (spec.callTimeout)"),
    // The session is not known any more: once, the call goes to the next one.
    ("expired", "HTTP/1.1 404 Not Found\r\n\r\n", "done"),
];

/// A server that answers as [`TOOLS`] says.
struct Played {
    url: String,
    calls: Arc<Mutex<BTreeMap<String, usize>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Played {
    async fn start(session_header: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let calls = Arc::default();
        let counted = Arc::clone(&calls);
        let serving = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, session_header, Arc::clone(&counted)));
            }
        };
        Self { url, calls, _serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }
}

/// Answers one request, and closes the connection.
async fn answer(stream: TcpStream, session_header: bool, calls: Arc<Mutex<BTreeMap<String, usize>>>) {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    // Whoever connects and says nothing wants nothing.
    while let Ok(1..) = stream.read_line(&mut head).await {
        let line = head.lines().last().unwrap_or_default().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    if stream.read_exact(&mut body).await.is_err() {
        return;
    }
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = |result: Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let done = result(json!({"content": [{"type": "text", "text": "done"}]}));
    let ok = |headers: &str, result: String| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}\r\n{result}")
    };
    let response = match message["method"].as_str() {
        Some("initialize") => ok(
            if session_header { "mcp-session-id: s\r\n" } else { "" },
            result(json!({
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "bad", "version": "0"},
            })),
        ),
        Some("tools/list") => {
            let tool =
                |(name, ..): &(&str, &str, &str)| json!({"name": name, "inputSchema": {"type": "object"}});
            ok("", result(json!({"tools": TOOLS.iter().map(tool).collect::<Vec<_>>()})))
        }
        Some("tools/call") => {
            let name = message["params"]["name"].as_str().unwrap();
            let count = {
                let mut calls = calls.lock().unwrap();
                let count = calls.entry(name.to_owned()).or_default();
                *count += 1;
                *count
            };
            let (_, response, _) = TOOLS.iter().find(|(tool, ..)| *tool == name).unwrap();
            match name {
                "never" => return std::future::pending().await,
                "expired" if count > 1 => ok("", done),
                _ => response.replace("ANSWER", &done).replace("ID", &message["id"].to_string()),
            }
        }
        Some(_) => "HTTP/1.1 202 Accepted\r\n\r\n".to_owned(),
        // GET and DELETE.
        None => "HTTP/1.1 405 Method Not Allowed\r\n\r\n".to_owned(),
    };
    let response = response.replacen("\r\n", "\r\nconnection: close\r\n", 1);
    // The end of the connection is the end of the body.
    let _ = stream.get_mut().write_all(response.as_bytes()).await;
    let _ = stream.get_mut().shutdown().await;
}

#[rstest]
#[tokio::test]
async fn a_broken_answer_is_an_error_of_its_own_call(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values(true, false)] session_header: bool,
) {
    let Some(builder) = through.builder() else { return };
    let server = Played::start(session_header).await;
    let definition = with(remote(&server.url), "callTimeout: 1");
    let sidegate = builder.definition("bad", &definition).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    for (tool, _, expected) in TOOLS {
        if *tool == "expired" && !session_header {
            // Where there is no session, none can be lost.
            continue;
        }
        let answer = client.call(&format!("x_bad_{tool}"), json!({})).await;
        assert!(
            answer.raw().contains(json!(expected).to_string().trim_matches('"')),
            "{tool}: {}",
            answer.raw()
        );
        assert_eq!(answer.envelope().result.is_some(), *expected == "done", "{tool}: {}", answer.raw());
        let sent = server.calls.lock().unwrap()[*tool];
        assert_eq!(
            sent,
            if *tool == "expired" { 2 } else { 1 },
            "{tool}: what may have been executed is sent once"
        );
    }
    assert_eq!(client.call("x_bad_fine", json!({})).await.text(), "done");
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}
