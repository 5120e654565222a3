//! Secrets that are planted where servers and clients get them, and looked for wherever anything is shown.

use std::fmt::Write as _;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use rstest::rstest;
use serde_json::{Value, json};
use sidegate::wire::server::serve_connections;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::support::collector::{Collector, Exporting, Otlp, text};
use super::support::definitions::{remote, stdio, with};
use super::support::mcp_client::{Http, RawResponse};
use super::support::optional::Through;
use super::support::{McpClient, Sidegate, eventually};

/// None of them looks like a secret, and each is given in another way.
const SECRETS: [(&str, &str); 6] = [
    ("IN_HEADER", "planted in a header"),
    ("IN_ENV", r#"planted "in" an\env"#),
    ("IN_ARGUMENT", "planted,in,an,argument"),
    ("IN_URL", "planted-in-a-path"),
    ("INHERITED_SECRET", "planted for heirs"),
    ("OF_COLLECTOR", "planted-for-the-collector"),
];

/// The endpoint's token.
const TOKEN: &str = "planted.as.the.token";

/// A server that says everything that it is told: `refused` and `broken` say it in answers that are errors.
struct Indiscreet {
    url: String,
    _stop: DropGuard,
}

impl Indiscreet {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(serve_connections(listener, tell, stop.clone(), TaskTracker::new()));
        Self { url, _stop: stop.drop_guard() }
    }
}

