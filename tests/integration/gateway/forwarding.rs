//! What happens to one call.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::{Frame, Incoming};
use rustls::pki_types::PrivateKeyDer;
use sidegate::yaml_applier::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixListener};
use tokio::sync::{mpsc, oneshot};

use super::support::{self, *};

const MEGABYTES: usize = 10 * 1024 * 1024;

/// A body that is sent piece by piece.
fn pieces() -> (mpsc::Sender<Bytes>, Body) {
    let (sender, receiver) = mpsc::channel::<Bytes>(1);
    let frames = futures_util::stream::unfold(receiver, async |mut receiver| {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), receiver))
    });
    (sender, http_body_util::BodyExt::boxed(StreamBody::new(Box::pin(frames))))
}

/// Tells the upstream's view of a request: its target and its headers.
async fn describing(request: Request<Incoming>) -> Response<Body> {
    let mut lines: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    let text = format!("{} {}\n{}", request.method(), request.uri(), lines.join("\n"));
    Response::builder()
        .header("mcp-session-id", "s1")
        .header("keep-alive", "timeout=5")
        .header("x-sidegate-route", "forged")
        .body(full(text))
        .unwrap()
}

#[tokio::test]
async fn a_call_is_routed_rewritten_and_marked() {
    let plain = upstream(listen().await, describing);
    let query = route(Dial::Plain(dial(plain)), "/mcp?tenant=a");
    let harness = Harness::serving(routes([("a", support::plain(plain)), ("q", query)])).await;
    let mut client = harness.client().await;

    let request = harness
        .post("/mcp/a")
        .header("traceparent", "theirs")
        .header("x-sidegate-traceparent", "ours")
        .header("connection", "x-private")
        .header("x-private", "1")
        .header("te", "trailers")
        .header("authorization", "Bearer t")
        .body(full("hello"))
        .unwrap();
    let response = client.send(request).await;
    assert_eq!(response.status(), 200);
    let expected: HeaderMap = [("mcp-session-id", "s1"), ("x-sidegate-route", "a"), ("content-length", "94")]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .into_iter()
        .collect();
    let mut headers = response.headers().clone();
    headers.remove("date");
    assert_eq!(headers, expected);
    assert_eq!(
        bytes(response).await,
        "POST /mcp\nauthorization: Bearer t\ncontent-length: 5\nhost: upstream.test:9000\ntraceparent: ours"
    );

    // Without the x-header an incoming trace context is none of the caller's.
    let request = harness.get("/mcp/a/deeper?x=1").header("traceparent", "theirs").body(full("")).unwrap();
    assert_eq!(client.text(request).await.1, "GET /mcp?x=1\nhost: upstream.test:9000");
    let request = harness.get("/mcp/q?x=1").body(full("")).unwrap();
    assert_eq!(client.text(request).await.1, "GET /mcp?tenant=a&x=1\nhost: upstream.test:9000");
    harness.stop().await;
}

#[tokio::test]
async fn nobody_gets_in_without_the_key() {
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&calls);
    let plain = upstream(listen().await, move |request| {
        seen.fetch_add(1, Ordering::Relaxed);
        describing(request)
    });
    let harness = Harness::serving(routes([("a", support::plain(plain))])).await;
    let mut client = harness.client().await;
    for path in ["/mcp/a", GENERATION_PATH] {
        for key in [None, Some(""), Some("wrong"), Some(harness.key.digest().as_str())] {
            let mut request = Request::get(path).body(full("")).unwrap();
            if let Some(key) = key {
                request.headers_mut().insert(KEY_HEADER, key.parse().unwrap());
            }
            let response = client.send(request).await;
            assert_eq!(response.status(), 403, "{path} {key:?}");
            bytes(response).await;
        }
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    for path in ["/", "/mcp/ab", "/mcp", "/mcp/", "/mcp/b", "/.sidegate/generation/x"] {
        let request = harness.get(path).body(full("")).unwrap();
        let response = client.send(request).await;
        assert_eq!(response.headers().get(ROUTE_HEADER), None);
        assert_eq!(response.status(), 404, "{path}");
        assert_eq!(bytes(response).await, "route not found");
    }
    harness.stop().await;
}

