//! How an instance ends, by itself or not, and what is left of it.

use std::time::Duration;

use futures_util::future::join_all;
use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;

use super::support::definitions::{built_in, example, remote, waiting_server, with};
use super::support::leaks;
use super::support::optional::Through;
use super::support::sidegate::{Builder, Ended, binary};
use super::support::{McpClient, Sidegate, Upstream, eventually};

/// Longer than any test runs, in milliseconds.
const FOREVER: u64 = 3_600_000;

/// What it said from `stopping` on, without its log.
fn last_words(ended: &Ended) -> Vec<&str> {
    let said = ended.stderr.lines().filter(|line| line.starts_with("stop") || line.starts_with("error"));
    said.collect()
}

/// Everything is gone as soon as it has ended.
fn assert_nothing_left(ended: &Ended, tag: &leaks::Tag) {
    assert_eq!(leaks::processes(tag), []);
    assert_eq!(ended.files_left(), Vec::<std::path::PathBuf>::new());
}

#[rstest]
#[tokio::test]
async fn a_signal_ends_everything_in_order(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values("SIGTERM", "SIGINT")] name: &str,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let sidegate = builder
        .definition("example", &built_in())
        .definition("far", &remote(&far.url))
        .definition("near", &example("everything", &[]))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let mut stream = client.listen().await;
    client.call("x_near_pid", json!({})).await.result();

    let tag = sidegate.tag.clone();
    sidegate.signal(if name == "SIGTERM" { Signal::TERM } else { Signal::INT });
    assert_eq!(stream.next_message().await, None, "clients' streams end");
    let ended = sidegate.wait().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(last_words(&ended), [&format!("stopping: {name}"), "stopped; nothing is left"]);
    assert_eq!(ended.stderr.lines().last(), Some("stopped; nothing is left"));
    assert_eq!(ended.stdout, "", "only the ready line is on stdout");
    assert_nothing_left(&ended, &tag);
}

/// An instance with one call under way that takes `ms` milliseconds.
async fn with_a_call(
    builder: Builder,
    ms: u64,
) -> (Sidegate, tokio::task::JoinHandle<Option<super::support::mcp_client::Message>>) {
    let builder = builder.definition("near", &example("everything", &[]));
    let sidegate = builder.wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let other = McpClient::connect(sidegate.url()).await;
    let call = tokio::spawn(async move {
        let call = json!({"name": "x_near_sleep", "arguments": {"ms": ms}});
        client.start("tools/call", call).await.next_message().await
    });
    eventually("the call's start", async || {
        let counts = other.call("x_near_sleep_counts", json!({})).await.value();
        (counts["structuredContent"]["running"] == 1).then_some(())
    })
    .await;
    (sidegate, call)
}

#[tokio::test]
async fn a_call_in_flight_is_waited_for() {
    let (sidegate, call) = with_a_call(Sidegate::builder(), 3000).await;
    sidegate.signal(Signal::TERM);
    let ended = sidegate.wait().await;
    assert!(ended.stderr.contains("waiting up to 10.0 s for calls in flight"), "{}", ended.stderr);
    assert_eq!(last_words(&ended), ["stopping: SIGTERM", "stopped; nothing is left"]);
    assert_eq!(call.await.unwrap().unwrap().value()["structuredContent"], json!({"slept": 3000}));
}

/// The client is told of its progress, so the answer has to go through a stream that is closed next.
#[tokio::test]
async fn the_answer_of_a_call_in_flight_arrives() {
    // Where the order of things is wrong, it arrives more often than not.
    for _ in 0..10 {
        let directory = tempfile::tempdir().unwrap();
        let go = directory.path().join("go");
        let builder = Sidegate::builder().definition("near", &waiting_server(&go));
        let sidegate = builder.wait_for_servers().start().await;
        let client = McpClient::connect(sidegate.url()).await;
        let call = json!({"name": "x_near_wait", "arguments": {}, "_meta": {"progressToken": "p"}});
        let mut exchange = client.start("tools/call", call).await;
        exchange.expect("notifications/progress").await;
        sidegate.signal(Signal::TERM);
        sidegate.wait_for_stderr("for calls in flight").await;
        fs_err::write(&go, "").unwrap();
        exchange.response().await.result();
        assert!(sidegate.wait().await.status.success());
    }
}

