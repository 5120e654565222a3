use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::generation::SpawnNonce;
use super::super::key::KeyDigest;
use super::super::plan::*;
use super::*;

pub(crate) fn port(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).unwrap()
}

fn settings() -> GatewaySettings {
    GatewaySettings {
        ports: GatewayPorts {
            data: port(35080),
            admin: port(35000),
            stats: port(35020),
            readiness: port(35021),
        },
        ipv6: true,
        log_level: LogLevel::default(),
        spans: None,
        frontend_policies: Map::new(),
    }
}

pub(crate) fn plan_of(routes: impl IntoIterator<Item = (String, RoutePlan)>) -> Plan {
    Plan {
        settings: Arc::new(settings()),
        key: KeyDigest::of("example-key"),
        nonce: SpawnNonce::from_bytes([1, 2, 3, 4, 5, 6, 7, 8]),
        routes: routes
            .into_iter()
            .map(|(name, route)| (name.parse::<crate::mcpserver::ServerName>().unwrap().into(), route))
            .collect(),
    }
}

fn http(dial: Dial, path: &str, authority: &str) -> HttpBackend {
    HttpBackend {
        dial,
        path_and_query: path.parse().unwrap(),
        authority: authority.parse().unwrap(),
        tunnel: None,
    }
}

fn route(backend: RouteBackend) -> RoutePlan {
    RoutePlan { policies: Map::new(), backend }
}

fn mcp(target: McpTarget, tunnel: Option<DialHost>) -> RoutePlan {
    route(RouteBackend::Mcp { target, tunnel })
}

fn host(name: &str, number: u16) -> DialHost {
    DialHost::new(name, port(number)).unwrap()
}

pub(crate) fn route_to(name: &str) -> RoutePlan {
    route(RouteBackend::Http(http(Dial::Plain(host(name, 9000)), "/mcp", &format!("{name}:9000"))))
}

fn one(route: RoutePlan) -> Plan {
    plan_of([("a".to_owned(), route)])
}

fn with(change: impl FnOnce(&mut GatewaySettings)) -> Plan {
    let mut settings = settings();
    change(&mut settings);
    Plan { settings: Arc::new(settings), ..one(route_to("127.0.0.1")) }
}

fn policies(value: Value) -> RoutePlan {
    RoutePlan { policies: value.as_object().unwrap().clone(), ..route_to("127.0.0.1") }
}

/// Every kind of route and every option; the flag says whether the embedded gateway serves it too.
fn corpus() -> Vec<(&'static str, bool, Plan)> {
    let bridge = |dial| route(RouteBackend::Bridge(dial));
    let tls = http(Dial::Tls(host("mcp.example.com", 443)), "/mcp", "mcp.example.com");
    let stdio = McpTarget::Stdio {
        command: "/usr/local/bin/some-mcp-server".to_owned(),
        args: vec!["stdio".to_owned(), "--price=$5".to_owned()],
        env: [("PATH", "/usr/bin"), ("ON", "yes"), ("N", "010"), ("TEXT", "a: b\n'c' # \"d\"")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    };
    let url = |text: &str| text.parse().unwrap();
    vec![
        ("no-servers", true, plan_of([])),
        (
            "bridge-unix",
            true,
            one(bridge(BridgeDial::Unix("/run/user/1000/sidegate/ab12/bridge.sock".to_owned()))),
        ),
        ("bridge-loopback", true, one(bridge(BridgeDial::Loopback(port(35910))))),
        ("plain", true, one(route_to("127.0.0.1"))),
        (
            "plain-query-and-dollar",
            true,
            one(route(RouteBackend::Http(http(
                Dial::Plain(host("localhost", 9000)),
                "/$HOME/mcp?tenant=$a&n=1",
                "localhost:9000",
            )))),
        ),
        ("tls", true, one(route(RouteBackend::Http(tls.clone())))),
        (
            "tls-through-a-proxy",
            true,
            one(route(RouteBackend::Http(HttpBackend { tunnel: Some(host("127.0.0.1", 35901)), ..tls }))),
        ),
        ("mcp-stdio", false, one(mcp(stdio, None))),
        (
            "mcp-streamable-http",
            false,
            one(mcp(McpTarget::StreamableHttp(url("https://mcp.example.com/mcp")), None)),
        ),
        ("mcp-sse", false, one(mcp(McpTarget::Sse(url("http://127.0.0.1:9000/sse")), None))),
        (
            "mcp-through-a-proxy",
            false,
            one(mcp(
                McpTarget::StreamableHttp(url("https://mcp.example.com/mcp")),
                Some(host("127.0.0.1", 35901)),
            )),
        ),
        (
            "operator-policies",
            false,
            one(policies(json!({
                "localRateLimit": [{"maxTokens": 1000, "tokensPerFill": 1000, "fillInterval": "1s"}],
                "timeout": {"requestTimeout": "30s"},
                "authorization": {"rules": ["request.headers[\"x-team\"] == \"core\"", "true"]},
                "responseHeaderModifier": {"set": {"x-price": "$5"}},
                "transformations": {"request": {"set": {"x-path": "request.path"}}},
            }))),
        ),
        (
            "operator-headers",
            true,
            one(policies(json!({
                "requestHeaderModifier": {"set": {"x-a": "1"}, "add": {"x-b": "2"}, "remove": ["cookie"]},
                "responseHeaderModifier": {"remove": ["server"]},
            }))),
        ),
        (
            "no-ipv6-and-debug",
            true,
            with(|settings| {
                settings.ipv6 = false;
                settings.log_level = "info,hyper=debug".parse().unwrap();
            }),
        ),
        (
            "gateway-spans",
            false,
            with(|settings| {
                settings.spans =
                    Some(SpanExport { endpoint: url("http://127.0.0.1:4317"), protocol: OtlpProtocol::Grpc });
            }),
        ),
        (
            "frontend-policies",
            false,
            with(|settings| {
                settings.frontend_policies =
                    json!({"http": {"maxBufferSize": 2097152}}).as_object().unwrap().clone();
            }),
        ),
        (
            "three-servers",
            true,
            plan_of(
                ["wiki", "time", "cloud"].map(|name| (name.to_owned(), route_to(&format!("{name}.test")))),
            ),
        ),
    ]
}

fn schema() -> Option<jsonschema::Validator> {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../shared/agentgateway-1.2.1-config.schema.json"
    ));
    let Ok(text) = std::fs::read_to_string(&path) else {
        // A skipped check must be seen.
        #[expect(clippy::print_stderr, reason = "a test's own report")]
        {
            eprintln!(
                "SKIPPED: rendered files are not checked against agentgateway's schema; {} is not there",
                path.display()
            );
        }
        return None;
    };
    Some(jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap())
}

