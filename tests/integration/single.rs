//! One server alone, under `/mcp/<server>`: its own names, its own words.

use http::StatusCode;
use rstest::rstest;
use serde_json::json;

use super::support::definitions::{built_in, example, remote};
use super::support::mcp_client::{Http, LATEST, RawResponse};
use super::support::optional::Through;
use super::support::{McpClient, Sidegate, Upstream};

#[rstest]
#[tokio::test]
async fn a_server_alone_says_what_it_says_itself(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let sidegate = builder
        .definition("far", &remote(&far.url))
        .definition("example", &built_in())
        .wait_for_servers()
        .start()
        .await;
    let direct = McpClient::connect(&far.url).await;
    let client = McpClient::connect(&format!("{}/far", sidegate.url())).await;

    let (ours, theirs) = (client.initialize_result(), direct.initialize_result());
    assert_eq!(ours["serverInfo"], theirs["serverInfo"]);
    assert_eq!(ours["instructions"], theirs["instructions"]);
    let mut declared = theirs["capabilities"].clone();
    for list in ["tools", "prompts", "resources"] {
        declared[list]["listChanged"] = json!(true);
    }
    assert_eq!(ours["capabilities"], declared);

    for (method, params) in [
        ("tools/list", json!({})),
        ("prompts/list", json!({})),
        ("resources/list", json!({})),
        ("resources/templates/list", json!({})),
        ("tools/call", json!({"name": "echo", "arguments": {"z": 1, "a": [null]}})),
        (
            "prompts/get",
            json!({"name": "test_prompt_with_arguments", "arguments": {"arg1": "1", "arg2": "é"}}),
        ),
        ("resources/read", json!({"uri": "test://static-binary"})),
        ("resources/read", json!({"uri": "test://template/7/data"})),
        (
            "completion/complete",
            json!({"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "par"}}),
        ),
    ] {
        let (ours, theirs) = (client.request(method, &params).await, direct.request(method, &params).await);
        assert_eq!(ours.result().get(), theirs.result().get(), "{method}");
    }
    for (method, params) in [
        ("tools/call", json!({"name": "x_far_echo"})),
        ("resources/read", json!({"uri": "test://nothing"})),
        ("no/such", json!({})),
    ] {
        let (ours, theirs) = (client.request(method, &params).await, direct.request(method, &params).await);
        assert_eq!(ours.error()["code"], theirs.error()["code"], "{method} {ours:?}");
    }
    assert!(client.delete().await.is_success());
}

#[tokio::test]
async fn a_server_that_is_not_defined_is_not_found() {
    let sidegate = Sidegate::builder().definition("example", &built_in()).wait_for_servers().start().await;
    for path in ["nobody", "example/", "example/x", "EXAMPLE", ""] {
        let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"x"}}"#;
        let http = Http::new(&format!("{}/{path}", sidegate.url()));
        let answer = RawResponse::read(http.post(initialize, &[]).await).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn a_session_is_known_on_its_own_path_only() {
    let sidegate = Sidegate::builder()
        .definition("example", &built_in())
        .definition("rude", &example("rude_server", &["weird-fields"]))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(&format!("{}/example", sidegate.url())).await;
    let session = client.session_id().unwrap();
    let list = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list"}"#;
    let headers = [("mcp-session-id", session), ("mcp-protocol-version", LATEST)];
    for (path, status) in
        [("/example", StatusCode::OK), ("/rude", StatusCode::NOT_FOUND), ("", StatusCode::NOT_FOUND)]
    {
        let http = Http::new(&format!("{}{path}", sidegate.url()));
        assert_eq!(http.post(list, &headers).await.status(), status, "{path}");
    }
}
