//! One trace from the client to the tool, and what becomes of it when the collector is not well.

use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use rstest::rstest;
use serde_json::json;
use tokio::net::TcpListener;

use super::support::collector::{Collector, Exporting, Otlp, attribute, text};
use super::support::definitions::{example, remote, with};
use super::support::optional::{Through, real_agentgateway};
use super::support::scripted::{Offered, Scripted};
use super::support::{McpClient, Sidegate};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CLIENT_SPAN: &str = "00f067aa0ba902b7";

fn traceparent() -> String {
    format!("00-{TRACE}-{CLIENT_SPAN}-01")
}

/// A server whose tool `plain` answers with what it got.
async fn scripted() -> Scripted {
    let tools = vec![json!({"name": "plain", "inputSchema": {"type": "object"}})];
    Scripted::start(Offered { tools, ..Offered::default() }).await
}

fn hex(bytes: &[u8]) -> String {
    hex::encode(bytes)
}

fn of_kind(spans: &[Span], kind: SpanKind) -> &Span {
    spans.iter().find(|span| span.kind == kind as i32).unwrap_or_else(|| panic!("no {kind:?} in {spans:#?}"))
}

fn attributes(span: &Span) -> impl Fn(&str) -> Option<String> {
    |key| attribute(&span.attributes, key)
}

#[rstest]
#[tokio::test]
async fn a_call_is_one_trace_from_the_client_to_the_server(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values(Otlp::Grpc, Otlp::Http)] otlp: Otlp,
) {
    let Some(builder) = through.builder() else { return };
    let (collector, far) = (Collector::start(otlp).await, scripted().await);
    let sidegate = builder
        .exporting_to(&collector)
        .definition("far", &remote(&far.url))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let params = json!({"name": "x_far_plain", "_meta": {"traceparent": traceparent(), "tracestate": "v=1"}});
    let result = client.request("tools/call", &params).await.value();

    let is_it = |span: &Span| hex(&span.trace_id) == TRACE;
    let spans = collector.spans_where(2, is_it).await;
    let (server, upstream) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
    assert_eq!(
        (hex(&server.parent_span_id), &server.name[..]),
        (CLIENT_SPAN.to_owned(), "tools/call x_far_plain")
    );
    assert_eq!(upstream.parent_span_id, server.span_id);
    // What the server would begin its own span below: nothing stands between that nobody exports.
    let expected = format!("00-{TRACE}-{}-01", hex(&upstream.span_id));
    assert_eq!(result["got"]["_meta"], json!({"traceparent": expected, "tracestate": "v=1"}));
    let headers = far.call_headers().pop().unwrap();
    assert_eq!(headers["traceparent"], expected);
    assert!(!headers.contains_key("x-sidegate-traceparent"), "{headers:?}");

    let of_server = attributes(server);
    assert_eq!(of_server("mcp.method.name").as_deref(), Some("tools/call"));
    assert_eq!(of_server("gen_ai.tool.name").as_deref(), Some("x_far_plain"));
    assert_eq!(of_server("gen_ai.operation.name").as_deref(), Some("execute_tool"));
    assert_eq!(of_server("mcp.protocol.version").as_deref(), Some("2025-11-25"));
    assert_eq!(of_server("jsonrpc.request.id").as_deref(), Some("1"));
    assert_eq!(of_server("sidegate.server").as_deref(), Some("far"));
    assert!(of_server("error.type").is_none());
    let session = of_server("mcp.session.id").unwrap();
    assert!(!client.session_id().unwrap().contains(&session), "it is hashed");
    let of_client = attributes(upstream);
    assert_eq!(of_client("sidegate.route").as_deref(), Some("far"));
    let generation = of_client("sidegate.generation").unwrap();
    assert!(generation.contains('.'), "{generation}");
    assert_eq!(of_client("server.address").as_deref(), Some("127.0.0.1"));

    // One that began nothing: a trace of its own, whose first span is ours.
    client.request("tools/call", json!({"name": "x_far_plain"})).await;
    let spans =
        collector.spans_where(2, |span| hex(&span.trace_id) != TRACE && span.name.contains("plain")).await;
    let (server, upstream) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
    assert!(server.parent_span_id.is_empty() && upstream.parent_span_id == server.span_id);
    assert_eq!(server.trace_id, upstream.trace_id);
    assert!(collector.authorizations().iter().all(|header| header == "Bearer collector-token-1"));
    assert!(!collector.authorizations().is_empty());

    // What went before: the start, with its parts.
    let start = collector.spans_where(1, |span| span.name == "sidegate.start").await.remove(0);
    for part in ["sidegate.gateway.resolve", "sidegate.definitions.read", "sidegate.gateway.start"] {
        let part = collector.spans_where(1, |span| span.name == part).await.remove(0);
        assert_eq!(part.parent_span_id, start.span_id, "{}", part.name);
    }
    assert!(collector.spans().iter().all(|(service, _)| service == "sidegate"));
    sidegate.write_definition("other", &remote(&far.url));
    let reload = collector.spans_where(1, |span| span.name == "sidegate.reload").await.remove(0);
    let proof = collector
        .spans_where(1, |span| span.name == "sidegate.reload.prove" && span.parent_span_id == reload.span_id)
        .await;
    assert!(attribute(&proof[0].attributes, "sidegate.generation").is_some());
}

