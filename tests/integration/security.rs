//! Who may talk to an instance, how much they may ask for, and what of them others get to see.

use std::os::unix::fs::MetadataExt as _;
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rstest::rstest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use super::support::definitions::{built_in, remote, with};
use super::support::mcp_client::{Http, RawResponse};
use super::support::optional::Through;
use super::support::{McpClient, Sidegate, within};

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"0"}}}"#;

/// A server over HTTP that keeps the headers of every request.
struct Recorder {
    url: String,
    seen: Arc<Mutex<Vec<(Method, HeaderMap)>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Recorder {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let keeping = Arc::clone(&seen);
        let serving = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&keeping);
                let service = service_fn(move |request: Request<Incoming>| {
                    let (method, headers) = (request.method().clone(), request.headers().clone());
                    seen.lock().unwrap().push((method, headers));
                    answer(request)
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, seen, _serving: AbortOnDropHandle::new(serving) }
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let is_post = request.method() == Method::POST;
    let body = request.into_body().collect().await?.to_bytes();
    let message: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match message["method"].as_str() {
        Some("initialize") => {
            json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "r", "version": "0"}})
        }
        Some("tools/list") => json!({"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}),
        Some("tools/call") => json!({"content": []}),
        _ => {
            let mut response = Response::new(Full::default());
            *response.status_mut() =
                if is_post { StatusCode::ACCEPTED } else { StatusCode::METHOD_NOT_ALLOWED };
            return Ok(response);
        }
    };
    let text = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
    let mut response = Response::new(Full::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    response.headers_mut().insert("mcp-session-id", "recorded".parse().unwrap());
    response.headers_mut().insert(header::SET_COOKIE, "track=server-secret".parse().unwrap());
    Ok(response)
}

#[rstest]
#[tokio::test]
async fn no_header_of_a_client_reaches_a_server(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
    #[values("127.0.0.1", "localhost")] host: &str,
    #[values("shared", "session")] isolation: &str,
) {
    let Some(builder) = through.builder() else { return };
    let recorder = Recorder::start().await;
    // The one is dialled by the gateway, the other by the bridge.
    let url = recorder.url.replace("127.0.0.1", host);
    let definition = with(remote(&url), "headers: {X-Team: core}");
    let definition = with(definition, &format!("isolation: {isolation}"));
    let sidegate = builder.definition("far", &definition).wait_for_servers().start().await;
    let http = Http::new(sidegate.url());
    let mut headers = vec![
        ("authorization", "Bearer client-secret"),
        ("proxy-authorization", "Basic client-secret"),
        ("cookie", "session=client-secret"),
        ("connection", "x-of-this-hop"),
        ("x-of-this-hop", "client-secret"),
        ("x-anything", "client-secret"),
        ("x-team", "client-secret"),
        ("x-sidegate-key", "client-secret"),
        ("forwarded", "for=client-secret"),
        ("x-forwarded-for", "client-secret"),
    ];
    let opened = RawResponse::read(http.post(INITIALIZE, &headers).await).await;
    let session = opened.headers["mcp-session-id"].to_str().unwrap().to_owned();
    assert_ne!(session, "recorded", "sessions of servers are not for clients");
    assert!(!opened.headers.contains_key("set-cookie"));
    headers.push(("mcp-session-id", &session));
    for _ in 0..2 {
        let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x_far_t"}}"#;
        let called = RawResponse::read(http.post(call, &headers).await).await;
        assert!(called.text().contains(r#""result":{"content":[]}"#), "{}", called.text());
        assert!(!called.headers.contains_key("set-cookie"));
    }
    sidegate.stop().await;

    let seen = recorder.seen.lock().unwrap();
    let posts = seen.iter().filter(|(method, _)| method == Method::POST).count();
    assert!(posts >= 5, "initialize, initialized, tools/list, and two calls: {posts}");
    for (method, headers) in &*seen {
        let team: Vec<_> = headers.get_all("x-team").iter().collect();
        assert_eq!(team, ["core"], "the definition's own headers do: {method}");
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            assert!(!value.contains("client-secret") && !value.contains("server-secret"), "{name}: {value}");
            let forbidden = ["authorization", "proxy-authorization", "cookie", "x-sidegate-key"];
            assert!(!forbidden.contains(&name.as_str()), "{name}: {value}");
            assert!(!value.contains(&session), "{name}: {value}");
        }
    }
}

/// Sends a request as it is written; gives the status.
async fn status_of(sidegate: &Sidegate, headers: &str) -> u16 {
    let uri: http::Uri = sidegate.url().parse().unwrap();
    let mut stream = TcpStream::connect(uri.authority().unwrap().as_str()).await.unwrap();
    let text = format!(
        "POST /mcp HTTP/1.1\r\n{headers}content-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{INITIALIZE}",
        INITIALIZE.len()
    );
    // One that is refused early need not take it all.
    let _ = stream.write_all(text.as_bytes()).await;
    let mut head = [0; 12];
    within("an answer", stream.read_exact(&mut head)).await.unwrap();
    std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
}

#[tokio::test]
async fn hosts_and_origins_are_checked_as_they_come_over_the_wire() {
    let sidegate = Sidegate::builder().start().await;
    for (headers, status) in [
        ("host: 127.0.0.1:8090\r\n", 200),
        ("host: localhost\r\n", 200),
        ("host: [::1]:8090\r\n", 200),
        ("host: [::1]\r\norigin: http://localhost:3000\r\n", 200),
        ("host: localhost\r\norigin: http://[::1]:3000\r\n", 200),
        ("host: localhost\r\norigin: null\r\n", 403),
        ("host: localhost\r\norigin: http://evil.example\r\n", 403),
        ("host: localhost\r\norigin: http://localhost\r\norigin: http://localhost\r\n", 403),
        ("host: localhost\r\nhost: localhost\r\n", 403),
        ("host: evil.example\r\n", 403),
        ("host: [::2]\r\n", 403),
        ("", 403),
    ] {
        assert_eq!(status_of(&sidegate, headers).await, status, "{headers}");
    }
    // Beside the endpoint, too.
    let health = Http::new(&sidegate.url().replace("/mcp", "/healthz"));
    let foreign = health.send(Method::GET, "", &[("host", "evil.example")]).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn headers_are_limited_in_number_and_size() {
    let sidegate = Sidegate::builder().start().await;
    let many = |number| (0..number).map(|n| format!("x-{n}: y\r\n")).collect::<String>();
    assert_eq!(status_of(&sidegate, &format!("host: localhost\r\n{}", many(50))).await, 200);
    assert_eq!(status_of(&sidegate, &format!("host: localhost\r\n{}", many(200))).await, 431);
    let long = format!("host: localhost\r\nx-long: {}\r\n", "y".repeat(1 << 20));
    assert_eq!(status_of(&sidegate, &long).await, 431);
}

#[tokio::test]
async fn bodies_are_limited_in_size_and_depth() {
    let sidegate = Sidegate::builder()
        .config("aggregator: {maxBody: 1MiB}\n")
        .definition("near", &built_in())
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    let refused = async |arguments: &str| {
        let call = r#"{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"x_near_now","arguments":ARGUMENTS}}"#;
        let response = client.post(call.replace("ARGUMENTS", arguments)).await;
        RawResponse::read(response).await.status
    };
    let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(refused(&format!(r#"{{"a":{}}}"#, nested(10))).await, StatusCode::OK);
    assert_eq!(refused(&format!(r#"{{"a":{}}}"#, nested(130))).await, StatusCode::BAD_REQUEST);
    assert_eq!(refused(&nested(400_000)).await, StatusCode::BAD_REQUEST);
    assert_eq!(refused(&"[".repeat(400_000)).await, StatusCode::BAD_REQUEST);
    let large = format!(r#"{{"a":"{}"}}"#, "x".repeat(1 << 20));
    assert_eq!(refused(&large).await, StatusCode::PAYLOAD_TOO_LARGE);
    client.call("x_near_now", json!({})).await.result();
}

#[tokio::test]
async fn sessions_that_are_in_use_do_not_go_for_new_ones() {
    let sidegate = Sidegate::builder().config("aggregator: {maxSessions: 2}\n").start().await;
    let clients = [McpClient::connect(sidegate.url()).await, McpClient::connect(sidegate.url()).await];
    let _streams = [clients[0].listen().await, clients[1].listen().await];
    let refused = RawResponse::read(Http::new(sidegate.url()).post(INITIALIZE, &[]).await).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers.contains_key("retry-after"));
    assert!(refused.text().contains("aggregator.maxSessions"), "{}", refused.text());
    assert!(clients[0].delete().await.is_success());
    McpClient::connect(sidegate.url()).await;
}

#[tokio::test]
async fn a_token_is_written_for_a_listener_that_others_reach() {
    let builder = Sidegate::builder().config("aggregator: {tokenFile: token}\n").listen("0.0.0.0:0");
    let sidegate = builder.start().await;
    let file = sidegate.ready.token_file.clone().unwrap();
    assert_eq!(file, sidegate.config_dir().join("token"));
    assert_eq!(fs_err::metadata(&file).unwrap().mode() & 0o7777, 0o600);
    let token = fs_err::read_to_string(&file).unwrap();
    assert_eq!(token.trim().len(), 64);
    let http = Http::new(&sidegate.url().replace("0.0.0.0", "127.0.0.1"));
    let status =
        async |value: &str| RawResponse::read(http.post(INITIALIZE, &[("authorization", value)]).await).await;
    let refused = status("").await;
    assert_eq!(
        (refused.status, &refused.headers["www-authenticate"]),
        (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
    );
    assert_eq!(status(&format!("Bearer {}", "0".repeat(64))).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&format!("Basic {}", token.trim())).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&format!("Bearer {}", token.trim())).await.status, StatusCode::OK);
    let ended = sidegate.stop().await;
    assert!(!ended.stderr.contains(token.trim()), "the token is in no log");
}
