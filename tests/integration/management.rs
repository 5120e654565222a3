//! Sidegate's own tools, as a client sees and uses them.

use rstest::rstest;
use serde_json::{Value, json};

use super::support::definitions::{built_in, example, with};
use super::support::sidegate::Builder;
use super::support::{McpClient, Sidegate, eventually};

fn builder(tools: &str) -> Builder {
    Sidegate::builder().env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS", tools)
}

async fn start(builder: Builder) -> (Sidegate, McpClient) {
    let sidegate = builder.wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    (sidegate, client)
}

/// The values of a call that has to succeed, and its text.
async fn done(client: &McpClient, tool: &str, arguments: Value) -> (Value, String) {
    let answer = client.call(tool, arguments).await;
    let result = answer.value();
    assert_eq!(result.get("isError"), None, "{}", answer.raw());
    (result["structuredContent"].clone(), answer.text())
}

/// The text of a call that is an error.
async fn error(client: &McpClient, tool: &str, arguments: Value) -> String {
    let answer = client.call(tool, arguments).await;
    assert_eq!(answer.value()["isError"], true, "{}", answer.raw());
    answer.text()
}

#[rstest]
#[case("off", 0)]
#[case("read", 5)]
#[case("lifecycle", 8)]
#[case("full", 11)]
#[tokio::test]
async fn there_are_as_many_as_are_allowed(#[case] allowed: &str, #[case] count: usize) {
    let (sidegate, client) = start(builder(allowed).definition("near", &built_in())).await;
    let names = client.tool_names().await;
    assert_eq!(names.iter().filter(|name| name.starts_with("core_")).count(), count, "{names:?}");
    assert_eq!(names.iter().filter(|name| name.starts_with("x_near_")).count(), 7);
    if count < 11 {
        let refused = client.call("core_mcpserver_delete", json!({"name": "near"})).await;
        assert_eq!(refused.error()["message"], "tool not found: core_mcpserver_delete");
    }
    // One server alone has its own tools and no others.
    let single = McpClient::connect(&sidegate.server_url("near")).await;
    assert_eq!(single.tool_names().await.len(), 7);
}

#[tokio::test]
async fn without_a_word_they_only_look() {
    let (_sidegate, client) =
        start(Sidegate::builder().without_env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS")).await;
    let list = client.request("tools/list", json!({})).await.value();
    let tools = list["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 5);
    assert!(tools.iter().all(|tool| tool["annotations"]["readOnlyHint"] == true), "{list}");
}

#[tokio::test]
async fn a_server_is_looked_at() {
    let wrong = "apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec:\n  type: stdio\n";
    let secret = with(built_in(), "env: {API_TOKEN: hunter22}");
    let (sidegate, client) =
        start(builder("read").definition("near", &secret).definition("wrong", wrong)).await;

    let (services, text) = done(&client, "core_service_list", json!({})).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), services, "the text says the same");
    assert_eq!(services["total"], 2);
    let mut near = services["services"][0].clone();
    assert!(near["metadata"]["since"].is_u64(), "{near}");
    near["metadata"].as_object_mut().unwrap().remove("since");
    let expected = json!({"name": "near", "serviceType": "MCPServer", "state": "running", "health": "healthy", "metadata": {"tools": 7}});
    assert_eq!(near, expected);
    assert_eq!(services["services"][1]["health"], "unhealthy");
    let status = done(&client, "core_service_status", json!({"name": "wrong"})).await.0;
    assert_eq!(status["state"], "invalid");
    assert!(
        status["error"]
            .as_str()
            .unwrap()
            .contains("wrong.yaml:3:1: spec.command: missing; add the program to run"),
        "{status}"
    );

    let servers = done(&client, "core_mcpserver_list", json!({})).await.0;
    assert_eq!((&servers["total"], &servers["mode"]), (&json!(2), &json!("filesystem")));
    assert_eq!(servers["mcpServers"][0]["type"], "stdio");
    assert_eq!(servers["mcpServers"][1]["state"], "invalid");
    let near = done(&client, "core_mcpserver_get", json!({"name": "near"})).await.0;
    assert_eq!(near["definition"]["spec"]["env"], json!({"API_TOKEN": "***"}));
    assert_eq!(near["status"]["state"], "running");
    assert_eq!(near["file"], json!(sidegate.config_dir().join("mcpservers/near.yaml")));
}

