//! The log as other programs read it: `--log-format json`.

use serde_json::{Value, json};

use super::support::definitions::example;
use super::support::{McpClient, Sidegate};

/// The lines of stderr, all of which must be records.
fn records(stderr: &str) -> Vec<Value> {
    stderr.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

#[tokio::test]
async fn each_call_is_a_line_with_names_that_stay() {
    let sidegate = Sidegate::builder()
        .definition("near", &example("everything", &[]))
        .env("SIDEGATE_LOG", "info,sidegate::calls=debug")
        .arg("--log-format")
        .arg("json")
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_near_echo", json!({"text": "t0p-s3cret"})).await.result();
    client.call("x_near_nothing", json!({})).await.error();
    client.call("x_near_test_error_handling", json!({})).await.result();
    fs_err::write(sidegate.config_dir().join("config.yaml"), "drain: soon\n").unwrap();
    sidegate.signal(rustix::process::Signal::HUP);
    sidegate.wait_for_stderr("config.yaml").await;
    let ended = sidegate.stop().await;

    let all = records(&ended.stderr);
    let refused = all.iter().find(|record| record["level"] == "ERROR").unwrap();
    let message = refused["fields"]["message"].as_str().unwrap();
    assert!(message.starts_with("the settings are not taken over and stay as they were: "), "{message}");
    for record in &all {
        for name in ["timestamp", "level", "target", "fields"] {
            assert!(record.get(name).is_some(), "no {name}: {record}");
        }
    }
    let running =
        |record: &&Value| record["fields"] == json!({"message": "running", "server": "near", "tools": 24});
    assert_eq!(all.iter().filter(running).map(|record| &record["level"]).collect::<Vec<_>>(), ["INFO"]);

    let calls: Vec<&Value> = all.iter().filter(|record| record["target"] == "sidegate::calls").collect();
    let [ok, unknown, failed] = &calls[..] else { panic!("{calls:#?}") };
    assert_eq!(ok["level"], "DEBUG");
    let fields = ok["fields"].as_object().unwrap();
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    let wanted = [
        "call",
        "duration_ms",
        "generation",
        "message",
        "method",
        "outcome",
        "pid",
        "queue_ms",
        "route",
        "server",
        "server_ms",
        "session",
        "subject",
        "tries",
        "upstream_ms",
    ];
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, wanted);
    for (name, value) in [
        ("method", json!("tools/call")),
        ("subject", json!("x_near_echo")),
        ("server", json!("near")),
        ("route", json!("near")),
        ("outcome", json!("ok")),
        ("tries", json!(1)),
    ] {
        assert_eq!(fields[name], value, "{name}");
    }
    assert_eq!(fields["call"].as_str().unwrap().len(), 32);
    let milliseconds = |name: &str| fields[name].as_f64().unwrap();
    assert!(milliseconds("server_ms") <= milliseconds("upstream_ms"), "{fields:?}");
    assert!(milliseconds("upstream_ms") <= milliseconds("duration_ms"), "{fields:?}");
    let error = &unknown["fields"];
    assert_eq!((&error["outcome"], &error["error_type"]), (&json!("error"), &json!("-32602")));
    assert_eq!(error["error"], "tool not found: x_near_nothing");
    assert_eq!(error.get("server"), None);
    assert_eq!(failed["fields"]["error_type"], "tool_error");
    assert!(!ended.stderr.contains("t0p-s3cret"), "what a call is about is nobody's business");
}

#[tokio::test]
async fn calls_are_not_logged_unless_that_is_wanted() {
    let sidegate =
        Sidegate::builder().definition("near", &example("everything", &[])).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_near_echo", json!({"text": "p"})).await.result();
    let ended = sidegate.stop().await;
    assert!(!ended.stderr.contains("x_near_echo"), "{}", ended.stderr);
}
