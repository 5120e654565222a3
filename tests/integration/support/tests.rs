//! The support code itself, against `examples/everything` without the product in between.

use std::process::Stdio;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

use super::mcp_client::{EventStream, Http, RawResponse};
use super::sse::{Event, Parser};
use super::{McpClient, Upstream, example_path, leaks, within};

#[test]
fn events_are_parsed_however_they_are_cut() {
    let stream = ": comment\r\n\r\nid: 0\r\nretry: 250\r\ndata:\r\n\r\nevent: message\ndata: {\"a\":\ndata:  \"ü\"}\n\ndata\r\runfinished: x";
    let expected = [
        Event { id: Some("0".to_owned()), data: Some(String::new()), retry: Some(250), ..Event::default() },
        Event {
            event: Some("message".to_owned()),
            data: Some("{\"a\":\n \"ü\"}".to_owned()),
            ..Event::default()
        },
        Event { data: Some(String::new()), ..Event::default() },
    ];
    for size in 1..=stream.len() {
        let mut parser = Parser::default();
        let events: Vec<_> = stream.as_bytes().chunks(size).flat_map(|bytes| parser.push(bytes)).collect();
        assert_eq!(events, expected, "in pieces of {size}");
    }
}

#[tokio::test]
async fn a_session_from_initialize_to_delete() {
    let upstream = Upstream::everything(&["--tools", "2"]).await;
    let client = McpClient::initialize(&upstream.url, "2025-06-18", json!({})).await;
    assert_eq!(client.initialize_result()["protocolVersion"], "2025-06-18");
    assert!(client.session_id().is_some());

    let names = client.tool_names().await;
    assert_eq!(names.iter().filter(|name| name.starts_with("extra_")).count(), 2);
    assert_eq!(client.call("extra_2", json!({})).await.text(), "extra_2 was called");
    assert_eq!(client.call("no_such_tool", json!({})).await.error()["code"], -32602);

    assert!(client.delete().await.is_success());
    let gone = client.post(r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#).await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn echo_keeps_what_it_does_not_know() {
    let upstream = Upstream::everything(&[]).await;
    let client = McpClient::connect(&upstream.url).await;
    let arguments = r#"{"z":1,"a":{"x-unknown":[null,true,"\u00fc"]}}"#;
    let answer =
        client.call("echo", serde_json::from_str::<&serde_json::value::RawValue>(arguments).unwrap()).await;
    assert_eq!(answer.text(), r#"{"z":1,"a":{"x-unknown":[null,true,"ü"]}}"#);
    assert!(answer.raw().contains(r#""structuredContent":{"z":1,"a":{"x-unknown":[null,true,"ü"]}}"#));
}

#[tokio::test]
async fn notifications_arrive_on_the_stream_that_listens() {
    let upstream = Upstream::everything(&[]).await;
    let (watcher, actor) = tokio::join!(McpClient::connect(&upstream.url), McpClient::connect(&upstream.url));
    let mut stream = watcher.listen().await;

    assert_eq!(actor.call("add_tool", json!({"name": "late"})).await.text(), "added late");
    stream.expect("notifications/tools/list_changed").await;
    assert!(watcher.tool_names().await.contains(&"late".to_owned()));
    assert_eq!(actor.call("remove_tool", json!({"name": "late"})).await.text(), "removed late");
    stream.expect("notifications/tools/list_changed").await;
    assert!(!watcher.tool_names().await.contains(&"late".to_owned()));

    let uri = "test://watched-resource";
    watcher.request("resources/subscribe", json!({ "uri": uri })).await.result();
    let touched = actor.call("touch_resource", json!({ "uri": uri })).await;
    assert_eq!(touched.value()["structuredContent"], json!({"subscribers": 1}));
    assert_eq!(stream.expect("notifications/resources/updated").await.params()["uri"], uri);
}

#[tokio::test]
async fn progress_comes_before_the_response() {
    let upstream = Upstream::everything(&[]).await;
    let client = McpClient::connect(&upstream.url).await;
    let params = json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "p"}});
    let mut exchange = client.start("tools/call", params).await;
    for progress in [0.0, 50.0, 100.0] {
        let message = exchange.next_message().await.unwrap();
        assert_eq!(message.envelope().method.as_deref(), Some("notifications/progress"));
        assert_eq!(message.params()["progress"], progress);
        assert_eq!(message.params()["progressToken"], "p");
    }
    assert_eq!(exchange.response().await.text(), "Tool with progress executed successfully");
}

#[tokio::test]
async fn a_server_request_can_be_answered() {
    let upstream = Upstream::everything(&[]).await;
    let client = McpClient::initialize(&upstream.url, "2025-11-25", json!({"sampling": {}})).await;
    let params = json!({"name": "test_sampling", "arguments": {"prompt": "Say hello"}});
    let mut exchange = client.start("tools/call", params).await;

    let request = exchange.expect("sampling/createMessage").await;
    assert_eq!(request.params()["messages"][0]["content"]["text"], "Say hello");
    let answer = json!({"role": "assistant", "content": {"type": "text", "text": "Hello"}, "model": "m"});
    client.respond(&request, answer).await;
    assert_eq!(exchange.response().await.text(), "LLM response: Hello");
}

#[tokio::test]
async fn a_cancelled_call_ends_at_the_server() {
    let upstream = Upstream::everything(&[]).await;
    let client = McpClient::connect(&upstream.url).await;
    let params = json!({"name": "sleep", "arguments": {"ms": 3_600_000}});
    let exchange = client.start("tools/call", params).await;
    let counts = async || client.call("sleep_counts", json!({})).await.value()["structuredContent"].clone();
    super::eventually("the call's start", async || (counts().await["running"] == 1).then_some(())).await;

    client.notify("notifications/cancelled", json!({"requestId": exchange.id})).await;
    let ended = json!({"running": 0, "peak": 1, "cancelled": 1});
    super::eventually("the call's end", async || (counts().await == ended).then_some(())).await;
}

#[tokio::test]
async fn a_cut_stream_is_resumed_after_its_last_event() {
    let upstream = Upstream::everything(&[]).await;
    let client = McpClient::connect(&upstream.url).await;
    let exchange = client.start("tools/call", json!({"name": "test_reconnection", "arguments": {}})).await;
    let id = exchange.id;
    let mut stream = exchange.into_stream();
    let mut last_event_id = None;
    while let Some(event) = stream.next_event().await {
        assert_eq!(event.data.as_deref().unwrap_or_default(), "", "no message before the cut");
        last_event_id = event.id.or(last_event_id);
    }
    let mut resumed = client.resume(Some(&last_event_id.unwrap())).await;
    let message = resumed.next_message().await.unwrap();
    assert_eq!(message.envelope().id.unwrap().get(), id.to_string());
    assert_eq!(message.text(), "Reconnection test completed successfully");
}

#[tokio::test]
async fn raw_requests_show_status_headers_and_body() {
    let upstream = Upstream::everything(&[]).await;
    let http = Http::new(&upstream.url);
    let bad_host = RawResponse::read(http.post("{}", &[("host", "evil.example.com")]).await).await;
    assert_eq!(bad_host.status, StatusCode::FORBIDDEN);
    let not_json = RawResponse::read(http.post("{", &[]).await).await;
    assert!(not_json.status.is_client_error(), "{}", not_json.text());
    let no_accept = RawResponse::read(http.post("{}", &[("accept", "")]).await).await;
    assert_eq!(no_accept.status, StatusCode::NOT_ACCEPTABLE);
    let wrong_method = RawResponse::read(http.send(Method::PUT, "", &[]).await).await;
    assert_eq!(wrong_method.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(wrong_method.headers.contains_key("allow"));
}

#[tokio::test]
async fn a_killed_server_ends_its_streams() {
    let upstream = Upstream::everything(&[]).await;
    let client = McpClient::connect(&upstream.url).await;
    let mut stream: EventStream = client.listen().await;
    upstream.kill().await;
    assert_eq!(stream.next_message().await, None);
}

#[tokio::test]
async fn tagged_processes_are_found_until_they_end() {
    let upstream = Upstream::everything(&[]).await;
    let tag = upstream.tag.clone();
    let pid = {
        let client = McpClient::connect(&upstream.url).await;
        client.call("pid", json!({})).await.value()["structuredContent"]["pid"].as_i64().unwrap()
    };
    let found: Vec<_> = leaks::processes(&tag).into_iter().map(|process| i64::from(process.pid)).collect();
    assert_eq!(found, [pid]);
    assert_eq!(leaks::processes(&leaks::Tag::random()), []);
    drop(upstream);
    leaks::none(&tag).await;
}

/// One request line in, one answer line out.
async fn over_stdio(example: &str, arguments: &[&str], request: Value) -> String {
    let mut child = Command::new(example_path(example))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{request}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    within("an answer", stdout.read_line(&mut answer)).await.unwrap();
    drop(stdin);
    assert!(within("the server's end", child.wait()).await.unwrap().success());
    answer
}

#[tokio::test]
async fn everything_speaks_stdio_and_ends_with_its_input() {
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}});
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer: Value = serde_json::from_str(&over_stdio("everything", &[], request).await).unwrap();
    assert_eq!(answer["result"]["serverInfo"]["name"], "everything");
}

#[tokio::test]
async fn weird_fields_are_on_the_wire_as_they_are_printed() {
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
    let answer = over_stdio("rude_server", &["weird-fields"], request).await;
    let printed = Command::new(example_path("rude_server")).args(["print", "tools"]).output().await.unwrap();
    let tools = String::from_utf8(printed.stdout).unwrap();
    let expected =
        format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"x-list":{{"b":1,"a":2}},"tools":{tools}}}}}"#);
    assert_eq!(answer.trim_end(), expected);
}
