//! A running instance is looked at and steered from the command line.

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::process::Command;

use super::support::definitions::example;
use super::support::{McpClient, Sidegate, eventually, within};

async fn sidegate(arguments: &[&str], runtime_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.args(arguments).arg("--runtime-dir").arg(runtime_dir).env_clear().stdin(Stdio::null());
    within(&arguments.join(" "), command.output()).await.unwrap()
}

async fn status(instance: &Sidegate) -> Value {
    let output = sidegate(&["status", "--output", "json"], &instance.ready.runtime_dir).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn status_shows_the_instance_its_gateway_and_its_servers() {
    let instance = Sidegate::builder()
        .definition("good", &example("everything", &[]))
        .definition("wrong", "kind: nonsense")
        .wait_for_servers()
        .start()
        .await;
    let status = status(&instance).await;
    assert_eq!(status["url"], instance.url());
    assert_eq!(status["pid"], instance.ready.pid);
    assert_eq!(status["gateway"]["mode"], "embedded");
    assert_eq!(status["gateway"]["pid"], instance.ready.gateway.pid.unwrap());
    assert!(status["gateway"]["generation"].as_str().is_some_and(|text| text.contains('.')), "{status}");
    let servers = status["servers"].as_array().unwrap();
    assert_eq!((&servers[0]["name"], &servers[0]["state"]), (&json!("good"), &json!("running")));
    assert!(servers[0]["tools"].as_u64().is_some_and(|tools| tools > 10), "{status}");
    assert_eq!((&servers[1]["name"], &servers[1]["state"]), (&json!("wrong"), &json!("invalid")));
    assert!(servers[1]["reason"].as_str().is_some_and(|reason| reason.contains("kind")), "{status}");

    let text = sidegate(&["status"], &instance.ready.runtime_dir).await;
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(instance.url()) && text.contains("running") && text.contains("invalid"), "{text}");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn a_gateway_restarts_without_a_gap() {
    let instance =
        Sidegate::builder().definition("near", &example("everything", &[])).wait_for_servers().start().await;
    let client = McpClient::connect(instance.url()).await;
    let pid = client.call("x_near_pid", json!({})).await.text();

    let output = sidegate(&["gateway", "restart"], &instance.ready.runtime_dir).await;
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("has taken over\n"), "{output:?}");

    let now = status(&instance).await;
    assert_ne!(now["gateway"]["pid"], instance.ready.gateway.pid.unwrap());
    assert_eq!(client.call("x_near_pid", json!({})).await.text(), pid, "the session was kept");
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn changed_gateway_settings_are_taken_over_on_sighup() {
    let instance =
        Sidegate::builder().definition("near", &example("everything", &[])).wait_for_servers().start().await;
    let before = instance.ready.gateway.pid.unwrap();
    let config = instance.config_dir().join("config.yaml");

    fs_err::write(&config, "gateway: {logLevel: loud}\n").unwrap();
    instance.signal(rustix::process::Signal::HUP);
    instance.wait_for_stderr("config.yaml:1:21: gateway.logLevel").await;
    assert_eq!(status(&instance).await["gateway"]["pid"], before, "what is wrong changes nothing");

    fs_err::write(&config, "gateway: {logLevel: debug}\n").unwrap();
    instance.signal(rustix::process::Signal::HUP);
    eventually("another gateway", async || {
        (status(&instance).await["gateway"]["pid"] != before).then_some(())
    })
    .await;
    assert!(instance.stop().await.status.success());
}

#[tokio::test]
async fn without_an_instance_there_is_nobody_to_ask() {
    let directory = tempfile::tempdir().unwrap();
    for command in [&["status"][..], &["gateway", "restart"]] {
        let output = sidegate(command, directory.path()).await;
        assert_eq!(output.status.code(), Some(5), "{output:?}");
        assert!(output.stdout.is_empty());
        assert!(String::from_utf8_lossy(&output.stderr).contains("no instance runs in"), "{output:?}");
    }
}
