//! Whatever users, servers and clients get wrong: it is said, and the rest works on.

use std::os::unix::fs::{PermissionsExt, symlink};

use http::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use super::support::definitions::{built_in, example, remote, spec, stdio, with};
use super::support::mcp_client::{Http, RawResponse};
use super::support::sidegate::Builder;
use super::support::{McpClient, Sidegate, Upstream, eventually, leaks};

/// Definition files that are wrong, each with where and what `validate` says.
const WRONG: [(&str, &str, &str); 9] = [
    ("unknown-key", "{type: stdio, commnd: x}", ":3:21: spec.commnd: unknown key; did you mean \"command\"?"),
    (
        "wrong-type",
        "{type: stdio, command: 5}",
        ":3:30: spec.command: expected text, found a number; put it in quotes",
    ),
    ("no-command", "{type: stdio}", ":3:1: spec.command: missing; "),
    ("bad-url", "{type: streamable-http, url: 'ftp://h'}", ":3:36: spec.url: neither http nor https; "),
    (
        "duplicate-key",
        "{type: stdio, command: a, command: b}",
        ":3:33: spec.command: duplicate key, given before on line 3",
    ),
    ("not-yaml", "[", ":4:1: not YAML: "),
    ("bad-timeout", "{type: stdio, command: a, timeout: 301}", ":3:42: spec.timeout: 301 is out of range; "),
    (
        "undefined",
        "{type: stdio, command: a, env: {A: '${NOPE}'}}",
        ":3:42: spec.env.A: the variable NOPE is not set; set it, or write ${NOPE:-default}",
    ),
    ("no-type", "{command: a}", ":3:1: spec.type: missing; "),
];

/// An instance with every wrong definition there is, and files that are wrong by their name or place.
fn wrong_definitions() -> Builder {
    let mut builder = Sidegate::builder().definition("empty", "");
    for (name, text, _) in WRONG {
        builder = builder.definition(name, &spec(text));
    }
    let directory = builder.config_dir().join("mcpservers");
    fs_err::write(directory.join("Bad Name.yaml"), built_in()).unwrap();
    fs_err::write(directory.join("twice.yaml"), built_in()).unwrap();
    fs_err::write(directory.join("twice.yml"), built_in()).unwrap();
    builder
}

/// What is said of the files in [`wrong_definitions`] that are not in [`WRONG`].
const WRONG_FILES: [(&str, &str); 3] = [
    ("empty.yaml", "the file is empty"),
    ("Bad Name.yaml", "\"Bad Name\" is not a server name"),
    ("twice.yml", "twice.yaml and "),
];

#[tokio::test]
async fn validate_says_all_that_is_wrong_and_where() {
    let builder = wrong_definitions().definition("good", &built_in());
    let ended = builder.command(&["validate", "--config-dir", "config"]).await;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    for (name, _, mistake) in WRONG {
        let line = format!("/config/mcpservers/{name}.yaml{mistake}");
        assert!(ended.stderr.contains(&line), "{line} is not in\n{}", ended.stderr);
    }
    for (file, mistake) in WRONG_FILES {
        let file = format!("/config/mcpservers/{file}:");
        assert!(
            ended.stderr.lines().any(|line| line.contains(&file) && line.contains(mistake)),
            "{file} {mistake} is not in\n{}",
            ended.stderr
        );
    }
    assert!(ended.stdout.ends_with("/config/mcpservers/good.yaml: valid\n"), "{}", ended.stdout);
    assert_eq!(ended.stdout.lines().count(), 1, "{}", ended.stdout);
}

