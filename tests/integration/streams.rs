//! Streams that are cut while a call is under way: the answer comes all the same, and no session is opened again.

use rstest::rstest;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::support::definitions::{remote, waiting_server};
use super::support::mcp_client::LATEST;
use super::support::optional::Through;
use super::support::scripted::{Offered, Scripted};
use super::support::{McpClient, Sidegate, Upstream, eventually};

/// Milliseconds. The server wants three seconds before its stream is resumed, and gives an answer only to who is there.
const LONG: u64 = 8000;

fn kill_gateway(sidegate: &Sidegate) {
    kill_process(sidegate.gateway_pid().expect("it runs"), Signal::KILL).unwrap();
}

#[rstest]
#[tokio::test]
async fn a_call_that_a_dying_gateway_cuts_is_answered(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let sidegate = builder.definition("near", &waiting_server(&go)).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let server = sidegate.process(|command| command.contains("tools/list"));
    let call = json!({"name": "x_near_wait", "arguments": {}, "_meta": {"progressToken": "p"}});
    let mut exchange = client.start("tools/call", call).await;
    exchange.expect("notifications/progress").await;
    kill_gateway(&sidegate);
    fs_err::write(&go, "").unwrap();
    let text = exchange.response().await.text();
    assert_eq!(Some(text), server.map(|pid| pid.as_raw_nonzero().to_string()), "another session's process");
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[rstest]
#[tokio::test]
async fn a_call_to_a_remote_server_that_gives_ids_is_answered_too(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let sidegate = builder.definition("far", &remote(&far.url)).wait_for_servers().start().await;
    let (client, observer) =
        (McpClient::connect(sidegate.url()).await, McpClient::connect(sidegate.url()).await);
    let sleeping = client.call("x_far_sleep", json!({"ms": LONG}));
    tokio::pin!(sleeping);
    let running = eventually("the call's start", async || {
        let counts = observer.call("x_far_sleep_counts", json!({})).await.value();
        (counts["structuredContent"]["running"] == 1).then_some(())
    });
    tokio::select! {
        answer = &mut sleeping => panic!("it is too quick: {}", answer.raw()),
        () = running => {}
    }
    kill_gateway(&sidegate);
    assert_eq!(sleeping.await.value()["structuredContent"], json!({"slept": LONG}));
    // It was done once.
    let counts = observer.call("x_far_sleep_counts", json!({})).await.value();
    assert_eq!(counts["structuredContent"], json!({"running": 0, "peak": 1, "cancelled": 0}));
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

/// A server that never hears it waits for ever, and so does the call.
#[rstest]
#[tokio::test]
async fn a_client_answers_a_server_whose_gateway_is_away(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Scripted::start(Offered::default()).await;
    let sidegate = builder.definition("far", &remote(&far.url)).wait_for_servers().start().await;
    let client = McpClient::initialize(sidegate.url(), LATEST, json!({"sampling": {}})).await;
    let question = json!({"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}});
    let arguments = json!({"steps": [{"ask": question, "on": "own"}]});
    let call = json!({"name": "x_far_act", "arguments": arguments});
    let mut exchange = client.start("tools/call", call).await;
    let question = exchange.expect("sampling/createMessage").await;
    let pid = sidegate.gateway_pid();
    kill_gateway(&sidegate);
    eventually("the gateway's end", async || (sidegate.gateway_pid() != pid).then_some(())).await;
    let content = json!({"type": "text", "text": "yes"});
    client.respond(&question, json!({"role": "assistant", "content": content, "model": "m"})).await;
    let answer = exchange.response().await.value();
    assert_eq!(answer["structuredContent"]["answers"][0]["content"], content);
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[rstest]
#[tokio::test]
async fn a_server_that_lets_itself_be_polled_is_asked_again(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let sidegate = builder.definition("far", &remote(&far.url)).wait_for_servers().start().await;
    let done = "Reconnection test completed successfully";
    // An old client, which has never heard of polling, gets its answer on its own connection.
    let client = McpClient::initialize(sidegate.url(), "2025-06-18", json!({})).await;
    assert_eq!(client.call("x_far_test_reconnection", json!({})).await.text(), done);
    // A new one polls, as the server wants it.
    let client = McpClient::connect(sidegate.url()).await;
    let call = json!({"name": "x_far_test_reconnection", "arguments": {}});
    let mut stream = client.start("tools/call", call).await.into_stream();
    let (mut last_event_id, mut retry) = (None, None);
    while let Some(event) = stream.next_event().await {
        assert_eq!(event.data.unwrap_or_default(), "", "no message before the cut");
        last_event_id = event.id.or(last_event_id);
        retry = event.retry.or(retry);
    }
    assert_eq!(retry, Some(50), "the server's own");
    let mut resumed = client.resume(last_event_id.as_deref()).await;
    assert_eq!(resumed.next_message().await.unwrap().text(), done);
    assert_eq!(resumed.next_message().await, None);
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}