#[test]
fn every_kind_of_route_is_rendered_as_agentgateway_reads_it() {
    let schema = schema();
    for (name, embedded, plan) in corpus() {
        let rendered = plan.render().unwrap();
        insta::with_settings!({ snapshot_path => "../../../tests/golden", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, rendered.text);
        });
        // What agentgateway does with the text before it is YAML.
        let expanded = rendered.text.replace("$$", "$");
        let value: Value = serde_saphyr::from_str(&expanded).unwrap();
        if let Some(schema) = &schema {
            let errors: Vec<_> = schema
                .iter_errors(&value)
                .map(|error| format!("{}: {error}", error.instance_path()))
                .collect();
            assert!(errors.is_empty(), "{name}: {errors:#?}");
        }
        let verdict = crate::gateway::validate(&rendered.text);
        assert_eq!(verdict.is_ok(), embedded, "{name}: {:?}", verdict.err().map(|error| error.to_string()));
    }
}

#[test]
fn a_schema_violation_would_be_seen() {
    let Some(schema) = schema() else { return };
    let text = plan_of([]).render().unwrap().text.replace("directResponse", "directAnswer");
    assert!(!schema.is_valid(&serde_saphyr::from_str::<Value>(&text).unwrap()));
}

#[test]
fn the_generation_names_content_and_process() {
    let plan = one(route_to("127.0.0.1"));
    let first = plan.render().unwrap();
    assert!(first.text.contains(&format!("'{}'", first.generation)), "{}", first.text);
    assert!(first.generation.to_string().ends_with(".0102030405060708"));

    let respawned = Plan { nonce: SpawnNonce::from_bytes([9; 8]), ..plan.clone() }.render().unwrap();
    assert_eq!(respawned.generation.content, first.generation.content);
    assert_ne!(respawned.text, first.text);

    let changed = Plan { routes: one(route_to("127.0.0.2")).routes, ..plan }.render().unwrap();
    assert_ne!(changed.generation.content, first.generation.content);
}

#[test]
fn the_order_of_an_operators_policies_does_not_matter() {
    let one_way = one(policies(json!({"timeout": {"requestTimeout": "1s"}, "cors": {"allowOrigins": []}})));
    let other_way = one(policies(json!({"cors": {"allowOrigins": []}, "timeout": {"requestTimeout": "1s"}})));
    assert_eq!(one_way.render().unwrap(), other_way.render().unwrap());
}

#[test]
fn hosts_that_agentgateway_cannot_dial_have_no_value() {
    for text in ["", "::1", "[::1]", "bücher.example", "a b", "a/b", "u@h"] {
        assert!(DialHost::new(text, port(80)).is_err(), "{text:?}");
    }
}

#[test]
fn log_levels_cannot_reach_into_the_file() {
    for text in ["", "info\nx: y", "$HOME", "info'"] {
        assert!(text.parse::<LogLevel>().is_err(), "{text:?}");
    }
}

proptest::proptest! {
    /// Whatever an operator writes, the gateway reads it as written.
    #[test]
    fn no_text_changes_its_meaning(texts in proptest::collection::vec(".*", 3), name in "[a-zA-Z0-9_$ :#-]{1,8}") {
        let target = McpTarget::Stdio {
            command: texts[0].clone(),
            args: vec![texts[1].clone()],
            env: [(name.clone(), texts[2].clone())].into(),
        };
        let rendered = one(mcp(target, None)).render().unwrap();
        let value: Value = serde_saphyr::from_str(&rendered.text.replace("$$", "$")).unwrap();
        let stdio = &value["binds"][0]["listeners"][0]["routes"][1]["backends"][0]["mcp"]["targets"][0]["stdio"];
        proptest::prop_assert_eq!(
            stdio,
            &json!({ "cmd": texts[0], "args": [texts[1]], "env": { name: &texts[2] }, "clear_env": true })
        );
    }
}
