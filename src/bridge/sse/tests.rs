//! Sessions with a server that the test plays itself, over real sockets.

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::bridge::{Bridge, BridgeSettings, Target};
use crate::subprocess::Helper;
use crate::wire::client::tests::server::{Asked, Server, Stream, soon};
use crate::wire::server::{Body, SESSION_ID};
use crate::yaml_applier::RouteName;

const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2024-11-05"}}"#;
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":7,"result":"done"}"#;

struct Played {
    bridge: Arc<Bridge>,
    server: Server,
    _directory: tempfile::TempDir,
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    session: Option<String>,
    body: String,
}

/// An exchange with the bridge that goes on while the test plays the server.
type Exchange = AbortOnDropHandle<Answer>;

impl Played {
    async fn start() -> Self {
        let server = Server::start().await;
        let url = format!("http://{}/sse?tenant=a", server.address);
        Self::with_url(server, &url)
    }

    fn with_url(server: Server, url: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = BridgeSettings {
            helper: Helper::None,
            logs: None,
            grace: Duration::ZERO,
            open_files: None,
            environment: Vec::new(),
            proxies: crate::outbound::Proxies::default(),
            children: Arc::default(),
            secrets: crate::telemetry::secrets::Secrets::default(),
        };
        let bridge = Bridge::start(&directory.path().join("socket"), settings).unwrap();
        let route = RouteName::new("old".parse().unwrap(), 0);
        let headers =
            HeaderMap::from_iter([(HeaderName::from_static("x-team"), HeaderValue::from_static("core"))]);
        bridge.set(&route, Target::Sse(Arc::new(RemoteTarget { url: url.parse().unwrap(), headers })));
        Self { bridge: Arc::new(bridge), server, _directory: directory }
    }

    fn request(method: Method, session: Option<&str>, body: &str) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri("/old")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("traceparent", "00-1");
        if let Some(session) = session {
            request = request.header(SESSION_ID, session);
        }
        request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap()
    }

    async fn begin(&self, request: Request<Full<Bytes>>) -> Response<Body> {
        Arc::clone(&self.bridge.http).handle(request).await
    }

    fn send(&self, method: Method, session: Option<&str>, body: &str) -> Exchange {
        let (http, request) = (Arc::clone(&self.bridge.http), Self::request(method, session, body));
        AbortOnDropHandle::new(tokio::spawn(async move {
            let (parts, body) = http.handle(request).await.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let session = parts.headers.get(SESSION_ID).map(|id| id.to_str().unwrap().to_owned());
            Answer { status: parts.status, session, body: String::from_utf8(body.to_vec()).unwrap() }
        }))
    }

    fn initialize(&self) -> Exchange {
        self.send(Method::POST, None, r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#)
    }

    fn ask(&self, session: &str) -> Exchange {
        let params = r#"{"_meta":{"progressToken":"t"}}"#;
        let request = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"m","params":{params}}}"#);
        self.send(Method::POST, Some(session), &request)
    }

    /// The stream, at whose beginning the server has said where messages go.
    async fn stream(&mut self) -> Stream {
        let asked = self.server.next().await;
        assert_eq!((&asked.method, asked.path.as_str()), (&Method::GET, "/sse?tenant=a"));
        assert_eq!((asked.header("accept"), asked.header("x-team")), ("text/event-stream", "core"));
        let stream = asked.events();
        stream.send("event: endpoint\ndata: /messages/?session=1\n\n");
        stream
    }

    /// A message that is posted.
    async fn posted(&mut self) -> Asked {
        let asked = self.server.next().await;
        assert_eq!((&asked.method, asked.path.as_str()), (&Method::POST, "/messages/?session=1"));
        assert_eq!((asked.header("content-type"), asked.header("x-team")), ("application/json", "core"));
        asked
    }

    async fn open(&mut self) -> (String, Stream) {
        let opening = self.initialize();
        let stream = self.stream().await;
        self.posted().await.status(202, "Accepted");
        stream.send(&format!("event: message\ndata: {INITIALIZED}\n\n"));
        let answer = done(opening).await;
        assert_eq!(answer.body, INITIALIZED);
        (answer.session.unwrap(), stream)
    }

    async fn assert_unknown(&self, session: &str) {
        assert_eq!(done(self.ask(session)).await.status, StatusCode::NOT_FOUND);
    }
}

