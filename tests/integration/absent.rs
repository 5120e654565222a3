//! What a client is told who asks for something of a server that is defined and cannot be called.

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::support::definitions::{built_in, example, spec, stdio, with};
use super::support::mcp_client::{Http, RawResponse};
use super::support::{McpClient, Sidegate, eventually, example_path};

/// No JSON-RPC code of the protocol: a server behind us could not be reached.
const UPSTREAM: i64 = -32000;

const INITIALIZE: &str =
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;

fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap()
}

#[tokio::test]
async fn a_call_for_a_server_that_cannot_be_called_tells_why() {
    let sidegate = Sidegate::builder()
        .definition("calc", &built_in())
        .definition("exits", &with(example("rude_server", &["exit"]), "toolPrefix: x_y"))
        .definition("rests", &with(built_in(), "suspended: true"))
        .definition("wrong", &spec("{type: stdio}"))
        .definition("later", &spec("{type: streamable-http, url: 'http://h/', auth: {type: oauth}}"))
        .definition(
            "one",
            &with(with(built_in(), "autoStart: false"), "family: {name: kin, instanceArg: who}"),
        )
        .definition(
            "two",
            &with(with(built_in(), "autoStart: false"), "family: {name: kin, instanceArg: who}"),
        )
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let exits = "server exits is failed: the server exited with code 3; its last lines on stderr: rude_server: refusing to work today (it is tried again by itself)";
    let rests = "server rests is stopped: `sidegate start rests` starts it";
    for (tool, told) in [
        ("x_x_y_poke", exits),
        ("x_exits_poke", exits),
        ("x_rests_calculate", rests),
        ("x_wrong_poke", "server wrong is invalid: "),
        ("x_later_poke", "server later is unsupported: "),
        ("x_kin_calculate", "servers that may have it do not run now: one (stopped), two (stopped)"),
    ] {
        let answer = client.call(tool, json!({})).await;
        let error = answer.error();
        assert_eq!(error["code"], -32602, "{error}");
        assert!(message(&error).starts_with(&format!("tool not found: {tool}; {told}")), "{error}");
    }
    let wrong = client.call("x_wrong_poke", json!({})).await.error();
    assert!(message(&wrong).contains("wrong.yaml:3:1: spec.command: missing"), "{wrong}");
    for tool in ["x_calc_nope", "x_restsome_calculate", "rests_calculate", "x_nobody_poke"] {
        let error = client.call(tool, json!({})).await.error();
        assert_eq!(message(&error), format!("tool not found: {tool}"));
    }
    for (method, params) in [
        ("prompts/get", json!({"name": "x_rests_p"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "x_rests_p"}, "argument": {"name": "a", "value": ""}}),
        ),
    ] {
        let error = client.request(method, params).await.error();
        assert_eq!(message(&error), format!("prompt not found: x_rests_p; {rests}"), "{method}");
    }
    let error = client.request("resources/read", json!({"uri": "rests+t://1"})).await.error();
    assert_eq!(message(&error), format!("resource not found: rests+t://1; {rests}"));
    // Whose it is cannot be told; who rests has nothing to say.
    let error = client.request("resources/read", json!({"uri": "t://1"})).await.error();
    let told = "resource not found: t://1; servers that may have it do not run now: exits (failed), later (unsupported), wrong (invalid)";
    assert_eq!((error["code"].as_i64(), message(&error)), (Some(-32002), told));

    // Alone.
    for (server, told) in [("rests", rests), ("exits", exits)] {
        let http = Http::new(&sidegate.server_url(server));
        let answer = RawResponse::read(http.post(INITIALIZE, &[]).await).await;
        assert_eq!(answer.status, StatusCode::OK);
        let answer: Value = serde_json::from_str(answer.text()).unwrap();
        assert_eq!(answer["error"], json!({"code": UPSTREAM, "message": told}));
    }
}

