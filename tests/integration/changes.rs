//! What happens while it runs: definitions come, change and go; servers and gateways end and come back.

use http::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};

use super::support::definitions::{built_in, example, remote, with};
use super::support::mcp_client::Http;
use super::support::optional::Through;
use super::support::watched::Watched;
use super::support::{McpClient, Sidegate, Upstream, eventually, leaks, within};

const CHANGED: &str = "notifications/tools/list_changed";

/// The process of a server that may be on its way.
async fn pid_when_back(client: &McpClient, prefix: &str) -> u64 {
    let tool = format!("x_{prefix}_pid");
    eventually("the server's return", async || {
        let answer = client.call(&tool, json!({})).await;
        let result: Value = serde_json::from_str(answer.envelope().result?.get()).unwrap();
        result["structuredContent"]["pid"].as_u64()
    })
    .await
}

fn count(names: &[String], prefix: &str) -> usize {
    names.iter().filter(|name| name.starts_with(prefix)).count()
}

#[rstest]
#[tokio::test]
async fn files_come_change_and_go(#[values(Through::Embedded, Through::Agentgateway)] through: Through) {
    let Some(builder) = through.builder() else { return };
    let mut watched = Watched::start(builder.definition("near", &example("everything", &[]))).await;
    let pid = watched.pid("near").await;

    watched.sidegate.write_definition("late", &built_in());
    assert_eq!(count(&watched.changed().await, "x_late_"), 7);

    watched.sidegate.write_definition("late", &with(built_in(), "toolPrefix: renamed"));
    let names = watched.changed().await;
    assert_eq!((count(&names, "x_late_"), count(&names, "x_renamed_")), (0, 7));

    watched.sidegate.remove_definition("late");
    let names = watched.changed().await;
    assert_eq!((count(&names, "x_late_"), count(&names, "x_renamed_")), (0, 0));

    let gone = watched.client.call("x_renamed_now", json!({})).await;
    assert_eq!(gone.error()["message"], "tool not found: x_renamed_now");
    // Deleted and made again: as if it had never been there.
    watched.sidegate.write_definition("late", &built_in());
    assert_eq!(count(&watched.changed().await, "x_late_"), 7);
    assert_eq!(watched.pid("near").await, pid);
    watched.nothing_more().await;
}

