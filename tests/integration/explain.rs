//! `sidegate explain`, and the id that it takes.

use rstest::rstest;
use serde_json::{Value, json};

use super::support::definitions::{example, remote, with};
use super::support::optional::Through;
use super::support::scripted::{Offered, Scripted};
use super::support::sidegate::Ended;
use super::support::{McpClient, Sidegate};

async fn explain(sidegate: &Sidegate, id: &str, more: &[&str]) -> Ended {
    let directory = sidegate.ready.runtime_dir.display().to_string();
    let arguments = [&["explain", id, "--runtime-dir", &directory], more].concat();
    Sidegate::builder().command(&arguments).await
}

fn call_id(answer: &Value) -> String {
    let id = &answer["_meta"]["sidegate.dev/callId"];
    id.as_str().unwrap_or_else(|| panic!("no id in {answer}")).to_owned()
}

#[rstest]
#[tokio::test]
async fn a_call_is_explained_by_the_id_in_its_result(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Scripted::start(Offered::default()).await;
    let sidegate = builder
        .without_env("SIDEGATE_TELEMETRY_CALL_IDS")
        .definition("near", &example("everything", &[]))
        .definition("far", &with(remote(&far.url), "callTimeout: 1"))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let answer = client.call("x_near_pid", json!({})).await;
    let answer = answer.value();
    let pid = answer["structuredContent"]["pid"].to_string();
    let id = call_id(&answer);
    let shown = explain(&sidegate, &id, &["--output", "json"]).await;
    assert!(shown.status.success(), "{}", shown.stderr);
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    let call = &shown["calls"][0];
    assert_eq!(call["id"], id);
    assert_eq!((&call["method"], &call["subject"]), (&json!("tools/call"), &json!("x_near_pid")));
    assert_eq!(
        (&call["server"], &call["route"], &call["outcome"]),
        (&json!("near"), &json!("near"), &json!("ok"))
    );
    assert_eq!(call["pid"].to_string(), pid);
    assert_eq!((&call["tries"], &call["requestId"]), (&json!(1), &json!("1")));
    assert!(call["generation"].as_str().is_some_and(|generation| !generation.is_empty()), "{call}");
    let time = |what: &str| call[what].as_u64().unwrap_or_else(|| panic!("no {what} in {call}"));
    assert!(time("serverMicros") + time("gatewayMicros") <= time("wholeMicros"), "{call}");
    assert!(time("firstByteMicros") <= time("upstreamMicros"), "{call}");

    let text = explain(&sidegate, &id, &[]).await.stdout;
    for part in ["tools/call x_near_pid", &id, &pid, "Generation", "on the way", "server"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // What failed has no result with an id, but a client's trace has one.
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let meta = json!({"traceparent": format!("00-{trace}-00f067aa0ba902b7-01")});
    let params =
        json!({"name": "x_far_act", "arguments": {"steps": [{"until_cancelled": true}]}, "_meta": meta});
    client.request("tools/call", &params).await.error();
    let text = explain(&sidegate, trace, &[]).await.stdout;
    assert!(text.contains("timeout") && text.contains("hint: spec.callTimeout of far"), "{text}");
    assert!(text.contains("none of ours") && text.contains("unknown"), "{text}");
}

#[tokio::test]
async fn an_id_that_is_not_known_says_what_is() {
    let sidegate = Sidegate::builder().start().await;
    let unknown = explain(&sidegate, "0af7651916cd43dd8448eb211c80319c", &[]).await;
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("the last 1024 calls"), "{}", unknown.stderr);
    let wrong = explain(&sidegate, "abc", &[]).await;
    assert_eq!(wrong.status.code(), Some(2));
    assert!(wrong.stderr.contains("an id is 32 digits"), "{}", wrong.stderr);
    let none = Sidegate::builder().command(&["explain", "0af7651916cd43dd8448eb211c80319c"]).await;
    assert_eq!(none.status.code(), Some(5));
}

#[tokio::test]
async fn tools_of_our_own_have_ids_too_and_nobody_has_to_see_them() {
    let builder = Sidegate::builder().without_env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS");
    let with_ids = builder.without_env("SIDEGATE_TELEMETRY_CALL_IDS").start().await;
    let client = McpClient::connect(with_ids.url()).await;
    let answer = client.call("core_service_list", json!({})).await.value();
    let shown = explain(&with_ids, &call_id(&answer), &[]).await.stdout;
    assert!(shown.contains("sidegate has answered itself"), "{shown}");

    let without = Sidegate::builder().without_env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS");
    let without = without
        .without_env("SIDEGATE_TELEMETRY_CALL_IDS")
        .config("telemetry: {callIds: false}\n")
        .start()
        .await;
    let client = McpClient::connect(without.url()).await;
    let answer = client.call("core_service_list", json!({})).await.value();
    assert!(answer.get("_meta").is_none(), "{answer}");
}
