//! Calls to servers that nobody touches, while the gateway takes over one configuration after the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rstest::rstest;
use serde_json::json;

use super::support::definitions::{example, remote, with};
use super::support::optional::Through;
use super::support::{McpClient, Upstream, eventually, within};

const CLIENTS: usize = 8;
const CHANGES: usize = 10;

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_while_other_definitions_change(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let sidegate = builder
        .definition("far", &remote(&far.url))
        .definition("near", &example("everything", &[]))
        .wait_for_servers()
        .start()
        .await;
    let watcher = McpClient::connect(sidegate.url()).await;
    let pids = async || {
        [
            watcher.call("x_near_pid", json!({})).await.text(),
            watcher.call("x_far_pid", json!({})).await.text(),
        ]
    };
    let before = pids().await;

    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (url, stop, calls) = (sidegate.url().to_owned(), Arc::clone(&stop), Arc::clone(&calls));
            tokio::spawn(async move {
                let client = McpClient::connect(&url).await;
                let tool = ["x_near_echo", "x_far_echo"][number % 2];
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    let payload = format!("{number}-{count}");
                    let answer = client.call(tool, json!({"payload": payload})).await;
                    assert!(answer.raw().contains(&payload), "{tool}: {answer:?}");
                    count += 1;
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    for number in 0..CHANGES {
        let reached = calls.load(Ordering::Relaxed) + CLIENTS;
        // Another URL means another route, and so another generation.
        let other = remote(&format!("{}?change={number}", far.url));
        sidegate.write_definition("other", &with(other, &format!("toolPrefix: o{number}")));
        let tool = format!("x_o{number}_pid");
        eventually("the changed server", async || {
            assert!(clients.iter().all(|client| !client.is_finished()), "a call was lost");
            watcher.call(&tool, json!({})).await.envelope().result.is_some().then_some(())
        })
        .await;
        eventually("calls", async || (calls.load(Ordering::Relaxed) >= reached).then_some(())).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        within("a client", client).await.unwrap();
    }
    assert_eq!(pids().await, before, "sessions were opened again");
    let generations = sidegate.stderr().matches("gateway configuration in force").count();
    assert!(generations > CHANGES, "only {generations} generations");
}
