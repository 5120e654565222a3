use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use opentelemetry::KeyValue;
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue as KeyValueProto, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, number_data_point,
};
use prometheus_parse::{Sample, Scrape, Value};

use super::definitions::{ALL, CLIENT_DURATION, Kind, SERVER_DURATION};
use super::*;
use crate::mcpserver::ServerName;
use crate::telemetry::calls::{Begin, CallLog, CallObserver, Outcome, Subject, UpstreamFacts};

/// Knows every name that begins with `t`.
struct Named;

impl Offered for Named {
    fn is_offered(&self, _: Option<&ServerName>, subject: &Subject) -> bool {
        subject.as_str().starts_with('t')
    }
}

/// An instance that has one of everything.
struct Full;

impl Observe for Full {
    fn observe(&self) -> Observation {
        let process = |role| ProcessObservation { role, processes: 1, memory: 4096, descriptors: 3 };
        Observation {
            client_sessions: 2,
            calls_in_flight: 1,
            states: vec![("running", 1), ("failed", 0)],
            servers: vec![ServerObservation { name: "time".to_owned(), up: true, tools: 7, sessions: 1 }],
            gateway: GatewayObservation {
                mode: "embedded",
                version: Some("1".to_owned()),
                generation: Some("g.1".to_owned()),
                ready: Some(true),
                restarts: 3,
                swaps: 4,
            },
            processes: vec![process(ProcessRole::Gateway), process(ProcessRole::Server("time".to_owned()))],
            dropped: vec![("client_streams", 5)],
        }
    }
}

fn resource() -> Resource {
    Resource::builder_empty().with_attribute(KeyValue::new("service.name", "tested")).build()
}

struct Measured {
    metrics: Metrics,
    log: Arc<CallLog>,
}

impl Measured {
    fn new() -> Self {
        let metrics = Metrics::new(resource(), None, Arc::new(Named), Secrets::default()).unwrap();
        Self::of(metrics)
    }

    fn of(metrics: Metrics) -> Self {
        let log = CallLog::new(vec![Arc::clone(metrics.calls()) as Arc<dyn CallObserver>], false);
        Self { metrics, log }
    }

    /// A request that a server is asked.
    fn call(&self, method: &str, server: &str, subject: Option<Subject>, outcome: Outcome) {
        let call = self.log.begin(Begin {
            method,
            subject,
            request_id: "1",
            session: "s".into(),
            protocol_version: None,
            parent: None,
        });
        call.routed(&server.parse().unwrap());
        let route = server.to_owned();
        let facts = UpstreamFacts { route, protocol_version: None, address: String::new(), port: None };
        call.sent(&Arc::new(facts), None, 1);
        call.returned();
        call.ends(outcome, None);
    }

    fn tool(&self, server: &str, name: &str, outcome: Outcome) {
        self.call("tools/call", server, Some(Subject::Tool(name.into())), outcome);
    }

    fn scrape(&self) -> Scrape {
        let text = self.metrics.text().unwrap();
        Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).unwrap()
    }

    /// How many requests of clients were measured, by their labels.
    fn requests(&self) -> BTreeMap<String, f64> {
        let name = SERVER_DURATION.prometheus_name();
        let series = self.scrape().samples.into_iter().filter(|sample| sample.metric == name);
        series.map(|sample| (sample.labels.to_string(), measured(&sample))).collect()
    }
}

/// How many values a histogram has.
fn measured(sample: &Sample) -> f64 {
    let Value::Histogram(buckets) = &sample.value else { panic!("{sample:?}") };
    let last = buckets.last().unwrap();
    assert_eq!(last.less_than, f64::INFINITY);
    assert!(buckets.windows(2).all(|pair| pair[0].less_than < pair[1].less_than), "{buckets:?}");
    assert!(buckets.windows(2).all(|pair| pair[0].count <= pair[1].count), "{buckets:?}");
    last.count
}

