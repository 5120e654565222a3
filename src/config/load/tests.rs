use url::Url;

use super::*;
use crate::config::Described;

const EVERYTHING: &str = "\
listen: '[::1]:0'
gateway: {mode: embedded, version: 1.3.1, binary: bin/agw, mirror: 'https://m/', ports: {data: 1, admin: 2, stats: 3, readiness: 4},
          frontendPolicies: {accessLog: {add: {token: hunter22, path: request.path}}}, logLevel: warn}
upstreamUrl: http://127.0.0.1:15000
aggregator: {prefix: y, exposure: meta, managementTools: full, tokenFile: token, allowedHosts: [a.example], allowedOrigins: ['https://a.example:8443'],
             maxSessions: 7, sessionIdle: 90m, maxBody: 1MiB}
telemetry: {endpoint: 'http://u:hunter22@otel:4317', protocol: http/protobuf, gatewaySpans: true, callIds: false}
redact: [ACCOUNT]
drain: 500ms
";

/// The block of documented defaults, which must be what no file at all means.
const DEFAULTS: &str = "\
listen: 127.0.0.1:8090
gateway: {mode: auto, version: 1.2.1, binary: \"\", mirror: \"\", ports: {data: 0, admin: 0, stats: 0, readiness: 0},
          frontendPolicies: {}, logLevel: info}
upstreamUrl: \"\"
aggregator: {prefix: x, exposure: direct, managementTools: read, tokenFile: \"\", allowedHosts: [], allowedOrigins: [],
             maxSessions: 1024, sessionIdle: 1h, maxBody: 4MiB}
telemetry: {endpoint: \"\", protocol: grpc, gatewaySpans: false, callIds: true}
redact: []
drain: 10s
";

fn load(file: &str, variables: &[(&str, &str)], overrides: &Overrides) -> Result<Settings, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("config.yaml"), file).unwrap();
    let mut environment = vec![("XDG_RUNTIME_DIR", "/run/user/1")];
    environment.extend(variables);
    let settings = Settings::load(dir.path(), &environment.into_iter().collect(), overrides);
    settings.map_err(|error| error.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

fn table(settings: &Settings) -> String {
    let hash = settings.runtime_dir.value.file_name().unwrap().to_string_lossy().into_owned();
    let line = |described: Described| {
        let place = match &described.origin {
            Origin::File { line, column, .. } => format!("config.yaml:{line}:{column}"),
            other => other.to_string(),
        };
        let value = match &described.origin {
            Origin::File { path, .. } => {
                described.value.replace(&path.parent().unwrap().display().to_string(), "<dir>")
            }
            _ => described.value.replace(&hash, "<hash>"),
        };
        format!("{} = {value} ({place})\n", described.key)
    };
    settings.describe().into_iter().map(line).collect()
}

#[test]
fn every_key_is_read() {
    let settings = load(EVERYTHING, &[], &Overrides::default()).unwrap();
    insta::assert_snapshot!(table(&settings));
    assert_eq!(settings.gateway_mode(), GatewayMode::External);
    assert!(settings.gateway.binary.value.as_ref().unwrap().is_absolute());
    for key in keys::ALL.iter().filter(|key| !keys::OUTSIDE_THE_FILE.contains(key)) {
        let described = settings.describe().into_iter().find(|line| line.key == key.path).unwrap();
        assert!(matches!(described.origin, Origin::File { .. }), "{described:?}");
    }
}

#[test]
fn nothing_means_the_documented_defaults() {
    let written = load(DEFAULTS, &[], &Overrides::default()).unwrap();
    let values = |settings: &Settings| -> Vec<_> {
        settings.describe().into_iter().filter(|d| d.key != "runtimeDir").map(|d| (d.key, d.value)).collect()
    };
    for file in ["", "# nothing\n", "{}", "gateway:\n", "listen: ~\n"] {
        let settings = load(file, &[], &Overrides::default()).unwrap();
        assert_eq!(values(&settings), values(&written));
        assert!(settings.describe().iter().all(|described| described.origin == Origin::Default));
    }
    let absent =
        Settings::load(Path::new("/nonexistent/sidegate"), &Environment::default(), &Overrides::default());
    assert_eq!(values(&absent.unwrap()), values(&written));
}

/// A text for each key that its type takes and that is not the default.
fn text_for(key: Key) -> &'static str {
    match key.path {
        "listen" => "127.0.0.1:1",
        "gateway.mode" => "embedded",
        "gateway.version" => "1.3.1",
        "gateway.ports.data" => "1",
        "gateway.ports.admin" => "2",
        "gateway.ports.stats" => "3",
        "gateway.ports.readiness" => "4",
        "gateway.frontendPolicies" => r#"{"a":1}"#,
        "gateway.logLevel" => "debug",
        "gateway.mirror" | "upstreamUrl" | "telemetry.endpoint" => "http://h/",
        "aggregator.exposure" => "meta",
        "aggregator.managementTools" => "off",
        "aggregator.maxSessions" => "9",
        "aggregator.sessionIdle" | "drain" => "9s",
        "aggregator.maxBody" => "9B",
        "aggregator.allowedOrigins" => "https://a",
        "telemetry.protocol" => "http/protobuf",
        "telemetry.gatewaySpans" => "true",
        "telemetry.callIds" => "false",
        "aggregator.allowedHosts" | "redact" => "y, z",
        "gateway.binary" | "aggregator.tokenFile" | "runtimeDir" | "helper" => "/a",
        _ => "a",
    }
}

