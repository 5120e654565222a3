//! The server as a client sees it: an `rmcp` client over an in-memory pipe.

use rmcp::model::{CallToolRequestParams, CallToolResult, ClientConfig, JsonObject};
use rmcp::service::{RoleClient, RunningService, ServiceError};
use rmcp::{ServiceExt, model::ErrorCode};
use rstest::rstest;
use serde_json::{Value, json};

use super::tools::ExampleServer;

type Client = RunningService<RoleClient, ClientConfig>;

async fn connect() -> Client {
    let (client_end, server_end) = tokio::io::duplex(64 * 1024);
    let (server, client) =
        tokio::join!(ExampleServer::new().serve(server_end), ClientConfig::default().serve(client_end));
    let server = server.unwrap();
    tokio::spawn(server.waiting());
    client.unwrap()
}

fn object(value: Value) -> JsonObject {
    let Value::Object(object) = value else { panic!("arguments are an object") };
    object
}

async fn call(client: &Client, tool: &'static str, arguments: Value) -> Result<CallToolResult, ServiceError> {
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(object(arguments))).await
}

fn text(result: &CallToolResult) -> &str {
    &result.content[0].as_text().unwrap().text
}

#[tokio::test]
async fn every_tool_is_described_and_read_only() {
    let client = connect().await;
    let tools = client.list_all_tools().await.unwrap();
    let mut names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    names.sort_unstable();
    assert_eq!(names, ["calculate", "format_json", "hash", "now", "random_number", "text_stats", "uuid"]);
    for tool in &tools {
        assert!(tool.description.as_ref().is_some_and(|text| !text.is_empty()), "{}", tool.name);
        assert_eq!(tool.annotations.as_ref().unwrap().read_only_hint, Some(true), "{}", tool.name);
        assert_eq!(tool.input_schema["type"], "object", "{}", tool.name);
        // Plain text is `format_json`'s natural result; every other tool promises a structure.
        assert_eq!(tool.output_schema.is_some(), tool.name != "format_json", "{}", tool.name);
    }
    client.cancel().await.unwrap();
}

#[rstest]
#[case("calculate", json!({"expression": "(1 + 2) * 3"}), json!({"value": 9.0}))]
#[case("hash", json!({"text": "abc"}), json!({"algorithm": "sha256",
    "hex": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}))]
#[case("random_number", json!({"min": 7, "max": 7}), json!({"value": 7}))]
#[case("text_stats", json!({"text": "one two\nthree"}),
    json!({"bytes": 13, "characters": 13, "words": 3, "lines": 2, "longestLine": 7}))]
