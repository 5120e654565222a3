//! Many servers behind one endpoint: their tools, calls, and what is said during calls.

use futures_util::future::join_all;
use http::StatusCode;
use rstest::rstest;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::process::Command;

use super::support::definitions::{built_in, example};
use super::support::mcp_client::{Http, RawResponse};
use super::support::optional::Through;
use super::support::{McpClient, Sidegate, Upstream, eventually, example_path};

/// One server of each kind: `example` is built in, `far` is `everything` over HTTP, `near` the same over stdio, and
/// `rude` says what few parsers print as they have read it.
async fn one_of_each(through: Through) -> Option<(Sidegate, Upstream)> {
    let builder = through.builder()?;
    let (builder, far) = builder.with_near_and_far().await;
    let sidegate = builder
        .definition("example", &built_in())
        .definition("rude", &example("rude_server", &["weird-fields"]))
        .wait_for_servers()
        .start()
        .await;
    Some((sidegate, far))
}

/// The elements of `tools`, as they are written.
fn tools(result: &RawValue) -> Vec<String> {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        tools: Vec<&'a RawValue>,
    }
    let list: List<'_> = serde_json::from_str(result.get()).unwrap();
    list.tools.into_iter().map(|tool| tool.get().to_owned()).collect()
}

/// What the rude server is known to print.
async fn printed(what: &str) -> String {
    let output = Command::new(example_path("rude_server")).args(["print", what]).output().await.unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[rstest]
#[tokio::test]
async fn every_server_has_its_tools_in_the_list(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some((sidegate, far)) = one_of_each(through).await else { return };
    let client = McpClient::connect(sidegate.url()).await;
    let direct = McpClient::connect(&far.url).await.tool_names().await;

    let own = ["calculate", "format_json", "hash", "now", "random_number", "text_stats", "uuid"];
    let mut expected: Vec<_> = own.iter().map(|tool| format!("x_example_{tool}")).collect();
    for server in ["far", "near"] {
        expected.extend(direct.iter().map(|tool| format!("x_{server}_{tool}")));
    }
    expected.extend(["x_rude_weird".to_owned(), "x_rude_spaced".to_owned()]);
    assert_eq!(client.tool_names().await, expected);

    let product = client.call("x_example_calculate", json!({"expression": "6 * 7"})).await;
    assert_eq!(product.value()["structuredContent"], json!({"value": 42.0}));
    for server in ["far", "near"] {
        let arguments = json!({"b": [1, null], "a": server});
        let echoed = client.call(&format!("x_{server}_echo"), &arguments).await;
        assert_eq!(echoed.value()["structuredContent"], arguments);
    }
    assert!(client.delete().await.is_success());
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[rstest]
#[tokio::test]
async fn each_protocol_version_is_spoken(#[values("2025-03-26", "2025-06-18", "2025-11-25")] version: &str) {
    let sidegate = Sidegate::builder().definition("example", &built_in()).wait_for_servers().start().await;
    let client = McpClient::initialize(sidegate.url(), version, json!({})).await;
    let initialized = client.initialize_result();
    assert_eq!(initialized["protocolVersion"], version);
    assert_eq!(initialized["capabilities"]["tools"], json!({"listChanged": true}));
    assert_eq!(client.tool_names().await.len(), 7);
    let hashed = client.call("x_example_hash", json!({"text": ""})).await;
    assert!(hashed.raw().contains("e3b0c44298fc1c149afbf4c8996fb924"), "{}", hashed.raw());

    // Batches came with 2025-03-26 and went with 2025-06-18.
    let batch = r#"[{"jsonrpc":"2.0","id":"a","method":"ping"},{"jsonrpc":"2.0","id":"b","method":"ping"}]"#;
    let answer = RawResponse::read(client.post(batch).await).await;
    if version == "2025-03-26" {
        assert_eq!(answer.status, StatusCode::OK);
        for id in ["a", "b"] {
            assert!(answer.text().contains(&format!(r#"{{"jsonrpc":"2.0","id":"{id}","result":{{}}}}"#)));
        }
    } else {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text().contains("has no batches"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_version_that_nobody_knows_gets_the_newest() {
    let sidegate = Sidegate::builder().start().await;
    let params = json!({"protocolVersion": "2077-01-01", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = RawResponse::read(Http::new(sidegate.url()).post(initialize.to_string(), &[]).await).await;
    let answer: Value = serde_json::from_str(answer.text()).unwrap();
    assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
}

#[rstest]
#[tokio::test]
async fn only_names_differ_from_what_servers_say(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some((sidegate, far)) = one_of_each(through).await else { return };
    let client = McpClient::connect(sidegate.url()).await;
    let listed = tools(client.request("tools/list", json!({})).await.result());

    let weird = printed("tools").await;
    let weird = weird
        .replace(r#""name":"weird""#, r#""name":"x_rude_weird""#)
        .replace(r#""name" : "spaced""#, r#""name" : "x_rude_spaced""#);
    let (_, rude) = listed.split_at(listed.len() - 2);
    assert_eq!(format!("[{}]", rude.join(",")), weird.replace("}, {", "},{"));

    let direct = McpClient::connect(&far.url).await;
    let direct = tools(direct.request("tools/list", json!({})).await.result());
    let renamed = |server: &str| -> Vec<String> {
        let name = format!(r#""name":"x_{server}_"#);
        direct.iter().map(|tool| tool.replacen(r#""name":""#, &name, 1)).collect()
    };
    assert_eq!(listed[7..listed.len() - 2], [renamed("far"), renamed("near")].concat());

    let result = client.call("x_rude_weird", json!({})).await;
    assert_eq!(result.result().get(), printed("result").await);
}

#[rstest]
#[tokio::test]
async fn progress_arrives_on_the_call_s_own_stream_with_the_client_s_token(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some((sidegate, _far)) = one_of_each(through).await else { return };
    let client = McpClient::connect(sidegate.url()).await;
    let mut standalone = client.listen().await;
    for server in ["far", "near"] {
        for token in [json!("mine"), json!("7"), json!(7)] {
            let name = format!("x_{server}_test_tool_with_progress");
            let params = json!({"name": name, "arguments": {}, "_meta": {"progressToken": token}});
            let mut exchange = client.start("tools/call", params).await;
            for progress in [0.0, 50.0, 100.0] {
                let message = exchange.next_message().await.unwrap();
                assert_eq!(message.envelope().method.as_deref(), Some("notifications/progress"));
                assert_eq!(message.params()["progress"], progress);
                assert_eq!(message.params()["progressToken"], token);
            }
            assert_eq!(exchange.response().await.text(), "Tool with progress executed successfully");
        }
    }
    assert!(client.delete().await.is_success());
    assert_eq!(standalone.next_message().await, None, "nothing of a call is on the other stream");
}

#[rstest]
#[tokio::test]
async fn log_messages_that_belong_to_no_call_are_for_the_only_client_or_our_own_log(
    #[values("far", "near")] server: &str,
) {
    // rmcp's servers send log messages on the session's GET stream, and over stdio there is nothing else.
    let (builder, _far) = Sidegate::builder().with_near_and_far().await;
    let sidegate =
        builder.env("SIDEGATE_LOG", "info,sidegate::aggregator=debug").wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let mut standalone = client.listen().await;
    let call = json!({"name": format!("x_{server}_test_tool_with_logging"), "arguments": {}});
    let text = "Tool with logging executed successfully";

    // Nobody else has used the session: whatever comes is for this client.
    let mut exchange = client.start("tools/call", call.clone()).await;
    assert_eq!(exchange.next_message().await.unwrap().text(), text);
    for _ in 0..3 {
        standalone.expect("notifications/message").await;
    }
    // Now somebody has.
    let other = McpClient::connect(sidegate.url()).await;
    let mut exchange = other.start("tools/call", call).await;
    assert_eq!(exchange.next_message().await.unwrap().text(), text);
    sidegate.wait_for_stderr("Tool execution completed").await;
    assert!(client.delete().await.is_success());
    assert_eq!(standalone.next_message().await, None);
}

/// What `sleep_counts` of `server` says.
async fn sleep_counts(client: &McpClient, server: &str) -> Value {
    client.call(&format!("x_{server}_sleep_counts"), json!({})).await.value()["structuredContent"].clone()
}

async fn until_sleeping(client: &McpClient, server: &str, running: u64) {
    eventually("the calls' start", async || {
        (sleep_counts(client, server).await["running"] == running).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn cancelling_reaches_the_server(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values("far", "near")] server: &str,
) {
    let Some((sidegate, _far)) = one_of_each(through).await else { return };
    let client = McpClient::connect(sidegate.url()).await;
    let call = json!({"name": format!("x_{server}_sleep"), "arguments": {"ms": 3_600_000}});
    let (id, exchange) = client.starting("tools/call", call);
    let cancelling = async {
        until_sleeping(&client, server, 1).await;
        client.notify("notifications/cancelled", json!({"requestId": id})).await;
    };
    let (mut exchange, ()) = tokio::join!(exchange, cancelling);
    let ended = json!({"running": 0, "peak": 1, "cancelled": 1});
    eventually("the call's end", async || (sleep_counts(&client, server).await == ended).then_some(())).await;
    assert_eq!(exchange.next_message().await, None, "a cancelled call has no answer");
}

#[rstest]
#[tokio::test]
async fn clients_with_the_same_ids_and_tokens_do_not_see_each_other(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values("far", "near")] server: &str,
) {
    let Some((sidegate, _far)) = one_of_each(through).await else { return };
    let (one, other) = tokio::join!(McpClient::connect(sidegate.url()), McpClient::connect(sidegate.url()));

    let name = format!("x_{server}_test_tool_with_progress");
    let params = json!({"name": name, "arguments": {}, "_meta": {"progressToken": "t"}});
    let reports = async |client: &McpClient| {
        let mut exchange = client.start("tools/call", &params).await;
        let mut reports = Vec::new();
        while let Some(message) = exchange.next_message().await {
            let method = message.envelope().method;
            reports.push(method.map_or_else(|| message.text(), |_| message.params()["progress"].to_string()));
        }
        (exchange.id, reports)
    };
    let (ones, others) = tokio::join!(reports(&one), reports(&other));
    assert_eq!(ones, others, "the same id, and to each its own three reports");
    assert_eq!(ones.1, ["0.0", "50.0", "100.0", "Tool with progress executed successfully"]);

    let echo = format!("x_{server}_echo");
    let echoes = (0..40).map(async |n| {
        let (client, who) = if n % 2 == 0 { (&one, "one") } else { (&other, "other") };
        let arguments = json!({"who": who, "n": n});
        assert_eq!(client.call(&echo, &arguments).await.value()["structuredContent"], arguments);
    });
    join_all(echoes).await;

    let sleep = json!({"name": format!("x_{server}_sleep"), "arguments": {"ms": 3_600_000}});
    let (ones_id, ones) = one.starting("tools/call", &sleep);
    let (others_id, others) = other.starting("tools/call", &sleep);
    assert_eq!(ones_id, others_id);
    let cancelling = async {
        until_sleeping(&other, server, 2).await;
        one.notify("notifications/cancelled", json!({"requestId": ones_id})).await;
        until_sleeping(&other, server, 1).await;
        other.notify("notifications/cancelled", json!({"requestId": others_id})).await;
        until_sleeping(&other, server, 0).await;
    };
    let (mut ones, mut others, ()) = tokio::join!(ones, others, cancelling);
    assert_eq!(sleep_counts(&other, server).await["cancelled"], 2);
    assert_eq!((ones.next_message().await, others.next_message().await), (None, None));
}

#[tokio::test]
async fn all_pages_of_a_server_are_read() {
    let sidegate = Sidegate::builder()
        .definition("rude", &example("rude_server", &["pages"]))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let expected: Vec<_> = (1..=6).map(|number| format!("x_rude_page_{number}")).collect();
    assert_eq!(client.tool_names().await, expected);
}

#[rstest]
#[tokio::test]
async fn large_results_and_arguments_pass(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let (builder, _far) = builder.with_near_and_far().await;
    let sidegate = builder
        .definition("rude", &example("rude_server", &["huge", "5000000"]))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let (huge, text) = (client.call("x_rude_poke", json!({})).await, "x".repeat(5_000_000));
    assert!(huge.text() == text, "{} bytes", huge.raw().len());
    for server in ["far", "near"] {
        let text = "y".repeat(1_500_000);
        let echoed = client.call(&format!("x_{server}_echo"), json!({ "text": text })).await;
        assert!(echoed.value()["structuredContent"]["text"] == text, "{} bytes", echoed.raw().len());
    }
}

#[tokio::test]
async fn a_body_above_the_limit_is_refused_and_the_session_goes_on() {
    let sidegate = Sidegate::builder().definition("example", &built_in()).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let padding = "x".repeat(5 << 20);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": padding}});
    let refused = RawResponse::read(client.post(call.to_string()).await).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(refused.text().contains("larger than 4194304 bytes (aggregator.maxBody)"), "{}", refused.text());
    assert_eq!(client.tool_names().await.len(), 7);
}

#[rstest]
#[tokio::test]
async fn calls_go_through_the_gateway(#[values(Through::Embedded, Through::Agentgateway)] through: Through) {
    let Some((sidegate, _far)) = one_of_each(through).await else { return };
    let stats = format!("http://127.0.0.1:{}/metrics", sidegate.ready.gateway.ports.stats.unwrap());
    let client = McpClient::connect(sidegate.url()).await;
    let children = [("example", "now"), ("near", "pid"), ("rude", "weird")];
    let through_it: &[_] = match through {
        Through::Agentgateway => &[[("far", "pid")].as_slice(), &children].concat(),
        // It adds nothing to what goes to a child.
        Through::Embedded => &[("far", "pid")],
    };
    for (server, tool) in through_it {
        let before = requests(&stats, through, server).await;
        for _ in 0..3 {
            client.call(&format!("x_{server}_{tool}"), json!({})).await.result();
        }
        // A count may come a moment after its answer, and the server's own GET stream counts as well.
        eventually("the gateway's count", async || {
            (requests(&stats, through, server).await >= before + 3).then_some(())
        })
        .await;
    }
}

/// How many requests the gateway has counted on the route of `server`.
async fn requests(stats: &str, through: Through, server: &str) -> u64 {
    let response = Http::new(stats).send(http::Method::GET, "", &[("accept", "*/*")]).await;
    let text = RawResponse::read(response).await.text().to_owned();
    let (metric, route) = match through {
        Through::Embedded => ("sidegate_gateway_requests_total", format!(r#"route="{server}""#)),
        Through::Agentgateway => ("agentgateway_requests_total", format!(r#"route="default/{server}""#)),
    };
    let counts = text.lines().filter(|line| line.starts_with(metric) && line.contains(&route));
    counts.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}
