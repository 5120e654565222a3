//! Somebody who has nothing yet: `sidegate serve` in an empty home, and what it says to type next.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::support::definitions::{built_in, remote, stdio, with};
use super::support::optional::has_script;
use super::support::sidegate::binary;
use super::support::{McpClient, Sidegate, eventually, within};

#[tokio::test]
async fn an_empty_home_is_enough() {
    let home = tempfile::Builder::new().prefix("empty home ").tempdir().unwrap();
    let surrounded = |command: &mut Command| {
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path().join("run")).env("CI", "true");
        command.current_dir(home.path()).stdin(Stdio::null()).kill_on_drop(true);
    };
    let mut serve = Command::new(binary());
    surrounded(serve.args(["serve", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut child = serve.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    while said.last().is_none_or(|line: &String| !line.contains("Ctrl-C")) {
        said.push(within("what it says", lines.next_line()).await.unwrap().unwrap());
    }
    let url = said[0].rsplit(' ').next().unwrap();

    // What is shown is typed.
    let (add, connect) =
        (|line: &&String| line.contains(" add example "), |line: &&String| line.contains(" connect "));
    for line in [said.iter().find(add).unwrap(), said.iter().find(connect).unwrap()] {
        let mut shell = Command::new("sh");
        surrounded(shell.args(["-c", line.trim()]));
        let output = within(line, shell.output()).await.unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
        if connect(&line) {
            assert!(String::from_utf8_lossy(&output.stdout).contains(url), "{output:?}");
        }
    }
    let client = McpClient::connect(url).await;
    eventually("the tools of the example", async || {
        client.tool_names().await.iter().any(|name| name == "x_example_calculate").then_some(())
    })
    .await;
    child.kill().await.unwrap();
}

/// What a terminal shows: every line, in its order.
async fn screen(columns: u16, definitions: &[(&str, String)]) -> String {
    let mut builder = Sidegate::builder().env("SIDEGATE_LISTEN", "127.0.0.1:0").env("CI", "true");
    for (name, definition) in definitions {
        builder = builder.definition(name, definition);
    }
    let process = builder.config_dir().with_file_name("process");
    let serve = format!(
        "stty cols {columns}; echo $$ >process; SIDEGATE_CONFIG_DIR=config exec \"$SIDEGATE\" serve --gateway embedded"
    );
    let line = format!("exec script -qec '{serve}' /dev/null");
    let begun = builder.env("SIDEGATE", binary()).begin_shell(&line);
    begun.wait_for_stdout("Press Ctrl-C").await;
    // It is told itself: script(1) would end without it, and what it says at the end would not be read.
    let process = fs_err::read_to_string(process).unwrap().trim().parse().unwrap();
    let process = rustix::process::Pid::from_raw(process).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    begun.wait().await.stdout.replace('\r', "")
}

#[tokio::test]
async fn the_first_screen_is_calm() {
    if !has_script() {
        return;
    }
    // Those that are tried again may be anywhere in that when the table is shown; a wrong definition is not.
    let broken = [
        ("calc", built_in()),
        ("docs", remote("http://127.0.0.1:9/mcp")),
        ("time", stdio("./no/such/file", &[])),
        ("keys", with(built_in(), "env: {KEY: '${NO_SUCH_VARIABLE}'}")),
    ];
    for columns in [0, 40, 200] {
        let text = screen(columns, &broken).await;
        // Afterwards it logs again.
        let told: Vec<&str> = text.lines().take_while(|line| !line.contains("Press Ctrl-C")).collect();
        let has_row = |row: &[&str]| told.iter().any(|line| line.split_whitespace().eq(row.iter().copied()));
        assert!(
            told[0].starts_with("Sidegate ") && told[0].contains(" is ready: http://127.0.0.1:"),
            "{text}"
        );
        assert!(
            has_row(&["calc", "running", "7"]) && has_row(&["keys", "invalid", "0"]),
            "{columns}: {text}"
        );
        assert!(["docs", "time"].iter().all(|name| told.iter().any(|line| line.starts_with(name))), "{text}");
        assert!(told.iter().any(|line| line.starts_with("keys is invalid: ")), "{text}");
        assert!(!told.iter().any(|line| line.contains("INFO") || line.contains("WARN")), "{text}");
    }
}

/// Nothing is tried again here: what is logged at the end is said by the end alone.
#[tokio::test]
async fn the_last_screen_is_calm() {
    if !has_script() {
        return;
    }
    let text = screen(80, &[("calc", built_in())]).await;
    let told: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("stopping: ")).collect();
    assert!(told.iter().any(|line| line.starts_with("stopped; ")), "{text}");
    assert!(!told.iter().any(|line| line.contains("INFO")), "{text}");
}
