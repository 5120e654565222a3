//! What an instance says at `/metrics`, read as Prometheus does.

use http::{Method, StatusCode};
use prometheus_parse::{Sample, Scrape, Value};
use rstest::rstest;
use serde_json::{Value as Json, json};

use super::support::definitions::{built_in, example, remote, with};
use super::support::forwarder::Forwarder;
use super::support::mcp_client::{Http, RawResponse};
use super::support::optional::Through;
use super::support::sidegate::binary;
use super::support::{McpClient, Sidegate, Upstream, eventually, within};

const SERVED: &str = "mcp_server_operation_duration_seconds";
const ASKED: &str = "mcp_client_operation_duration_seconds";

async fn answer(sidegate: &Sidegate, headers: &[(&str, &str)]) -> RawResponse {
    let url = format!("{}/metrics", sidegate.url().strip_suffix("/mcp").unwrap());
    RawResponse::read(Http::new(&url).send(Method::GET, "", headers).await).await
}

/// Everything that an instance measures at one moment.
struct Scraped(Vec<Sample>);

impl Scraped {
    async fn of(sidegate: &Sidegate) -> Self {
        let answer = answer(sidegate, &[]).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4");
        let lines = answer.text().lines().map(|line| Ok(line.to_owned()));
        Self(Scrape::parse(lines).unwrap().samples)
    }

    /// The series of `name` that have exactly these labels; of histograms how many values they have.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.0.iter().filter(|sample| {
            let all = || labels.iter().all(|(key, value)| sample.labels.get(key) == Some(*value));
            sample.metric == name && sample.labels.len() == labels.len() && all()
        });
        let sample = found.next()?;
        assert!(found.next().is_none(), "{name} {labels:?} is there twice");
        Some(match &sample.value {
            Value::Histogram(buckets) => buckets.last().unwrap().count,
            Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => *value,
            Value::Summary(_) => panic!("{sample:?}"),
        })
    }

    /// The only series of `name`.
    fn only(&self, name: &str) -> &Sample {
        let series: Vec<&Sample> = self.0.iter().filter(|sample| sample.metric == name).collect();
        assert_eq!(series.len(), 1, "{series:?}");
        series[0]
    }

    fn in_state(&self, state: &str) -> Option<f64> {
        self.value("sidegate_servers", &[("sidegate_server_state", state)])
    }

    fn of_server(&self, name: &str, server: &str) -> Option<f64> {
        self.value(name, &[("sidegate_server", server)])
    }

    fn of_processes(&self, name: &str, server: &str) -> Option<f64> {
        self.value(name, &[("sidegate_process_role", "server"), ("sidegate_server", server)])
    }

    fn reloads(&self) -> f64 {
        let labels = [("sidegate_reload_result", "in_force")];
        self.value("sidegate_gateway_reload_duration_seconds", &labels).unwrap_or_default()
    }
}

/// The labels of calls of a tool.
fn call<'l>(server: &'l str, tool: &'l str) -> Vec<(&'l str, &'l str)> {
    vec![("mcp_method_name", "tools/call"), ("sidegate_server", server), ("gen_ai_tool_name", tool)]
}

/// The labels of calls that ended with a JSON-RPC error.
fn failed<'l>(labels: &[(&'l str, &'l str)], code: &'l str) -> Vec<(&'l str, &'l str)> {
    [labels, &[("error_type", code), ("rpc_response_status_code", code)]].concat()
}