#[tokio::test]
async fn events_arrive_one_by_one() {
    let (senders, mut opened) = mpsc::channel(1);
    let streaming = upstream(listen().await, move |_request| {
        let senders = senders.clone();
        async move {
            let (sender, body) = pieces();
            senders.send(sender).await.unwrap();
            Response::builder().header("content-type", "text/event-stream").body(body).unwrap()
        }
    });
    let harness = Harness::serving(routes([("a", plain(streaming))])).await;
    let mut client = harness.client().await;
    let response = client.send(harness.get("/mcp/a").body(full("")).unwrap()).await;
    let sender = opened.recv().await.unwrap();
    let mut body = response.into_body();
    for number in 0..100 {
        let event = Bytes::from(format!("id: {number}\ndata: {}\n\n", "x".repeat(number * 37)));
        sender.send(event.clone()).await.unwrap();
        let mut got = Vec::new();
        while got.len() < event.len() {
            let frame = tokio::time::timeout(LONG, body.frame()).await.unwrap().unwrap().unwrap();
            got.extend_from_slice(&frame.into_data().unwrap());
        }
        assert_eq!(got, event);
    }
    drop(sender);
    assert!(tokio::time::timeout(LONG, body.frame()).await.unwrap().is_none());
    harness.stop().await;
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let collecting = upstream(listen().await, async |request: Request<Incoming>| {
        Response::new(full(request.into_body().collect().await.unwrap().to_bytes()))
    });
    // Sends back while it is still being sent to.
    let echoing = upstream(listen().await, async |request: Request<Incoming>| {
        Response::new(request.into_body().map_err(|error| panic!("{error}")).boxed())
    });
    let harness = Harness::serving(routes([("collect", plain(collecting)), ("echo", plain(echoing))])).await;
    let sent: Bytes = (0..MEGABYTES).map(|n| (n % 251) as u8).collect::<Vec<_>>().into();
    for name in ["collect", "echo"] {
        let mut client = harness.client().await;
        let path = format!("/mcp/{name}");
        let response = client.send(harness.post(&path).body(full(sent.clone())).unwrap()).await;
        assert!(bytes(response).await == sent, "{name} with a length");

        let (sender, body) = pieces();
        let parts = sent.clone();
        let sending = tokio::spawn(async move {
            for part in parts.chunks(100_000) {
                sender.send(Bytes::copy_from_slice(part)).await.unwrap();
            }
        });
        let response = client.send(harness.post(&path).body(body).unwrap()).await;
        assert!(bytes(response).await == sent, "{name} in chunks");
        sending.await.unwrap();
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_failure_says_whether_anything_was_sent() {
    let down = Lease::new();
    // Reads the request and goes away.
    let listener = listen().await;
    let rude = port(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            assert!(stream.read(&mut bytes).await.unwrap() > 0);
        }
    });
    let harness = Harness::serving(routes([("down", plain(down.port)), ("rude", plain(rude))])).await;
    let mut client = harness.client().await;
    for (name, beginning) in [
        ("down", "upstream call failed: Connect: Connection refused"),
        ("rude", "upstream call failed: SendRequest: "),
    ] {
        let response = client.send(harness.post(&format!("/mcp/{name}")).body(full("hello")).unwrap()).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(response.headers()[ROUTE_HEADER], name);
        let text = bytes(response).await;
        assert!(text.starts_with(beginning.as_bytes()), "{text:?}");
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_server_has_closed_meanwhile_loses_no_call() {
    // Closes each connection after one answer, without having said so.
    let listener = listen().await;
    let closing = port(listener.local_addr().unwrap());
    let (closed, mut was_closed) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 1024];
            assert!(stream.read(&mut bytes).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            drop(stream);
            closed.send(()).await.unwrap();
        }
    });
    let harness = Harness::serving(routes([("a", plain(closing))])).await;
    let mut client = harness.client().await;
    for _ in 0..100 {
        assert_eq!(
            client.text(harness.post("/mcp/a").body(full("x")).unwrap()).await,
            (200, "ok".to_owned())
        );
        was_closed.recv().await.unwrap();
    }
    harness.stop().await;
}

