//! `sidegate stdio`: the aggregate over a pair of pipes.

use std::path::{Path, PathBuf};

use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::support::definitions::{built_in, example};
use super::support::sidegate::{Begun, Builder, Ended};
use super::support::stdio_client::StdioClient;
use super::support::{Sidegate, eventually, leaks, within};

/// Longer than any test.
const FOREVER: u64 = 3_600_000;

/// `sidegate serve` on the configuration of `builder`, in the runtime directory that belongs to it.
struct Served {
    process: Begun,
    pid: Pid,
}

impl Served {
    async fn start(builder: &Builder) -> Self {
        let config_dir = builder.config_dir();
        let arguments = ["serve", "--gateway", "embedded", "--listen", "127.0.0.1:0", "--output", "json"];
        let more = ["--wait", "servers", "--config-dir", config_dir.to_str().unwrap()];
        let mut process = builder.clone().begin(&[&arguments[..], &more].concat());
        let ready: Value = serde_json::from_str(&process.first_line().await).unwrap();
        let pid = Pid::from_raw(ready["pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
        Self { process, pid }
    }

    async fn stop(self) {
        self.process.signal(Signal::TERM);
        assert_eq!(self.process.wait().await.status.code(), Some(0));
    }
}

fn everything() -> Builder {
    Sidegate::builder().definition("near", &example("everything", &[]))
}

/// Waits until so many `sleep` calls run.
async fn until_sleeping(client: &mut StdioClient, number: u64) -> Value {
    let counted = within("sleeping calls", async {
        loop {
            client.call("count", "x_near_sleep_counts", json!({})).await;
            let counts = client.answer("count").await["result"]["structuredContent"].clone();
            if counts["running"] == number {
                return counts;
            }
        }
    });
    counted.await
}

fn text(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}"))
}

fn assert_nothing_left(tag: &leaks::Tag, ended: &Ended) {
    assert_eq!(leaks::processes(tag), []);
    assert_eq!(ended.files_left(), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn it_attaches_to_the_instance_that_runs() {
    let builder = everything();
    let served = Served::start(&builder).await;
    let before = leaks::processes(builder.tag()).len();
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call(1, "x_near_echo", json!({"a": [1.5, "é"]})).await;
    assert_eq!(client.answer(1).await["result"]["structuredContent"], json!({"a": [1.5, "é"]}));
    // Itself and nothing else: neither a gateway nor a server.
    assert_eq!(leaks::processes(builder.tag()).len(), before + 1);
    assert_eq!(client.finish().await.stdout, "");
    assert_eq!(leaks::processes(builder.tag()).len(), before);
    served.stop().await;
}

#[tokio::test]
async fn it_attaches_to_the_instance_that_is_named() {
    let token = "0123456789abcdef0123456789abcdef";
    let builder = Sidegate::builder().file("token", token);
    let token_file = builder.config_dir().with_file_name("token");
    std::fs::set_permissions(&token_file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let builder = builder
        .config(&format!("aggregator: {{tokenFile: {:?}}}\n", token_file.to_str().unwrap()))
        .definition("near", &built_in())
        .wait_for_servers();
    let sidegate = builder.clone().start().await;
    let other = Sidegate::builder().env("SIDEGATE_INSTANCE", &sidegate.ready.runtime_dir);
    let mut client = StdioClient::connect(&other, &[]).await;
    client.call(1, "x_near_calculate", json!({"expression": "2*3"})).await;
    assert_eq!(client.answer(1).await["result"]["structuredContent"]["value"], 6.0);
    client.finish().await;
    sidegate.stop().await;

    let client = StdioClient::start(&other, &[]);
    let ended = client.wait().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(5), ""), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("error: no instance runs in "), "{}", ended.stderr);
}

#[tokio::test]
async fn it_starts_an_instance_where_none_runs() {
    let builder = everything().env("SIDEGATE_LOG", "debug");
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.request("a", "tools/list", json!({})).await;
    let tools = client.answer("a").await["result"]["tools"].as_array().unwrap().len();
    assert!(tools > 10, "all servers are there from the start");
    client.close_stdin();
    let ended = client.wait().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    assert_nothing_left(builder.tag(), &ended);
}

#[tokio::test]
async fn what_cannot_be_started_is_told_on_stderr() {
    for (config, arguments, code) in
        [("drain: [", &[][..], 2), ("", &["--gateway", "agentgateway", "--offline"][..], 4)]
    {
        let ended = StdioClient::start(&Sidegate::builder().config(config), arguments).wait().await;
        assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(code), ""), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("error: "), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn clients_at_once_each_get_their_own() {
    let builder = everything();
    let served = Served::start(&builder).await;
    let round = async |name: &str| {
        let mut client = StdioClient::connect(&builder, &[]).await;
        // The same ids and the same tokens in both.
        for number in 0..200 {
            let arguments = json!({"client": name, "number": number});
            let params =
                json!({"name": "x_near_echo", "arguments": arguments, "_meta": {"progressToken": 1}});
            client.request(number, "tools/call", params).await;
        }
        let mut seen = vec![0; 200];
        for _ in 0..200 {
            let answer = client.message().await;
            let number = usize::try_from(answer["id"].as_u64().unwrap()).unwrap();
            let expected = json!({"client": name, "number": number});
            assert_eq!(answer["result"]["structuredContent"], expected);
            seen[number] += 1;
        }
        assert_eq!(seen, vec![1; 200]);
        client.finish().await;
    };
    tokio::join!(round("one"), round("other"));
    served.stop().await;
}

#[tokio::test]
async fn no_byte_of_an_answer_changes() {
    let builder = Sidegate::builder().definition("rude", &example("rude_server", &["weird-fields"]));
    let mut client = StdioClient::connect(&builder, &[]).await;
    let printed = std::process::Command::new(super::support::example_path("rude_server"))
        .args(["print", "result"])
        .output()
        .unwrap();
    let result = String::from_utf8(printed.stdout).unwrap();
    client
        .send(r#"{"method":"tools\/call","params":{"name":"x_rude_weird"},"jsonrpc":"2.0","id":"\u0061"}"#)
        .await;
    assert_eq!(
        client.line().await.unwrap(),
        format!(r#"{{"jsonrpc":"2.0","id":"\u0061","result":{result}}}"#)
    );
    client.finish().await;
}

#[tokio::test]
async fn progress_comes_before_the_answer() {
    let mut client = StdioClient::connect(&everything(), &[]).await;
    let name = "x_near_test_tool_with_progress";
    let params = json!({"name": name, "arguments": {}, "_meta": {"progressToken": "my token"}});
    client.request(1, "tools/call", params).await;
    for progress in [0.0, 50.0, 100.0] {
        let report = client.expect("notifications/progress").await;
        assert_eq!(report["params"]["progressToken"], "my token");
        assert_eq!(report["params"]["progress"], progress);
    }
    assert_eq!(text(&client.answer(1).await), "Tool with progress executed successfully");
    client.finish().await;
}

#[tokio::test]
async fn a_cancellation_reaches_the_server_and_there_is_no_answer() {
    let mut client = StdioClient::connect(&everything(), &[]).await;
    client.call("long", "x_near_sleep", json!({"ms": FOREVER})).await;
    until_sleeping(&mut client, 1).await;
    client.notify("notifications/cancelled", json!({"requestId": "long"})).await;
    let counts = until_sleeping(&mut client, 0).await;
    assert_eq!(counts["cancelled"], 1);
    client.finish().await;
}

#[tokio::test]
async fn a_cancellation_right_behind_its_request_counts_too() {
    let mut client = StdioClient::connect(&everything(), &[]).await;
    for id in 0..20 {
        client.call(id, "x_near_sleep", json!({"ms": FOREVER})).await;
        client.notify("notifications/cancelled", json!({"requestId": id})).await;
    }
    until_sleeping(&mut client, 0).await;
    // Else this would last for the whole drain time, and have twenty errors to tell.
    assert_eq!(client.finish().await.stdout, "");
}

#[tokio::test]
async fn a_server_asks_and_the_client_answers() {
    let mut client = StdioClient::start(&everything(), &[]);
    client.initialize("2025-11-25", json!({"sampling": {}})).await;
    client.call(1, "x_near_test_sampling", json!({"prompt": "Say hello"})).await;
    let asked = client.expect("sampling/createMessage").await;
    assert_eq!(asked["params"]["messages"][0]["content"]["text"], "Say hello");
    let content = json!({"type": "text", "text": "Hello."});
    let result = json!({"role": "assistant", "content": content, "model": "m"});
    client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}).to_string()).await;
    assert!(text(&client.answer(1).await).contains("Hello."));
    client.finish().await;
}

#[tokio::test]
async fn changes_of_the_tools_are_announced() {
    let builder = everything();
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call(1, "x_near_add_tool", json!({"name": "extra"})).await;
    client.expect("notifications/tools/list_changed").await;
    client.close_stdin();
    assert_eq!(client.wait().await.status.code(), Some(0));
}

#[tokio::test]
async fn wrong_lines_get_errors_and_nothing_ends() {
    let mut client = StdioClient::start(&everything(), &[]);
    client.request(0, "ping", json!({})).await;
    assert_eq!(client.message().await["result"], json!({}));
    client.request("early", "tools/list", json!({})).await;
    let early = client.message().await;
    assert_eq!((&early["id"], &early["error"]["code"]), (&json!("early"), &json!(-32600)));
    client.initialize("2025-11-25", json!({})).await;
    for (line, code) in [
        ("this is no JSON", -32700),
        ("{\"jsonrpc\":\"2.0\",\"id\":1", -32700),
        ("7", -32600),
        ("{}", -32600),
        ("[]", -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, -32600),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, -32600),
    ] {
        client.send(line).await;
        let error = client.message().await;
        assert_eq!((&error["id"], &error["error"]["code"]), (&Value::Null, &json!(code)), "{line}: {error}");
    }
    client.send("").await;
    client.request(1, "no/such/method", json!({})).await;
    assert_eq!(client.answer(1).await["error"]["code"], -32601);
    client.request(2, "initialize", json!({"protocolVersion": "2025-11-25"})).await;
    assert_eq!(client.answer(2).await["error"]["code"], -32600);
    client.call(3, "x_near_echo", json!({"text": "x".repeat(5 << 20)})).await;
    let refused = client.answer(3).await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("aggregator.maxBody"), "{refused}");
    client.call(4, "x_near_sleep", json!({"ms": FOREVER})).await;
    until_sleeping(&mut client, 1).await;
    client.request(4, "ping", json!({})).await;
    assert_eq!(client.answer(4).await["error"]["code"], -32600, "an id that is in use");
    client.notify("notifications/cancelled", json!({"requestId": 4})).await;
    client.call(5, "x_near_echo", json!({})).await;
    assert_eq!(client.answer(5).await["result"]["structuredContent"], json!({}));
    client.finish().await;
}