#[test]
fn no_label_holds_a_secret() {
    let secrets = Secrets::default();
    let all = Measured::of(Metrics::new(resource(), None, Arc::new(Named), secrets.clone()).unwrap());
    secrets.learn(["tool-of-hunter22"]);
    all.tool("time", "the-tool-of-hunter22", Outcome::Ok);
    let requests = all.requests();
    let labels = requests.keys().next().unwrap();
    assert!(labels.contains("the-***") && !labels.contains("hunter22"), "{labels}");
}

#[test]
fn every_instrument_is_what_its_definition_says() {
    let all = Measured::new();
    all.metrics.watch(Arc::new(Full));
    all.tool("time", "t", Outcome::Ok);
    all.tool("time", "t", Outcome::Error { code: -32602 });
    all.call("prompts/get", "time", Some(Subject::Prompt("t".into())), Outcome::Ok);
    all.metrics.reloads().record(Duration::from_millis(7), true);
    let text = all.metrics.text().unwrap();
    let scrape = all.scrape();
    for definition in &ALL {
        let name = definition.prometheus_name();
        let kind = match definition.kind {
            Kind::Histogram => "histogram",
            Kind::Counter => "counter",
            Kind::UpDownCounter | Kind::Gauge => "gauge",
        };
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name} {kind} is not in\n{text}");
        assert!(text.contains(&format!("# HELP {name} {}\n", definition.description)), "{name}");
        let samples = scrape.samples.iter().filter(|sample| sample.metric == name);
        let labels: BTreeSet<String> = samples.flat_map(|sample| sample.labels.keys().cloned()).collect();
        let defined: BTreeSet<String> =
            definition.attributes.iter().map(|attribute| attribute.key.replace('.', "_")).collect();
        assert_eq!(labels, defined, "{name}");
    }
    let families = text.lines().filter(|line| line.starts_with("# TYPE")).count();
    assert_eq!(families, ALL.len() + 1, "all and target_info:\n{text}");
    for line in [
        r#"target_info{service_name="tested"} 1"#,
        r#"sidegate_servers{sidegate_server_state="failed"} 0"#,
        "sidegate_gateway_restarts_total 3",
        r#"sidegate_process_memory_bytes{sidegate_process_role="server",sidegate_server="time"} 4096"#,
        r#"sidegate_queue_dropped_total{sidegate_queue="client_streams"} 5"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn what_is_gone_is_not_shown_any_more() {
    /// A server the first time, none from then on.
    struct Leaving(std::sync::atomic::AtomicBool);
    impl Observe for Leaving {
        fn observe(&self) -> Observation {
            let gone = self.0.swap(true, std::sync::atomic::Ordering::Relaxed);
            if gone { Observation::default() } else { Full.observe() }
        }
    }
    let all = Measured::new();
    all.metrics.watch(Arc::new(Leaving(false.into())));
    assert!(all.metrics.text().unwrap().contains("sidegate_server_up{"));
    let text = all.metrics.text().unwrap();
    assert!(!text.contains("sidegate_server_up{") && !text.contains("g.1"), "{text}");
}

