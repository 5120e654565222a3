use std::sync::Mutex;

use http_body_util::Full;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;
use crate::wire::rpc;
use crate::wire::server::{Priming, serve_connections};
use crate::wire::stream::Weight;
use crate::wire::version::ProtocolVersion;

/// Answers `echo` at once, `noisy` after a notification, `wait` when told to, `drop` never, `away` after it has sent its
/// client away and is told to.
struct Echo {
    delivered: mpsc::UnboundedSender<String>,
    release: tokio::sync::Semaphore,
    closed: Mutex<Vec<String>>,
}

struct EchoSession(SessionHandle);

impl Endpoint for Echo {
    type Session = EchoSession;

    async fn initialize(
        &self,
        request: &Message,
        _context: &RequestContext,
        handle: &SessionHandle,
    ) -> Result<Opened<EchoSession>, RpcError> {
        let View::Request { id, params, .. } = request.view() else { panic!("not a request") };
        let params = params.unwrap_or("{}");
        if params.contains("refuse") {
            return Err(RpcError::new(RpcError::UPSTREAM, "refused"));
        }
        let old = params.contains("2025-03-26");
        let version = if old { ProtocolVersion::V2025_03_26 } else { ProtocolVersion::LATEST };
        Ok(Opened {
            session: Arc::new(EchoSession(handle.clone())),
            response: rpc::result(id, "{}"),
            version,
        })
    }

    async fn request(
        &self,
        session: &Arc<EchoSession>,
        request: Message,
        _context: &RequestContext,
        reply: Reply,
    ) {
        let View::Request { id, method, .. } = request.view() else { panic!("not a request") };
        match method {
            "noisy" => reply.send(rpc::notification("note", None), Weight::Droppable),
            "wait" => self.release.acquire().await.unwrap().forget(),
            "push" => session.0.standalone().push(rpc::notification("pushed", None), Weight::Droppable),
            "flood" => return reply.answer(rpc::result(id, &flood(&session.0).await.to_string())),
            "end" => session.0.end(),
            "drop" => return,
            "away" => {
                reply.send_away(Duration::from_millis(70));
                self.release.acquire().await.unwrap().forget();
            }
            _ => {}
        }
        reply.answer(rpc::result(id, &json_text(method)));
    }

    async fn deliver(&self, _session: &Arc<EchoSession>, message: Message) {
        self.delivered.send(format!("{message:?}")).unwrap();
    }

    async fn closed(&self, session: &Arc<EchoSession>) {
        self.closed.lock().unwrap().push(session.0.id().as_str().to_owned());
    }
}

fn json_text(text: &str) -> String {
    crate::wire::json::quoted(text)
}

/// Says more on the GET stream than any buffer holds; gives how many messages were dropped.
async fn flood(session: &SessionHandle) -> u64 {
    let params = json_text(&"x".repeat(64 << 10));
    let note = rpc::notification("note", Some(&format!("[{params}]")));
    for _ in 0..4096 {
        session.standalone().push(note.clone(), Weight::Droppable);
        // The connection takes what it can.
        tokio::task::yield_now().await;
    }
    session.standalone().dropped()
}

type Server = Arc<StreamableHttp<Echo>>;

fn server(config: ServerConfig) -> (Server, mpsc::UnboundedReceiver<String>) {
    let (delivered, receiver) = mpsc::unbounded_channel();
    let echo = Echo { delivered, release: tokio::sync::Semaphore::new(0), closed: Mutex::default() };
    (StreamableHttp::new(echo, config, TaskTracker::new(), CancellationToken::new()), receiver)
}

