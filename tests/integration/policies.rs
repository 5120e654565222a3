//! What an operator adds to agentgateway's configuration: it takes effect, or it is said why not.

use rstest::rstest;
use serde_json::json;

use super::support::definitions::{built_in, example, remote, with};
use super::support::optional::real_agentgateway;
use super::support::sidegate::Builder;
use super::support::{McpClient, Sidegate, Upstream, eventually};

fn agentgateway() -> Option<Builder> {
    Some(Sidegate::builder().agentgateway(&real_agentgateway()?))
}

#[tokio::test]
async fn policies_of_a_route_take_effect() {
    let Some(builder) = agentgateway() else { return };
    let far = Upstream::everything(&[]).await;
    let limited = with(
        example("everything", &[]),
        "policies: {localRateLimit: [{maxTokens: 20, tokensPerFill: 1, fillInterval: 1h}]}",
    );
    // A call that is allowed carries the header, and the key that we add to the rule.
    let rule = r#"policies: {authorization: {rules: ['request.headers["x-team"] == "core"']}}"#;
    let allowed = with(with(remote(&far.url), rule), "headers: {X-Team: core}");
    let denied = with(with(remote(&far.url), rule), "headers: {X-Team: other}");
    // Ours win: the rewrite stays, nobody gets in without the key, the marker is there.
    let conflict = r#"policies: {urlRewrite: {path: {full: /elsewhere}}, authorization: {rules: ["true"]}, responseHeaderModifier: {remove: [x-sidegate-route], set: {x-extra: "$1"}}, directResponse: null}"#;
    let sidegate = builder
        .definition("allowed", &allowed)
        .definition("conflict", &with(remote(&far.url), conflict))
        .definition("denied", &with(denied, "timeout: 2"))
        .definition("limited", &limited)
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    for server in ["allowed", "conflict", "limited"] {
        let answer = client.call(&format!("x_{server}_echo"), json!({"payload": server})).await;
        assert!(answer.raw().contains(server), "{server}: {answer:?}");
    }
    sidegate.wait_for_stderr("HTTP 403 Forbidden").await;
    assert!(sidegate.stderr().contains("server=denied state=failed"), "{}", sidegate.stderr());
    eventually("the limit", async || {
        let answer = client.call("x_limited_echo", json!({"payload": "x"})).await;
        let error = answer.envelope().error?.get().to_owned();
        assert!(error.contains("HTTP 429 Too Many Requests"), "{error}");
        Some(())
    })
    .await;

    let data = sidegate.ready.gateway.ports.data.unwrap();
    let stranger = super::support::mcp_client::Http::new(&format!("http://127.0.0.1:{data}/mcp/conflict"));
    assert_eq!(stranger.post("{}", &[]).await.status(), 403);
}

#[tokio::test]
async fn a_policy_that_agentgateway_refuses_makes_its_server_invalid() {
    let Some(builder) = agentgateway() else { return };
    let sidegate = builder
        .definition("good", &example("everything", &[]))
        .definition("unknown", &with(built_in(), "policies: {brew: tea}"))
        .definition("shape", &with(built_in(), "policies: {authorization: {rules: [{allow: 'true'}]}}"))
        .definition("value", &with(built_in(), "policies: {timeout: {requestTimeout: soon}}"))
        // As a part of ours this would be: the key, or else nothing at all.
        .definition("escape", &with(built_in(), "policies: {authorization: {rules: ['true)) || ((true']}}"))
        .definition("cel", &with(built_in(), "policies: {authorization: {rules: ['request.headers[]']}}"))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await.len(), 24);
    let stderr = sidegate.stderr();
    for (server, words) in [
        ("unknown", "WARN policies.brew: unknown field `brew`, expected one of `requestHeaderModifier`"),
        ("shape", "WARN policies.authorization.rules: expected a list of CEL expressions"),
        ("escape", "WARN policies.authorization.rules: \"true)) || ((true\" does not close each bracket"),
        ("value", "WARN policies.timeout.requestTimeout: parse error: invalid duration: soon server="),
        ("cel", "WARN policies.authorization.rules: parse: ERROR: "),
    ] {
        assert!(stderr.contains(words), "{words} is not in\n{stderr}");
        assert!(stderr.contains(&format!("server={server} state=invalid")), "{server} is not in\n{stderr}");
    }

    // Mended, it runs; and others that run are not disturbed.
    let pid = client.call("x_good_pid", json!({})).await.text();
    sidegate.write_definition("unknown", &with(built_in(), "policies: {timeout: {requestTimeout: 30s}}"));
    eventually("the mended server", async || {
        client.tool_names().await.iter().any(|name| name.starts_with("x_unknown_")).then_some(())
    })
    .await;
    assert_eq!(client.call("x_good_pid", json!({})).await.text(), pid);
}