#[tokio::test]
async fn what_a_lost_server_had_is_known_by_name() {
    let builder = Sidegate::builder();
    let everything = example_path("everything");
    let command = builder.script("far", &format!("exec '{}'", everything.display()));
    let builder = builder
        .definition("far", &with(stdio(command.to_str().unwrap(), &[]), "toolPrefix: distant"))
        .definition("near", &example("everything", &[]))
        .wait_for_servers();
    let sidegate = builder.clone().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let alone = McpClient::connect(&sidegate.server_url("far")).await;
    let own = json!({"uri": "near+test://static-text"});
    client.request("resources/read", &own).await.result();
    let pid =
        client.call("x_distant_pid", json!({})).await.value()["structuredContent"]["pid"].as_i64().unwrap();
    builder.script("far", "exit 3");
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    // What is asked for before waits for the session that is tried; and the line is there before clients are told.
    sidegate.wait_for_stderr("server=far state=failed").await;
    let failed = async || {
        let error = client.call("x_distant_echo", json!({})).await.error();
        message(&error).contains(" is failed: ").then_some(error)
    };
    let error = eventually("the reason", failed).await;
    assert_eq!(error["code"], UPSTREAM);
    let why = "cannot be used now: server far is failed: ";
    assert!(message(&error).starts_with(&format!("tool x_distant_echo {why}")), "{error}");
    assert!(message(&error).ends_with(" (it is tried again by itself)"), "{error}");
    // A resource's name tells nothing of its server, and the only one left would be asked otherwise: both have it, and the
    // first has it under its own name.
    let template = json!({"uri": "far+test://template/7/data"});
    for (method, params, what) in [
        (
            "prompts/get",
            json!({"name": "x_distant_test_simple_prompt"}),
            "prompt x_distant_test_simple_prompt",
        ),
        ("resources/read", template, "resource far+test://template/7/data"),
    ] {
        let error = client.request(method, params).await.error();
        assert!(message(&error).starts_with(&format!("{what} {why}")), "{error}");
        assert_eq!(error["code"], UPSTREAM);
    }
    let error = client.call("x_distant_nope", json!({})).await.error();
    assert!(message(&error).starts_with("tool not found: x_distant_nope; server far is failed: "), "{error}");
    let error = alone.call("echo", json!({})).await.error();
    assert!(message(&error).starts_with("server far is failed: "), "{error}");

    // Whoever sees the meta tools is told the same.
    let meta = McpClient::initialize_with(
        sidegate.url(),
        "2025-11-25",
        json!({}),
        &[("x-sidegate-exposure", "meta")],
    )
    .await;
    for (tool, arguments) in [
        ("call_tool", json!({"name": "x_distant_echo"})),
        ("describe_tool", json!({"name": "x_distant_echo"})),
        ("get_resource", json!({"uri": "far+test://template/7/data"})),
    ] {
        let answer = meta.call(tool, arguments).await;
        let result: Value = serde_json::from_str(answer.result().get()).unwrap();
        assert_eq!(result["isError"], true);
        assert!(result["content"][0]["text"].as_str().unwrap().contains(why), "{result}");
    }

    // Stopped on purpose, nothing of it is known any more but its name.
    let runtime_dir = sidegate.ready.runtime_dir.to_str().unwrap();
    let ended = builder.command(&["stop", "far", "--runtime-dir", runtime_dir]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let error = client.call("x_distant_echo", json!({})).await.error();
    let told = "tool not found: x_distant_echo; server far is stopped: `sidegate start far` starts it";
    assert_eq!(message(&error), told);
}

#[tokio::test]
async fn a_server_that_is_not_defined_is_guessed() {
    let sidegate = Sidegate::builder().definition("calc", &built_in()).start().await;
    for (path, told) in [
        ("calk", "there is no server \"calk\"; did you mean /mcp/calc?\n"),
        ("everything", "there is no server \"everything\"; see `sidegate list`\n"),
    ] {
        let http = Http::new(&format!("{}/{path}", sidegate.url()));
        let answer = RawResponse::read(http.post(INITIALIZE, &[]).await).await;
        assert_eq!((answer.status, answer.text()), (StatusCode::NOT_FOUND, told));
    }
}

#[tokio::test]
async fn only_whoever_has_the_token_hears_the_names_of_servers() {
    let builder = Sidegate::builder().definition("calc", &built_in());
    let token = builder.config_dir().join("token");
    let sidegate = builder.env("SIDEGATE_AGGREGATOR_TOKEN_FILE", &token).start().await;
    let http = Http::new(&format!("{}/calk", sidegate.url()));
    let answer = RawResponse::read(http.post(INITIALIZE, &[]).await).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert!(!answer.text().contains("calc"), "{}", answer.text());
    let token = fs_err::read_to_string(&token).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let answer = RawResponse::read(http.post(INITIALIZE, &[("authorization", &bearer)]).await).await;
    assert!(answer.text().contains("did you mean /mcp/calc?"), "{}", answer.text());
}