#[tokio::test]
async fn validate_prints_json_for_programs() {
    let builder =
        Sidegate::builder().definition("good", &built_in()).definition("bad", &spec("{type: stdio}"));
    let arguments =
        ["validate", "--output", "json", "config/mcpservers/good.yaml", "config/mcpservers/bad.yaml"];
    let ended = builder.command(&arguments).await;
    assert_eq!(ended.status.code(), Some(3), "{}", ended.stderr);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["schema"], &report["valid"]), (&json!(1), &json!(false)));
    assert_eq!(
        report["files"][0],
        json!({"path": "config/mcpservers/good.yaml", "valid": true, "mistakes": []})
    );
    assert_eq!(report["files"][1]["valid"], false);
    assert_eq!(report["files"][1]["mistakes"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn validate_is_content_with_what_is_right() {
    let builder = Sidegate::builder().definition("good", &built_in());
    let ended = builder.command(&["validate", "--config-dir", "config"]).await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    assert!(ended.stdout.ends_with("/config/mcpservers/good.yaml: valid\n"), "{}", ended.stdout);
    let ended = Sidegate::builder().command(&["validate", "--config-dir", "nowhere"]).await;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.contains("nowhere/mcpservers does not exist\n\nhint: "), "{}", ended.stderr);
}

#[tokio::test]
async fn wrong_definitions_do_not_stop_right_ones() {
    let builder = wrong_definitions().definition("good", &built_in()).wait_for_servers();
    let sidegate = builder.start().await;
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await.len(), 7);
    let stderr = sidegate.stderr();
    for (name, _, mistake) in WRONG {
        assert!(stderr.contains(&format!("{name}.yaml{mistake}")), "{mistake} is not in\n{stderr}");
    }
    for (_, mistake) in WRONG_FILES {
        assert!(stderr.contains(mistake), "{mistake} is not in\n{stderr}");
    }
    assert!(sidegate.stop().await.status.success());
}

#[tokio::test]
async fn servers_that_do_not_work_say_why_and_disturb_nobody() {
    let rude = |mode: &str| example("rude_server", &[mode]);
    // A limit only for those who reach it: a busy machine must not make others do so.
    let never = |mode: &str| with(rude(mode), "timeout: 1");
    let builder = Sidegate::builder()
        .definition("absent", &stdio("no-such-command", &[]))
        .definition("exits", &rude("exit"))
        .definition("good", &example("everything", &[]))
        .definition("noisy", &rude("noisy"))
        .definition("twice", &rude("duplicate"))
        .definition("refuses", &remote("http://127.0.0.1:9/mcp"))
        .definition("rubbish", &never("rubbish"))
        .definition("silent", &never("silent"))
        .definition("wrong-id", &never("wrong-id"))
        .env("PATH", "/nowhere:/usr/bin:/bin")
        .wait_for_servers();
    let sidegate = builder.start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let names = client.tool_names().await;
    assert_eq!(names.len(), 26, "{names:?}");
    assert_eq!(client.call("x_noisy_poke", json!({})).await.text(), "poked");
    assert_eq!(client.call("x_twice_poke", json!({})).await.text(), "poked");
    client.call("x_good_pid", json!({})).await.result();

    for (server, why) in [
        ("absent", "no-such-command was not found on PATH (/nowhere:/usr/bin:/bin); install it"),
        ("exits", "exited with code 3; its last lines on stderr: rude_server: refusing to work today"),
        ("refuses", "the gateway cannot connect to the server: "),
        ("rubbish", "no answer within 1 s (spec.timeout)"),
        ("silent", "no answer within 1 s (spec.timeout)"),
        ("wrong-id", "no answer within 1 s (spec.timeout)"),
    ] {
        let stderr = sidegate.stderr();
        let tail = format!("server={server} state=failed failures=1");
        assert!(
            stderr.lines().any(|line| line.contains(why) && line.ends_with(&tail)),
            "{server}: {why} is not in\n{stderr}"
        );
    }
    for line in ["Starting up", "[info] handling"] {
        sidegate.wait_for_stderr(&format!("is no MCP message (more of them are not shown): {line}")).await;
    }

    let ready = Http::new(&sidegate.url().replace("/mcp", "/readyz")).send(Method::GET, "", &[]).await;
    assert_eq!(ready.status(), StatusCode::OK, "each has succeeded or failed once");
    assert!(sidegate.stop().await.status.success());
}