#[tokio::test]
async fn a_new_environment_means_a_new_process() {
    let server = |value: &str| with(example("everything", &[]), &format!("env: {{COLOUR: {value}}}"));
    let builder = Sidegate::builder()
        .definition("near", &server("red"))
        .definition("other", &example("everything", &[]));
    let watched = Watched::start(builder).await;
    let colour = json!({"name": "COLOUR"});
    assert_eq!(watched.structured("x_near_env", colour.clone()).await, json!({"value": "red"}));
    let (pid, other) = (watched.pid("near").await, watched.pid("other").await);

    watched.sidegate.write_definition("near", &server("blue"));
    eventually("the new value", async || {
        let answer = watched.client.call("x_near_env", colour.clone()).await;
        answer.raw().contains(r#""value":"blue""#).then_some(())
    })
    .await;
    assert_ne!(watched.pid("near").await, pid);
    assert_eq!(watched.pid("other").await, other);
    eventually("the end of the old process", async || {
        let processes = leaks::processes(&watched.sidegate.tag);
        processes.iter().all(|process| process.pid.cast_unsigned() != pid as u32).then_some(())
    })
    .await;
    watched.nothing_more().await;
}

/// The server at another URL takes over, and nobody notices: no call fails, no tool is missing for a moment.
#[rstest]
#[tokio::test]
async fn a_way_that_changes_leaves_no_gap(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let (first, second) = (Upstream::everything(&[]).await, Upstream::everything(&[]).await);
    let watched = Watched::start(builder.definition("far", &remote(&first.url))).await;
    let pid = watched.pid("far").await;
    let slow =
        watched.client.start("tools/call", json!({"name": "x_far_sleep", "arguments": {"ms": 2000}})).await;

    for url in [&second.url, &first.url] {
        let before = watched.pid("far").await;
        watched.sidegate.write_definition("far", &remote(url));
        // A call that fails on the way is a panic in `pid`.
        while watched.pid("far").await == before {}
    }
    assert_eq!(watched.pid("far").await, pid);
    let answer = slow.response().await;
    assert_eq!(
        answer.value()["structuredContent"],
        json!({"slept": 2000}),
        "it ends on the session where it began"
    );
    // The tools were the same all the time.
    watched.nothing_more().await;
}

#[rstest]
#[tokio::test]
async fn a_way_that_changes_with_its_names_is_told_once(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let (first, second) = (Upstream::everything(&[]).await, Upstream::everything(&[]).await);
    let mut watched = Watched::start(builder.definition("far", &remote(&first.url))).await;
    let pid = watched.pid("far").await;
    watched.sidegate.write_definition("far", &with(remote(&second.url), "toolPrefix: new"));
    let names = watched.changed().await;
    assert_eq!((count(&names, "x_far_"), count(&names, "x_new_")), (0, 24));
    assert_ne!(watched.pid("new").await, pid);
    watched.nothing_more().await;
}

/// What does not work does not take the place of what does before that is known.
#[tokio::test]
async fn a_way_that_leads_nowhere_is_told_when_that_is_known() {
    let first = Upstream::everything(&[]).await;
    let mut watched = Watched::start(Sidegate::builder().definition("far", &remote(&first.url))).await;
    let pid = watched.pid("far").await;
    // Accepts connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = with(remote(&format!("http://{}/mcp", silent.local_addr().unwrap())), "timeout: 4");
    watched.sidegate.write_definition("far", &nowhere);
    let _kept_open = within("the connection", silent.accept()).await.unwrap();
    assert_eq!(watched.pid("far").await, pid, "the old one serves meanwhile");
    assert_eq!(watched.changed().await, Vec::<String>::new());
    watched.sidegate.write_definition("far", &remote(&first.url));
    assert_eq!(count(&watched.changed().await, "x_far_"), 24);
    watched.nothing_more().await;
}

#[tokio::test]
async fn a_server_that_is_removed_and_comes_back_at_once_starts_afresh() {
    let builder = Sidegate::builder().definition("near", &example("everything", &[]));
    let watched = Watched::start(builder).await;
    let text = with(example("everything", &[]), "toolPrefix: again");
    watched.sidegate.remove_definition("near");
    watched.sidegate.write_definition("near", &text);
    pid_when_back(&watched.client, "again").await;
    // Whether both events were seen as one or as two: one process is left in the end.
    let servers = || watched.sidegate.processes_of("everything");
    eventually("one process", async || (servers().len() == 1).then_some(())).await;
    assert_eq!(watched.pid("again").await, servers()[0].pid as u64);
}

#[tokio::test]
async fn a_new_prefix_keeps_the_process_and_a_new_description_changes_nothing() {
    let server = |line: &str| with(example("everything", &[]), line);
    let mut watched =
        Watched::start(Sidegate::builder().definition("near", &server("toolPrefix: one"))).await;
    let pid = watched.pid("one").await;

    watched.sidegate.write_definition("near", &server("toolPrefix: two"));
    let names = watched.changed().await;
    assert_eq!((count(&names, "x_one_"), count(&names, "x_two_")), (0, 24));
    assert_eq!(watched.pid("two").await, pid);

    let described = with(server("toolPrefix: two"), "description: the second");
    watched.sidegate.write_definition("near", &described);
    watched.sidegate.write_definition("late", &built_in());
    assert_eq!(count(&watched.changed().await, "x_late_"), 7, "the description was no change");
    assert_eq!(watched.pid("two").await, pid);
    watched.nothing_more().await;
}

#[tokio::test]
async fn a_file_that_becomes_wrong_keeps_the_last_good_version() {
    let mut watched =
        Watched::start(Sidegate::builder().definition("near", &example("everything", &[]))).await;
    let pid = watched.pid("near").await;

    watched.sidegate.write_definition("near", "spec: [");
    watched.sidegate.wait_for_stderr("the last good definition stays in use").await;
    let stderr = watched.sidegate.stderr();
    assert!(stderr.contains("near.yaml:2:1: not YAML"), "{stderr}");
    assert_eq!(watched.pid("near").await, pid);

    watched.sidegate.write_definition("near", &with(example("everything", &[]), "toolPrefix: mended"));
    assert_eq!(count(&watched.changed().await, "x_mended_"), 24);
    assert_eq!(watched.pid("mended").await, pid);
    watched.nothing_more().await;
}

#[tokio::test]
async fn a_directory_that_goes_away_changes_nothing() {
    let mut watched =
        Watched::start(Sidegate::builder().definition("near", &example("everything", &[]))).await;
    let pid = watched.pid("near").await;
    let directory = watched.sidegate.config_dir().join("mcpservers");
    let aside = directory.with_file_name("aside");

    fs_err::rename(&directory, &aside).unwrap();
    watched.sidegate.wait_for_stderr("the definitions cannot be read, so everything stays as it is").await;
    assert_eq!(watched.pid("near").await, pid);

    fs_err::rename(&aside, &directory).unwrap();
    watched.sidegate.wait_for_stderr("the definitions can be read again").await;
    watched.sidegate.write_definition("late", &built_in());
    assert_eq!(count(&watched.changed().await, "x_late_"), 7);
    assert_eq!(watched.pid("near").await, pid);
    watched.nothing_more().await;
}

#[rstest]
#[tokio::test]
async fn tools_come_and_go_while_their_server_runs(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values("far", "near")] server: &str,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let builder =
        builder.definition("far", &remote(&far.url)).definition("near", &example("everything", &[]));
    let mut watched = Watched::start(builder).await;
    let (add, remove, late) =
        (format!("x_{server}_add_tool"), format!("x_{server}_remove_tool"), format!("x_{server}_late"));

    watched.client.call(&add, json!({"name": "late"})).await.result();
    assert!(watched.changed().await.contains(&late));
    assert_eq!(watched.client.call(&late, json!({})).await.text(), "late was called");
    watched.client.call(&remove, json!({"name": "late"})).await.result();
    assert!(!watched.changed().await.contains(&late));
    watched.nothing_more().await;
}