#[tokio::test]
async fn connections_to_a_server_are_kept() {
    let listener = listen().await;
    let address = port(listener.local_addr().unwrap());
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve_connection(stream, async |request: Request<Incoming>| {
                if request.method() != "PUT" {
                    return describing(request).await;
                }
                // Of unknown length, so in chunks.
                let (sender, body) = pieces();
                tokio::spawn(async move { sender.send(Bytes::from_static(b"chunk")).await });
                Response::new(body)
            }));
        }
    });
    let harness = Harness::serving(routes([("a", plain(address))])).await;
    let mut client = harness.client().await;
    for round in 0..100 {
        // Answers with a length, without a body, and in chunks; and across reloads of another route.
        if round % 50 == 0 {
            harness.apply(routes([("a", plain(address)), (&format!("b{round}"), plain(address))])).await;
        }
        let request = harness.post("/mcp/a").method(["POST", "HEAD", "PUT"][round % 3]);
        assert_eq!(client.text(request.body(full("")).unwrap()).await.0, 200);
    }
    assert_eq!(accepted.load(Ordering::Relaxed), 1);
    harness.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_missed_upstream() {
    struct Gone(Option<oneshot::Sender<()>>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.take().map(|sender| sender.send(()));
        }
    }
    let (calls, mut called) = mpsc::channel(1);
    let slow = upstream(listen().await, move |request: Request<Incoming>| {
        let calls = calls.clone();
        async move {
            let (gone, on_gone) = oneshot::channel();
            let gone = Gone(Some(gone));
            let (sender, body) = pieces();
            calls.send((on_gone, sender)).await.unwrap();
            if request.method() == "POST" {
                // Never answers; dropped with the connection.
                std::future::pending::<()>().await;
            }
            drop(gone);
            Response::new(body)
        }
    });
    let harness = Harness::serving(routes([("a", plain(slow))])).await;

    let mut client = harness.client().await;
    let request = harness.post("/mcp/a").body(full("x")).unwrap();
    let waiting = tokio::spawn(async move { client.send(request).await });
    let (on_gone, _sender) = called.recv().await.unwrap();
    waiting.abort();
    tokio::time::timeout(LONG, on_gone).await.expect("the call is still open upstream").unwrap();

    let mut client = harness.client().await;
    let response = client.send(harness.get("/mcp/a").body(full("")).unwrap()).await;
    let (_, sender) = called.recv().await.unwrap();
    drop((response, client));
    tokio::time::timeout(LONG, sender.closed()).await.expect("the stream is still open upstream");
    harness.stop().await;
}

#[tokio::test]
async fn unix_sockets_are_dialled() {
    let harness = Harness::new();
    let path = harness.directory.path().join("bridge.sock");
    let listener = UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve_connection(stream, describing));
        }
    });
    let mut harness = harness;
    let bridge = BridgeDial::Unix(path.to_str().unwrap().to_owned());
    let route = RoutePlan { policies: serde_json::Map::new(), backend: RouteBackend::Bridge(bridge) };
    harness.applier.apply(routes([("a", route)]));
    harness.respawn().await;
    let (status, text) = harness.fetch("/mcp/a").await;
    assert_eq!((status, text.as_str()), (200, "GET /a\nhost: bridge"));
    harness.stop().await;
}

/// A server with a certificate for 127.0.0.1 that nobody has signed, and the certificate.
async fn tls_upstream() -> (std::num::NonZeroU16, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = listen().await;
    let address = port(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    serve_connection(stream, describing).await;
                }
            });
        }
    });
    (address, made.cert.pem())
}

