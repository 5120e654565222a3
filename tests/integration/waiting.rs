//! What somebody at a terminal sees of a command that takes long.

use super::support::definitions::{example, waiting_server, with};
use super::support::optional::has_script;
use super::support::sidegate::{Begun, Builder, binary};
use super::support::{McpClient, Sidegate, eventually};

/// A command at a terminal.
fn at_terminal(builder: &Builder, term: &str, runtime_dir: &str, command: &str) -> Begun {
    let line = "exec script -qec 'stty cols 120; exec \"$SIDEGATE\" $COMMAND --runtime-dir \"$RUNTIME_DIR\"' /dev/null";
    let builder = builder.clone().env("SIDEGATE", binary()).env("COMMAND", command).env("TERM", term);
    builder.env("RUNTIME_DIR", runtime_dir).begin_shell(line)
}

#[tokio::test]
async fn what_is_waited_for_is_shown() {
    if !has_script() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let go = directory.path().join("go");
    let slow = with(example("rude_server", &["slow-init", "600000"]), "timeout: 300");
    let builder = Sidegate::builder().definition("slow", &slow).definition("near", &waiting_server(&go));
    let sidegate = builder.clone().start().await;
    let runtime_dir = sidegate.ready.runtime_dir.to_str().unwrap();
    let client = McpClient::connect(sidegate.url()).await;
    eventually("its tool", async || (client.tool_names().await == ["x_near_wait"]).then_some(())).await;

    let call = at_terminal(&builder, "xterm", runtime_dir, "call x_near_wait");
    call.wait_for_stdout("x_near_wait: 1 ").await;
    fs_err::write(&go, "").unwrap();
    let ended = call.wait().await;
    assert!(ended.status.success(), "{}", ended.stdout);

    let waiting = "waiting until slow can be called; it is starting";
    let restart = at_terminal(&builder, "xterm", runtime_dir, "restart slow");
    restart.wait_for_stdout(waiting).await;
    // Lines that are drawn again are for terminals that can do it.
    let start = at_terminal(&builder, "dumb", runtime_dir, "start slow");
    start.wait_for_stdout(&format!("{waiting}\r\n")).await;
    let stopped = builder.clone().command(&["stop", "slow", "--runtime-dir", runtime_dir]).await;
    assert!(stopped.status.success(), "{}", stopped.stderr);
    for asking in [restart, start] {
        let ended = asking.wait().await;
        assert!(!ended.status.success() && ended.stdout.contains("error: "), "{}", ended.stdout);
    }
    assert!(sidegate.stop().await.status.success());
}