async fn done(exchange: Exchange) -> Answer {
    soon(exchange).await.unwrap()
}

#[tokio::test]
async fn what_is_said_on_the_stream_goes_where_it_belongs() {
    let mut played = Played::start().await;
    let (session, stream) = played.open().await;
    let asking = played.ask(&session);
    let asked = played.posted().await;
    assert!(asked.body.contains(r#""method":"m""#) && asked.header("traceparent") == "00-1");
    let progress = |token| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":"{token}"}}}}"#
        )
    };
    stream.message(&progress("t"));
    stream.message(&progress("nobody"));
    // Pings, rubbish, and what comes in pieces.
    stream.send("event: ping\ndata: 1\n\n: hi\n\ndata: no message\n\ndata:\n\n");
    stream.message(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#);
    let (first, second) = ANSWER.split_at(9);
    stream.send(&format!("data: {first}"));
    stream.send(&format!("{second}\r\n\r\n"));
    // The answer may come before the message is accepted.
    let answer = done(asking).await;
    asked.status(202, "");
    assert_eq!(answer.body.matches("notifications/progress").count(), 1, "{}", answer.body);
    assert!(answer.body.ends_with(&format!("data: {ANSWER}\n\n")), "{}", answer.body);

    let get = played.begin(Played::request(Method::GET, Some(&session), "")).await;
    let mut get = get.into_body();
    let mut frame = async || soon(get.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame().await, "id: 0-0\nretry: 50\ndata: \n\n");
    assert!(frame().await.ends_with(b"\"method\":\"roots/list\"}\n\n"));
    let told = played.send(Method::POST, Some(&session), r#"{"jsonrpc":"2.0","id":"q","result":{}}"#);
    let asked = played.posted().await;
    assert_eq!(asked.body, r#"{"jsonrpc":"2.0","id":"q","result":{}}"#);
    asked.status(202, "");
    assert_eq!(done(told).await.status, StatusCode::ACCEPTED);

    assert_eq!(done(played.send(Method::DELETE, Some(&session), "")).await.status, StatusCode::NO_CONTENT);
    stream.given_up().await;
    played.assert_unknown(&session).await;
    played.bridge.shutdown().await;
}

#[tokio::test]
async fn a_stream_that_ends_or_breaks_ends_the_session_and_says_so() {
    let mut played = Played::start().await;
    for broken in [false, true] {
        let (session, stream) = played.open().await;
        let asking = played.ask(&session);
        played.posted().await.status(202, "");
        stream.send(&format!("data: {ANSWER}\n"));
        let why = if broken {
            stream.break_off();
            "the event stream broke"
        } else {
            drop(stream);
            "the server has closed its event stream"
        };
        let answer = done(asking).await;
        assert!(answer.body.contains(why) && answer.body.contains("\"id\":7,\"error\""), "{}", answer.body);
        played.assert_unknown(&session).await;
    }
    // Another session is what reconnecting means.
    let (session, stream) = played.open().await;
    let asking = played.ask(&session);
    played.posted().await.status(202, "");
    stream.message(ANSWER);
    assert_eq!(done(asking).await.body, ANSWER);
    played.bridge.shutdown().await;
    stream.given_up().await;
}

#[tokio::test]
async fn a_message_that_is_refused_is_an_error_of_its_own() {
    let mut played = Played::start().await;
    let (session, stream) = played.open().await;
    for (status, headers, why) in [
        (500, &[][..], "HTTP 500 Internal Server Error: busy"),
        (307, &[("location", "http://h.example/")], "redirects are not followed"),
        (401, &[("www-authenticate", "Bearer")], "(it wants authorization by Bearer)"),
    ] {
        let asking = played.ask(&session);
        played.posted().await.head(status, headers).send("busy");
        let answer = done(asking).await;
        assert!(answer.body.contains(why) && answer.body.contains("-32000"), "{}", answer.body);
    }
    let asking = played.ask(&session);
    drop(played.posted().await);
    assert!(done(asking).await.body.contains("the connection broke"));
    // The server has forgotten the session.
    let asking = played.ask(&session);
    played.posted().await.status(404, "Could not find session");
    assert!(done(asking).await.body.contains("Could not find session"));
    stream.given_up().await;
    played.assert_unknown(&session).await;
    played.bridge.shutdown().await;
}

#[tokio::test]
async fn messages_go_to_the_origin_of_the_url_only() {
    let mut played = Played::start().await;
    let port = played.server.address.port();
    for (endpoint, why) in [
        ("http://evil.example/messages".to_owned(), "is at http://evil.example and not at"),
        (format!("https://127.0.0.1:{port}/messages"), "is at https://127.0.0.1"),
        (format!("//localhost:{port}/messages"), "is at http://localhost"),
        ("http://[/".to_owned(), "is no URL"),
    ] {
        let opening = played.initialize();
        let stream = played.server.next().await.events();
        stream.send(&format!("event: endpoint\ndata: {endpoint}\n\n"));
        let answer = done(opening).await;
        assert!(answer.body.contains(why) && answer.session.is_none(), "{endpoint}: {}", answer.body);
        stream.given_up().await;
    }
    played.server.assert_nothing_asked();
    played.bridge.shutdown().await;
}

#[tokio::test]
async fn a_server_that_is_none_of_that_kind_is_told() {
    let mut played = Played::start().await;
    for (status, headers, body, why) in [
        (302, &[("location", "/elsewhere")][..], "", "the server points to /elsewhere, use that as url"),
        (401, &[("www-authenticate", "Bearer realm=\"x\"")], "", "it wants authorization by Bearer realm"),
        (405, &[], "use POST", "HTTP 405 Method Not Allowed: use POST"),
        (200, &[("content-type", "application/json")], "{}", "is it type: streamable-http?"),
        (200, &[("content-type", "text/event-stream")], "data: {}\n\n", "named no endpoint"),
        (200, &[("content-type", "text/event-stream")], "event: endpoint\ndata: /m", "named no endpoint"),
    ] {
        let opening = played.initialize();
        played.server.next().await.head(status, headers).send(body);
        let answer = done(opening).await;
        assert!(answer.body.contains(why) && answer.session.is_none(), "{status}: {}", answer.body);
    }
    let opening = played.initialize();
    drop(played.server.next().await);
    assert!(done(opening).await.body.contains("the connection broke"));
    played.server.assert_nothing_asked();
    played.bridge.shutdown().await;
}

#[tokio::test]
async fn a_refused_connection_is_told() {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}/sse", socket.local_addr().unwrap());
    let played = Played::with_url(Server::start().await, &url);
    let answer = done(played.initialize()).await;
    assert!(answer.body.contains("cannot connect: ") && answer.body.contains("refused"), "{}", answer.body);
    played.bridge.shutdown().await;
}

#[tokio::test]
async fn an_initialize_that_is_refused_or_given_up_closes_its_stream() {
    let mut played = Played::start().await;
    let opening = played.initialize();
    let stream = played.stream().await;
    played.posted().await.status(202, "");
    stream.message(r#"{"jsonrpc":"2.0","id":0,"error":{"code":-32602,"message":"too old"}}"#);
    let answer = done(opening).await;
    assert!(answer.body.contains("\"code\":-32602,\"message\":\"too old\""), "{}", answer.body);
    stream.given_up().await;

    let opening = played.initialize();
    let stream = played.stream().await;
    played.posted().await.status(202, "");
    drop(opening);
    stream.given_up().await;

    // Before the endpoint is known, too.
    let opening = played.initialize();
    let stream = played.server.next().await.events();
    drop(opening);
    stream.given_up().await;
    played.bridge.shutdown().await;
}

#[tokio::test]
async fn a_cancelled_call_is_forgotten_and_the_server_is_told() {
    let mut played = Played::start().await;
    let (session, stream) = played.open().await;
    let asking = played.ask(&session);
    played.posted().await.status(202, "");
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    let cancelling = played.send(Method::POST, Some(&session), cancel);
    let asked = played.posted().await;
    assert_eq!(asked.body, cancel);
    asked.status(202, "");
    assert_eq!(done(cancelling).await.status, StatusCode::ACCEPTED);
    assert!(!done(asking).await.body.contains("\"id\":7"));
    stream.message(ANSWER);
    // Nobody waits for it; the session goes on.
    let asking = played.ask(&session);
    played.posted().await.status(202, "");
    stream.message(ANSWER);
    assert_eq!(done(asking).await.body, ANSWER);
    played.bridge.shutdown().await;
}
