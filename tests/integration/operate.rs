//! Starting, stopping and restarting servers: what has happened when the command returns, and what stays so.

use std::process::Stdio;
use std::time::Instant;

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

use super::support::definitions::{built_in, example, remote, spec, sse, stdio, with};
use super::support::leaks::{self, Tagged};
use super::support::optional::Through;
use super::support::sidegate::binary;
use super::support::{McpClient, Sidegate, Upstream, eventually, within};

/// Exit code, stdout and stderr of a command about the servers of `instance`.
async fn command(instance: &Sidegate, arguments: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--runtime-dir").arg(&instance.ready.runtime_dir).stdin(Stdio::null());
    let output = within(&arguments.join(" "), command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// What a command that has to succeed prints.
async fn done(instance: &Sidegate, action: &str, server: &str) -> String {
    let (code, stdout, stderr) = command(instance, &[action, server]).await;
    assert_eq!((code, stderr.as_str()), (0, ""));
    stdout.trim_end().to_owned()
}

async fn state(instance: &Sidegate, server: &str) -> Value {
    let (code, stdout, stderr) = command(instance, &["status", "--output", "json"]).await;
    assert_eq!(code, 0, "{stderr}");
    let status: Value = serde_json::from_str(&stdout).unwrap();
    let servers = status["servers"].as_array().unwrap();
    servers.iter().find(|entry| entry["name"] == server).unwrap_or_else(|| panic!("{stdout}"))["state"]
        .clone()
}

fn file(instance: &Sidegate, server: &str) -> String {
    instance.read(&format!("config/mcpservers/{server}.yaml"))
}

/// The processes of servers that are the example `everything`, and their guards.
fn everything(instance: &Sidegate) -> Vec<Tagged> {
    let mut processes = leaks::processes(&instance.tag);
    processes.retain(|process| process.command.ends_with("/everything"));
    processes
}

async fn pid(client: &McpClient) -> Value {
    client.call("x_near_pid", json!({})).await.value()["structuredContent"]["pid"].clone()
}

#[rstest]
#[tokio::test]
async fn a_process_is_stopped_for_good_and_started_again(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let text = with(example("everything", &[]), "toolPrefix: near # ours");
    let builder = builder.definition("near", &text).definition("other", &built_in()).wait_for_servers();
    let sidegate = builder.clone().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let first = pid(&client).await;

    assert_eq!(done(&sidegate, "stop", "near").await, "Stopped the MCP server 'near'");
    assert_eq!(everything(&sidegate), []);
    assert_eq!(state(&sidegate, "near").await, "stopped");
    assert!(client.tool_names().await.iter().all(|name| name.starts_with("x_other_")));
    let told = "tool not found: x_near_pid; server near is stopped: `sidegate start near` starts it";
    assert_eq!(client.call("x_near_pid", json!({})).await.error()["message"], told);
    assert_eq!(file(&sidegate, "near"), text.replace("spec:\n", "spec:\n  suspended: true\n"));
    assert_eq!(done(&sidegate, "stop", "near").await, "The MCP server 'near' is stopped already");
    sidegate.stop().await;

    let sidegate = builder.start().await;
    assert_eq!((state(&sidegate, "near").await, everything(&sidegate)), (json!("stopped"), vec![]));
    assert_eq!(done(&sidegate, "start", "near").await, "Started the MCP server 'near'");
    let client = McpClient::connect(sidegate.url()).await;
    assert_ne!(pid(&client).await, first);
    assert_eq!(state(&sidegate, "near").await, "running");
    assert_eq!(file(&sidegate, "near"), text.replace("spec:\n", "spec:\n  suspended: false\n"));
    assert_eq!(done(&sidegate, "start", "near").await, "The MCP server 'near' is running already");
}

#[rstest]
#[tokio::test]
async fn a_remote_server_is_disconnected_with_its_route(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let upstream = Upstream::everything(&[]).await;
    let sidegate = builder.definition("far", &remote(&upstream.url)).wait_for_servers().start().await;
    let routes = || {
        let name = fs_err::read_dir(&sidegate.ready.runtime_dir).unwrap().map(|entry| entry.unwrap().path());
        let gateway = name.into_iter().find(|path| path.join("agentgateway.yaml").exists()).unwrap();
        fs_err::read_to_string(gateway.join("agentgateway.yaml")).unwrap()
    };
    assert!(routes().contains("/mcp/far"));
    done(&sidegate, "stop", "far").await;
    assert_eq!(state(&sidegate, "far").await, "disconnected");
    assert!(!routes().contains("/mcp/far"));
    done(&sidegate, "start", "far").await;
    assert_eq!(state(&sidegate, "far").await, "connected");
    assert!(routes().contains("/mcp/far"));
}

#[rstest]
#[tokio::test]
async fn a_restart_is_a_new_process_and_no_news(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let sidegate = builder.definition("near", &example("everything", &[])).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let mut stream = client.listen().await;
    let first = pid(&client).await;
    let slow = client.start("tools/call", json!({"name": "x_near_sleep", "arguments": {"ms": 300}})).await;
    assert_eq!(done(&sidegate, "restart", "near").await, "Restarted the MCP server 'near'");
    assert_eq!(slow.response().await.value()["structuredContent"], json!({"slept": 300}));
    let second = pid(&client).await;
    assert_ne!(second, first);
    let left = everything(&sidegate);
    assert!(left.iter().any(|process| json!(process.pid) == second), "{left:?}");
    assert!(left.iter().all(|process| json!(process.pid) != first), "{left:?}");
    assert!(client.delete().await.is_success());
    assert_eq!(stream.next_message().await, None, "the tools are the same all the time");
}

#[tokio::test]
async fn what_does_not_start_by_itself_is_started_for_this_run() {
    let text = with(example("everything", &[]), "autoStart: false");
    let builder = Sidegate::builder().definition("near", &text).wait_for_servers();
    let sidegate = builder.clone().start().await;
    assert_eq!((state(&sidegate, "near").await, everything(&sidegate)), (json!("stopped"), vec![]));
    done(&sidegate, "start", "near").await;
    assert_eq!((state(&sidegate, "near").await, everything(&sidegate).len()), (json!("running"), 2));
    assert_eq!(file(&sidegate, "near"), text);
    // It is wanted as long as the instance runs, whatever else happens to its file.
    sidegate.write_definition("near", &with(text.clone(), "description: new"));
    sidegate.write_definition("late", &built_in());
    let client = McpClient::connect(sidegate.url()).await;
    eventually("the late one", async || {
        let names = client.tool_names().await;
        names.iter().any(|name| name.starts_with("x_late_")).then_some(())
    })
    .await;
    pid(&client).await;
    sidegate.stop().await;
    let sidegate = builder.start().await;
    assert_eq!(everything(&sidegate), []);
    // Asked for a restart, it is started as well.
    done(&sidegate, "restart", "near").await;
    assert_eq!(everything(&sidegate).len(), 2);
}

#[rstest]
#[case::unknown("nowhere", "error: there is no server \"nowhere\"")]
#[case::wrong("wrong", "error: server wrong does not run: ")]
#[case::impossible("impossible", "error: server impossible does not run: spec.auth is not supported")]
#[case::fails("fails", "error: server fails does not run: ")]
#[tokio::test]
async fn what_cannot_be_started_is_said(#[case] server: &str, #[case] why: &str) {
    let sidegate = Sidegate::builder()
        .definition("wrong", "spec: [")
        .definition("impossible", &spec("{type: streamable-http, url: 'http://h/', auth: {type: oauth}}"))
        .definition("fails", &with(example("rude_server", &["exit"]), "suspended: true"))
        .start()
        .await;
    let (code, stdout, stderr) = command(&sidegate, &["start", server]).await;
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.starts_with(why), "{stderr}");
    if server == "fails" {
        assert!(stderr.contains("refusing to work today"), "{stderr}");
        assert_eq!(state(&sidegate, server).await, "failed", "it is tried again and again");
        done(&sidegate, "stop", server).await;
    }
}

#[tokio::test]
async fn names_that_are_none_and_instances_that_are_none_are_said() {
    let sidegate = Sidegate::builder().start().await;
    let (code, _, stderr) = command(&sidegate, &["stop", "../a"]).await;
    assert_eq!(code, 2);
    assert!(stderr.contains("\"../a\" is not a server name"), "{stderr}");
    let nowhere = sidegate.config_dir();
    let mut stop = Command::new(binary());
    let output = stop.args(["stop", "a", "--runtime-dir"]).arg(&nowhere).output().await.unwrap();
    assert_eq!(output.status.code(), Some(5));
}

/// However many ask at once: each is answered, and the last one counts.
#[tokio::test]
async fn many_at_once_come_to_one_end() {
    let sidegate = Sidegate::builder().definition("near", &example("everything", &[])).start().await;
    for _ in 0..3 {
        let all = ["start", "stop", "restart", "stop", "start", "restart", "stop"];
        let outcomes = join_all(all.map(async |action| command(&sidegate, &[action, "near"]).await)).await;
        for (code, stdout, stderr) in outcomes {
            // Who comes in between is a reason.
            let why = ["does not run", "was started again meanwhile"];
            assert!(code == 0 || why.iter().any(|why| stderr.contains(why)), "{code} {stdout} {stderr}");
        }
    }
    done(&sidegate, "start", "near").await;
    assert_eq!(state(&sidegate, "near").await, "running");
    // One that was overruled may still be on its way out.
    eventually("one process", async || (everything(&sidegate).len() == 2).then_some(())).await;
    done(&sidegate, "stop", "near").await;
    assert_eq!((state(&sidegate, "near").await, everything(&sidegate)), (json!("stopped"), vec![]));
}

/// A client that stays has used a session of its own: neither that nor its route is left.
#[rstest]
#[tokio::test]
async fn a_server_with_sessions_of_its_clients_is_stopped(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let text = with(example("everything", &[]), "isolation: session");
    let sidegate = builder.definition("near", &text).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let first = pid(&client).await;
    assert_eq!(done(&sidegate, "stop", "near").await, "Stopped the MCP server 'near'");
    assert_eq!(everything(&sidegate), []);
    done(&sidegate, "start", "near").await;
    assert_ne!(pid(&client).await, first);
}

/// It does not notice that nobody wants it any more, and has to be ended.
#[rstest]
#[tokio::test]
async fn a_process_that_is_still_starting_is_gone_after_a_stop(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let text = with(example("rude_server", &["slow-init", "60000"]), "timeout: 300");
    let sidegate = builder.definition("slow", &text).start().await;
    let slow = || {
        let mut processes = leaks::processes(&sidegate.tag);
        processes.retain(|process| process.command.contains("rude_server"));
        processes
    };
    eventually("its process", async || (!slow().is_empty()).then_some(())).await;
    assert_eq!(done(&sidegate, "stop", "slow").await, "Stopped the MCP server 'slow'");
    assert_eq!(slow(), []);
}

/// A command can hold what there is only one of, also one that does not come to an answer.
#[rstest]
#[case::silent("")]
#[case::without_tools(
    r#"echo '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{"tools":{}}}}';"#
)]
#[tokio::test]
async fn a_process_that_is_still_starting_is_gone_before_the_next_one_comes(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[case] answer: &str,
) {
    let Some(builder) = through.builder() else { return };
    // The lock ends with the process.
    let script = format!(
        "exec 9>>lock; flock -n 9 || echo >>together; echo >>starts; trap '' TERM; {answer} exec sleep 1000"
    );
    let text = with(with(stdio("sh", &["-c", &script]), "cwd: ."), "timeout: 300");
    let sidegate = builder.definition("alone", &text).start().await;
    let starts = |count| {
        let file = sidegate.config_dir().join("starts");
        async move || {
            (fs_err::read_to_string(&file).unwrap_or_default().lines().count() == count).then_some(())
        }
    };
    eventually("the first process", starts(1)).await;
    for count in [2, 3] {
        let mut restart = Command::new(binary());
        restart.args(["restart", "alone", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir);
        let _restart = restart.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        eventually("another process", starts(count)).await;
    }
    assert!(!sidegate.config_dir().join("together").exists());
}

/// There is nothing of ours that would have to end first.
#[rstest]
#[tokio::test]
async fn a_server_elsewhere_that_does_not_answer_is_asked_anew_at_once(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/sse", silent.local_addr().unwrap());
    let sidegate = builder.definition("far", &with(sse(&url), "timeout: 300")).start().await;
    let (mut first, _) = within("the first try", silent.accept()).await.unwrap();
    let mut restart = Command::new(binary());
    restart.args(["restart", "far", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir);
    let restart = restart.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let _second = within("the second try", silent.accept()).await.unwrap();
    within("the end of the first", first.read_to_end(&mut Vec::new())).await.unwrap();
    drop(restart);
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stderr.contains("a session that was being opened does not end"), "{}", ended.stderr);
}

#[tokio::test]
async fn a_server_that_is_removed_while_it_is_started_is_not_found() {
    let text = with(example("rude_server", &["slow-init", "60000"]), "timeout: 300");
    let sidegate = Sidegate::builder().definition("slow", &text).start().await;
    let ((code, _, stderr), ()) = tokio::join!(command(&sidegate, &["start", "slow"]), async {
        eventually("its process", async || {
            let processes = leaks::processes(&sidegate.tag);
            processes.iter().any(|process| process.command.contains("rude_server")).then_some(())
        })
        .await;
        fs_err::remove_file(sidegate.config_dir().join("mcpservers/slow.yaml")).unwrap();
    });
    assert_eq!((code, stderr.lines().next()), (1, Some("error: there is no server \"slow\"")), "{stderr}");
}

/// What runs is the last good definition, whole: a new command does not come in with the old policies.
#[tokio::test]
async fn a_restart_is_of_what_runs_and_not_of_what_was_refused() {
    let Some(builder) = Through::Agentgateway.builder() else { return };
    let sidegate = builder.definition("near", &example("everything", &[])).wait_for_servers().start().await;
    let refused = with(example("rude_server", &["exit"]), "policies: {nonsense: 1}");
    sidegate.write_definition("near", &refused);
    eventually("the refusal", async || {
        let (_, stdout, _) = command(&sidegate, &["status", "--output", "json"]).await;
        stdout.contains("nonsense").then_some(())
    })
    .await;
    assert_eq!(done(&sidegate, "restart", "near").await, "Restarted the MCP server 'near'");
    assert_eq!(everything(&sidegate).len(), 2);
}

/// Whoever says `stopped` has seen the last process go, whoever asked first.
#[tokio::test]
async fn a_second_stop_waits_for_what_the_first_one_ends() {
    let sidegate =
        Sidegate::builder().definition("near", &example("everything", &[])).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let slow = client.start("tools/call", json!({"name": "x_near_sleep", "arguments": {"ms": 1500}})).await;
    let first = tokio::spawn({
        let arguments = ["stop", "near", "--runtime-dir"];
        let mut command = Command::new(binary());
        command.args(arguments).arg(&sidegate.ready.runtime_dir).stdin(Stdio::null());
        async move { command.output().await }
    });
    eventually("the end of its tools", async || client.tool_names().await.is_empty().then_some(())).await;
    assert_eq!(done(&sidegate, "stop", "near").await, "The MCP server 'near' is stopped already");
    assert_eq!(everything(&sidegate), []);
    assert_eq!(slow.response().await.value()["structuredContent"], json!({"slept": 1500}));
    let output = within("the first stop", first).await.unwrap().unwrap();
    assert_eq!(output.stdout, b"Stopped the MCP server 'near'\n");
}

#[tokio::test]
async fn a_restart_that_waits_for_calls_is_no_server_that_runs() {
    let sidegate =
        Sidegate::builder().definition("near", &example("everything", &[])).wait_for_servers().start().await;
    let (client, other) =
        tokio::join!(McpClient::connect(sidegate.url()), McpClient::connect(sidegate.url()));
    let calling = other.call("x_near_sleep", json!({"ms": 3000}));
    let watching = async {
        eventually("the call's start", async || {
            let counts = client.call("x_near_sleep_counts", json!({})).await.value();
            (counts["structuredContent"]["running"] == 1).then_some(())
        })
        .await;
        let is_starting = async || (state(&sidegate, "near").await == "starting").then_some(Instant::now());
        tokio::join!(done(&sidegate, "restart", "near"), eventually("the state", is_starting))
    };
    let answered = async { (calling.await, Instant::now()) };
    let ((answer, at), (restarted, seen)) = tokio::join!(answered, watching);
    assert_eq!(answer.value()["structuredContent"], json!({"slept": 3000}));
    // Not the state of the session that came after it.
    assert!(seen < at);
    assert_eq!(restarted, "Restarted the MCP server 'near'");
    assert_eq!(state(&sidegate, "near").await, "running");
}

#[tokio::test]
async fn a_server_whose_file_has_become_wrong_can_be_stopped() {
    let sidegate =
        Sidegate::builder().definition("near", &example("everything", &[])).wait_for_servers().start().await;
    sidegate.write_definition("near", "spec: [");
    eventually("the mistake", async || {
        let (_, stdout, _) = command(&sidegate, &["status", "--output", "json"]).await;
        stdout.contains("near.yaml:2:1").then_some(())
    })
    .await;
    assert_eq!(everything(&sidegate).len(), 2, "the last good version runs");
    assert_eq!(done(&sidegate, "stop", "near").await, "Stopped the MCP server 'near'");
    assert_eq!(everything(&sidegate), []);
    assert_eq!(state(&sidegate, "near").await, "stopped");
    let (code, _, stderr) = command(&sidegate, &["start", "near"]).await;
    assert!(code == 1 && stderr.contains("near.yaml:2:1"), "{stderr}");
    // What is right again is still stopped, until somebody wants it.
    sidegate.write_definition("near", &example("everything", &[]));
    assert_eq!(done(&sidegate, "start", "near").await, "Started the MCP server 'near'");
    assert_eq!(everything(&sidegate).len(), 2);
}