#[rstest]
#[tokio::test]
async fn calls_are_counted_by_what_became_of_them(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let (builder, _far) = builder.with_near_and_far().await;
    let sidegate =
        builder.env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS", "read").wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    for _ in 0..3 {
        client.call("x_far_echo", json!({"payload": "p"})).await.result();
    }
    client.call("x_near_echo", json!({"payload": "p"})).await.result();
    assert_eq!(client.call("x_near_test_error_handling", json!({})).await.value()["isError"], true);
    client.call("core_service_list", json!({})).await.result();
    let get = json!({"name": "x_near_test_simple_prompt"});
    client.request("prompts/get", get).await.result();
    client.request("resources/read", json!({"uri": "test://static-text"})).await.result();
    // Nobody has these: the names must not be labels.
    for name in ["x_far_nothing", "x_nobody_echo"] {
        assert_eq!(client.call(name, json!({})).await.error()["code"], -32602);
    }
    client.request("no/such", json!({})).await.error();
    // A server alone is asked for what it may have, or not.
    let alone = McpClient::connect(&sidegate.server_url("far")).await;
    alone.call("echo", json!({"payload": "p"})).await.result();
    assert_eq!(alone.call("nothing", json!({})).await.error()["code"], -32602);

    let found = Scraped::of(&sidegate).await;
    for (name, own) in [(SERVED, false), (ASKED, true)] {
        assert_eq!(found.value(name, &call("far", "x_far_echo")), Some(3.), "{name}");
        assert_eq!(found.value(name, &call("near", "x_near_echo")), Some(1.), "{name}");
        assert_eq!(found.value(name, &call("far", "echo")), Some(1.), "{name}");
        let mut tool_error = call("near", "x_near_test_error_handling");
        tool_error.push(("error_type", "tool_error"));
        assert_eq!(found.value(name, &tool_error), Some(1.), "{name}");
        let prompt = [
            ("mcp_method_name", "prompts/get"),
            ("sidegate_server", "near"),
            ("gen_ai_prompt_name", "x_near_test_simple_prompt"),
        ];
        assert_eq!(found.value(name, &prompt), Some(1.), "{name}");
        assert_eq!(found.value(name, &failed(&call("far", "_OTHER"), "-32602")), Some(1.), "{name}");
        let without_server = [("mcp_method_name", "tools/call"), ("gen_ai_tool_name", "core_service_list")];
        assert_eq!(found.value(name, &without_server), (!own).then_some(1.), "{name}");
        let unknown = [("mcp_method_name", "tools/call"), ("gen_ai_tool_name", "_OTHER")];
        assert_eq!(found.value(name, &failed(&unknown, "-32602")), (!own).then_some(2.), "{name}");
        let method = [("mcp_method_name", "_OTHER")];
        assert_eq!(found.value(name, &failed(&method, "-32601")), (!own).then_some(1.), "{name}");
    }
    // Both servers have the resource; the first one by name gives it.
    let read = [("mcp_method_name", "resources/read"), ("sidegate_server", "far")];
    assert_eq!(found.value(SERVED, &read), Some(1.));
    let chosen =
        |text: &str| text.contains("nobody") || text.contains("no/such") || text.contains("static-text");
    let all = found.0.iter().flat_map(|sample| sample.labels.values());
    assert_eq!(all.filter(|value| chosen(value)).count(), 0);
}