#[test]
fn every_variable_goes_before_the_file() {
    let variables: Vec<_> = keys::ALL.iter().map(|key| (key.variable, text_for(*key))).collect();
    let settings = load(EVERYTHING, &variables, &Overrides::default()).unwrap();
    for described in settings.describe() {
        let key = keys::ALL.iter().find(|key| key.path == described.key).unwrap();
        assert_eq!(described.origin, Origin::Environment(key.variable));
        let text = text_for(*key);
        let list = format!("[{text}]");
        assert!([text, list.as_str()].contains(&described.value.as_str()), "{described:?}");
    }
}

#[test]
fn flags_go_before_variables() {
    let overrides = Overrides {
        listen: Some(([127, 0, 0, 1], 5).into()),
        gateway_mode: Some(GatewayMode::Agentgateway),
        gateway_version: Some("1.3.0".parse().unwrap()),
        gateway_binary: Some("/flag/agw".into()),
        gateway_mirror: Some(Url::parse("https://flag/").unwrap()),
        upstream_url: Some(Url::parse("http://flag/").unwrap()),
        runtime_dir: Some("/flag/run".into()),
        helper: Some("/flag/helper".into()),
        aggregator_prefix: Some("flag".parse().unwrap()),
        allowed_hosts: Some(vec!["flag.example".parse().unwrap()]),
        management_tools: Some(ManagementTools::Off),
        token_file: Some("/flag/token".into()),
        drain: Some(Duration::from_secs(5)),
    };
    let variables: Vec<_> = keys::ALL.iter().map(|key| (key.variable, text_for(*key))).collect();
    let settings = load(EVERYTHING, &variables, &overrides).unwrap();
    let flags: Vec<_> = settings
        .describe()
        .into_iter()
        .filter(|described| matches!(described.origin, Origin::Flag(_)))
        .map(|described| format!("{} = {} ({})", described.key, described.value, described.origin))
        .collect();
    insta::assert_snapshot!(flags.join("\n"));
}

#[test]
fn the_usual_address_is_known_where_another_counts() {
    let overrides = Overrides { listen: Some(([127, 0, 0, 1], 0).into()), ..Overrides::default() };
    for (file, usual) in [("", 8090), ("listen: 127.0.0.1:9000", 9000)] {
        let settings = load(file, &[], &overrides).unwrap();
        assert_eq!((settings.listen.value.port(), settings.usual_listen.port()), (0, usual));
    }
    let settings = load("", &[], &Overrides::default()).unwrap();
    assert_eq!(settings.listen.value, settings.usual_listen);
}