#[tokio::test]
async fn a_call_that_kills_its_server_is_answered() {
    let rude = example("rude_server", &["dies-on-call"]);
    let sidegate = Sidegate::builder().definition("rude", &rude).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let answer = client.call("x_rude_poke", json!({})).await;
    let message = answer.error()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("exited with code 4"), "{message}");
    assert!(message.contains("rude_server: dying in the middle of a call"), "{message}");
    eventually("the tool's return", async || (client.tool_names().await == ["x_rude_poke"]).then_some(()))
        .await;
}

#[tokio::test]
async fn a_listen_port_that_is_taken_names_its_holder() {
    // A process of its own: this one is forked by tests beside this, and a fork holds the port for a moment as well.
    let holder = Upstream::everything(&[]).await;
    let address = holder.url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    let [process] = &leaks::processes(&holder.tag)[..] else { panic!("one process has the tag") };
    let ended = Sidegate::builder().listen(&address).run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""));
    let holder = format!("error: cannot listen on {address}: it is taken by pid {} (", process.pid);
    assert!(ended.stderr.contains(&holder), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("hint: stop that process, or choose another address with --listen"),
        "{}",
        ended.stderr
    );
    assert_eq!(ended.files_left(), Vec::<std::path::PathBuf>::new());
}

#[rstest]
#[case::missing(None, "does not exist")]
#[case::not_executable(Some((0o644, "#!/bin/sh\n")), "is not executable by this user")]
#[case::another_program(Some((0o755, "#!/bin/sh\necho hello\n")), "--version says no version")]
#[case::not_a_program(Some((0o755, "\u{1}\u{2}")), "cannot be started")]
#[case::wrong_from_the_start(
    Some((0o755, "#!/bin/sh\n[ \"$1\" = --version ] && echo '{\"version\": \"1.2.1\"}' && exit\necho out of order >&2\nexit 9\n")),
    "out of order"
)]
#[tokio::test]
async fn a_gateway_that_cannot_be_used_is_said(#[case] file: Option<(u32, &str)>, #[case] why: &str) {
    let builder = Sidegate::builder();
    let binary = builder.config_dir().with_file_name("gateway");
    if let Some((mode, text)) = file {
        fs_err::write(&binary, text).unwrap();
        fs_err::set_permissions(&binary, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let ended = builder.agentgateway(&binary).definition("good", &built_in()).run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(4), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
    assert_eq!(ended.files_left(), Vec::<std::path::PathBuf>::new());
}

#[rstest]
#[case("lisen: 127.0.0.1:1\n", "config.yaml:1:1: lisen: unknown key; did you mean \"listen\"?")]
#[case("drain: soon\n", "config.yaml:1:8: drain: \"soon\" is no duration; ")]
#[case("gateway: {ports: {data: 70000}}\n", "config.yaml:1:25: gateway.ports.data: 70000 is out of range; ")]
#[case("listen: [\n", "config.yaml:2:1: not YAML: ")]
#[tokio::test]
async fn mistakes_in_the_settings_are_usage_errors(#[case] config: &str, #[case] mistake: &str) {
    let ended = Sidegate::builder().config(config).run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(mistake), "{}", ended.stderr);
}

#[rstest]
#[case(&["--no-such-flag"], "unexpected argument '--no-such-flag'")]
#[case(&["--wait", "forever"], "invalid value 'forever' for '--wait <WHAT>'")]
#[case(&["--runtime-dir", "x"], "cannot be used with")]
#[tokio::test]
async fn wrong_arguments_are_usage_errors(#[case] arguments: &[&str], #[case] mistake: &str) {
    let builder = arguments.iter().fold(Sidegate::builder(), |builder, argument| builder.arg(argument));
    let ended = builder.run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(mistake), "{}", ended.stderr);
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_token() {
    let ended = Sidegate::builder().listen("0.0.0.0:0").run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    let why = "--listen: other machines can reach this address, so a token is needed";
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
}

#[rstest]
#[case::file("a file")]
#[case::dangling("a link to nothing")]
#[tokio::test]
async fn a_definitions_directory_that_is_none_is_an_error(#[case] what: &str) {
    let builder = Sidegate::builder();
    let directory = builder.config_dir().join("mcpservers");
    fs_err::remove_dir(&directory).unwrap();
    match what {
        "a file" => fs_err::write(&directory, "").unwrap(),
        _ => symlink("nowhere", &directory).unwrap(),
    }
    let ended = builder.run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot be used"), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: give another directory with --config-dir"), "{}", ended.stderr);
}