#[tokio::test]
async fn older_versions_are_spoken() {
    let builder = everything();
    let served = Served::start(&builder).await;
    for version in ["2024-11-05", "2025-03-26", "2025-06-18"] {
        let mut client = StdioClient::start(&builder, &[]);
        assert_eq!(client.initialize(version, json!({})).await["protocolVersion"], version);
        client.call(1, "x_near_echo", json!({})).await;
        assert_eq!(client.answer(1).await["result"]["structuredContent"], json!({}));
        client.finish().await;
    }
    let mut client = StdioClient::start(&builder, &[]);
    client.initialize("2025-03-26", json!({})).await;
    client
        .send(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"ping"}]"#)
        .await;
    let mut ids = [client.message().await["id"].clone(), client.message().await["id"].clone()];
    ids.sort_by_key(|id| id.as_u64());
    assert_eq!(ids, [json!(1), json!(2)]);
    client.finish().await;
    served.stop().await;
}

#[tokio::test]
async fn a_call_in_flight_at_the_end_of_stdin_is_answered() {
    let builder = everything();
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call(1, "x_near_sleep", json!({"ms": 2500})).await;
    until_sleeping(&mut client, 1).await;
    let ended = client.finish().await;
    let answer: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(answer["result"]["structuredContent"], json!({"slept": 2500}));
    assert_nothing_left(builder.tag(), &ended);
}