fn request(method: Method, session: Option<&str>, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut builder = Request::builder()
        .method(method)
        .uri("/mcp")
        .header("host", "localhost")
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json");
    if let Some(session) = session {
        builder = builder.header(SESSION_ID, session);
    }
    builder.body(Full::new(body.into())).unwrap()
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

async fn send(server: &Server, request: Request<Full<Bytes>>) -> Answer {
    let (parts, body) = Arc::clone(server).handle(request).await.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

async fn post(server: &Server, session: &str, body: &str) -> Answer {
    send(server, request(Method::POST, Some(session), body.to_owned())).await
}

async fn resume(server: &Server, session: &str, last_event_id: &'static str) -> Answer {
    let mut resume = request(Method::GET, Some(session), "");
    resume.headers_mut().insert(LAST_EVENT_ID, HeaderValue::from_static(last_event_id));
    send(server, resume).await
}

async fn open(server: &Server, params: &str) -> String {
    let body = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{params}}}"#);
    let answer = send(server, request(Method::POST, None, body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    answer.headers[SESSION_ID].to_str().unwrap().to_owned()
}

fn call(method: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}"}}"#)
}

#[tokio::test]
async fn an_answer_alone_is_json() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    let answer = post(&server, &session, &call("echo")).await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.body, r#"{"jsonrpc":"2.0","id":7,"result":"echo"}"#);
}

#[tokio::test]
async fn an_answer_after_other_messages_is_an_event_stream_that_can_be_resumed() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    let answer = post(&server, &session, &call("noisy")).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    let expected = "id: 1-0\nretry: 500\ndata: \n\n\
                    id: 1-1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"note\"}\n\n\
                    id: 1-2\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"noisy\"}\n\n";
    assert_eq!(answer.body, expected);

    let answer = resume(&server, &session, "1-1").await;
    assert_eq!(answer.body, "id: 1-2\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"noisy\"}\n\n");
}

#[tokio::test]
async fn a_client_that_is_sent_away_comes_back_for_its_answer() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    let answer = post(&server, &session, &call("away")).await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.body, "id: 1-0\nretry: 500\ndata: \n\nretry: 70\n\n");
    server.endpoint().release.add_permits(1);
    let answer = resume(&server, &session, "1-0").await;
    assert_eq!(answer.body, "id: 1-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"away\"}\n\n");
}

#[tokio::test]
async fn a_client_whose_version_has_no_polling_is_not_sent_away() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, r#"{"v":"2025-03-26"}"#).await;
    server.endpoint().release.add_permits(1);
    let answer = post(&server, &session, &call("away")).await;
    assert_eq!(answer.body, r#"{"jsonrpc":"2.0","id":7,"result":"away"}"#);
}

#[tokio::test]
async fn the_newest_get_stream_takes_over_and_the_old_one_ends() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    let get = || Arc::clone(&server).handle(request(Method::GET, Some(&session), ""));
    let (old, mut new) = (get().await, get().await.into_body());
    post(&server, &session, &call("push")).await;
    let old = old.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(old, "id: 0-0\nretry: 500\ndata: \n\nretry: 500\n\n");
    let mut frame = async || new.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame().await, "id: 0-0\nretry: 500\ndata: \n\n");
    assert_eq!(frame().await, "id: 0-1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"pushed\"}\n\n");
}