#[tokio::test]
async fn connecting_a_server_is_a_span_within_what_brought_it_about() {
    let (collector, far) = (Collector::start(Otlp::Grpc).await, scripted().await);
    let sidegate = Sidegate::builder()
        .exporting_to(&collector)
        .definition("far", &remote(&far.url))
        .definition("gone", &remote("http://127.0.0.1:9/mcp"))
        .wait_for_servers()
        .start()
        .await;
    let connected = async |server: &str| {
        let of = |span: &Span| attributes(span)("sidegate.server").as_deref() == Some(server);
        collector.spans_where(1, |span| span.name == "sidegate.connect" && of(span)).await.remove(0)
    };
    let start = collector.spans_where(1, |span| span.name == "sidegate.start").await.remove(0);
    let (far_span, gone) = (connected("far").await, connected("gone").await);
    for span in [&far_span, &gone] {
        assert_eq!((&span.trace_id, &span.parent_span_id), (&start.trace_id, &start.span_id), "{span:#?}");
    }
    assert_eq!(attributes(&far_span)("sidegate.connect.outcome").as_deref(), Some("open"));
    assert_eq!(attributes(&gone)("sidegate.connect.outcome").as_deref(), Some("failed"));
    let status = gone.status.unwrap();
    assert_eq!(status.code(), StatusCode::Error);
    assert!(status.message.contains("cannot connect"), "{}", status.message);
    for part in ["sidegate.connect.initialize", "sidegate.connect.list"] {
        let is_it = |span: &Span| span.name == part && span.parent_span_id == far_span.span_id;
        collector.spans_where(1, is_it).await;
    }

    sidegate.write_definition("other", &remote(&far.url));
    let other = connected("other").await;
    let reload = collector.spans_where(1, |span| span.span_id == other.parent_span_id).await.remove(0);
    assert_eq!(reload.name, "sidegate.reload");
    assert_eq!(reload.trace_id, other.trace_id);
}

/// A new command needs no other configuration of the gateway: the reload before that was for somebody else.
#[tokio::test]
async fn connecting_without_a_reload_is_a_span_of_its_own() {
    let (collector, far) = (Collector::start(Otlp::Grpc).await, scripted().await);
    let near = example("everything", &[]);
    let builder = Sidegate::builder().exporting_to(&collector).definition("near", &near);
    let sidegate = builder.wait_for_servers().start().await;
    let start = collector.spans_where(1, |span| span.name == "sidegate.start").await.remove(0);
    let connect = async |server: &str| {
        let is_it = |span: &Span| {
            let of = attributes(span)("sidegate.server");
            span.name == "sidegate.connect"
                && of.as_deref() == Some(server)
                && span.parent_span_id != start.span_id
        };
        collector.spans_where(1, is_it).await.remove(0)
    };
    sidegate.write_definition("far", &remote(&far.url));
    let reload = connect("far").await.parent_span_id;
    assert!(!reload.is_empty());
    sidegate.write_definition("near", &with(near, "env: {NEW: value}"));
    let near = connect("near").await;
    assert_eq!(hex(&near.parent_span_id), "", "it was {}", hex(&reload));
}

#[rstest]
#[tokio::test]
async fn log_records_say_which_call_they_are_about(#[values("otlp", "none")] traces: &str) {
    let (collector, far) = (Collector::start(Otlp::Http).await, scripted().await);
    let sidegate = Sidegate::builder()
        .exporting_to(&collector)
        .env("OTEL_TRACES_EXPORTER", traces)
        .env("SIDEGATE_LOG", "info,sidegate=debug")
        .definition("far", &remote(&far.url))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let steps = json!([{"say": {"method": "notifications/progress", "params": {}}, "on": "own"}]);
    let meta = json!({"traceparent": traceparent()});
    let params = json!({"name": "x_far_act", "arguments": {"steps": steps}, "_meta": meta});
    client.request("tools/call", &params).await.result();

    let said = |record: &LogRecord| record.body.as_ref().map(text).unwrap_or_default();
    let within = collector.log_where(|record| said(record) == "progress that belongs to no call").await;
    let about = |record: &LogRecord| attribute(&record.attributes, "subject").as_deref() == Some("x_far_act");
    let line = collector.log_where(|record| said(record) == "call" && about(record)).await;
    assert_eq!((hex(&within.trace_id), hex(&line.trace_id)), (TRACE.to_owned(), TRACE.to_owned()));
    assert_eq!(within.span_id, line.span_id);
    if traces == "otlp" {
        let spans = collector.spans_where(2, |span| hex(&span.trace_id) == TRACE).await;
        assert_eq!(line.span_id, of_kind(&spans, SpanKind::Server).span_id);
    }
    // Recorded or not, as the spans are.
    assert_eq!(line.flags, u32::from(traces == "otlp"));
    let of_none = collector.log_where(|record| said(record) == "connected").await;
    assert!(of_none.trace_id.is_empty() && of_none.span_id.is_empty(), "{of_none:?}");
}

