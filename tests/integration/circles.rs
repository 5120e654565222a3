//! Sidegate never serves itself: neither directly, nor through other instances or commands.

use serde_json::{Value, json};
use tokio::process::Command;

use super::support::definitions::{built_in, remote, stdio};
use super::support::sidegate::{Builder, binary};
use super::support::stdio_client::StdioClient;
use super::support::{McpClient, Sidegate, eventually, within};

async fn server(instance: &Sidegate, name: &str) -> Option<Value> {
    let mut command = Command::new(binary());
    command.args(["status", "--output", "json", "--runtime-dir"]).arg(&instance.ready.runtime_dir);
    let output = within("the status", command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    status["servers"].as_array().unwrap().iter().find(|server| server["name"] == name).cloned()
}

/// Why a server has failed, once it has.
async fn failure(instance: &Sidegate, name: &str) -> String {
    eventually("the failure", async || {
        let server = server(instance, name).await?;
        (server["state"] == "failed").then(|| server["reason"].as_str().unwrap().to_owned())
    })
    .await
}

async fn names(instance: &Sidegate) -> Vec<String> {
    McpClient::connect(instance.url()).await.tool_names().await
}

/// Waits until clients of `instance` see a tool.
async fn sees(instance: &Sidegate, tool: &str) {
    eventually(tool, async || names(instance).await.contains(&tool.to_owned()).then_some(())).await;
}

fn with_near() -> Builder {
    Sidegate::builder().definition("near", &built_in()).wait_for_servers()
}

#[tokio::test]
async fn an_instance_is_none_of_its_own_servers() {
    let instance = with_near().start().await;
    let before = names(&instance).await;
    let runtime_dir = instance.ready.runtime_dir.to_str().unwrap();
    let attached = ["stdio", "--runtime-dir", runtime_dir];
    let sidegate = binary();
    let sidegate = sidegate.to_str().unwrap();
    let wrapped = [&["-c", r#"exec "$0" "$@""#, sidegate], &attached[..]].concat();
    for (name, definition) in [
        ("url", remote(instance.url())),
        ("command", stdio(sidegate, &attached)),
        ("wrapper", stdio("/bin/sh", &wrapped)),
    ] {
        instance.write_definition(name, &definition);
        let why = failure(&instance, name).await;
        assert_eq!(
            why, "this server is this Sidegate itself; remove its definition (sidegate remove NAME)",
            "{name}"
        );
        assert_eq!(names(&instance).await, before);
    }
    instance.stop().await;
}

#[tokio::test]
async fn instances_do_not_serve_each_other() {
    let (a, b) = (with_near().start().await, with_near().start().await);
    b.write_definition("a", &remote(a.url()));
    sees(&b, "x_a_x_near_calculate").await;

    let before = names(&a).await;
    a.write_definition("b", &remote(b.url()));
    let why = failure(&a, "b").await;
    assert!(why.starts_with("this server is a Sidegate that serves this one in turn; remove"), "{why}");
    assert_eq!(names(&a).await, before);

    // Where the other does not serve it any more, there is no circle.
    b.remove_definition("a");
    sees(&a, "x_b_x_near_calculate").await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_circle_is_found_wherever_it_is_closed() {
    let (a, b, c) = (with_near().start().await, with_near().start().await, with_near().start().await);
    // Each is a server already when it gets one.
    a.write_definition("b", &remote(b.url()));
    sees(&a, "x_b_x_near_calculate").await;
    b.write_definition("c", &remote(c.url()));
    sees(&a, "x_b_x_c_x_near_calculate").await;
    c.write_definition("a", &remote(a.url()));
    let why = failure(&c, "a").await;
    assert!(why.starts_with("this server is a Sidegate that serves this one in turn; remove"), "{why}");
    for instance in [&a, &b, &c] {
        let names = names(instance).await;
        assert!(names.iter().all(|name| name.matches("near").count() == 1), "{names:?}");
    }
    for instance in [a, b, c] {
        instance.stop().await;
    }
}

#[tokio::test]
async fn instances_that_get_each_other_at_once_end_with_one_circle_less() {
    let (a, b) = (with_near().start().await, with_near().start().await);
    a.write_definition("b", &remote(b.url()));
    b.write_definition("a", &remote(a.url()));
    eventually("an end", async || {
        let states = [server(&a, "b").await?["state"].clone(), server(&b, "a").await?["state"].clone()];
        (states.contains(&"connected".into()) && states.contains(&"failed".into())).then_some(())
    })
    .await;
    let longest = |names: Vec<String>| names.iter().map(|name| name.matches("x_").count()).max();
    eventually("short names", async || {
        let longest = longest(names(&a).await).max(longest(names(&b).await));
        (longest == Some(2)).then_some(())
    })
    .await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_instance_can_be_the_server_of_another() {
    let (a, b) = (with_near().start().await, with_near().start().await);
    a.write_definition("b", &remote(b.url()));
    let runtime_dir = b.ready.runtime_dir.to_str().unwrap();
    a.write_definition(
        "attached",
        &stdio(binary().to_str().unwrap(), &["stdio", "--runtime-dir", runtime_dir]),
    );
    a.write_definition("alone", &remote(&b.server_url("near")));
    for tool in ["x_b_x_near_calculate", "x_attached_x_near_calculate", "x_alone_calculate"] {
        sees(&a, tool).await;
    }
    // So can one that it starts, with other servers than its own.
    let other = Sidegate::builder().definition("inner", &built_in());
    let config_dir = other.config_dir();
    let arguments = ["stdio", "--gateway", "embedded", "--config-dir", config_dir.to_str().unwrap()];
    a.write_definition("started", &stdio(binary().to_str().unwrap(), &arguments));
    sees(&a, "x_started_x_inner_calculate").await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn an_instance_does_not_start_itself() {
    let builder = Sidegate::builder().definition("near", &built_in());
    let config_dir = builder.config_dir();
    let script = builder.script(
        "again",
        &format!(
            "exec {:?} stdio --gateway embedded --config-dir {:?}",
            binary().to_str().unwrap(),
            config_dir.to_str().unwrap()
        ),
    );
    let builder = builder.definition("again", &stdio(script.to_str().unwrap(), &[]));
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.request(1, "tools/list", json!({})).await;
    let answer = client.answer(1).await;
    let tools: Vec<&str> = answer["result"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|tool| tool["name"].as_str())
        .collect();
    assert!(!tools.is_empty() && tools.iter().all(|tool| tool.starts_with("x_near_")), "{tools:?}");
    client.close_stdin();
    let ended = client.wait().await;
    let why = "error: this Sidegate is started by one of its own servers, and would serve itself";
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
}

/// Runs a command on the definitions of an instance, which runs.
async fn run(instance: &Sidegate, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary());
    command.args(arguments);
    command.env("SIDEGATE_CONFIG_DIR", instance.config_dir());
    command.env("SIDEGATE_INSTANCE", &instance.ready.runtime_dir);
    let output = within("the command", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn what_plainly_is_sidegate_is_neither_imported_nor_added() {
    let instance = with_near().start().await;
    let file = json!({"mcpServers": {
        "sidegate": {"command": "sidegate", "args": ["stdio"]},
        "by-path": {"command": binary(), "args": ["stdio"]},
        "by-url": {"type": "http", "url": instance.url()},
        "other": {"command": "sidegate", "args": ["example-server"]},
    }});
    let path = instance.config_dir().join("of-a-client.json");
    fs_err::write(&path, file.to_string()).unwrap();
    let path = path.to_str().unwrap();
    let (code, stdout, stderr) = run(&instance, &["import", path, "--output", "json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let results: Vec<_> =
        report["servers"].as_array().unwrap().iter().map(|server| &server["result"]).collect();
    assert_eq!(
        results,
        ["skipped", "skipped", "skipped", "imported"].map(Value::from).iter().collect::<Vec<_>>()
    );
    let (_, stdout, _) = run(&instance, &["import", path, "--dry-run"]).await;
    assert!(stdout.contains("skipped") && stdout.contains("it is Sidegate itself"), "{stdout}");

    let url = instance.url().to_owned();
    for arguments in
        [&["--url", &url][..], &["--", "sidegate", "stdio"], &["--", binary().to_str().unwrap(), "stdio"]]
    {
        let (code, _, stderr) = run(&instance, &[&["add", "self"], arguments].concat()).await;
        assert_eq!(code, 1, "{arguments:?}");
        assert!(stderr.starts_with("error: this server is Sidegate itself"), "{stderr}");
    }
    let other = ["add", "elsewhere", "--", "sidegate", "stdio", "--config-dir", "/elsewhere"];
    assert_eq!(run(&instance, &other).await.0, 0);
    instance.stop().await;
}

#[tokio::test]
async fn a_project_that_starts_sidegate_by_another_name_does_not_start_it_again() {
    let entry = json!({"command": "./wrapper"});
    let near = json!({"command": binary(), "args": ["example-server"]});
    let file = json!({"mcpServers": {"near": near, "wrapped": entry}}).to_string();
    let builder = Sidegate::builder().file(".mcp.json", &file);
    let line = format!("exec {:?} stdio --gateway embedded --project", binary().to_str().unwrap());
    builder.script("wrapper", &line);
    let instance = builder.arg("--project").start().await;
    sees(&instance, "x_near_calculate").await;
    let why = failure(&instance, "wrapped").await;
    assert!(why.contains("error: this Sidegate is started by one of its own servers"), "{why}");
    instance.stop().await;
}