#[tokio::test]
async fn new_calls_are_refused_while_it_stops() {
    let (sidegate, call) = with_a_call(Sidegate::builder(), FOREVER).await;
    let client = McpClient::connect(sidegate.url()).await;
    sidegate.signal(Signal::TERM);
    sidegate.wait_for_stderr("waiting up to").await;
    let refused = client.call("x_near_pid", json!({})).await;
    assert_eq!(refused.error()["message"], "sidegate is stopping");
    assert!(!call.is_finished(), "the call goes on meanwhile");
    sidegate.kill().await;
}

#[tokio::test]
async fn a_call_that_takes_longer_than_the_drain_time_is_cut_and_counted() {
    let (sidegate, call) = with_a_call(Sidegate::builder().config("drain: 200ms\n"), FOREVER).await;
    let tag = sidegate.tag.clone();
    let ended = sidegate.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    let cut = "stopped; 1 call was cut, as it took longer than the drain time";
    assert_eq!(last_words(&ended), ["stopping: SIGTERM", cut]);
    assert_nothing_left(&ended, &tag);
    if let Some(answer) = call.await.unwrap() {
        answer.error();
    }
}

#[rstest]
#[tokio::test]
async fn a_second_signal_ends_it_at_once(#[values(Signal::INT, Signal::TERM)] second: Signal) {
    let (sidegate, _call) = with_a_call(Sidegate::builder().config("drain: 1h\n"), FOREVER).await;
    let tag = sidegate.tag.clone();
    sidegate.signal(Signal::TERM);
    sidegate.wait_for_stderr("stopping: SIGTERM").await;
    sidegate.signal(second);
    let ended = sidegate.wait().await;
    assert_eq!(ended.status.code(), Some(130), "{}", ended.stderr);
    assert!(
        last_words(&ended)[1].starts_with("error: ended at once, by a second signal"),
        "{}",
        ended.stderr
    );
    leaks::none(&tag).await;
}

/// `silent` never answers `initialize`, `wrong-id` never the list of tools after it.
fn unanswering(mode: &str) -> Builder {
    let server = with(example("rude_server", &[mode]), "timeout: 300");
    Sidegate::builder().definition("rude", &server).env("SIDEGATE_LOG", "info,sidegate::bridge=debug")
}