#[rstest]
#[tokio::test]
async fn a_child_gets_the_trace_in_the_message(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let collector = Collector::start(Otlp::Grpc).await;
    let sidegate = builder
        .exporting_to(&collector)
        .definition("near", &example("everything", &[]))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let pid = client.call("x_near_pid", json!({})).await.value()["structuredContent"]["pid"].to_string();
    let spans = collector.spans_where(2, |span| span.name == "tools/call x_near_pid").await;
    let (server, upstream) = (of_kind(&spans, SpanKind::Server), of_kind(&spans, SpanKind::Client));
    assert_eq!(upstream.parent_span_id, server.span_id);
    let of_client = attributes(upstream);
    assert_eq!(of_client("network.transport").as_deref(), Some("pipe"));
    assert_eq!(of_client("sidegate.child.pid"), Some(pid));
}

#[rstest]
#[tokio::test]
async fn spans_of_agentgateway_stand_between(#[values(Otlp::Grpc, Otlp::Http)] otlp: Otlp) {
    let Some(binary) = real_agentgateway() else { return };
    let (collector, far) = (Collector::start(otlp).await, scripted().await);
    let config = format!(
        "telemetry: {{endpoint: {:?}, protocol: {}, gatewaySpans: true}}\n",
        collector.endpoint, collector.protocol
    );
    let sidegate = Sidegate::builder()
        .agentgateway(&binary)
        .config(&config)
        .env("OTEL_BSP_SCHEDULE_DELAY", "20")
        .definition("far", &remote(&far.url))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let params = json!({"name": "x_far_plain", "_meta": {"traceparent": traceparent()}});
    client.request("tools/call", &params).await;

    let spans = collector.spans_where(3, |span| hex(&span.trace_id) == TRACE).await;
    let ours = of_kind(&spans, SpanKind::Client);
    let headers = far.call_headers().pop().unwrap();
    let seen = headers["traceparent"].to_str().unwrap().to_owned();
    assert!(!headers.contains_key("x-sidegate-traceparent"), "{headers:?}");
    // From the server's parent up to our span, every span is there.
    let mut id = seen.split('-').nth(2).unwrap().to_owned();
    let mut between = 0;
    while id != hex(&ours.span_id) {
        let span = spans.iter().find(|span| hex(&span.span_id) == id);
        let span = span.unwrap_or_else(|| panic!("{id} is missing in {spans:#?}"));
        id = hex(&span.parent_span_id);
        between += 1;
    }
    assert!(between >= 1, "{seen}");
}

#[tokio::test]
async fn without_a_collector_a_clients_context_is_passed_on_and_no_span_is_made_up() {
    let far = scripted().await;
    let sidegate = Sidegate::builder().definition("far", &remote(&far.url)).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let result = client.request("tools/call", json!({"name": "x_far_plain"})).await.value();
    assert_eq!(result["got"], json!({"name": "plain"}));
    assert!(!far.call_headers().pop().unwrap().contains_key("traceparent"));
    let meta = json!({"traceparent": traceparent()});
    let result = client.request("tools/call", json!({"name": "x_far_plain", "_meta": meta})).await.value();
    assert_eq!(result["got"]["_meta"], meta);
    assert_eq!(far.call_headers().pop().unwrap()["traceparent"], traceparent());
}

/// An instance with these variables, which exports, after a call of `x_far_plain`.
async fn after_a_call(collector: &Collector, variables: &[(&str, &str)]) -> Sidegate {
    let far = scripted().await;
    let builder = Sidegate::builder().exporting_to(collector).definition("far", &remote(&far.url));
    let builder = variables.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
    let sidegate = builder.wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_far_plain", json!({})).await.result();
    sidegate
}