#[tokio::test]
async fn structured_results(#[case] tool: &'static str, #[case] arguments: Value, #[case] expected: Value) {
    let client = connect().await;
    let result = call(&client, tool, arguments).await.unwrap();
    assert_ne!(result.is_error, Some(true));
    // Clients from before structured results read the same value as text.
    assert_eq!(serde_json::from_str::<Value>(text(&result)).unwrap(), expected);
    assert_eq!(result.structured_content, Some(expected));
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn results_satisfy_their_output_schemas() {
    let client = connect().await;
    let calls = [
        ("now", json!({"utcOffset": "+02:00"})),
        ("calculate", json!({"expression": "1/3"})),
        ("hash", json!({"text": "", "algorithm": "sha512"})),
        ("uuid", json!({"count": 3})),
        ("random_number", json!({})),
        ("text_stats", json!({"text": "x"})),
    ];
    let tools = client.list_all_tools().await.unwrap();
    for (name, arguments) in calls {
        let tool = tools.iter().find(|tool| tool.name == name).unwrap();
        let schema = Value::Object(tool.output_schema.as_deref().unwrap().clone());
        let result = call(&client, name, arguments).await.unwrap();
        jsonschema::validate(&schema, &result.structured_content.unwrap()).unwrap();
    }
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn uuids_are_distinct_and_of_version_4() {
    let client = connect().await;
    let result = call(&client, "uuid", json!({"count": 100})).await.unwrap().structured_content.unwrap();
    let texts: Vec<String> = serde_json::from_value(result["uuids"].clone()).unwrap();
    let uuids: Vec<uuid::Uuid> = texts.iter().map(|text| text.parse().unwrap()).collect();
    assert!(uuids.iter().all(|uuid| uuid.get_version_num() == 4));
    let distinct: std::collections::HashSet<_> = uuids.into_iter().collect();
    assert_eq!(distinct.len(), 100);
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn random_numbers_stay_in_range_and_reach_both_ends() {
    let client = connect().await;
    let mut seen = [false; 3];
    // 200 draws miss one of three values with a probability below 1e-34.
    for _ in 0..200 {
        let result = call(&client, "random_number", json!({"min": -1, "max": 1})).await.unwrap();
        let value = result.structured_content.unwrap()["value"].as_i64().unwrap();
        seen[usize::try_from(value + 1).unwrap()] = true;
    }
    assert_eq!(seen, [true; 3]);
    call(&client, "random_number", json!({"min": i64::MIN, "max": i64::MAX})).await.unwrap();
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn formatted_json_keeps_the_order_of_keys() {
    let client = connect().await;
    let document = r#"{ "b":1, "a": [ ] }"#;
    let indented = call(&client, "format_json", json!({"json": document})).await.unwrap();
    assert_eq!(text(&indented), "{\n  \"b\": 1,\n  \"a\": []\n}");
    let compact = call(&client, "format_json", json!({"json": document, "compact": true})).await.unwrap();
    assert_eq!(text(&compact), r#"{"b":1,"a":[]}"#);
    client.cancel().await.unwrap();
}

#[rstest]
#[case("now", json!({"utcOffset": "Mars"}), "`Mars` is not an offset from UTC")]
#[case("calculate", json!({"expression": "1/0"}), "division by zero")]
#[case("uuid", json!({"count": 101}), "count is 101: ask for 1 to 100")]
#[case("uuid", json!({"count": 0}), "count is 0: ask for 1 to 100")]
#[case("random_number", json!({"min": 2, "max": 1}), "min (2) is larger than max (1)")]
#[case("format_json", json!({"json": "{"}), "not JSON: EOF while parsing an object at line 1 column 1")]
#[tokio::test]
async fn bad_values_are_tool_errors(
    #[case] tool: &'static str,
    #[case] arguments: Value,
    #[case] message: &str,
) {
    let client = connect().await;
    let result = call(&client, tool, arguments).await.unwrap();
    assert_eq!(result.is_error, Some(true));
    assert!(text(&result).starts_with(message), "{}", text(&result));
    client.cancel().await.unwrap();
}

#[rstest]
#[case("hash", json!({}), "missing field `text`")]
#[case("hash", json!({"text": 1}), "invalid type: integer `1`, expected a string")]
#[case("hash", json!({"text": "", "algorithm": "md5"}), "unknown variant `md5`")]
#[case("calculate", json!({"expression": "1", "precision": 2}), "unknown field `precision`")]
#[tokio::test]
async fn bad_shapes_are_tool_errors(
    #[case] tool: &'static str,
    #[case] arguments: Value,
    #[case] message: &str,
) {
    let client = connect().await;
    let result = call(&client, tool, arguments).await.unwrap();
    assert_eq!(result.is_error, Some(true));
    assert!(text(&result).contains(message), "{}", text(&result));
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn an_unknown_tool_is_a_protocol_error() {
    let client = connect().await;
    let error = call(&client, "no_such_tool", json!({})).await.unwrap_err();
    let ServiceError::McpError(error) = error else { panic!("{error}") };
    assert_eq!(error.code, ErrorCode::INVALID_PARAMS);
    client.cancel().await.unwrap();
}
