//! A gateway that misbehaves, through `examples/faulty_gateway`, and strangers on its ports: what users notice of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use rstest::rstest;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::Command;

use super::support::collector::{Collector, Exporting as _, Otlp, attribute};
use super::support::definitions::{built_in, example, with};
use super::support::optional::Through;
use super::support::sidegate::{Builder, Ended, binary};
use super::support::{McpClient, Sidegate, eventually, example_path, leaks};

/// Longer than the time a gateway has to get ready, which is 30 s.
const LONGEST_START: Duration = Duration::from_secs(60);

/// An instance whose gateway follows these orders, one a start, with one server that works.
fn faulty(orders: &[&str]) -> Builder {
    let builder = Sidegate::builder().agentgateway(&example_path("faulty_gateway"));
    builder.definition("near", &example("everything", &[])).file("gateway-faults", &orders.join("\n"))
}

/// How often the gateway has been started.
fn starts(sidegate: &Sidegate) -> usize {
    sidegate.read("gateway-starts").lines().count()
}

fn kill(pid: Option<Pid>, signal: Signal) {
    kill_process(pid.expect("it runs"), signal).unwrap();
}

/// The process of the server, if it can be called: it is another one when the session was opened again.
async fn server(client: &McpClient) -> Option<String> {
    let answer = client.call("x_near_pid", json!({})).await;
    answer.envelope().result.is_some().then(|| answer.text())
}

async fn called_again(client: &McpClient) -> String {
    eventually("a call", async || server(client).await).await
}

/// Stops it, and sees that this was in order and left nothing.
async fn stop(sidegate: Sidegate) -> Ended {
    let tag = sidegate.tag.clone();
    let ended = sidegate.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(leaks::processes(&tag), []);
    assert_eq!(ended.files_left(), Vec::<std::path::PathBuf>::new());
    ended
}

#[rstest]
#[case::ends("exit 7 no such luck", "exited with code 7 before it was ready; its last line: no such luck")]
#[case::says_nothing("never-ready", "was not ready after 30s")]
#[case::another_generation(
    "generation 0123456789abcdef.0123456789abcdef",
    r#"asked for it, it answered generation "0123456789abcdef.0123456789abcdef""#
)]
#[case::another_port("wrong-port", "asked for it, it did not answer: Connection refused")]
#[tokio::test]
async fn a_gateway_that_cannot_be_used_ends_the_start(#[case] order: &str, #[case] reason: &str) {
    let builder = faulty(&[order]);
    let tag = builder.tag().clone();
    let ended = tokio::time::timeout(LONGEST_START, builder.run_for_long()).await.unwrap();
    assert_eq!(ended.status.code(), Some(4), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
    let error = ended.stderr.lines().find(|line| line.starts_with("error: the gateway ")).unwrap();
    assert!(error.contains(reason), "{error}");
    assert_eq!(leaks::processes(&tag), []);
    assert_eq!(ended.files_left(), Vec::<std::path::PathBuf>::new());
}

#[rstest]
// It did work.
#[case::once(&["exit-on-usr1 3", "none"], Signal::USR1, &["exited with code 3", "told to exit"])]
// What it says when it is started again is tried again.
#[case::and_the_next_ends_too(
    &["none", "exit 7 not now", "exit 8 nor now", "none"],
    Signal::KILL,
    &["was killed by signal 9", "exited with code 7 before it was ready; its last line: not now", "code 8"]
)]
// The content is the same, and yet it is not what this process was started with.
#[case::and_the_next_answers_as_it_did(&["none", "predecessor", "none"], Signal::KILL, &["it answered generation"])]
#[tokio::test]
async fn a_gateway_that_ends_is_started_again(
    #[case] orders: &[&str],
    #[case] signal: Signal,
    #[case] said: &[&str],
) {
    let sidegate = faulty(orders).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let before = server(&client).await.expect("it works");
    kill(sidegate.gateway_pid(), signal);
    // Before that, a call may still find the gateway that ends.
    eventually("the last start", async || (starts(&sidegate) == orders.len()).then_some(())).await;
    assert_eq!(called_again(&client).await, before, "the session was opened again");
    for words in said {
        sidegate.wait_for_stderr(words).await;
    }
    stop(sidegate).await;
}

