//! Gateways that are killed while calls are under way: each call ends, answered or with an error, and the next ones are
//! answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rstest::rstest;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::support::definitions::{example, remote};
use super::support::optional::Through;
use super::support::{McpClient, Upstream, eventually, within};

/// Each with calls of its own, one after the other; half of them for either server.
const CLIENTS: usize = 12;

/// How often a gateway is killed. It waits longer each time before it starts the next.
const KILLS: usize = 2;

/// Milliseconds. Longer than the bridge waits before it answers with a stream of events, which can be resumed.
const LONGEST_CALL: u32 = 400;

/// Calls a tool; comes back for the answer where the server wants that (2025-11-25, basic/transports, "Sending Messages to
/// the Server", item 6).
async fn call(client: &McpClient, tool: &str, arguments: Value) -> Value {
    let call = json!({"name": tool, "arguments": arguments});
    let exchange = client.start("tools/call", call).await;
    let id = exchange.id;
    let mut stream = exchange.into_stream();
    let mut last_event_id = None;
    loop {
        while let Some(event) = stream.next_event().await {
            last_event_id = event.id.or(last_event_id);
            let message: Value = serde_json::from_str(&event.data.unwrap_or_default()).unwrap_or_default();
            if message["id"] == id {
                return message;
            }
        }
        stream = client.resume(last_event_id.as_deref()).await;
    }
}

/// Calls until told to stop. An error is an answer, too: what a gateway was about to carry may be lost with it.
async fn call_without_a_pause(
    url: String,
    server: &'static str,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
) {
    let client = McpClient::connect(&url).await;
    let (echo, sleep) = (format!("x_{server}_echo"), format!("x_{server}_sleep"));
    while !stop.load(Ordering::Relaxed) {
        for (tool, arguments) in [
            (&echo, json!({"payload": "p"})),
            (&sleep, json!({"ms": getrandom::u32().unwrap() % LONGEST_CALL})),
        ] {
            let answer = within("the end of a call", call(&client, tool, arguments)).await;
            answered.fetch_add(usize::from(answer["result"].is_object()), Ordering::Relaxed);
        }
    }
    client.delete().await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_ends_when_its_gateway_is_killed(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let upstream = Upstream::everything(&[]).await;
    let near = example("everything", &[]);
    let builder = builder.definition("far", &remote(&upstream.url)).definition("near", &near);
    let sidegate = builder.wait_for_servers().start().await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = ["near", "far"]
        .into_iter()
        .cycle()
        .take(CLIENTS)
        .map(|server| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(call_without_a_pause(sidegate.url().to_owned(), server, stop, answered))
        })
        .collect();
    let goes_on = async || {
        let enough = answered.load(Ordering::Relaxed) + 2 * CLIENTS;
        eventually("more answers", async || (answered.load(Ordering::Relaxed) >= enough).then_some(())).await;
    };
    for _ in 0..KILLS {
        goes_on().await;
        let pid = eventually("a gateway", async || sidegate.gateway_pid()).await;
        kill_process(pid, Signal::KILL).unwrap();
        eventually("another gateway", async || sidegate.gateway_pid().filter(|new| *new != pid)).await;
    }
    goes_on().await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        within("a client", client).await.unwrap();
    }
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}