#[tokio::test]
async fn a_stream_whose_connection_broke_goes_on_elsewhere() {
    let (server, _) = server(ServerConfig { json_grace: Duration::ZERO, ..ServerConfig::default() });
    let session = open(&server, "{}").await;
    let cut = Arc::clone(&server).handle(request(Method::POST, Some(&session), call("wait"))).await;
    drop(cut);
    // Another request's messages are not told on it, and the GET stream's neither.
    post(&server, &session, &call("noisy")).await;
    post(&server, &session, &call("push")).await;
    server.endpoint().release.add_permits(1);
    let answer = resume(&server, &session, "1-0").await;
    assert_eq!(answer.body, "id: 1-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"wait\"}\n\n");
    assert_eq!(resume(&server, &session, "9-0").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn clients_that_are_known_to_understand_are_primed_whatever_their_version() {
    let config = ServerConfig { priming: Priming::Always, ..ServerConfig::default() };
    let (server, _) = server(config);
    let session = open(&server, r#"{"v":"2025-03-26"}"#).await;
    let answer = post(&server, &session, &call("noisy")).await;
    assert!(answer.body.starts_with("id: 1-0\nretry: 500\ndata: \n\nid: 1-1\n"), "{}", answer.body);
}

#[tokio::test]
async fn a_request_that_takes_long_becomes_an_event_stream() {
    let (server, _) = server(ServerConfig { json_grace: Duration::ZERO, ..ServerConfig::default() });
    let session = open(&server, r#"{"v":"2025-03-26"}"#).await;
    let response = Arc::clone(&server).handle(request(Method::POST, Some(&session), call("wait"))).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    server.endpoint().release.add_permits(1);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    // No priming event: that client's version does not know them.
    assert_eq!(body, "id: 1-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"wait\"}\n\n");
}

#[tokio::test]
async fn a_request_that_is_never_answered_ends_its_stream() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, r#"{"v":"2025-03-26"}"#).await;
    let answer = post(&server, &session, &call("drop")).await;
    assert_eq!((answer.status, answer.body.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_cancel_its_request() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    let waiting = Arc::clone(&server).handle(request(Method::POST, Some(&session), call("wait")));
    assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
    server.endpoint().release.add_permits(1);
    server.tracker.close();
    server.stop.cancel();
    server.tracker.wait().await;
    assert_eq!(server.endpoint().release.available_permits(), 0);
}

#[tokio::test]
async fn the_get_stream_carries_what_belongs_to_no_request() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, r#"{"v":"2025-03-26"}"#).await;
    let stream = Arc::clone(&server).handle(request(Method::GET, Some(&session), "")).await;
    post(&server, &session, &call("push")).await;
    let frame = stream.into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(frame, "id: 0-1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"pushed\"}\n\n");
}

#[tokio::test]
async fn a_client_that_does_not_read_its_stream_costs_no_memory() {
    // However long it takes, it is answered with JSON.
    let (server, _) =
        server(ServerConfig { json_grace: Duration::from_secs(3600), ..ServerConfig::default() });
    let session = open(&server, "{}").await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = {
        let server = Arc::clone(&server);
        move |request| Arc::clone(&server).handle(request)
    };
    server.tracker.spawn(serve_connections(listener, handler, server.stop.clone(), server.tracker.clone()));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let get = format!(
        "GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\nmcp-session-id: {session}\r\n\r\n"
    );
    client.write_all(get.as_bytes()).await.unwrap();
    // The stream is open, and nothing more of it is read.
    client.read_u8().await.unwrap();
    let answer = post(&server, &session, &call("flood")).await;
    let dropped = answer.body.rsplit(':').next().unwrap().trim_end_matches('}').parse::<u64>().unwrap();
    assert!(dropped > 0, "everything is in a buffer somewhere");
    server.close_sessions().await;
    server.tracker.close();
    server.stop.cancel();
    server.tracker.wait().await;
}

#[tokio::test]
async fn notifications_and_answers_are_accepted() {
    let (server, mut delivered) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    for (body, what) in [
        (r#"{"jsonrpc":"2.0","method":"n"}"#, "notification n"),
        (r#"{"jsonrpc":"2.0","id":3,"result":{}}"#, "result 3"),
    ] {
        assert_eq!(post(&server, &session, body).await.status, StatusCode::ACCEPTED);
        assert_eq!(delivered.recv().await.unwrap(), what);
    }
}

#[tokio::test]
async fn batches_are_for_the_version_that_has_them() {
    let (server, mut delivered) = server(ServerConfig::default());
    let batch = r#"[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"n"},
                    {"jsonrpc":"2.0","id":2,"method":"b"}]"#;
    let old = open(&server, r#"{"v":"2025-03-26"}"#).await;
    let answer = post(&server, &old, batch).await;
    assert_eq!(delivered.recv().await.unwrap(), "notification n");
    for id in [1, 2] {
        assert!(answer.body.contains(&format!("\"id\":{id},\"result\"")), "{}", answer.body);
    }
    let new = open(&server, "{}").await;
    assert_eq!(post(&server, &new, batch).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_deleted_session_is_gone() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    let stream = Arc::clone(&server).handle(request(Method::GET, Some(&session), "")).await;
    assert_eq!(
        send(&server, request(Method::DELETE, Some(&session), "")).await.status,
        StatusCode::NO_CONTENT
    );
    stream.into_body().collect().await.unwrap();
    assert_eq!(*server.endpoint().closed.lock().unwrap(), std::slice::from_ref(&session));
    assert_eq!(post(&server, &session, &call("echo")).await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        send(&server, request(Method::DELETE, Some(&session), "")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_session_that_the_endpoint_ends_is_gone() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    assert!(post(&server, &session, &call("end")).await.body.contains("\"end\""));
    assert_eq!(post(&server, &session, &call("echo")).await.status, StatusCode::NOT_FOUND);
    server.tracker.close();
    server.stop.cancel();
    server.tracker.wait().await;
    assert_eq!(*server.endpoint().closed.lock().unwrap(), [session]);
}

#[tokio::test]
async fn a_session_is_known_on_its_own_path_only() {
    let (server, _) = server(ServerConfig::default());
    let session = open(&server, "{}").await;
    let mut elsewhere = request(Method::POST, Some(&session), call("echo"));
    *elsewhere.uri_mut() = http::Uri::from_static("/other");
    assert_eq!(send(&server, elsewhere).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(start_paused = true)]
async fn an_idle_session_expires_and_one_in_use_does_not() {
    let config = ServerConfig { session_idle: Duration::ZERO, ..ServerConfig::default() };
    let (server, _) = server(config);
    let idle = open(&server, "{}").await;
    let used = open(&server, "{}").await;
    let _stream = Arc::clone(&server).handle(request(Method::GET, Some(&used), "")).await;
    let expiring = async {
        while server.session_count() > 1 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), expiring).await.expect("it never expires");
    assert_eq!(*server.endpoint().closed.lock().unwrap(), [idle]);
}

#[tokio::test]
async fn shutting_down_closes_every_session_and_opens_no_more() {
    let (server, _) = server(ServerConfig::default());
    for _ in 0..3 {
        open(&server, "{}").await;
    }
    server.close_sessions().await;
    assert_eq!(server.endpoint().closed.lock().unwrap().len(), 3);
    let answer = send(&server, request(Method::POST, None, call("initialize"))).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let (server, _) = server(ServerConfig { max_body: 100, ..ServerConfig::default() });
    let session = open(&server, "{}").await;
    let with = |name: &'static str, value: &'static str| {
        let mut request = request(Method::POST, Some(&session), call("echo"));
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        request
    };
    let without_session = request(Method::POST, None, call("echo"));
    let body = |body: &'static str| request(Method::POST, Some(&session), body);
    let long = request(Method::POST, Some(&session), vec![b' '; 101]);
    let twice = request(Method::POST, Some(&session), call("initialize"));
    for (request, status, text) in [
        (with("host", "evil.example"), 403, "evil.example"),
        (with("origin", "http://evil.example"), 403, "allowedOrigins"),
        (with("accept", "application/json"), 406, "text/event-stream"),
        (with("content-type", "text/plain"), 415, "application/json"),
        (with("mcp-protocol-version", "1999-01-01"), 400, "1999-01-01"),
        (with("mcp-session-id", "nonsense"), 404, "initialize again"),
        (without_session, 400, "Mcp-Session-Id header is missing"),
        (body("{"), 400, "-32700"),
        (body("{}"), 400, "-32600"),
        (body("\u{feff}"), 400, "-32700"),
        (long, 413, "larger than 100 bytes"),
        (twice, 400, "must not carry Mcp-Session-Id"),
        (request(Method::PUT, None, ""), 405, "use POST"),
    ] {
        let shown = format!("{request:?}");
        let answer = send(&server, request).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}: {}", answer.body);
        assert!(answer.body.contains(text), "{shown}: {}", answer.body);
        assert!(answer.body.starts_with(r#"{"jsonrpc":"2.0","id":"#), "{shown}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_refused_initialize_opens_no_session() {
    let (server, _) = server(ServerConfig { max_sessions: 1, ..ServerConfig::default() });
    let body = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"refuse":1}}"#;
    for _ in 0..2 {
        let answer = send(&server, request(Method::POST, None, body)).await;
        assert!(
            answer.body.contains("refused") && !answer.headers.contains_key(SESSION_ID),
            "{}",
            answer.body
        );
    }
    assert_eq!(server.session_count(), 0);
}

#[test]
fn accept_is_read_as_the_rfc_says() {
    let check = |value: &'static str, what| {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(value));
        accepts(&headers, what)
    };
    assert!(check("text/html, application/json;q=0.9", "application/json"));
    assert!(check("*/*", "text/event-stream"));
    assert!(check("text/*", "text/event-stream"));
    assert!(!check("text/*", "application/json"));
    assert!(!check("application/jsonx", "application/json"));
    assert!(accepts(&HeaderMap::new(), "application/json"));
}