async fn tell(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let told = request.headers().get("x-planted").map(|value| value.to_str().unwrap().to_owned());
    let told = format!("I was told {} at {}", told.unwrap_or_default(), request.uri().path());
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let failed = |told: String| {
        let mut response = Response::new(Full::from(told));
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        response
    };
    if path.contains("failing") {
        return failed(told);
    }
    let outcome = match message["method"].as_str() {
        Some("initialize") => {
            json!({"result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "resources": {}}, "serverInfo": {"name": "i", "version": "0"}}})
        }
        Some("tools/list") => {
            let tools =
                ["broken", "refused"].map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
            json!({"result": {"tools": tools}})
        }
        Some("resources/list") => json!({"result": {"resources": []}}),
        Some("resources/templates/list") => {
            json!({"result": {"resourceTemplates": [{"name": "t", "uriTemplate": "i://{+all}"}]}})
        }
        Some("resources/read") => json!({"result": {"contents": []}}),
        Some("tools/call") if message["params"]["name"] == "broken" => return failed(told),
        Some("tools/call") => json!({"error": {"code": -32001, "message": told}}),
        _ => {
            let mut response = Response::new(Full::default());
            let is_post = method == Method::POST;
            *response.status_mut() =
                if is_post { StatusCode::ACCEPTED } else { StatusCode::METHOD_NOT_ALLOWED };
            return response;
        }
    };
    let mut answer = json!({"jsonrpc": "2.0", "id": message["id"]});
    answer.as_object_mut().unwrap().extend(outcome.as_object().unwrap().clone());
    let mut response = Response::new(Full::from(answer.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    response
}

/// Says its secrets and ends, as one line in a message and one on its own.
const NOISY: &str = r#"printf '%s\n' "env is $VALUE, and I inherited $INHERITED_SECRET" "arguments are $*" >&2
exit 1"#;

/// Every text that somebody gets to see, with a name for it.
struct Seen(Vec<(String, String)>);

impl Seen {
    fn add(&mut self, what: impl Into<String>, text: impl Into<String>) {
        self.0.push((what.into(), text.into()));
    }

    /// No text holds one of the planted values, neither as it is nor as it would be quoted.
    fn assert_clean(&self) {
        let planted = SECRETS.map(|(_, value)| value).into_iter().chain([TOKEN]);
        let mut found = String::new();
        for value in planted {
            let json = serde_json::to_string(value).unwrap();
            let html = value.replace('"', "&quot;");
            for form in [value, json.trim_matches('"'), &html] {
                for (what, text) in &self.0 {
                    if let Some(line) = text.lines().find(|line| line.contains(form)) {
                        writeln!(found, "{what}: {line}").unwrap();
                    }
                }
            }
        }
        assert!(found.is_empty(), "{found}");
    }

    fn text_of(&self, what: &str) -> &str {
        &self.0.iter().find(|(name, _)| name == what).unwrap_or_else(|| panic!("no {what}")).1
    }
}

/// What commands say of a running instance, and the page.
async fn ask_around(sidegate: &Sidegate, calls: &[String], seen: &mut Seen) {
    let directory = sidegate.ready.runtime_dir.display().to_string();
    let config_dir = sidegate.config_dir().display().to_string();
    let run = async |arguments: &[&str]| {
        let mut builder = Sidegate::builder();
        for (name, value) in SECRETS {
            builder = builder.env(name, value);
        }
        let ended = builder.command(arguments).await;
        format!("{}{}", ended.stdout, ended.stderr)
    };
    for format in ["text", "json"] {
        let common = ["--runtime-dir", &directory, "--output", format];
        for command in ["status", "list"] {
            seen.add(format!("{command} {format}"), run(&[&[command], &common[..]].concat()).await);
        }
        for server in ["far", "failing", "noisy"] {
            let all = [&["get", server], &common[..], &["--config-dir", &config_dir]].concat();
            seen.add(format!("get {server} {format}"), run(&all).await);
        }
        let doctor = [&["doctor"], &common[..], &["--config-dir", &config_dir]].concat();
        seen.add(format!("doctor {format}"), run(&doctor).await);
        for call in calls {
            seen.add(format!("explain {format}"), run(&[&["explain", call], &common[..]].concat()).await);
        }
    }
    seen.add("logs", run(&["logs", "noisy", "--runtime-dir", &directory]).await);
    let origin = sidegate.url().strip_suffix("/mcp").unwrap();
    let pages = [
        "/ui",
        "/ui/servers/far",
        "/ui/servers/failing",
        "/ui/servers/noisy",
        "/ui/calls",
        "/ui/logs?of=noisy",
        "/ui/gateway",
    ];
    for path in pages.into_iter().chain(["/metrics", "/readyz"]) {
        let http = Http::new(&format!("{origin}{path}")).with_token(TOKEN);
        let page = RawResponse::read(http.send(Method::GET, "", &[("accept", "text/html")]).await).await;
        seen.add(path, page.text());
    }
    for entry in fs_err::read_dir(sidegate.ready.runtime_dir.join("logs")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        seen.add(format!("file {name}"), String::from_utf8_lossy(&fs_err::read(path).unwrap()));
    }
}

#[rstest]
#[tokio::test]
async fn a_planted_secret_is_shown_by_nobody(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values(("text", Otlp::Grpc), ("json", Otlp::Http))] (format, otlp): (&str, Otlp),
) {
    let Some(mut builder) = through.builder() else { return };
    let (collector, server) = (Collector::start(otlp).await, Indiscreet::start().await);
    for (name, value) in SECRETS {
        builder = builder.env(name, value);
    }
    let told = |path: &str| {
        with(remote(&format!("{}/{path}/${{IN_URL}}", server.url)), "headers: {X-Planted: \"${IN_HEADER}\"}")
    };
    let noisy = builder.script("noisy", NOISY);
    let noisy = with(stdio(noisy.to_str().unwrap(), &["${IN_ARGUMENT}"]), "env: {VALUE: \"${IN_ENV}\"}");
    fs_err::write(builder.config_dir().join("token"), TOKEN).unwrap();
    let token_file = builder.config_dir().join("token");
    let only_ours = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs_err::set_permissions(&token_file, only_ours).unwrap();
    let sidegate = builder
        .config("aggregator: {tokenFile: token}\n")
        .without_env("SIDEGATE_TELEMETRY_CALL_IDS")
        .exporting_to(&collector)
        .env("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization=Custom%20{}", SECRETS[5].1))
        .env("SIDEGATE_LOG", "info,sidegate=trace")
        .arg("--log-format")
        .arg(format)
        .definition("far", &told("well"))
        .definition("failing", &told("failing"))
        .definition("noisy", &with(noisy, "inheritEnv: [INHERITED_*]"))
        .wait_for_servers()
        .start()
        .await;

    let mut seen = Seen(Vec::new());
    let client = McpClient::with_token(sidegate.url(), TOKEN).await;
    let mut calls = Vec::new();
    // The server's own words are relayed, ours are not.
    let broken = client.call("x_far_broken", json!({})).await.error();
    assert!(broken["message"].as_str().unwrap().contains("I was told ***"), "{broken}");
    seen.add("our error", broken.to_string());
    let refused = client.call("x_far_refused", json!({})).await.error();
    assert!(refused["message"].as_str().unwrap().contains(SECRETS[0].1), "{refused}");
    for (number, (_, value)) in SECRETS.iter().copied().chain([("", TOKEN)]).enumerate() {
        let trace = format!("4bf92f3577b34da6a3ce929d0e0e47{number:02}");
        let meta = json!({"traceparent": format!("00-{trace}-00f067aa0ba902b7-01")});
        let params = json!({"uri": format!("i://{value}"), "_meta": meta});
        client.request("resources/read", &params).await.result();
        calls.push(trace);
    }
    ask_around(&sidegate, &calls, &mut seen).await;
    let about_calls =
        collector.spans_where(2 * calls.len(), |span| span.name == "resources/read").await.len();
    assert!(about_calls >= 2 * calls.len());
    eventually("a line about each call", async || {
        let logs = collector.logs();
        let about = logs.iter().filter(|record| format!("{record:?}").contains("resources/read"));
        (about.count() >= calls.len()).then_some(())
    })
    .await;
    let ended = sidegate.stop().await;
    seen.add("stderr", ended.stderr.clone());
    for (_, span) in collector.spans() {
        seen.add("span", format!("{} {:?} {:?}", span.name, span.status, span.attributes));
    }
    for record in collector.logs() {
        let attributes = record.attributes.iter().filter_map(|attribute| attribute.value.as_ref());
        let texts: Vec<String> = record.body.iter().chain(attributes).map(text).collect();
        seen.add("log record", texts.join("\n"));
    }
    seen.assert_clean();

    // They were there to be found.
    for (what, words) in [
        ("stderr", "env is ***, and I inherited ***"),
        ("stderr", "arguments are ***"),
        ("file noisy.log", "env is ***, and I inherited ***"),
        ("logs", "arguments are ***"),
        ("/ui/logs?of=noisy", "arguments are ***"),
        ("status text", "env is ***"),
        ("status json", "I was told ***"),
        ("doctor json", "I was told ***"),
        ("/ui", "I was told ***"),
        ("/ui/servers/failing", "I was told *** at /failing/***"),
        ("/ui/calls", "i://***"),
        ("explain text", "i://***"),
        ("explain json", "i://***"),
    ] {
        let text = seen.text_of(what);
        assert!(text.contains(words), "{what} without {words:?}:\n{text}");
    }
}

/// What stands in the file as it is, and says by its name what it is, is hidden too; a word that does not is left alone.
#[tokio::test]
async fn names_say_what_is_secret_and_short_values_are_left_alone() {
    let builder = Sidegate::builder();
    let noisy =
        builder.script("noisy", "echo \"$MY_PASSWORD, $MY_PIN, $MY_ACCOUNT, $MY_ZONE, $SHORT.\" >&2; exit 1");
    let env = "env: {MY_PASSWORD: correct horse, MY_PIN: 4711 0815, MY_ACCOUNT: account-of-me, MY_ZONE: somewhere, SHORT: \"${SHORT}\"}";
    let sidegate = builder
        .env("SHORT", "warning")
        .config("redact: ['*PIN*', 'ACCOUNT']\n")
        .definition("noisy", &with(stdio(noisy.to_str().unwrap(), &[]), env))
        .wait_for_servers()
        .start()
        .await;
    sidegate.wait_for_stderr("***, ***, ***, somewhere, warning.").await;
}

/// Names of headers, settings and servers are in many lines of a log, whatever they stand under; a header that a policy sets is
/// hidden as one of the server is.
#[tokio::test]
async fn ordinary_words_stay_and_headers_that_policies_set_go() {
    let collector = Collector::start(Otlp::Grpc).await;
    let builder = Sidegate::builder();
    let noisy = builder.script(
        "postgres",
        "echo \"content-type, Mcp-Session-Id, $UV_KEYRING_PROVIDER, $PGPASSWORD, sidegate, horse.battery.Staple.\" >&2; exit 1",
    );
    let policies = "policies: {cors: {allowHeaders: [content-type], exposeHeaders: [Mcp-Session-Id]}, \
                    requestHeaderModifier: {set: {Authorization: Custom horse.battery.Staple}}}";
    let postgres = with(stdio(noisy.to_str().unwrap(), &[]), "env: {PGPASSWORD: postgres}");
    let sidegate = builder
        .exporting_to(&collector)
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-honeycomb-dataset=sidegate")
        .env("UV_KEYRING_PROVIDER", "subprocess")
        .definition("postgres", &postgres)
        // The embedded gateway has no policies; what they hold is secret all the same.
        .definition("behind-policies", &with(stdio("true", &[]), policies))
        .wait_for_servers()
        .start()
        .await;
    sidegate.wait_for_stderr("content-type, Mcp-Session-Id, subprocess, postgres, sidegate, ***.").await;
    let directory = sidegate.config_dir().display().to_string();
    let got = Sidegate::builder().command(&["get", "behind-policies", "--config-dir", &directory]).await;
    assert!(got.stdout.contains("Authorization") && !got.stdout.contains("Staple"), "{got:?}");
}
