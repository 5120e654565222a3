//! What a relayed call costs in memory: allocations, and the bytes in them.
//!
//! The endpoint, the relay and the connection to the server run on the test's own thread, which is the one that is counted; the
//! server is a process of its own. A call comes in as an HTTP request and its answer is read to the end, so that the
//! count holds the HTTP client as well, and what measures calls for Prometheus and a collector, but neither a gateway nor a
//! listener. The limits are a little above what was
//! counted when they were written: whoever has to raise them knows by how much, and why.

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::sync::Arc;

    use allocation_counter::AllocationInfo;
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Request};
    use http_body_util::{BodyExt as _, Full};
    use opentelemetry_sdk::Resource;
    use opentelemetry_sdk::metrics::Temporality;
    use serde_json::{Value, json};
    use sidegate::aggregator::endpoint::Aggregate;
    use sidegate::aggregator::limits::Limits;
    use sidegate::aggregator::member::Member;
    use sidegate::aggregator::registry::Registry;
    use sidegate::aggregator::upstream::Dialer;
    use sidegate::telemetry::calls::{CallLog, CallObserver};
    use sidegate::telemetry::metrics::{Metrics, Offered};
    use sidegate::wire::client::{ClientConfig, Origin, Pool};
    use sidegate::wire::server::{SESSION_ID, ServerConfig, StreamableHttp};
    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;
    use url::Url;

    const CALLS: u64 = 50;

    /// A relay in this thread to a server in another process.
    struct Relay {
        http: Arc<StreamableHttp<Aggregate>>,
        session: HeaderValue,
        server: Child,
        metrics: Metrics,
    }

    impl Relay {
        async fn start() -> Self {
            let examples = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
            let mut server = Command::new(examples.join("everything"))
                .args(["--http", "127.0.0.1:0"])
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
            let listening: Value = serde_json::from_str(&line).unwrap();
            let url = Url::parse(listening["url"].as_str().unwrap()).unwrap();

            let (registry, tracker, stop) =
                (Registry::new("x"), TaskTracker::new(), CancellationToken::new());
            let link = registry.link("far".parse().unwrap(), Limits::default());
            let (_, origin) = watch::channel(Origin::new(url.authority().parse().unwrap(), HeaderMap::new()));
            let config = ClientConfig {
                origin,
                path: url.path().parse().unwrap(),
                headers: HeaderMap::new(),
                route_marker: None,
                local: None,
                max_message: 1 << 20,
                patience: ClientConfig::WITH_GATEWAY,
            };
            let dialer = Dialer { pool: Pool::new(), config, tracker: tracker.clone() };
            let upstream = link.connect(dialer, &CancellationToken::new()).await.unwrap();
            let offer = Arc::new(upstream.offer(link.limits()).await.unwrap());
            link.set(Some(upstream));
            registry.publish(Member { prefix: "far".to_owned(), link, offer, family: None }).await;
            let offered = Arc::clone(&registry) as Arc<dyn Offered>;
            let resource = Resource::builder_empty().build();
            let metrics =
                Metrics::new(resource, Some(Temporality::Cumulative), offered, Default::default()).unwrap();
            let observers = vec![Arc::clone(metrics.calls()) as Arc<dyn CallObserver>];
            let aggregate = Aggregate::new(registry, stop.clone())
                .with_calls(CallLog::new(observers, false))
                .with_call_ids(true);
            let http = StreamableHttp::new(aggregate, ServerConfig::default(), tracker, stop);

            let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}});
            let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
            let session = HeaderValue::from_static("none");
            let mut relay = Self { http, session, server, metrics };
            let (headers, _) = relay.post(initialize.to_string().into()).await;
            relay.session = headers[SESSION_ID].clone();
            relay.post(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#.into()).await;
            relay
        }

        async fn post(&self, body: Bytes) -> (HeaderMap, Bytes) {
            let request = Request::builder()
                .method("POST")
                .uri("/mcp")
                .header("host", "localhost")
                .header("content-type", "application/json")
                .header("accept", "application/json, text/event-stream");
            let mut request = request.body(Full::from(body)).unwrap();
            if self.session != "none" {
                request.headers_mut().insert(SESSION_ID, self.session.clone());
            }
            let (parts, body) = Arc::clone(&self.http).handle(request).await.into_parts();
            (parts.headers, body.collect().await.unwrap().to_bytes())
        }
    }

    impl Drop for Relay {
        fn drop(&mut self) {
            self.server.kill().unwrap();
            self.server.wait().unwrap();
        }
    }

    /// What one call of `echo` with an argument of `size` bytes costs, and the answer's length.
    fn measure(size: usize) -> (AllocationInfo, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let relay = runtime.block_on(Relay::start());
        let call = json!({
            "jsonrpc": "2.0",
            "id": "c-1",
            "method": "tools/call",
            "params": {"name": "x_far_echo", "arguments": {"text": "a".repeat(size)}},
        });
        let call = Bytes::from(call.to_string());
        let mut length = 0;
        let mut run = |calls| {
            for _ in 0..calls {
                let (_, answer) = runtime.block_on(relay.post(call.clone()));
                assert!(answer.len() > size, "{answer:?}");
                length = answer.len();
            }
        };
        // Connections and tables are there after the first ones.
        run(20);
        let mut info = allocation_counter::measure(|| run(CALLS));
        info.count_total /= CALLS;
        info.bytes_total /= CALLS;
        let measured = format!(
            r#"_count{{gen_ai_tool_name="x_far_echo",mcp_method_name="tools/call",sidegate_server="far"}} {}"#,
            20 + CALLS
        );
        let metrics = relay.metrics.text().unwrap();
        assert!(metrics.contains(&measured), "{measured} is not in\n{metrics}");
        runtime.block_on(async { drop(relay) });
        (info, length)
    }

    /// Counted: 72, four of which tell of the call: its record with two texts, and its id in the result.
    #[test]
    fn a_small_call_takes_few_allocations() {
        let (per_call, _) = measure(20);
        assert!(per_call.count_total <= 74, "{per_call:?}");
    }

    /// Counted: as many allocations as for a small call, and 2.6 bytes in them for each byte that is relayed: what is parsed
    /// is not copied into a tree.
    #[test]
    fn a_large_call_takes_hardly_more() {
        const SIZE: usize = 256 << 10;
        let (small, _) = measure(20);
        let (large, answer) = measure(SIZE);
        assert!(large.count_total <= small.count_total + 20, "{large:?} instead of {small:?}");
        // The server says what it got twice: as text, and structured.
        let relayed = u64::try_from(SIZE + answer).unwrap();
        let more = large.bytes_total - small.bytes_total;
        assert!(more <= relayed * 7 / 2, "{more} bytes for {relayed}");
    }
}