#[tokio::test]
async fn sessions_and_calls_under_way_are_those_there_are() {
    let far = Upstream::everything(&[]).await;
    let sidegate = Sidegate::builder()
        .definition("far", &with(remote(&far.url), "isolation: session"))
        .wait_for_servers()
        .start()
        .await;
    let before = Scraped::of(&sidegate).await;
    assert_eq!(before.value("sidegate_client_sessions", &[]), Some(0.));
    assert_eq!(before.of_server("sidegate_server_sessions", "far"), Some(1.));

    let first = McpClient::connect(sidegate.url()).await;
    first.call("x_far_echo", json!({"payload": "p"})).await.result();
    let second = McpClient::connect(sidegate.url()).await;
    let sleep = json!({"name": "x_far_sleep", "arguments": {"ms": 600_000}});
    let (_, asking) = second.starting("tools/call", sleep);
    let under_way = eventually("the call to be under way", async || {
        let now = Scraped::of(&sidegate).await;
        let sessions = now.of_server("sidegate_server_sessions", "far") == Some(3.);
        (now.value("sidegate_calls_in_flight", &[]) == Some(1.) && sessions).then_some(now)
    });
    let now = tokio::select! {
        now = under_way => now,
        _ = asking => panic!("it takes ten minutes"),
    };
    assert_eq!(now.value("sidegate_client_sessions", &[]), Some(2.));
    assert!(second.delete().await.is_success());
    assert!(first.delete().await.is_success());
    eventually("nobody to be there", async || {
        let now = Scraped::of(&sidegate).await;
        let calls = now.value("sidegate_calls_in_flight", &[]) == Some(0.);
        let sessions = now.of_server("sidegate_server_sessions", "far") == Some(1.);
        (calls && sessions && now.value("sidegate_client_sessions", &[]) == Some(0.)).then_some(())
    })
    .await;
    let counted = eventually("the call to be counted", async || {
        let mut all = Scraped::of(&sidegate).await.0.into_iter();
        all.find(|sample| {
            sample.metric == SERVED && sample.labels.get("gen_ai_tool_name") == Some("x_far_sleep")
        })
    })
    .await;
    assert_eq!(counted.labels.get("error_type"), Some("cancelled"), "{counted:?}");
}

