//! A gateway that somebody else looks after: it is called, and nothing is started, written or ended for it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use http::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::net::TcpSocket;

use super::support::definitions::{built_in, example, remote, spec, with};
use super::support::forwarder::Forwarder;
use super::support::mcp_client::{Http, RawResponse};
use super::support::{McpClient, Sidegate, Upstream, eventually, leaks};

async fn sidegate(arguments: &[&str], runtime_dir: &Path) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.args(arguments).arg("--runtime-dir").arg(runtime_dir).env_clear();
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn count(names: &[String], prefix: &str) -> usize {
    names.iter().filter(|name| name.starts_with(prefix)).count()
}

#[rstest]
#[tokio::test]
async fn calls_go_to_a_gateway_that_runs_elsewhere(#[values(false, true)] marks: bool) {
    let (gateway, far) = (Forwarder::default(), Upstream::everything(&[]).await);
    gateway.mark(marks);
    gateway.route("/team/x/mcp/far", &far);
    let url = format!("http://{}/team/x//", gateway.listen().await);
    let headers = with(remote("http://nobody.test/mcp"), "headers: {X-Team: core}");
    let instance = Sidegate::builder()
        .external_gateway(&url)
        .definition("far", &headers)
        .definition("near", &built_in())
        .definition("old", &spec("{type: sse, url: 'http://nobody.test/sse'}"))
        .wait_for_servers()
        .start()
        .await;
    let ready = &instance.ready.gateway;
    let (ports, none) = (ready.ports, (None, None, None, None));
    assert_eq!((ready.mode.as_str(), &ready.version, ready.pid), ("external", &None, None));
    assert_eq!((ports.data, ports.admin, ports.stats, ports.readiness), none);

    let client = McpClient::connect(instance.url()).await;
    assert_eq!(client.tool_names().await.len(), 24);
    let answer = client.call("x_far_echo", json!({"payload": "there and back"})).await;
    assert!(answer.raw().contains("there and back"), "{answer:?}");
    for seen in gateway.seen() {
        assert_eq!(seen.uri, "/team/x/mcp/far", "{seen:?}");
        assert_eq!(seen.headers["x-team"], "core");
        assert!(!seen.headers.contains_key("x-sidegate-key"), "{seen:?}");
    }

    // Nothing runs besides it, and there is no file for a gateway.
    let processes = leaks::processes(&instance.tag);
    assert!(
        processes
            .iter()
            .all(|one| one.id().unwrap().as_raw_nonzero().get().cast_unsigned() == instance.ready.pid),
        "{processes:?}"
    );
    let files: Vec<String> = fs_err::read_dir(&instance.ready.runtime_dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!files.iter().any(|name| name.starts_with("gateway") || name.ends_with(".yaml")), "{files:?}");

    let http = Http::new(&instance.url().replace("/mcp", "/readyz"));
    assert_eq!(http.send(Method::GET, "", &[]).await.status(), StatusCode::OK);
    let (code, stdout, _) = sidegate(&["status", "--output", "json"], &instance.ready.runtime_dir).await;
    assert_eq!(code, Some(0));
    let status: Value = serde_json::from_str(&stdout).unwrap();
    let expected = json!({
        "mode": "external", "reason": format!("at {url}"), "pid": 0, "restarts": 0, "swaps": 0,
    });
    assert_eq!(status["gateway"], expected);
    let why = "needs a gateway on this machine, and this instance uses one elsewhere (upstreamUrl)";
    for (server, what) in [(1, "a stdio server"), (2, "spec.type: sse without spec.route: mcp")] {
        let server = &status["servers"][server];
        assert_eq!(
            (&server["state"], &server["reason"]),
            (&json!("unsupported"), &json!(format!("{what} {why}")))
        );
    }
    let (_, text, _) = sidegate(&["status"], &instance.ready.runtime_dir).await;
    assert!(text.contains(&format!("external, at {url}\n")), "{text}");
    assert!(!text.contains("Generation") && !text.contains("Ports"), "{text}");

    let (code, _, stderr) = sidegate(&["gateway", "restart"], &instance.ready.runtime_dir).await;
    let refused = "error: the gateway runs elsewhere (upstreamUrl): whoever looks after it can restart it\n";
    assert_eq!((code, stderr.as_str()), (Some(1), refused));
    client.call("x_far_pid", json!({})).await.result();
    assert!(instance.stop().await.status.success());
    // The session was closed.
    let last = gateway.seen().pop().unwrap();
    assert_eq!(last.method, Method::DELETE);
}

#[tokio::test]
async fn definitions_come_change_and_go() {
    let (gateway, far) = (Forwarder::default(), Upstream::everything(&[]).await);
    let definition = remote("http://nobody.test/mcp");
    let url = format!("http://{}", gateway.listen().await);
    let instance = Sidegate::builder().external_gateway(&url).start().await;
    let client = McpClient::connect(instance.url()).await;
    let mut stream = client.listen().await;

    // The definition is there before the route is.
    instance.write_definition("late", &definition);
    eventually("a try", async || gateway.seen().pop()).await;
    gateway.route("/mcp/late", &far);
    stream.expect("notifications/tools/list_changed").await;
    assert_eq!(count(&client.tool_names().await, "x_late_"), 24);

    instance.write_definition("late", &with(definition.clone(), "toolPrefix: renamed"));
    stream.expect("notifications/tools/list_changed").await;
    assert_eq!(count(&client.tool_names().await, "x_renamed_"), 24);

    instance.remove_definition("late");
    stream.expect("notifications/tools/list_changed").await;
    assert_eq!(client.tool_names().await, Vec::<String>::new());
    assert!(client.delete().await.is_success());
    while let Some(message) = stream.next_message().await {
        let method = message.envelope().method;
        assert_ne!(method.as_deref(), Some("notifications/tools/list_changed"), "a change was told twice");
    }
}