#[rstest]
#[case::ignores_sigterm("ignore-term")]
#[case::floods_its_output("flood")]
#[case::closes_its_output("close-stdout")]
#[tokio::test]
async fn a_gateway_that_is_only_rude_works_and_ends(#[case] order: &str) {
    let sidegate = faulty(&[order]).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let before = server(&client).await.expect("it works");
    for _ in 0..100 {
        assert_eq!(server(&client).await.as_ref(), Some(&before));
    }
    assert_eq!(starts(&sidegate), 1);
    // There are none where nothing was said.
    let logs = fs_err::read_dir(sidegate.ready.runtime_dir.join("logs")).into_iter().flatten();
    let size: u64 = logs.map(|log| log.unwrap().metadata().unwrap().len()).sum();
    assert!(size < 12 * 1024 * 1024, "{size} bytes of logs");
    stop(sidegate).await;
}

#[tokio::test]
async fn a_gateway_that_does_not_reload_is_replaced() {
    let sidegate = faulty(&["no-reload", "none"]).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let before = server(&client).await.expect("it works");
    sidegate.write_definition("late", &built_in());
    sidegate.wait_for_stderr("gateway has not reloaded; writing its file once more").await;
    assert_eq!(server(&client).await.as_ref(), Some(&before), "what was in force stays so");
    assert_eq!(starts(&sidegate), 1);
    eventually("the new server", async || {
        client.tool_names().await.iter().any(|name| name.starts_with("x_late_")).then_some(())
    })
    .await;
    assert!(sidegate.stderr().contains("is not in force after 6s: asked for it, it answered generation"));
    assert_eq!(starts(&sidegate), 2);
    assert_eq!(called_again(&client).await, before, "the session was opened again");
    stop(sidegate).await;
}

#[tokio::test]
async fn a_gateway_that_reloads_slowly_is_waited_for() {
    let sidegate = faulty(&["slow-reload 1000"]).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let before = server(&client).await.expect("it works");
    sidegate.write_definition("late", &built_in());
    eventually("the new server", async || {
        assert_eq!(server(&client).await.as_ref(), Some(&before));
        client.tool_names().await.iter().any(|name| name.starts_with("x_late_")).then_some(())
    })
    .await;
    assert!(!sidegate.stderr().contains("writing its file once more"));
    assert_eq!(starts(&sidegate), 1);
    stop(sidegate).await;
}

#[tokio::test]
async fn a_route_that_the_gateway_refuses_costs_only_its_own_server() {
    let bad = with(built_in(), "policies: {brew: tea}");
    let sidegate = faulty(&["refuse brew", "none"]).definition("bad", &bad).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let before = server(&client).await.expect("it works");
    let words = "policies: unknown field `brew`, expected one of";
    sidegate.wait_for_stderr(words).await;
    assert!(sidegate.stderr().contains("invalid"));

    // The same while it runs, and the first one is mended.
    sidegate.write_definition("worse", &bad);
    sidegate.write_definition("bad", &built_in());
    eventually("the mended server", async || {
        assert_eq!(server(&client).await.as_ref(), Some(&before));
        client.tool_names().await.iter().any(|name| name.starts_with("x_bad_")).then_some(())
    })
    .await;
    assert!(!client.tool_names().await.iter().any(|name| name.starts_with("x_worse_")));
    assert_eq!(starts(&sidegate), 1);
    stop(sidegate).await;
}