#[tokio::test]
async fn servers_are_shown_as_they_stand() {
    let sidegate = Sidegate::builder()
        .definition("near", &example("everything", &[]))
        .definition("built-in", &built_in())
        .definition("wrong", &remote("http://127.0.0.1:1/mcp"))
        .wait_for_servers()
        .start()
        .await;
    let now = Scraped::of(&sidegate).await;
    assert_eq!((now.in_state("running"), now.in_state("failed")), (Some(2.), Some(1.)));
    assert_eq!((now.in_state("stopped"), now.in_state("invalid")), (Some(0.), Some(0.)));
    let up = |now: &Scraped, server| now.of_server("sidegate_server_up", server);
    assert_eq!((up(&now, "near"), up(&now, "wrong")), (Some(1.), Some(0.)));
    assert_eq!(now.of_server("sidegate_server_tools", "near"), Some(24.));
    assert_eq!(now.of_processes("sidegate_processes", "near"), Some(1.));
    assert!(now.of_processes("sidegate_process_memory_bytes", "near").unwrap() > 1e6);
    assert!(now.of_processes("sidegate_process_descriptors", "near").unwrap() >= 3.);
    for role in ["sidegate", "gateway"] {
        let labels = [("sidegate_process_role", role)];
        assert_eq!(now.value("sidegate_processes", &labels), Some(1.), "{role}");
        assert!(now.value("sidegate_process_memory_bytes", &labels).unwrap() > 1e6, "{role}");
        assert!(now.value("sidegate_process_descriptors", &labels).unwrap() > 10., "{role}");
    }

    let mut stop = tokio::process::Command::new(binary());
    stop.args(["stop", "near", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir);
    assert!(within("stop", stop.output()).await.unwrap().status.success());
    let now = Scraped::of(&sidegate).await;
    assert_eq!((now.in_state("running"), now.in_state("stopped")), (Some(1.), Some(1.)));
    assert_eq!((up(&now, "near"), up(&now, "built-in")), (Some(0.), Some(1.)));
    assert_eq!(now.of_processes("sidegate_processes", "near"), None);

    sidegate.remove_definition("near");
    eventually("the server to be gone", async || {
        up(&Scraped::of(&sidegate).await, "near").is_none().then_some(())
    })
    .await;
}

#[rstest]
#[tokio::test]
async fn restarts_and_reloads_of_the_gateway_are_counted(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let sidegate = builder.definition("far", &remote(&far.url)).wait_for_servers().start().await;
    let before = Scraped::of(&sidegate).await;
    assert_eq!(before.value("sidegate_gateway_restarts_total", &[]), Some(0.));
    assert_eq!(before.value("sidegate_gateway_up", &[]), Some(1.));
    let reloads = before.reloads();

    sidegate.write_definition("other", &remote(&far.url));
    eventually("the change to be in force", async || {
        let now = Scraped::of(&sidegate).await;
        assert!(now.reloads() <= reloads + 1.);
        let up = now.of_server("sidegate_server_up", "other") == Some(1.);
        (now.reloads() == reloads + 1. && up).then_some(())
    })
    .await;
    let generation = |now: &Scraped| now.only("sidegate_gateway_info").labels["sidegate_generation"].clone();
    let reloaded = generation(&Scraped::of(&sidegate).await);
    assert_ne!(reloaded, generation(&before));
    assert_eq!(reloaded, status(&sidegate).await["gateway"]["generation"]);

    rustix::process::kill_process(sidegate.gateway_pid().unwrap(), rustix::process::Signal::KILL).unwrap();
    eventually("another gateway", async || {
        let now = Scraped::of(&sidegate).await;
        let restarted = now.value("sidegate_gateway_restarts_total", &[]) == Some(1.);
        (restarted && now.value("sidegate_gateway_up", &[]) == Some(1.)).then_some(())
    })
    .await;

    // A swap begins another process, and forgets nothing.
    let mut restart = tokio::process::Command::new(binary());
    restart.args(["gateway", "restart", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir);
    assert!(within("gateway restart", restart.output()).await.unwrap().status.success());
    let now = Scraped::of(&sidegate).await;
    assert_eq!(now.value("sidegate_gateway_restarts_total", &[]), Some(1.));
    assert_eq!(now.value("sidegate_gateway_swaps_total", &[]), Some(1.));
    assert_ne!(generation(&now), reloaded);
}

async fn status(sidegate: &Sidegate) -> Json {
    let mut status = tokio::process::Command::new(binary());
    status.args(["status", "--output", "json", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir);
    let output = within("status", status.output()).await.unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn a_gateway_elsewhere_has_no_process() {
    let (gateway, far) = (Forwarder::default(), Upstream::everything(&[]).await);
    gateway.route("/mcp/far", &far);
    let url = format!("http://{}", gateway.listen().await);
    let sidegate = Sidegate::builder()
        .external_gateway(&url)
        .definition("far", &remote("http://nobody.test/mcp"))
        .wait_for_servers()
        .start()
        .await;
    let now = Scraped::of(&sidegate).await;
    let info = now.only("sidegate_gateway_info");
    assert_eq!(info.labels.to_string(), r#"sidegate_gateway_mode="external""#);
    assert_eq!(now.value("sidegate_gateway_up", &[]), None);
    assert_eq!(now.value("sidegate_processes", &[("sidegate_process_role", "gateway")]), None);
    assert_eq!(now.of_server("sidegate_server_up", "far"), Some(1.));
}

#[tokio::test]
async fn only_who_may_call_may_read() {
    let sidegate = Sidegate::builder().config("aggregator: {tokenFile: token}\n").start().await;
    let token = fs_err::read_to_string(sidegate.ready.token_file.as_ref().unwrap()).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    for (headers, status) in [
        (vec![], StatusCode::UNAUTHORIZED),
        (vec![("authorization", "Bearer no")], StatusCode::UNAUTHORIZED),
        (vec![("authorization", bearer.as_str())], StatusCode::OK),
        (vec![("authorization", bearer.as_str()), ("host", "evil.test")], StatusCode::FORBIDDEN),
        (vec![("authorization", bearer.as_str()), ("origin", "http://evil.test")], StatusCode::FORBIDDEN),
    ] {
        let answer = answer(&sidegate, &headers).await;
        assert_eq!(answer.status, status, "{headers:?}: {answer:?}");
        assert_eq!(answer.text().contains("sidegate_build_info"), status == StatusCode::OK, "{headers:?}");
    }
}