#[tokio::test]
async fn settings_of_the_gateway_reach_its_file() {
    let Some(builder) = agentgateway() else { return };
    let config = "gateway: {logLevel: debug, frontendPolicies: {http: {maxBufferSize: 2097152}}}\n";
    let builder = builder.config(config).definition("near", &example("everything", &[]));
    let sidegate = builder.wait_for_servers().start().await;
    let file = sidegate.ready.runtime_dir.join("gateway-1/agentgateway.yaml");
    let file = fs_err::read_to_string(file).unwrap();
    for words in ["level: 'debug'", "frontendPolicies:\n  http:\n    maxBufferSize: 2097152\n"] {
        assert!(file.contains(words), "{words} is not in\n{file}");
    }
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_near_pid", json!({})).await.result();
    let log = sidegate.ready.runtime_dir.join("logs/gateway.log");
    eventually("lines of its log", async || {
        let log = fs_err::read_to_string(&log).unwrap();
        (log.contains("\"level\":\"debug\"") && log.contains(REQUEST)).then_some(())
    })
    .await;
}

/// How a line of agentgateway's log begins that tells of a request.
const REQUEST: &str = "\"scope\":\"request\"";

#[rstest]
#[case::what_happens_and_no_calls("", false)]
#[case::and_calls_where_somebody_wants_them(
    "gateway: {frontendPolicies: {accessLog: {add: {one: '1'}}}}\n",
    true
)]
#[tokio::test]
async fn at_info_agentgateway_logs(#[case] config: &str, #[case] calls: bool) {
    let Some(builder) = agentgateway() else { return };
    let builder = builder.config(config).definition("near", &example("everything", &[]));
    let sidegate = builder.wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_near_pid", json!({})).await.result();
    let log = sidegate.ready.runtime_dir.join("logs/gateway.log");
    let lines = async || fs_err::read_to_string(&log).unwrap_or_default();
    if calls {
        eventually("the line of a call", async || lines().await.contains(REQUEST).then_some(())).await;
    } else {
        // A new configuration is taken over after the call, and said.
        let said = async || lines().await.matches("\"level\":\"info\"").count();
        let before = said().await;
        sidegate.write_definition("more", &example("everything", &[]));
        let reloaded = async || (said().await > before).then_some(());
        eventually("lines that tell of something else", reloaded).await;
        assert!(!lines().await.contains(REQUEST), "{}", lines().await);
    }
}

#[tokio::test]
async fn policies_for_all_servers_that_agentgateway_refuses_end_the_start() {
    let Some(builder) = agentgateway() else { return };
    let ended = builder.config("gateway: {frontendPolicies: {brew: tea}}\n").run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(4), ""), "{}", ended.stderr);
    let why = "the gateway refuses frontendPolicies: ";
    let line = ended.stderr.lines().find(|line| line.starts_with("error: "));
    assert!(
        line.is_some_and(|line| line.contains(why) && line.contains("unknown field `brew`")),
        "{}",
        ended.stderr
    );
}

#[rstest]
#[case::asked_for("embedded", "as it was asked for")]
#[case::for_now("auto", "as agentgateway is not in the cache")]
#[tokio::test]
async fn the_embedded_gateway_refuses_what_only_agentgateway_has(#[case] mode: &str, #[case] reason: &str) {
    let config = "gateway: {frontendPolicies: {http: {maxBufferSize: 2097152}}}\n";
    let ended = Sidegate::builder().config(config).arg("--offline").gateway(mode).run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    let why = "error: gateway.frontendPolicies are agentgateway's, and this instance would run the embedded gateway, ";
    assert!(ended.stderr.contains(&format!("{why}{reason}")), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("hint: wait for agentgateway with --gateway agentgateway"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn the_embedded_gateway_refuses_policies_of_a_server() {
    let sidegate = Sidegate::builder()
        .config("gateway: {logLevel: debug}\n")
        .definition("good", &built_in())
        .definition("limited", &with(built_in(), "policies: {timeout: {requestTimeout: 1s}}"))
        .definition("native", &with(built_in(), "route: mcp"))
        .wait_for_servers()
        .start()
        .await;
    let stderr = sidegate.stderr();
    for (server, words) in [
        (
            "limited",
            "spec.policies are agentgateway's; this instance runs the embedded gateway, which has none",
        ),
        (
            "native",
            "spec.route: mcp is agentgateway's own MCP backend; this instance runs the embedded gateway",
        ),
    ] {
        let tail = format!("server={server} state=unsupported");
        let line = stderr.lines().find(|line| line.ends_with(&tail));
        assert!(line.is_some_and(|line| line.contains(words)), "{server}: {words} is not in\n{stderr}");
    }
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_good_now", json!({})).await.result();
    // The log level is not agentgateway's alone.
    let log = fs_err::read_to_string(sidegate.ready.runtime_dir.join("logs/gateway.log")).unwrap();
    assert!(log.contains("DEBUG"), "{log}");
}
