//! Servers and clients that others have written.

use std::sync::Arc;

use rmcp::handler::client::ClientHandler;
use rmcp::model::{CallToolRequestParams, ErrorCode, ProgressNotificationParam};
use rmcp::service::{NotificationContext, RoleClient, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ServiceExt, object};
use rstest::rstest;
use serde_json::json;
use tokio::sync::mpsc;

use super::support::definitions::{built_in, example, remote, stdio};
use super::support::optional::{Through, npm_server_everything};
use super::support::{McpClient, Upstream, within};

#[rstest]
#[tokio::test]
async fn server_everything_is_served(#[values(Through::Embedded, Through::Agentgateway)] through: Through) {
    let Some(script) = npm_server_everything() else { return };
    let Some(builder) = through.builder() else { return };
    let server = stdio("node", &[script.to_str().unwrap(), "stdio"]);
    let sidegate = builder.definition("npm", &server).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;

    let names = client.tool_names().await;
    assert!(names.len() >= 10 && names.iter().all(|name| name.starts_with("x_npm_")), "{names:?}");
    assert_eq!(client.call("x_npm_echo", json!({"message": "ü 🦀"})).await.text(), "Echo: ü 🦀");
    assert_eq!(
        client.call("x_npm_get-sum", json!({"a": 2, "b": 3})).await.text(),
        "The sum of 2 and 3 is 5."
    );
    let wrong = client.call("x_npm_get-sum", json!({"a": "two"})).await.value();
    assert_eq!(wrong["isError"], true, "{wrong}");
    let structured =
        client.call("x_npm_get-structured-content", json!({"location": "Chicago"})).await.value();
    assert!(structured["structuredContent"]["temperature"].is_number(), "{structured}");

    let call = json!({
        "name": "x_npm_trigger-long-running-operation",
        "arguments": {"duration": 0.2, "steps": 4},
        "_meta": {"progressToken": "steps"},
    });
    let mut exchange = client.start("tools/call", call).await;
    for step in 1..=4 {
        let progress = exchange.expect("notifications/progress").await.params();
        assert_eq!(progress, json!({"progress": step, "total": 4, "progressToken": "steps"}));
    }
    let done = "Long running operation completed. Duration: 0.2 seconds, Steps: 4.";
    assert_eq!(exchange.response().await.text(), done);
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

/// Writes down what a server says by itself.
struct Listener(mpsc::UnboundedSender<Heard>);

#[derive(Debug, PartialEq)]
enum Heard {
    Progress(f64),
    ToolsChanged,
}

impl ClientHandler for Listener {
    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.0.send(Heard::Progress(params.progress)).unwrap();
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.0.send(Heard::ToolsChanged).unwrap();
    }
}

async fn connect(url: &str) -> (RunningService<RoleClient, Listener>, mpsc::UnboundedReceiver<Heard>) {
    // The client's TLS has no cryptography of its own. Another test of this process may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let transport = StreamableHttpClientTransport::with_client(
        reqwest::Client::new(),
        StreamableHttpClientTransportConfig::with_uri(Arc::from(url)),
    );
    let (sender, heard) = mpsc::unbounded_channel();
    (within("initialize", Listener(sender).serve(transport)).await.unwrap(), heard)
}

#[rstest]
#[tokio::test]
async fn an_rmcp_client_does_a_full_round(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let sidegate = builder
        .definition("example", &built_in())
        .definition("far", &remote(&far.url))
        .definition("near", &example("everything", &[]))
        .wait_for_servers()
        .start()
        .await;
    let (client, mut heard) = connect(sidegate.url()).await;
    let call = async |name: &str, arguments| {
        let params = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        within(name, client.call_tool(params)).await
    };

    let server = client.peer_info().unwrap().server_info.clone().unwrap();
    assert_eq!(server.name, "sidegate");
    let tools = within("tools/list", client.list_all_tools()).await.unwrap();
    assert_eq!(tools.len(), 7 + 24 + 24);

    let product = call("x_example_calculate", object!({"expression": "2 ^ 10"})).await.unwrap();
    assert_eq!(product.structured_content, Some(json!({"value": 1024.0})));
    for server in ["far", "near"] {
        let failed = call(&format!("x_{server}_test_error_handling"), object!({})).await.unwrap();
        assert_eq!(failed.is_error, Some(true));
        call(&format!("x_{server}_test_tool_with_progress"), object!({})).await.unwrap();
        for progress in [0.0, 50.0, 100.0] {
            assert_eq!(within("progress", heard.recv()).await, Some(Heard::Progress(progress)));
        }
        call(&format!("x_{server}_add_tool"), object!({"name": "late"})).await.unwrap();
        assert_eq!(within("the news", heard.recv()).await, Some(Heard::ToolsChanged));
        call(&format!("x_{server}_late"), object!({})).await.unwrap();
    }
    match call("x_far_nope", object!({})).await {
        Err(ServiceError::McpError(error)) => assert_eq!(error.code, ErrorCode::INVALID_PARAMS),
        other => panic!("{other:?}"),
    }

    within("the end of the session", client.cancel()).await.unwrap();
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}
