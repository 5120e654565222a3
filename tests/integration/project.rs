//! `--project`: the servers of a project's `.mcp.json`.

use serde_json::{Value, json};
use tokio::process::Command;

use super::support::definitions::built_in;
use super::support::sidegate::{Builder, binary};
use super::support::stdio_client::StdioClient;
use super::support::{McpClient, Sidegate, eventually, within};

fn servers(names: &[&str]) -> Value {
    let entry = json!({"command": binary(), "args": ["example-server"]});
    let servers: serde_json::Map<String, Value> =
        names.iter().map(|name| ((*name).to_owned(), entry.clone())).collect();
    json!({"mcpServers": servers})
}

/// An instance in a project with these servers.
fn project(text: &str) -> Builder {
    Sidegate::builder().file(".mcp.json", text).arg("--project")
}

fn rewrite(instance: &Sidegate, text: &str) {
    let file = instance.config_dir().parent().unwrap().join(".mcp.json");
    fs_err::write(file, text).unwrap();
}

async fn status(instance: &Sidegate) -> Value {
    let mut command = Command::new(binary());
    command.args(["status", "--output", "json", "--runtime-dir"]).arg(&instance.ready.runtime_dir);
    let output = within("the status", command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn server(instance: &Sidegate, name: &str) -> Option<Value> {
    let status = status(instance).await;
    status["servers"].as_array().unwrap().iter().find(|server| server["name"] == name).cloned()
}

async fn wait_for(instance: &Sidegate, name: &str, state: &str) {
    eventually(&format!("{name} {state}"), async || {
        server(instance, name).await.filter(|server| server["state"] == state)
    })
    .await;
}

#[tokio::test]
async fn its_servers_are_served_and_followed() {
    let text = servers(&["first", "shared"]).to_string();
    let instance = project(&text).definition("shared", &built_in()).wait_for_servers().start().await;
    let names = McpClient::connect(instance.url()).await.tool_names().await;
    assert!(names.contains(&"x_first_calculate".to_owned()), "{names:?}");

    // A name that the configuration directory has too.
    let problems = status(&instance).await["problems"].to_string();
    assert!(
        problems.contains("config/mcpservers/shared.yaml too, which counts; rename one of them"),
        "{problems}"
    );
    assert!(problems.contains("/.mcp.json:1:"), "{problems}");

    rewrite(&instance, &servers(&["first", "second"]).to_string());
    wait_for(&instance, "second", "running").await;
    assert_eq!(status(&instance).await["problems"]["files"], json!([]));

    // What cannot be read takes nothing away.
    rewrite(&instance, "{\"mcpServers\": {\n  \"first\"}}");
    eventually("word of it", async || {
        server(&instance, "second").await.filter(|server| {
            server["stale"].as_str().is_some_and(|stale| stale.contains("/.mcp.json:2:10: not JSON: "))
        })
    })
    .await;
    assert_eq!(server(&instance, "first").await.unwrap()["state"], "running");

    rewrite(&instance, "{\"mcpServers\": {\n  \"second\": {\"type\": \"http\", \"url\": \"ftp://h\"}}}");
    eventually("the end of the first", async || server(&instance, "first").await.is_none().then_some(()))
        .await;
    let stale = server(&instance, "second").await.unwrap()["stale"].to_string();
    assert!(stale.contains("/.mcp.json:2:30: mcpServers.second.url: neither http nor https"), "{stale}");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn its_servers_are_stopped_without_a_word_in_the_file() {
    let text = servers(&["first"]).to_string();
    let instance = project(&text).wait_for_servers().start().await;
    for (action, state) in [("stop", "stopped"), ("start", "running")] {
        let mut command = Command::new(binary());
        command.args([action, "first", "--runtime-dir"]).arg(&instance.ready.runtime_dir);
        let output = within(action, command.output()).await.unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(server(&instance, "first").await.unwrap()["state"], state);
    }
    assert_eq!(instance.read(".mcp.json"), text);
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn a_file_that_is_wrong_does_not_keep_a_server_from_being_stopped() {
    let text = servers(&["first", "second"]).to_string();
    let instance = project(&text).wait_for_servers().start().await;
    let stop = async |name: &str| {
        let mut command = Command::new(binary());
        command.args(["stop", name, "--runtime-dir"]).arg(&instance.ready.runtime_dir);
        within("the stop", command.output()).await.unwrap()
    };
    assert!(stop("first").await.status.success());
    rewrite(&instance, "{");
    let stale = async |name: &str| {
        eventually("word of it", async || {
            server(&instance, name).await.filter(|server| server["stale"].is_string())
        })
        .await
    };
    assert_eq!(stale("first").await["state"], "stopped");
    assert_eq!(stale("second").await["state"], "running");
    let output = stop("second").await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server(&instance, "second").await.unwrap()["state"], "stopped");

    rewrite(&instance, &text);
    eventually("that the file is right", async || {
        server(&instance, "second").await.filter(|server| !server["stale"].is_string())
    })
    .await;
    for name in ["first", "second"] {
        assert_eq!(server(&instance, name).await.unwrap()["state"], "stopped");
    }
    assert!(!stop("third").await.status.success());
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn an_instance_on_another_port_is_not_sent_to_the_usual_one() {
    let mut text = servers(&["first"]);
    text["mcpServers"]["sidegate"] = json!({"type": "http", "url": "http://127.0.0.1:8090/mcp"});
    let instance = project(&text.to_string()).start().await;
    wait_for(&instance, "first", "running").await;
    assert_ne!(instance.url().split(':').nth(2), Some("8090/mcp"));
    assert_eq!(server(&instance, "sidegate").await, None);
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn it_is_read_only_when_asked_for() {
    let text = servers(&["first"]).to_string();
    let instance = Sidegate::builder().file(".mcp.json", &text).wait_for_servers().start().await;
    assert_eq!(status(&instance).await["servers"], json!([]));
    assert!(instance.stop().await.status.success());

    let instance = Sidegate::builder().arg("--project").start().await;
    instance.wait_for_stderr("/.mcp.json; its servers follow when it is written").await;
    rewrite(&instance, &text);
    wait_for(&instance, "first", "running").await;
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn stdio_serves_a_project_with_an_instance_of_its_own() {
    let builder = Sidegate::builder().file(".mcp.json", &servers(&["first"]).to_string());
    let mut client = StdioClient::connect(&builder, &["--project"]).await;
    client.request(7, "tools/list", json!({})).await;
    let tools = client.answer(7).await.to_string();
    assert!(tools.contains("x_first_calculate"), "{tools}");
    assert!(client.finish().await.status.success());
}