#[rstest]
#[case::at_the_end_of_stdin(None)]
#[case::at_sigterm(Some(Signal::TERM))]
#[case::at_sigint(Some(Signal::INT))]
#[tokio::test]
async fn a_call_that_takes_longer_than_the_drain_time_gets_an_error(#[case] signal: Option<Signal>) {
    let builder = everything().config("drain: 200ms\n");
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call(1, "x_near_sleep", json!({"ms": FOREVER})).await;
    until_sleeping(&mut client, 1).await;
    match signal {
        Some(signal) => client.signal(signal),
        None => client.close_stdin(),
    }
    let error = client.answer(1).await;
    assert_eq!(error["error"]["code"], -32000, "{error}");
    let ended = client.wait().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(0), ""), "{}", ended.stderr);
    assert_nothing_left(builder.tag(), &ended);
}

#[tokio::test]
async fn sigterm_cuts_the_wait_at_the_end_of_stdin_and_a_second_one_ends_at_once() {
    let builder = everything().config("drain: 1h\n");
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call(1, "x_near_sleep", json!({"ms": FOREVER})).await;
    until_sleeping(&mut client, 1).await;
    client.signal(Signal::TERM);
    // Ended by the first of two that come together, or by the second.
    client.signal(Signal::INT);
    let ended = client.wait().await;
    assert!(matches!(ended.status.code(), Some(0 | 130)), "{:?} {}", ended.status, ended.stderr);
    leaks::none(builder.tag()).await;
}