#[rstest]
#[tokio::test]
async fn a_server_that_crashes_comes_back(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let builder = builder
        .definition("near", &example("everything", &[]))
        .definition("other", &example("everything", &[]));
    let watched = Watched::start(builder).await;
    let (pid, other) = (watched.pid("near").await, watched.pid("other").await);

    let cut = watched.client.call("x_near_crash", json!({"code": 7})).await;
    let message = cut.error()["message"].to_string();
    assert!(message.contains("exited with code 7"), "{message}");

    assert_ne!(pid_when_back(&watched.client, "near").await, pid);
    assert_eq!(count(&watched.client.tool_names().await, "x_near_"), 24);
    assert_eq!(watched.pid("other").await, other);
    watched.nothing_more().await;
}

#[rstest]
#[tokio::test]
async fn sessions_outlive_the_gateway(#[values(Through::Embedded, Through::Agentgateway)] through: Through) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let builder =
        builder.definition("far", &remote(&far.url)).definition("near", &example("everything", &[]));
    let mut watched = Watched::start(builder).await;
    let pid = watched.pid("near").await;

    let gateway = watched.sidegate.ready.gateway.pid.unwrap();
    let gateway = rustix::process::Pid::from_raw(gateway.cast_signed()).unwrap();
    rustix::process::kill_process(gateway, rustix::process::Signal::KILL).unwrap();
    assert_eq!(pid_when_back(&watched.client, "near").await, pid);
    assert_eq!(pid_when_back(&watched.client, "far").await, watched.pid("far").await);

    // The GET streams of the servers' sessions are open again, too.
    let mut names = (0..).map(|n| format!("late_{n}"));
    let added = eventually("a tool that is announced", async || {
        let name = names.next()?;
        watched.client.call("x_near_add_tool", json!({ "name": name })).await.result();
        let listed = watched.client.tool_names().await;
        listed.contains(&format!("x_near_{name}")).then_some(name)
    })
    .await;
    watched.stream.expect(CHANGED).await;
    let called = watched.client.call(&format!("x_near_{added}"), json!({})).await;
    assert_eq!(called.text(), format!("{added} was called"));
}