fn with_tls(route: RoutePlan, tls: serde_json::Value) -> RoutePlan {
    let mut policies = serde_json::Map::new();
    policies.insert("backendTLS".to_owned(), tls);
    RoutePlan { policies, ..route }
}

#[tokio::test]
async fn tls_is_verified_unless_told_otherwise() {
    let (address, certificate) = tls_upstream().await;
    let mut harness = Harness::new();
    let root = harness.directory.path().join("root.pem");
    std::fs::write(&root, certificate).unwrap();
    let tls = || route(Dial::Tls(dial(address)), "/mcp");
    let trusting = with_tls(tls(), serde_json::json!({ "root": root }));
    let other_name = with_tls(tls(), serde_json::json!({ "root": root, "hostname": "other.test" }));
    let insecure = with_tls(tls(), serde_json::json!({ "insecure": true, "hostname": "other.test" }));
    harness.applier.apply(routes([
        ("trusting", trusting),
        ("other-name", other_name),
        ("insecure", insecure),
    ]));
    harness.respawn().await;
    for name in ["trusting", "trusting", "insecure"] {
        assert_eq!(harness.fetch(&format!("/mcp/{name}")).await.0, 200, "{name}");
    }
    let (status, text) = harness.fetch("/mcp/other-name").await;
    assert_eq!(status, 503);
    assert!(text.starts_with("upstream call failed: Connect: ") && text.contains("other.test"), "{text}");
    harness.stop().await;
}

#[tokio::test]
async fn a_proxy_is_asked_to_connect() {
    let (address, certificate) = tls_upstream().await;
    let listener = listen().await;
    let proxy = port(listener.local_addr().unwrap());
    let (targets, mut asked) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_buf(&mut head).await.unwrap();
            }
            targets.send(String::from_utf8(head).unwrap()).await.unwrap();
            let mut target = TcpStream::connect(("127.0.0.1", address.get())).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut target).await });
        }
    });
    let mut harness = Harness::new();
    let root = harness.directory.path().join("root.pem");
    std::fs::write(&root, certificate).unwrap();
    let mut tunnelled =
        with_tls(route(Dial::Tls(dial(address)), "/mcp"), serde_json::json!({ "root": root }));
    if let RouteBackend::Http(http) = &mut tunnelled.backend {
        http.tunnel = Some(dial(proxy));
    }
    harness.applier.apply(routes([("a", tunnelled)]));
    harness.respawn().await;
    assert_eq!(harness.fetch("/mcp/a").await.0, 200);
    assert_eq!(
        asked.recv().await.unwrap(),
        format!("CONNECT 127.0.0.1:{address} HTTP/1.1\r\nHost: 127.0.0.1:{address}\r\n\r\n")
    );
    harness.stop().await;
}

#[tokio::test]
async fn a_proxy_is_told_where_a_plain_request_goes() {
    let proxy = upstream(listen().await, async |request: Request<Incoming>| {
        Response::new(full(format!("{} {:?}", request.uri(), request.headers()["host"])))
    });
    let mut plainly = route(Dial::Plain(DialHost::new("upstream.test", port_9000()).unwrap()), "/mcp?a=1");
    if let RouteBackend::Http(http) = &mut plainly.backend {
        http.tunnel = Some(dial(proxy));
    }
    let harness = Harness::serving(routes([("a", plainly)])).await;
    let asked = "\"upstream.test:9000\"";
    assert_eq!(harness.fetch("/mcp/a").await, (200, format!("http://upstream.test:9000/mcp?a=1 {asked}")));
    let with_query = (200, format!("http://upstream.test:9000/mcp?a=1&b=2 {asked}"));
    assert_eq!(harness.fetch("/mcp/a?b=2").await, with_query);
    harness.stop().await;
}

fn port_9000() -> std::num::NonZeroU16 {
    std::num::NonZeroU16::new(9000).unwrap()
}