#[test]
fn calls_are_told_apart_by_how_they_end() {
    let all = Measured::new();
    for outcome in [Outcome::Ok, Outcome::Ok, Outcome::ToolError, Outcome::Timeout, Outcome::Cancelled] {
        all.tool("time", "t", outcome);
    }
    all.tool("time", "t", Outcome::Error { code: -32001 });
    let labels = |error: &str| {
        format!(r#"{error}gen_ai_tool_name="t",mcp_method_name="tools/call",sidegate_server="time""#)
    };
    let wanted = [
        (labels(""), 2.),
        (labels(r#"error_type="tool_error","#), 1.),
        (labels(r#"error_type="timeout","#), 1.),
        (labels(r#"error_type="cancelled","#), 1.),
        (
            r#"error_type="-32001",gen_ai_tool_name="t",mcp_method_name="tools/call",rpc_response_status_code="-32001",sidegate_server="time""#
                .to_owned(),
            1.,
        ),
    ];
    assert_eq!(all.requests(), BTreeMap::from(wanted));
    let name = CLIENT_DURATION.prometheus_name();
    let scrape = all.scrape();
    let asked: f64 = scrape.samples.iter().filter(|sample| sample.metric == name).map(measured).sum();
    assert_eq!(asked, 6.);
}

#[test]
fn what_strangers_choose_makes_few_series() {
    let all = Measured::new();
    let more = 50;
    let calls = MOST_NAMES + more;
    for number in 0..calls {
        // Names that there are, more than may be labels.
        all.tool("time", &format!("t{number}"), Outcome::Ok);
        // Names that there are not, methods that are none, codes that nobody knows, and any URIs.
        all.tool("time", &format!("no{number}"), Outcome::Error { code: -32602 });
        all.call(&format!("x/{number}"), "time", None, Outcome::Ok);
        all.tool("time", "t0", Outcome::Error { code: i64::try_from(number).unwrap() });
        let uri = Subject::Resource(format!("file:///{number}").into());
        all.call("resources/read", "time", Some(uri), Outcome::Ok);
    }
    let found = all.requests();
    assert_eq!(found.len(), MOST_NAMES + 5);
    assert_eq!(found.values().sum::<f64>(), 5. * calls as f64);
    let count =
        |labels: &str| found.iter().find(|(found, _)| found.as_str() == labels).map(|(_, count)| *count);
    let other = r#"gen_ai_tool_name="_OTHER",mcp_method_name="tools/call""#;
    assert_eq!(count(&format!(r#"{other},sidegate_server="time""#)), Some(more as f64));
    let unknown = r#"rpc_response_status_code="-32602",sidegate_server="time""#;
    assert_eq!(count(&format!(r#"error_type="-32602",{other},{unknown}"#)), Some(calls as f64));
    assert_eq!(count(r#"mcp_method_name="_OTHER",sidegate_server="time""#), Some(calls as f64));
    assert_eq!(count(r#"mcp_method_name="resources/read",sidegate_server="time""#), Some(calls as f64));
    let code = found.keys().find(|labels| labels.contains(r#"error_type="_OTHER""#));
    assert_eq!(code.and_then(|labels| count(labels)), Some(calls as f64), "{code:?}");
}

#[test]
fn a_name_may_hold_anything() {
    let all = Measured::new();
    all.tool("time", "t\"\\\n{},=é", Outcome::Ok);
    let text = all.metrics.text().unwrap();
    let series =
        r#"_count{gen_ai_tool_name="t\"\\\n{},=é",mcp_method_name="tools/call",sidegate_server="time"} 1"#;
    assert_eq!(text.lines().filter(|line| line.ends_with(series)).count(), 2, "{text}");
}

/// A collector that keeps what it gets.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportMetricsServiceRequest>>>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

impl Collector {
    /// Serves on a port of its own, and gives an exporter to it.
    async fn exporter(&self) -> opentelemetry_otlp::MetricExporter {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let service = MetricsServiceServer::new(self.clone());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        opentelemetry_otlp::MetricExporter::builder().with_tonic().with_endpoint(endpoint).build().unwrap()
    }

    /// What was pushed last, by Prometheus's name and labels.
    fn last(&self) -> BTreeMap<(String, String), f64> {
        let requests = self.0.lock().unwrap();
        let [resource] = &requests.last().unwrap().resource_metrics[..] else { panic!("{requests:?}") };
        let service = &resource.resource.as_ref().unwrap().attributes[0];
        assert_eq!((service.key.as_str(), text(service)), ("service.name", "tested".to_owned()));
        let metrics = resource.scope_metrics.iter().flat_map(|scope| &scope.metrics);
        metrics.flat_map(series).collect()
    }
}

fn text(attribute: &KeyValueProto) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        other => panic!("{other:?}"),
    }
}

/// The series of one metric.
fn series(metric: &Metric) -> Vec<((String, String), f64)> {
    let definition = ALL.iter().find(|definition| definition.name == metric.name).unwrap();
    assert_eq!(
        (metric.unit.as_str(), metric.description.as_str()),
        (definition.unit, definition.description)
    );
    let key = |attributes: &[KeyValueProto]| {
        let label = |attribute| format!(r#"{}="{}""#, attribute_key(attribute), text(attribute));
        let labels: BTreeSet<String> = attributes.iter().map(label).collect();
        (definition.prometheus_name(), Vec::from_iter(labels).join(","))
    };
    let number = |point: &NumberDataPoint| {
        let value = match point.value.unwrap() {
            number_data_point::Value::AsInt(value) => value as f64,
            number_data_point::Value::AsDouble(value) => value,
        };
        (key(&point.attributes), value)
    };
    match (metric.data.as_ref().unwrap(), definition.kind) {
        (Data::Gauge(gauge), Kind::Gauge) => gauge.data_points.iter().map(number).collect(),
        (Data::Sum(sum), Kind::Counter | Kind::UpDownCounter) => {
            assert_eq!(sum.is_monotonic, definition.kind == Kind::Counter, "{}", metric.name);
            sum.data_points.iter().map(number).collect()
        }
        (Data::Histogram(histogram), Kind::Histogram) => {
            let count = |point: &HistogramDataPoint| (key(&point.attributes), point.count as f64);
            histogram.data_points.iter().map(count).collect()
        }
        (data, kind) => panic!("{} is {kind:?}: {data:?}", metric.name),
    }
}

fn attribute_key(attribute: &KeyValueProto) -> String {
    attribute.key.replace('.', "_")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_gets_what_prometheus_gets() {
    let collector = Collector::default();
    let all = Measured::of(
        Metrics::new(resource(), Some(Temporality::Cumulative), Arc::new(Named), Secrets::default()).unwrap(),
    );
    all.metrics.watch(Arc::new(Full));
    all.metrics.push(collector.exporter().await, Duration::from_secs(3600));
    for outcome in [Outcome::Ok, Outcome::Ok, Outcome::ToolError, Outcome::Error { code: -32602 }] {
        all.tool("time", "t", outcome);
    }
    all.metrics.reloads().record(Duration::from_millis(7), true);
    all.metrics.reloads().record(Duration::from_secs(7), false);
    // Long before the hour is over: at the end everything is pushed.
    assert!(all.metrics.shutdown(Duration::from_secs(20)).await);

    let names: BTreeSet<String> = ALL.iter().map(Definition::prometheus_name).collect();
    let scraped = all.scrape().samples.into_iter().filter(|sample| names.contains(&sample.metric));
    let scraped: BTreeMap<(String, String), f64> = scraped
        .map(|sample| {
            let value = match &sample.value {
                Value::Histogram(_) => measured(&sample),
                Value::Counter(value) | Value::Gauge(value) => *value,
                other => panic!("{other:?}"),
            };
            ((sample.metric.clone(), sample.labels.to_string()), value)
        })
        .collect();
    assert_eq!(collector.last(), scraped);
    assert!(scraped.len() > ALL.len(), "{scraped:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_collector_keeps_nobody_waiting() {
    // It takes connections, and never answers.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let exporter =
        opentelemetry_otlp::MetricExporter::builder().with_tonic().with_endpoint(endpoint).build().unwrap();
    let all = Measured::of(
        Metrics::new(resource(), Some(Temporality::Cumulative), Arc::new(Named), Secrets::default()).unwrap(),
    );
    all.metrics.push(exporter, Duration::from_millis(1));
    listener.accept().await.unwrap();
    all.tool("time", "t", Outcome::Ok);
    assert_eq!(all.requests().len(), 1);
    assert!(!all.metrics.shutdown(Duration::from_millis(50)).await);
}