#[tokio::test]
async fn a_sdk_that_is_disabled_exports_nothing() {
    let collector = Collector::start(Otlp::Grpc).await;
    let sidegate = after_a_call(&collector, &[("OTEL_SDK_DISABLED", "true")]).await;
    assert!(sidegate.stop().await.status.success());
    assert!(collector.spans().is_empty() && collector.logs().is_empty());
}

#[tokio::test]
async fn what_is_not_sent_yet_is_sent_at_the_end() {
    let collector = Collector::start(Otlp::Http).await;
    let delays = [("OTEL_BSP_SCHEDULE_DELAY", "600000"), ("OTEL_BLRP_SCHEDULE_DELAY", "600000")];
    let sidegate = after_a_call(&collector, &delays).await;
    assert!(collector.spans().is_empty());
    assert!(sidegate.stop().await.status.success());
    assert!(collector.spans().iter().any(|(_, span)| span.name == "tools/call x_far_plain"));
    assert!(!collector.logs().is_empty());
}

/// Calls work, and the end does not wait for what will not come.
async fn works_with_collector_at(endpoint: &str) -> String {
    let far = scripted().await;
    let sidegate = Sidegate::builder()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        .env("OTEL_BSP_SCHEDULE_DELAY", "10")
        .env("OTEL_BSP_MAX_QUEUE_SIZE", "4")
        .definition("far", &remote(&far.url))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    for _ in 0..50 {
        let answer = client.call("x_far_plain", json!({})).await.value();
        assert!(answer["got"].is_object(), "{answer}");
    }
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{:?}", ended.status);
    ended.stderr
}

#[tokio::test]
async fn a_dead_collector_costs_no_call_anything_and_is_said_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let stderr = works_with_collector_at(&endpoint).await;
    assert_eq!(stderr.matches("spans were not exported").count(), 1, "{stderr}");
    assert!(!stderr.contains("opentelemetry"), "{stderr}");
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nothing_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    // Connections are taken, and nothing is ever said.
    let stderr = works_with_collector_at(&endpoint).await;
    assert!(stderr.contains("not all that was to be exported could be sent in time"), "{stderr}");
    drop(listener);
}

#[tokio::test]
async fn planted_secrets_leave_by_no_way() {
    const SECRET: &str = "hunter2hunter2";
    const JWT: &str = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.planted-signature";
    let (collector, far) = (Collector::start(Otlp::Http).await, scripted().await);
    let builder = Sidegate::builder();
    let noisy = format!("echo 'API_TOKEN={SECRET} Bearer {SECRET} {JWT} https://h/?q={SECRET}' >&2; exit 1");
    let noisy = builder.script("noisy", &noisy);
    let definition = with(remote(&far.url), &format!("headers: {{X-Api-Key: {SECRET}}}"));
    let refused = remote(&format!("http://user:{SECRET}@127.0.0.1:9/?key={SECRET}"));
    let sidegate = builder
        .exporting_to(&collector)
        .env("SIDEGATE_LOG", "trace")
        .env("OTEL_EXPORTER_OTLP_HEADERS", format!("x-token={SECRET}"))
        .definition("far", &definition)
        .definition("noisy", &super::support::definitions::stdio(noisy.to_str().unwrap(), &[]))
        .definition("gone", &remote(&format!("http://127.0.0.1:9/?key={SECRET}")))
        .definition("refused", &refused)
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_far_plain", json!({"password": SECRET, "jwt": JWT})).await;
    client.request("resources/read", json!({"uri": format!("https://h/?token={SECRET}")})).await;
    let directory = sidegate.ready.runtime_dir.display().to_string();
    let asked = |command: &'static str| {
        let builder = Sidegate::builder();
        let directory = directory.clone();
        async move { builder.command(&[command, "--runtime-dir", &directory]).await }
    };
    let (status, doctor) = (asked("status").await, asked("doctor").await);
    let ended = sidegate.stop().await;
    let spans: Vec<String> = collector.spans().iter().map(|(_, span)| format!("{span:?}")).collect();
    let records: Vec<String> = collector
        .logs()
        .iter()
        .map(|record| {
            let attributes = record.attributes.iter().filter_map(|attribute| attribute.value.as_ref());
            record.body.iter().chain(attributes).map(text).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert!(!spans.is_empty() && !records.is_empty());
    assert!(records.iter().any(|record| record.contains("API_TOKEN=***")), "the child's line is there");
    for (what, shown) in [
        ("stderr", ended.stderr),
        ("spans", spans.join("\n")),
        ("log records", records.join("\n")),
        ("status", format!("{}{}", status.stdout, status.stderr)),
        ("doctor", format!("{}{}", doctor.stdout, doctor.stderr)),
    ] {
        for secret in [SECRET, JWT] {
            let line = shown.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{what}: {}", line.unwrap_or_default());
        }
    }
}
