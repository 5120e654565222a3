//! Where an instance lives: directories with long names, shared ones, and a disk that is full.

use std::path::PathBuf;

use rstest::rstest;
use serde_json::json;

use super::support::definitions::{built_in, example, with};
use super::support::optional::{Through, can_forbid_watches, can_mount};
use super::support::{McpClient, Sidegate, eventually, leaks, within};

#[rstest]
#[tokio::test]
async fn a_runtime_directory_may_have_a_long_name(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let short = builder.config_dir().with_file_name("t");
    let long = short.join("d".repeat(150 - short.as_os_str().len()));
    fs_err::create_dir_all(&long).unwrap();
    let builder = builder.env("TMPDIR", &long).definition("near", &example("everything", &[]));
    let sidegate = builder.wait_for_servers().start().await;
    assert!(sidegate.ready.runtime_dir.starts_with(&long));
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_near_pid", json!({})).await.result();
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.args(["status", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir).env_clear();
    let output = within("the status", command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let ended = sidegate.stop().await;
    assert!(ended.status.success());
    assert_eq!(
        fs_err::read_dir(&long).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>(),
        Vec::<PathBuf>::new()
    );
}

#[tokio::test]
async fn two_instances_share_a_config_directory() {
    let builder = Sidegate::builder().definition("near", &example("everything", &[])).wait_for_servers();
    let (one, other) = (builder.clone().start().await, builder.start().await);
    assert_ne!(one.ready.runtime_dir, other.ready.runtime_dir);
    let clients = [McpClient::connect(one.url()).await, McpClient::connect(other.url()).await];
    let mut pids = Vec::new();
    for client in &clients {
        pids.push(client.call("x_near_pid", json!({})).await.text());
    }
    assert_ne!(pids[0], pids[1], "each has a process of its own");
    one.write_definition("late", &built_in());
    for client in &clients {
        eventually("the new server", async || {
            client.tool_names().await.iter().any(|name| name.starts_with("x_late_")).then_some(())
        })
        .await;
    }
    assert!(one.stop().await.status.success());
    assert_eq!(clients[1].call("x_near_pid", json!({})).await.text(), pids[1]);
    assert!(other.stop().await.status.success());
}

#[tokio::test]
async fn one_runtime_directory_is_for_one_instance() {
    let sidegate = Sidegate::builder().definition("near", &example("everything", &[])).start().await;
    let directory = sidegate.ready.runtime_dir.to_str().unwrap().to_owned();
    let arguments =
        ["serve", "--listen", "127.0.0.1:0", "--gateway", "embedded", "--runtime-dir", &directory];
    let ended = Sidegate::builder().command(&arguments).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    let why = format!("is in use by another sidegate (process {})", sidegate.ready.pid);
    assert!(ended.stderr.contains(&why), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: use that instance, stop it, or give"), "{}", ended.stderr);
    // The other one has not noticed.
    let client = McpClient::connect(sidegate.url()).await;
    eventually("a call", async || {
        client.call("x_near_pid", json!({})).await.envelope().result.is_some().then_some(())
    })
    .await;
}

/// A user has 128 watches on most machines, and editors take many.
#[tokio::test]
async fn where_nothing_can_be_watched_changes_are_noticed_all_the_same() {
    if !can_forbid_watches() {
        return;
    }
    let builder = Sidegate::builder().definition("here", &built_in());
    let sidegate = builder.without_watches().wait_for_servers().start().await;
    assert!(
        sidegate.stderr().contains("the directory cannot be watched, so changes"),
        "{}",
        sidegate.stderr()
    );
    let client = McpClient::connect(sidegate.url()).await;
    let tools_of = async |prefix: &str, tools: usize| {
        eventually(prefix, async || {
            let names = client.tool_names().await;
            (names.iter().filter(|name| name.starts_with(prefix)).count() == tools).then_some(())
        })
        .await;
    };
    tools_of("x_here_", 7).await;
    sidegate.write_definition("late", &built_in());
    tools_of("x_late_", 7).await;
    sidegate.write_definition("late", &with(built_in(), "toolPrefix: renamed"));
    tools_of("x_renamed_", 7).await;
    sidegate.remove_definition("late");
    tools_of("x_renamed_", 0).await;
    assert!(sidegate.stop().await.status.success());
}

/// Fills a file system to the last byte.
fn fill(file: &std::path::Path) {
    use std::io::Write as _;
    let mut file = fs_err::File::create(file).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

#[rstest]
#[tokio::test]
async fn a_full_disk_keeps_new_servers_waiting_and_nothing_else(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    if !can_mount() {
        return;
    }
    let near = example("everything", &[]);
    let builder = builder.definition("near", &near).own_tmpdir("size=2m").wait_for_servers();
    let sidegate = builder.start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let pid = client.call("x_near_pid", json!({})).await.text();

    // Its runtime directory is in a file system that only it can see.
    let tmp = sidegate.ready.runtime_dir.parent().unwrap();
    let filler = PathBuf::from(format!("/proc/{}/root", sidegate.ready.pid))
        .join(tmp.strip_prefix("/").unwrap())
        .join("filler");
    fill(&filler);
    sidegate.write_definition("late", &built_in());
    sidegate.wait_for_stderr("No space left on device (os error 28)").await;
    sidegate.wait_for_stderr("server=late state=failed failures=").await;
    assert!(
        sidegate.stderr().contains("the gateway's configuration stays as it was: "),
        "{}",
        sidegate.stderr()
    );
    assert_eq!(client.call("x_near_pid", json!({})).await.text(), pid);

    fs_err::remove_file(&filler).unwrap();
    eventually("the new server", async || {
        client.tool_names().await.iter().any(|name| name.starts_with("x_late_")).then_some(())
    })
    .await;
    assert_eq!(client.call("x_near_pid", json!({})).await.text(), pid);
    let tag = sidegate.tag.clone();
    assert!(sidegate.stop().await.status.success());
    assert_eq!(leaks::processes(&tag), []);
}