#[tokio::test]
async fn requests_that_are_no_mcp_are_refused() {
    let sidegate = Sidegate::builder().start().await;
    let http = Http::new(sidegate.url());
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let refused =
        async |method: Method, body: &str, headers: &[(&str, &str)], status: StatusCode, why: &str| {
            let response = RawResponse::read(http.send(method, body.to_owned(), headers).await).await;
            assert_eq!(response.status, status, "{}", response.text());
            assert!(response.text().contains(why), "{why}: {}", response.text());
        };
    let bad = StatusCode::BAD_REQUEST;
    refused(Method::POST, "{", &[], bad, "-32700").await;
    refused(Method::POST, "", &[], bad, "-32700").await;
    refused(Method::POST, "\u{feff}{}", &[], bad, "-32700").await;
    refused(Method::POST, "{}", &[], bad, "-32600").await;
    refused(Method::POST, "[]", &[], bad, "-32600").await;
    refused(Method::POST, ping, &[], bad, "Mcp-Session-Id header is missing; send initialize first").await;
    let unknown = [("mcp-session-id", "0123456789abcdef")];
    let not_known = "this session is not known, or is over; send initialize again";
    for method in [Method::POST, Method::GET, Method::DELETE] {
        refused(method, ping, &unknown, StatusCode::NOT_FOUND, not_known).await;
    }
    let old = [("mcp-protocol-version", "1999-12-31")];
    refused(Method::POST, ping, &old, bad, "protocol version").await;
    refused(Method::PUT, ping, &[], StatusCode::METHOD_NOT_ALLOWED, "use POST, GET or DELETE").await;
    let json_only = [("accept", "application/json")];
    refused(Method::POST, ping, &json_only, StatusCode::NOT_ACCEPTABLE, "text/event-stream").await;
    let form = [("content-type", "application/x-www-form-urlencoded")];
    refused(Method::POST, ping, &form, StatusCode::UNSUPPORTED_MEDIA_TYPE, "application/json").await;
    for foreign in [("host", "evil.example"), ("origin", "https://evil.example")] {
        refused(Method::POST, ping, &[foreign], StatusCode::FORBIDDEN, "evil.example").await;
    }
    let elsewhere = Http::new(&sidegate.url().replace("/mcp", "/nothing"));
    let response = RawResponse::read(elsewhere.post(ping, &[]).await).await;
    assert_eq!(
        (response.status, response.text()),
        (
            StatusCode::NOT_FOUND,
            "nothing at /nothing; the MCP endpoint is /mcp, that of one server alone /mcp/<server>, the page /ui\n"
        )
    );
}

#[tokio::test]
async fn requests_that_ask_for_what_is_not_there_are_answered() {
    let sidegate = Sidegate::builder().definition("good", &built_in()).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    for (method, params, code, why) in [
        (
            "tools/call",
            json!({"name": "x_good_nope", "arguments": {}}),
            -32602,
            "tool not found: x_good_nope",
        ),
        ("tools/call", json!({"name": "now"}), -32602, "tool not found: now"),
        ("tools/call", json!({"arguments": {}}), -32602, "\"params.name\" is missing"),
        ("tools/call", json!({"name": 7}), -32602, "\"params.name\" is not a string"),
        ("tools/list", json!({"cursor": "x"}), -32602, "no cursor \"x\" was given out"),
        ("no/such/method", json!({}), -32601, "method not found: no/such/method"),
    ] {
        let error = client.request(method, params).await.error();
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(why), "{error}");
    }
    // None of this has harmed the session.
    client.call("x_good_now", json!({})).await.result();
    assert!(client.delete().await.is_success());
    let gone = RawResponse::read(client.post(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#).await).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}