#[rstest]
#[tokio::test]
async fn a_session_that_the_server_has_forgotten_is_opened_again(#[values(false, true)] marks: bool) {
    let (gateway, far) = (Forwarder::default(), Upstream::everything(&[]).await);
    gateway.mark(marks);
    gateway.route("/mcp/far", &far);
    let url = format!("http://{}", gateway.listen().await);
    let builder =
        Sidegate::builder().external_gateway(&url).definition("far", &remote("http://nobody.test/mcp"));
    let instance = builder.wait_for_servers().start().await;
    let client = McpClient::connect(instance.url()).await;
    let before = client.call("x_far_pid", json!({})).await.text();

    let other = Upstream::everything(&[]).await;
    gateway.route("/mcp/far", &other);
    far.kill().await;
    let after = client.call("x_far_pid", json!({})).await.text();
    assert_ne!(after, before);
}

#[tokio::test]
async fn a_gateway_that_is_not_there_yet_is_waited_for() {
    let far = Upstream::everything(&[]).await;
    let socket = || {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket
    };
    // Nobody else gets the port, and nobody listens.
    let held = socket();
    held.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = held.local_addr().unwrap();
    let instance = Sidegate::builder()
        .external_gateway(&format!("http://{address}"))
        .definition("far", &remote("http://nobody.test/mcp"))
        .start()
        .await;
    let http = Http::new(&instance.url().replace("/mcp", "/readyz"));
    let ready = RawResponse::read(http.send(Method::GET, "", &[]).await).await;
    assert_eq!(
        (ready.status, ready.text()),
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\nfar: connecting\n")
    );

    let gateway = Forwarder::default();
    gateway.route("/mcp/far", &far);
    let listening = socket();
    listening.bind(address).unwrap();
    gateway.accept(listening.listen(16).unwrap(), None);
    let client = McpClient::connect(instance.url()).await;
    eventually("the tools", async || (client.tool_names().await.len() == 24).then_some(())).await;
    assert_eq!(http.send(Method::GET, "", &[]).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_route_that_never_comes_is_said() {
    let gateway = Forwarder::default();
    let url = format!("http://{}", gateway.listen().await);
    let instance = Sidegate::builder()
        .external_gateway(&url)
        .definition("far", &with(remote("http://nobody.test/mcp"), "timeout: 1"))
        .wait_for_servers()
        .start()
        .await;
    instance.wait_for_stderr("HTTP 404 Not Found: route not found; next try in").await;
}

#[tokio::test]
async fn a_gateway_behind_tls_is_verified() {
    let (gateway, far) = (Forwarder::default(), Upstream::everything(&[]).await);
    gateway.route("/mcp/far", &far);
    let directory = tempfile::tempdir().unwrap();
    let (address, trusted) = gateway.listen_with_tls("127.0.0.1", directory.path()).await;
    let builder =
        || Sidegate::builder().external_gateway(&format!("https://{address}")).env("SSL_CERT_FILE", &trusted);
    let far = remote("http://nobody.test/mcp");
    let instance = builder().definition("far", &far).wait_for_servers().start().await;
    let client = McpClient::connect(instance.url()).await;
    client.call("x_far_pid", json!({})).await.result();
    assert!(instance.stop().await.status.success());

    let stranger = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    fs_err::write(&trusted, stranger.cert.pem()).unwrap();
    // It is tried until the time is over.
    let never = with(far, "timeout: 1");
    let instance = builder().definition("far", &never).wait_for_servers().start().await;
    instance.wait_for_stderr("cannot connect: invalid peer certificate").await;

    fs_err::write(&trusted, "").unwrap();
    let ended = builder().run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(4), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot be trusted"), "{}", ended.stderr);
    assert_eq!(ended.files_left(), Vec::<PathBuf>::new());
}

#[rstest]
#[case(
    "SIDEGATE_UPSTREAM_URL",
    "",
    "SIDEGATE_UPSTREAM_URL: empty, and no URL; write a URL, or do not set it"
)]
#[case("SIDEGATE_UPSTREAM_URL", "gateway.test", "SIDEGATE_UPSTREAM_URL: not a URL: ")]
#[tokio::test]
async fn a_variable_that_is_no_url_is_an_error(#[case] name: &str, #[case] value: &str, #[case] why: &str) {
    let ended =
        Sidegate::builder().env(name, value).definition("near", &example("everything", &[])).run().await;
    assert_eq!((ended.status.code(), ended.stdout.as_str()), (Some(2), ""), "{}", ended.stderr);
    assert!(ended.stderr.contains(why), "{}", ended.stderr);
}
