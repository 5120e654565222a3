//! `sidegate run`: an instance for one command, which ends with it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;

use super::support::definitions::{built_in, example, with};
use super::support::sidegate::{Begun, Builder, Ended};
use super::support::{McpClient, Sidegate, eventually, leaks};

/// Says that it is up, and stays.
const STAYS: &str = "echo up; exec sleep 3600";

/// Says that it is up, and what it was sent.
const CLEANS_UP: &str = "trap 'echo caught; exit 9' TERM; echo up; while :; do sleep 0.01; done";

/// Starts `sidegate run` with this command.
fn run(builder: Builder, command: &[&str]) -> Begun {
    let config_dir = builder.config_dir();
    let own = ["run", "--gateway", "embedded", "--config-dir", config_dir.to_str().unwrap(), "--"];
    builder.begin(&[&own, command].concat())
}

fn shell(builder: Builder, script: &str) -> Begun {
    run(builder, &["sh", "-c", script])
}

async fn assert_nothing_left(begun: Begun) -> Ended {
    let tag = begun.tag.clone();
    let ended = begun.wait().await;
    assert_eq!(leaks::processes(&tag), []);
    assert_eq!(ended.files_left(), Vec::<PathBuf>::new());
    ended
}

#[rstest]
#[case::success("true", 0)]
#[case::failure("exit 7", 7)]
#[case::a_code_of_ours("exit 125", 125)]
#[case::killed("kill -KILL $$", 137)]
#[case::terminated("kill -TERM $$", 143)]
#[tokio::test]
async fn the_exit_code_is_the_commands(#[case] script: &str, #[case] code: i32) {
    let ended = assert_nothing_left(shell(Sidegate::builder(), script)).await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(code), ""));
}

/// Who can write definitions can have commands run as us, so the umask has no say.
#[tokio::test]
async fn a_config_directory_that_is_made_is_its_owners_alone() {
    let builder = Sidegate::builder();
    let line = "umask 002 && exec \"$0\" run --gateway embedded --config-dir new/config -- true";
    let ended = builder.clone().shell(line).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let warning = "/new/config did not exist; it is made\n";
    assert!(ended.stderr.starts_with("warning: ") && ended.stderr.ends_with(warning), "{}", ended.stderr);
    for made in ["new", "new/config", "new/config/mcpservers"] {
        let mode = fs_err::metadata(builder.config_dir().with_file_name(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{made}");
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_told() {
    for missing in ["no-such-command", "/no/such/command"] {
        let ended = assert_nothing_left(run(Sidegate::builder(), &[missing])).await;
        assert_eq!(ended.status.code(), Some(127), "{}", ended.stderr);
        assert!(ended.stderr.starts_with(&format!("error: {missing} cannot be run: ")), "{}", ended.stderr);
    }
    let builder = Sidegate::builder().config("drain: 1s\n");
    let file = builder.config_dir().join("config.yaml");
    let ended = assert_nothing_left(run(builder, &[file.to_str().unwrap()])).await;
    assert_eq!(ended.status.code(), Some(126), "{}", ended.stderr);
}

#[tokio::test]
async fn an_instance_that_does_not_start_starts_no_command() {
    let ended = assert_nothing_left(shell(Sidegate::builder().config("drain: ["), "echo started")).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(125), ""));
    assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
}

#[tokio::test]
async fn stdout_is_the_commands_alone() {
    let builder = Sidegate::builder()
        .definition("near", &built_in())
        .definition("broken", &example("rude_server", &["exit"]))
        .env("SIDEGATE_LOG", "debug");
    let ended = assert_nothing_left(shell(builder, "echo hello; echo aside >&2")).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), "hello\n"));
    assert!(ended.stderr.contains("aside\n"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_command_finds_its_instance_with_every_server() {
    let builder = Sidegate::builder().definition("near", &built_in());
    let mut begun =
        shell(builder, r#"test -d "$SIDEGATE_INSTANCE" && echo "$SIDEGATE_URL"; exec sleep 3600"#);
    let url = begun.first_line().await;
    let client = McpClient::connect(&url).await;
    assert_eq!(client.tool_names().await.len(), 7);
    let now = client.call("x_near_now", json!({})).await;
    assert!(now.envelope().result.is_some(), "{}", now.raw());
    begun.signal(Signal::TERM);
    assert_eq!(assert_nothing_left(begun).await.status.code(), Some(143));
}

#[tokio::test]
async fn sigterm_goes_to_the_command_and_its_answer_counts() {
    let mut begun = shell(Sidegate::builder().definition("near", &built_in()), CLEANS_UP);
    assert_eq!(begun.first_line().await, "up");
    begun.signal(Signal::TERM);
    let ended = assert_nothing_left(begun).await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(9), "caught\n"));
}

#[rstest]
#[case::that_just_ends(STAYS)]
#[case::that_cleans_up(CLEANS_UP)]
#[tokio::test]
async fn a_command_ends_with_who_has_started_it(#[case] script: &str) {
    let builder = Sidegate::builder().through_shell().definition("near", &example("everything", &[]));
    let mut begun = shell(builder, script);
    assert_eq!(begun.first_line().await, "up");
    let tag = begun.tag.clone();
    // The outer shell; the pipes end with everything that it has started.
    begun.signal(Signal::KILL);
    let ended = begun.wait().await;
    leaks::none(&tag).await;
    assert_eq!(ended.files_left(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn nothing_outlives_a_kill_but_the_command() {
    let mut begun = shell(Sidegate::builder().definition("near", &example("everything", &[])), STAYS);
    assert_eq!(begun.first_line().await, "up");
    let tag = begun.tag.clone();
    begun.signal(Signal::KILL);
    let pid = eventually("nothing but the command", async || match &leaks::processes(&tag)[..] {
        // What the shell has become.
        [only] if only.command == "sleep 3600" => only.id(),
        _ => None,
    })
    .await;
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    begun.wait().await;
}

#[tokio::test]
async fn a_signal_before_the_command_is_started_ends_the_start() {
    let server = with(example("rude_server", &["silent"]), "timeout: 300");
    let begun = shell(Sidegate::builder().definition("rude", &server), "echo started");
    eventually("the server's start", async || {
        let processes = leaks::processes(&begun.tag);
        processes.iter().any(|process| process.command.ends_with("rude_server silent")).then_some(())
    })
    .await;
    begun.signal(Signal::TERM);
    let tag = begun.tag.clone();
    let ended = begun.wait().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(130), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("ended by SIGTERM before the command was started"), "{}", ended.stderr);
    leaks::none(&tag).await;
}