#[tokio::test]
async fn it_ends_when_nobody_reads_stdout() {
    let builder = everything();
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call(1, "x_near_sleep", json!({"ms": FOREVER})).await;
    until_sleeping(&mut client, 1).await;
    // Nothing is written, and stdin stays open.
    client.close_stdout();
    let ended = client.wait().await;
    assert_eq!((ended.status.code(), ended.stderr.as_str()), (Some(0), ""));
    assert_nothing_left(builder.tag(), &ended);
}

#[tokio::test]
async fn an_instance_that_is_killed_is_told_to_the_client_and_on_stderr() {
    let builder = everything();
    let served = Served::start(&builder).await;
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call("a", "x_near_sleep", json!({"ms": FOREVER})).await;
    until_sleeping(&mut client, 1).await;
    kill_process(served.pid, Signal::KILL).unwrap();
    let error = client.answer("a").await;
    assert_eq!(error["error"]["code"], -32000, "{error}");
    let ended = client.wait().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(1), ""), "{}", ended.stderr);
    let expected = format!("error: the instance (process {}) has ended\n", served.pid.as_raw_nonzero());
    assert!(ended.stderr.starts_with(&expected), "{}", ended.stderr);
    served.process.wait().await;
    leaks::none(builder.tag()).await;
}

#[tokio::test]
async fn an_instance_that_stops_answers_before_it_goes() {
    let builder = everything();
    let served = Served::start(&builder).await;
    let mut client = StdioClient::connect(&builder, &[]).await;
    client.call(1, "x_near_sleep", json!({"ms": 2500})).await;
    until_sleeping(&mut client, 1).await;
    served.process.signal(Signal::TERM);
    let answer = client.answer(1).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"slept": 2500}));
    let ended = client.wait().await;
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    served.process.wait().await;
}

#[tokio::test]
async fn nothing_outlives_a_kill() {
    let builder = everything();
    let client = StdioClient::connect(&builder, &[]).await;
    client.signal(Signal::KILL);
    client.wait().await;
    leaks::none(builder.tag()).await;
}

#[tokio::test]
async fn a_client_that_does_not_read_costs_bounded_memory() {
    const SIZE: usize = 256 << 10;
    const CALLS: u64 = 200;
    let builder =
        Sidegate::builder().definition("rude", &example("rude_server", &["huge", &SIZE.to_string()]));
    let served = Served::start(&builder).await;
    let mut client = StdioClient::connect(&builder, &[]).await;
    let at_first = resident(client.pid());
    for id in 0..CALLS {
        client.call(id, "x_rude_poke", json!({})).await;
    }
    // It has come to rest when the processor time does not grow any more.
    let mut before = None;
    eventually("rest", async || {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        let now = Some(processor_time(client.pid()));
        (std::mem::replace(&mut before, now) == now).then_some(())
    })
    .await;
    let held = resident(client.pid()) - at_first;
    assert!(held < 24 << 20, "{held} bytes are held of {CALLS} answers of {SIZE}");
    for _ in 0..CALLS {
        let answer = client.message().await;
        assert_eq!(text(&answer).len(), SIZE);
    }
    client.finish().await;
    served.stop().await;
}

/// Bytes of memory that a process has in use.
fn resident(process: Pid) -> u64 {
    let status = fs_err::read_to_string(proc(process, "status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

/// Clock ticks that a process has used.
fn processor_time(process: Pid) -> u64 {
    let stat = fs_err::read_to_string(proc(process, "stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

fn proc(process: Pid, name: &str) -> PathBuf {
    Path::new("/proc").join(process.as_raw_nonzero().to_string()).join(name)
}