/// The next one needs a gateway, and is not waited for by whoever wants yet another.
#[tokio::test]
async fn a_child_is_ended_while_the_gateway_is_down() {
    let collector = Collector::start(Otlp::Grpc).await;
    let builder = faulty(&["none", "exit 7 it stays down"]).exporting_to(&collector);
    let sidegate = builder.wait_for_servers().start().await;
    kill(sidegate.gateway_pid(), Signal::KILL);
    eventually("a start that fails", async || (starts(&sidegate) > 1).then_some(())).await;
    let restart = || {
        let mut command = Command::new(binary());
        command.args(["restart", "near", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).spawn()
    };
    let first = restart().unwrap();
    eventually("the end of the process", async || {
        let left = leaks::processes(&sidegate.tag);
        left.iter().all(|process| !process.command.ends_with("/everything")).then_some(())
    })
    .await;
    let second = restart().unwrap();
    let given_up = |span: &Span| {
        let outcome = attribute(&span.attributes, "sidegate.connect.outcome");
        span.name == "sidegate.connect" && outcome.as_deref() == Some("given_up")
    };
    collector.spans_where(1, given_up).await;
    drop((first, second));
    let ended = stop(sidegate).await;
    assert!(!ended.stderr.contains("a session that was being opened does not end"), "{}", ended.stderr);
}

/// The embedded gateway would do nothing to a call between us and our own child.
#[tokio::test]
async fn a_child_answers_while_the_embedded_gateway_does_not() {
    let near = example("everything", &[]);
    let sidegate = Sidegate::builder().definition("near", &near).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    kill(sidegate.gateway_pid(), Signal::STOP);
    let answer = client.call("x_near_echo", json!({"a": 1})).await;
    assert_eq!(answer.value()["structuredContent"], json!({"a": 1}));
    kill(sidegate.gateway_pid(), Signal::CONT);
    stop(sidegate).await;
}

/// Listens beside a lease, as only a program can that sets SO_REUSEADDR.
fn listen_beside(port: u16) -> Option<OwnedFd> {
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    sockopt::set_socket_reuseaddr(&socket, true).unwrap();
    bind(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok()?;
    listen(&socket, 16).ok()?;
    Some(socket)
}

/// Kills the gateway and takes one of its ports before the next one can.
async fn steal(sidegate: &Sidegate, port: u16) -> OwnedFd {
    assert!(listen_beside(port).is_none(), "the gateway listens");
    // The next gateway may be faster; then it is killed as well.
    eventually("the theft", async || {
        if let Some(pid) = sidegate.gateway_pid() {
            let _ended_meanwhile = kill_process(pid, Signal::KILL);
        }
        listen_beside(port)
    })
    .await
}

#[rstest]
#[tokio::test]
async fn a_gateway_whose_port_is_stolen_gets_new_ones(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values("data", "admin", "stats", "readiness")] which: &str,
) {
    let Some(builder) = through.builder() else { return };
    let near = example("everything", &[]);
    let sidegate = builder.definition("near", &near).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let before = server(&client).await.expect("it works");
    let ports = sidegate.ready.gateway.ports;
    let port = match which {
        "data" => ports.data,
        "admin" => ports.admin,
        "stats" => ports.stats,
        _ => ports.readiness,
    };
    let port = port.unwrap();

    let _thief = steal(&sidegate, port).await;
    sidegate.wait_for_stderr("somebody else listens on a port of the gateway, which gets new ones").await;
    sidegate.wait_for_stderr("another gateway has taken the calls over").await;
    assert_eq!(called_again(&client).await, before, "the session was opened again");
    stop(sidegate).await;
}

#[rstest]
#[tokio::test]
async fn an_explicit_port_that_somebody_has_is_an_error_with_his_name(
    #[values("data", "admin", "stats", "readiness")] which: &str,
) {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let builder = Sidegate::builder().config(&format!("gateway: {{ports: {{{which}: {port}}}}}\n"));
    let tag = builder.tag().clone();
    let ended = builder.run().await;
    assert_eq!(ended.status.code(), Some(4), "{}", ended.stderr);
    let begin = format!("error: the {which} port cannot be leased");
    assert!(ended.stderr.contains(&begin), "{}", ended.stderr);
    let holder = format!(":{port} is taken by pid {} (", std::process::id());
    assert!(ended.stderr.contains(&holder), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: stop that process, or choose another port"), "{}", ended.stderr);
    assert_eq!(leaks::processes(&tag), []);
    assert_eq!(ended.files_left(), Vec::<std::path::PathBuf>::new());
}

#[rstest]
#[tokio::test]
async fn an_explicit_port_that_is_stolen_is_waited_for(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let builder = builder.config(&format!("gateway: {{ports: {{data: {free}}}}}\n"));
    let near = example("everything", &[]);
    let sidegate = builder.definition("near", &near).wait_for_servers().start().await;
    assert_eq!(sidegate.ready.gateway.ports.data, Some(free));
    let client = McpClient::connect(sidegate.url()).await;
    let before = server(&client).await.expect("it works");

    let thief = steal(&sidegate, free).await;
    let holder = format!(":{free} is taken by pid {} (", std::process::id());
    sidegate.wait_for_stderr(&holder).await;
    drop(thief);
    assert_eq!(called_again(&client).await, before, "the session was opened again");
    stop(sidegate).await;
}
