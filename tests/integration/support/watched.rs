//! An instance with servers that nobody touches, and a client that hears of changes.

use serde_json::{Value, json};

use super::mcp_client::EventStream;
use super::sidegate::Builder;
use super::{McpClient, Sidegate};

const CHANGED: &str = "notifications/tools/list_changed";
const OTHERS: [&str; 2] = ["notifications/prompts/list_changed", "notifications/resources/list_changed"];

/// An instance, and a client that listens.
pub(crate) struct Watched {
    pub(crate) sidegate: Sidegate,
    pub(crate) client: McpClient,
    pub(crate) stream: EventStream,
}

impl Watched {
    /// Starts it, and waits for its servers.
    pub(crate) async fn start(builder: Builder) -> Self {
        let sidegate = builder.wait_for_servers().start().await;
        let client = McpClient::connect(sidegate.url()).await;
        let stream = client.listen().await;
        Self { sidegate, client, stream }
    }

    /// Waits until it is said that the tools have changed; gives the names as they are then.
    ///
    /// A second message for the change before would come here, when the list is still the old one.
    pub(crate) async fn changed(&mut self) -> Vec<String> {
        let method = self.next_change().await;
        assert_eq!(method.as_deref(), Some(CHANGED));
        self.client.tool_names().await
    }

    /// Ends the session: its stream must not hold another message.
    pub(crate) async fn nothing_more(mut self) {
        assert!(self.client.delete().await.is_success());
        assert_eq!(self.next_change().await, None, "a change was told twice");
    }

    /// The next message. Said of the change before, once each, may come first that prompts and resources have changed.
    async fn next_change(&mut self) -> Option<String> {
        let mut others = Vec::new();
        loop {
            let method = self.stream.next_message().await?.envelope().method?;
            if !OTHERS.contains(&method.as_str()) || others.contains(&method) {
                return Some(method);
            }
            others.push(method);
        }
    }

    /// The process of a server that is `everything`.
    pub(crate) async fn pid(&self, prefix: &str) -> u64 {
        self.structured(&format!("x_{prefix}_pid"), json!({})).await["pid"].as_u64().unwrap()
    }

    /// What a tool gives as structured content.
    pub(crate) async fn structured(&self, tool: &str, arguments: Value) -> Value {
        self.client.call(tool, arguments).await.value()["structuredContent"].clone()
    }
}