/// Waits until no process of the instance is `rude_server`.
async fn rude_server_has_ended(sidegate: &Sidegate) {
    eventually("the end of the server", async || {
        let processes = leaks::processes(&sidegate.tag);
        (!processes.iter().any(|process| process.command.contains("rude_server"))).then_some(())
    })
    .await;
}

/// `wrong-id` never lists its tools, `hangs-list` does so once.
#[rstest]
#[tokio::test]
async fn a_server_that_goes_while_it_lists_its_tools_does_not_come_back(
    #[values("wrong-id", "hangs-list")] mode: &str,
) {
    let rude = with(example("rude_server", &[mode]), "timeout: 300");
    let builder = Sidegate::builder().definition("rude", &rude);
    let sidegate = builder.env("SIDEGATE_LOG", "info,sidegate::bridge=debug").start().await;
    // The list that is not answered has been asked for.
    sidegate.wait_for_stderr("an answer to no request").await;
    sidegate.remove_definition("rude");
    sidegate.wait_for_stderr("removed").await;
    rude_server_has_ended(&sidegate).await;

    // The catalogue follows what is logged after a moment, and a client that comes in it is told of the end of `rude`.
    let client = McpClient::connect(sidegate.url()).await;
    sidegate.write_definition("late", &built_in());
    let names = eventually("the tools of another server", async || {
        Some(client.tool_names().await).filter(|names| count(names, "x_late_") > 0)
    })
    .await;
    assert_eq!((names.len(), count(&names, "x_late_")), (7, 7), "{names:?}");
    let ready = Http::new(&sidegate.url().replace("/mcp", "/readyz")).send(Method::GET, "", &[]).await;
    assert_eq!(ready.status(), StatusCode::OK);
    let stderr = sidegate.stderr();
    let (_, after) = stderr.split_once("removed").unwrap();
    let told = |line: &&str| line.contains("server=rude") && !line.contains("DEBUG");
    assert_eq!(after.lines().skip(1).find(told), None);
}

#[tokio::test]
async fn a_server_that_lists_its_tools_for_ever_does_not_hold_the_end_up() {
    let rude = with(example("rude_server", &["hangs-list"]), "timeout: 300");
    let builder = Sidegate::builder().definition("rude", &rude);
    let sidegate = builder.env("SIDEGATE_LOG", "info,sidegate::bridge=debug").start().await;
    sidegate.wait_for_stderr("an answer to no request").await;
    // Its tools are there all the time, and it is heard meanwhile.
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await, ["x_rude_poke"]);
    assert_eq!(client.call("x_rude_poke", json!({})).await.text(), "poked");
    sidegate.write_definition("rude", &with(rude, "toolPrefix: renamed"));
    eventually("the new name", async || (client.tool_names().await == ["x_renamed_poke"]).then_some(()))
        .await;
    let tag = sidegate.tag.clone();
    let ended = sidegate.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
    assert_eq!(leaks::processes(&tag), []);
}

#[tokio::test]
async fn a_server_whose_tools_change_all_the_time_is_served() {
    let restless = example("rude_server", &["restless"]);
    let builder = Sidegate::builder().definition("rude", &restless).wait_for_servers();
    let sidegate = builder.start().await;
    let client = McpClient::connect(sidegate.url()).await;
    for _ in 0..50 {
        assert_eq!(client.call("x_rude_poke", json!({})).await.text(), "poked");
    }
    sidegate.write_definition("rude", &with(restless, "toolPrefix: renamed"));
    eventually("the new name", async || (client.tool_names().await == ["x_renamed_poke"]).then_some(()))
        .await;
    sidegate.remove_definition("rude");
    rude_server_has_ended(&sidegate).await;
    assert_eq!(client.tool_names().await, Vec::<String>::new());
    assert!(sidegate.stop().await.status.success());
}