#[test]
fn relative_paths_are_those_of_the_current_directory() {
    let here = std::env::current_dir().unwrap();
    let of = |path: &str| Overrides { runtime_dir: Some(path.into()), ..Overrides::default() };
    let settings = load("", &[(keys::HELPER.variable, "bin/helper")], &of("run")).unwrap();
    assert_eq!(settings.runtime_dir.value, here.join("run"));
    assert_eq!(settings.helper.value, Some(here.join("bin/helper")));
    let error = load("", &[], &of("")).unwrap_err();
    assert!(error.starts_with("--runtime-dir: the path \"\" leads nowhere: "), "{error}");
}

#[test]
fn no_secret_is_described() {
    let settings = load(EVERYTHING, &[], &Overrides::default()).unwrap();
    assert!(!table(&settings).contains("hunter22"));
}

#[test]
fn mistakes_of_the_file() {
    let report: String = [
        "lisen: 127.0.0.1:1\ngateway:\n  mode: fast\n  port: {data: 1}\n  ports: {dta: 1, data: 70000}\n",
        "listen: 8090",
        "listen: ':8090'",
        "listen: 0.0.0.0:8090",
        "listen: '[::ffff:127.0.0.1]:1'\ndrain: 10",
        "gateway: {version: 1.2}",
        "gateway: {version: latest, binary: [], mirror: 'ftp://hunter22', frontendPolicies: [], logLevel: loud}",
        "gateway: {mode: external}",
        "gateway: {ports: {data: 9000, admin: 9000, stats: 9001}}",
        "gateway: embedded",
        "aggregator: {prefix: 1x, exposure: all, managementTools: on, maxSessions: 0, sessionIdle: 0s, maxBody: 0B}",
        "aggregator: {maxBody: 4 MB, sessionIdle: 1w, allowedHosts: ['a/b'], allowedOrigins: ['*', 'https://a/b'], tokenFile: 5}",
        "aggregator: {maxBody: -1, allowedHosts: a}",
        "telemetry: {endpoint: otel, protocol: http, gatewaySpans: 'yes'}",
        "redact: [1]\nredact: []",
        "runtimeDir: /tmp/x",
        "listen: [",
        "[]",
    ]
    .iter()
    .map(|file| match load(file, &[], &Overrides::default()) {
        Ok(_) => format!("{file}\nvalid\n\n"),
        Err(report) => format!("{file}\n{report}\n\n"),
    })
    .collect();
    assert!(!report.replace("mirror: 'ftp://hunter22'", "").contains("hunter22"));
    insta::assert_snapshot!(report);
}

#[test]
fn mistakes_of_all_layers_come_at_once() {
    let variables = [
        ("SIDEGATE_GATEWAY_MODE", "fast"),
        ("SIDEGATE_LISTEN", ""),
        ("SIDEGATE_DRAIN", "10"),
        ("SIDEGATE_AGGREGATOR_MAX_BODY", "0"),
        ("SIDEGATE_GATEWAY_PORTS_DATA", "x"),
        ("SIDEGATE_TELEMETRY_GATEWAY_SPANS", "1"),
        ("SIDEGATE_GATEWAY_FRONTEND_POLICIES", "[]"),
        ("SIDEGATE_UPSTREAM_URL", "https://hunter22@"),
    ];
    let overrides = Overrides { gateway_mode: Some(GatewayMode::External), ..Overrides::default() };
    let report = load("drain: soon\n", &variables, &overrides).unwrap_err();
    assert!(!report.contains("hunter22"));
    insta::assert_snapshot!(report);
}

#[test]
fn a_flag_can_need_a_token_too() {
    let overrides = Overrides { listen: Some(([0, 0, 0, 0], 1).into()), ..Overrides::default() };
    let report = load("", &[], &overrides).unwrap_err();
    assert!(report.starts_with("--listen: other machines can reach this address"), "{report}");
    assert!(load("aggregator: {tokenFile: t}", &[], &overrides).is_ok());
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("config.yaml")).unwrap();
    let error = Settings::load(dir.path(), &Environment::default(), &Overrides::default()).unwrap_err();
    assert!(error.to_string().ends_with("config.yaml: not a regular file; move it away"), "{error}");
}
