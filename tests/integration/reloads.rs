//! Calls to servers that nobody touches, while the gateway takes over one configuration after the other.

use rstest::rstest;
use serde_json::json;

use super::support::definitions::{remote, with};
use super::support::load::Load;
use super::support::optional::Through;
use super::support::{McpClient, eventually};

const CLIENTS: usize = 8;
const CHANGES: usize = 10;

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_while_other_definitions_change(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let (builder, far) = builder.with_near_and_far().await;
    let sidegate = builder.wait_for_servers().start().await;
    let watcher = McpClient::connect(sidegate.url()).await;
    let pids = async || {
        [
            watcher.call("x_near_pid", json!({})).await.text(),
            watcher.call("x_far_pid", json!({})).await.text(),
        ]
    };
    let before = pids().await;

    let load = Load::start(sidegate.url(), CLIENTS, ["x_near_echo", "x_far_echo"]);
    for number in 0..CHANGES {
        // Another URL means another route, and so another generation.
        let other = remote(&format!("{}?change={number}", far.url));
        sidegate.write_definition("other", &with(other, &format!("toolPrefix: o{number}")));
        let tool = format!("x_o{number}_pid");
        eventually("the changed server", async || {
            load.check();
            watcher.call(&tool, json!({})).await.envelope().result.is_some().then_some(())
        })
        .await;
        load.goes_on().await;
    }
    load.end().await;
    assert_eq!(pids().await, before, "sessions were opened again");
    let generations = sidegate.stderr().matches("gateway configuration in force").count();
    assert!(generations > CHANGES, "only {generations} generations");
}