#[rstest]
#[case("core_service_status", json!({"name": "nowhere"}), "service nowhere not found")]
#[case("core_service_start", json!({"name": "nowhere"}), "service nowhere not found")]
#[case("core_service_stop", json!({}), "name is missing: the name of an MCP server")]
#[case("core_service_stop", json!({"name": 7}), "name: expected a string")]
#[case("core_service_stop", json!({"name": "near", "force": true}), "unknown argument force; allowed are name")]
#[case("core_service_list", json!({"all": true}), "unknown argument all; it has none")]
#[case("core_mcpserver_get", json!({"name": "nowhere"}), "MCP server 'nowhere' not found")]
#[case("core_mcpserver_delete", json!({"name": "nowhere"}), "MCP server 'nowhere' not found")]
#[case("core_mcpserver_update", json!({"name": "nowhere", "timeout": 5}), "MCP server 'nowhere' not found")]
#[case("core_mcpserver_create", json!({"name": "near", "type": "stdio", "command": "x"}), "MCP server 'near' already exists")]
#[case("core_mcpserver_create", json!({"name": "../near", "type": "stdio", "command": "x"}), "\"../near\" is not a server name")]
#[case("core_mcpserver_create", json!({"name": "new", "type": "stdio"}), "spec.command: missing")]
#[case("core_mcpserver_update", json!({"name": "near", "timeout": 0}), "timeout")]
#[tokio::test]
async fn what_is_wrong_is_said(#[case] tool: &str, #[case] arguments: Value, #[case] why: &str) {
    let (sidegate, client) = start(builder("full").definition("near", &built_in())).await;
    let said = error(&client, tool, arguments).await;
    assert!(said.contains(why), "{said}");
    let files: Vec<_> = fs_err::read_dir(sidegate.config_dir().join("mcpservers")).unwrap().collect();
    assert_eq!(files.len(), 1, "nothing is written");
    assert_eq!(sidegate.read("config/mcpservers/near.yaml"), built_in());
}

#[tokio::test]
async fn a_service_is_stopped_and_started() {
    let (_sidegate, client) =
        start(builder("lifecycle").definition("near", &example("everything", &[]))).await;
    let near = json!({"name": "near"});
    let (values, text) = done(&client, "core_service_stop", near.clone()).await;
    assert_eq!(
        (values, text.as_str()),
        (json!({"name": "near", "result": "stopped"}), "Successfully stopped service 'near'")
    );
    assert_eq!(done(&client, "core_service_stop", near.clone()).await.1, "Service 'near' is already stopped");
    let status = done(&client, "core_service_status", near.clone()).await.0;
    assert_eq!((&status["state"], &status["health"]), (&json!("stopped"), &json!("unknown")));
    assert_eq!(
        done(&client, "core_service_start", near.clone()).await.1,
        "Successfully started service 'near'"
    );
    assert_eq!(
        done(&client, "core_service_start", near.clone()).await.1,
        "Service 'near' is already running"
    );
    let pid = async || client.call("x_near_pid", json!({})).await.value()["structuredContent"]["pid"].clone();
    let before = pid().await;
    assert_eq!(done(&client, "core_service_restart", near).await.1, "Successfully restarted service 'near'");
    assert_ne!(pid().await, before);
}

#[tokio::test]
async fn a_server_is_defined_changed_and_removed() {
    let (sidegate, client) = start(builder("full")).await;
    let command = super::support::sidegate::binary();
    let near = json!({"name": "near", "type": "stdio", "command": command, "args": ["example-server"]});

    let valid = done(&client, "core_mcpserver_validate", near.clone()).await;
    assert_eq!(valid, (json!({"valid": true, "errors": []}), "MCP server 'near' is valid".to_owned()));
    let wrong =
        done(&client, "core_mcpserver_validate", json!({"name": "a", "type": "stdio", "url": "x"})).await.0;
    assert_eq!((&wrong["valid"], wrong["errors"].as_array().unwrap().len()), (&json!(false), 3), "{wrong}");

    let (values, text) = done(&client, "core_mcpserver_create", near.clone()).await;
    assert_eq!(text, "MCP server 'near' created successfully; it is running, with 7 tools");
    assert_eq!((&values["state"], &values["tools"]), (&json!("running"), &json!(7)), "{values}");
    assert_eq!(values["file"], json!(sidegate.config_dir().join("mcpservers/near.yaml")));
    let names = async |prefix: &str| {
        let names = client.tool_names().await;
        names.iter().filter(|name| name.starts_with(prefix)).count()
    };
    assert_eq!(names("x_near_").await, 7, "what it said can be called");

    let broken = json!({"name": "broken", "type": "stdio", "command": "no-such-command"});
    let (values, text) = done(&client, "core_mcpserver_create", broken).await;
    assert!(text.starts_with("MCP server 'broken' created successfully; it is failed: "), "{text}");
    assert_eq!(values["state"], "failed");
    assert!(values["error"].as_str().unwrap().contains("was not found on PATH"), "{values}");
    done(&client, "core_mcpserver_delete", json!({"name": "broken"})).await;

    let patch = json!({"name": "near", "toolPrefix": "other", "description": "ours"});
    assert_eq!(
        done(&client, "core_mcpserver_update", patch).await.1,
        "MCP server 'near' updated successfully; it is running, with 7 tools"
    );
    eventually("the new names", async || (names("x_other_").await == 7).then_some(())).await;
    let cleared = json!({"name": "near", "toolPrefix": null});
    done(&client, "core_mcpserver_update", cleared).await;
    eventually("the old names", async || (names("x_near_").await == 7).then_some(())).await;
    let file = sidegate.read("config/mcpservers/near.yaml");
    assert!(file.contains("description: ours") && !file.contains("toolPrefix"), "{file}");

    let (_, text) = done(&client, "core_mcpserver_delete", json!({"name": "near"})).await;
    assert_eq!(text, "MCP server 'near' deleted successfully");
    assert_eq!(names("x_near_").await, 0, "they have ended with it");
    assert_eq!(names("core_").await, 11);
    assert_eq!(sidegate.read("config/mcpservers/near.yaml"), "");
}