async fn until_asked(sidegate: &Sidegate, mode: &str) {
    if mode == "wrong-id" {
        sidegate.wait_for_stderr("an answer to no request").await;
    }
    eventually("the server's start", async || {
        leaks::processes(&sidegate.tag).iter().any(|process| process.command.ends_with(mode)).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn a_server_that_does_not_answer_does_not_hold_it_up(#[values("silent", "wrong-id")] mode: &str) {
    let sidegate = unanswering(mode).start().await;
    until_asked(&sidegate, mode).await;
    let tag = sidegate.tag.clone();
    let ended = sidegate.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_nothing_left(&ended, &tag);
}

/// The guard of `example` waits to be let go, so that the stop comes in the middle of its start.
#[tokio::test]
async fn a_server_that_is_being_started_ends_before_the_rest() {
    let builder = Sidegate::builder().definition("example", &built_in());
    let go = builder.config_dir().join("go");
    let hold = r#"case "$*" in *example-server) echo >begun; read -r _ <go ;; esac"#;
    let helper = builder.script("helper", &format!("{hold}\nexec '{}' \"$@\"", binary().display()));
    rustix::fs::mkfifoat(rustix::fs::CWD, &go, rustix::fs::Mode::RWXU).unwrap();
    let sidegate = builder.env("SIDEGATE_HELPER", &helper).start().await;
    eventually("the guard's start", async || go.with_file_name("begun").exists().then_some(())).await;
    sidegate.signal(Signal::TERM);
    sidegate.wait_for_stderr("stopping: SIGTERM").await;

    let tag = sidegate.tag.clone();
    let ended = sidegate.wait();
    tokio::pin!(ended);
    // It must not end, however long this is. The longer, the surer is it that one that does would be seen.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut ended).await;
    assert!(early.is_err(), "it has not waited for {:?}", leaks::processes(&tag));
    fs_err::write(&go, "go\n").unwrap();
    let ended = ended.await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_nothing_left(&ended, &tag);
}

#[rstest]
#[tokio::test]
async fn a_server_that_does_not_answer_ends_with_its_definition(#[values("silent", "wrong-id")] mode: &str) {
    let sidegate = unanswering(mode).start().await;
    until_asked(&sidegate, mode).await;
    sidegate.remove_definition("rude");
    eventually("the server's end", async || {
        let processes = leaks::processes(&sidegate.tag);
        (!processes.iter().any(|process| process.command.ends_with(mode))).then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn nothing_outlives_a_kill(#[values(Through::Embedded, Through::Agentgateway)] through: Through) {
    let Some(builder) = through.builder() else { return };
    // Each of these resists in its own way: sessions of their own, orphans, many at once, ignored signals.
    let sidegate = builder
        .definition("bomb", &example("faulty_child", &["tree", "bomb"]))
        .definition("double-fork", &example("faulty_child", &["tree", "double-fork"]))
        .definition("ignore-term", &example("faulty_child", &["ignore-term"]))
        .definition("near", &example("everything", &[]))
        .definition("setsid", &example("faulty_child", &["tree", "setsid"]))
        .start()
        .await;
    let tag = sidegate.tag.clone();
    // Sidegate, the gateway and its guard, five guards, and 32 + 2 + 1 + 1 + 2 processes of servers.
    eventually("all of them", async || (leaks::processes(&tag).len() == 46).then_some(())).await;
    sidegate.kill().await;
    leaks::none(&tag).await;
}

#[tokio::test]
async fn an_ephemeral_instance_ends_with_who_has_started_it() {
    let sidegate = Sidegate::builder()
        .through_shell()
        .definition("near", &example("everything", &[]))
        .wait_for_servers();
    let sidegate = sidegate.start().await;
    let tag = sidegate.tag.clone();
    assert_eq!(McpClient::connect(sidegate.url()).await.tool_names().await.len(), 24);
    // The shell is killed; the pipes end with the instance itself.
    let ended = sidegate.kill().await;
    assert_eq!(last_words(&ended), ["stopping: the end of its parent", "stopped; nothing is left"]);
    leaks::none(&tag).await;
    assert_nothing_left(&ended, &tag);
}

#[tokio::test]
async fn sixteen_instances_start_and_stop_at_once() {
    let instances = join_all((0..16).map(|n| async move {
        let (colour, near) = (format!("{{N: \"{n}\"}}"), example("everything", &[]));
        let near = with(near, &format!("env: {colour}"));
        Sidegate::builder().definition("near", &near).wait_for_servers().start().await
    }));
    let instances = instances.await;
    let answers = instances.iter().enumerate().map(async |(n, sidegate)| {
        let client = McpClient::connect(sidegate.url()).await;
        let answer = client.call("x_near_env", json!({"name": "N"})).await;
        assert_eq!(answer.value()["structuredContent"], json!({"value": n.to_string()}));
    });
    join_all(answers).await;
    join_all(instances.into_iter().map(|sidegate| async {
        let tag = sidegate.tag.clone();
        let ended = sidegate.stop().await;
        assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
        assert_nothing_left(&ended, &tag);
    }))
    .await;
}
