//! Sessions against a server that the test plays itself, over real sockets.

mod broken;
mod closing;
mod listening;
mod local;
mod resuming;
pub(crate) mod server;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use self::server::{Server, soon};
use super::*;
use crate::wire::message::Message;
use crate::wire::rpc;

const NOTE: &str = r#"{"jsonrpc":"2.0","method":"note"}"#;

const INITIALIZED: &str =
    r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-11-25","capabilities":{}}}"#;

/// The answer to the first request after `initialize`.
const ANSWER: &str = r#"{"jsonrpc":"2.0","id":2,"result":{}}"#;

/// An answer to any request: an error that the server could not attribute.
const UNATTRIBUTED: &str = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}"#;

fn config(origin: watch::Receiver<Arc<Origin>>) -> ClientConfig {
    ClientConfig {
        origin,
        path: http::uri::PathAndQuery::from_static("/mcp"),
        headers: http::HeaderMap::new(),
        route_marker: None,
        local: None,
        max_message: 1000,
        patience: ClientConfig::WITH_GATEWAY,
    }
}

fn config_for(server: &Server) -> ClientConfig {
    config(watch::Sender::new(Arc::clone(&server.origin)).subscribe())
}

async fn opening(config: ClientConfig, tracker: &TaskTracker) -> Result<(Session, Message), ClientError> {
    Session::open(Pool::new(), config, tracker.clone(), "{}", "{}").await
}

/// An open session.
async fn open_with(server: &mut Server, config: ClientConfig, tracker: &TaskTracker) -> Arc<Session> {
    let script = async {
        server.next().await.initialized();
        server.next().await.status(202, "");
    };
    let (opened, ()) = tokio::join!(opening(config, tracker), script);
    Arc::new(opened.unwrap().0)
}

async fn open(server: &mut Server) -> Arc<Session> {
    let config = config_for(server);
    open_with(server, config, &TaskTracker::new()).await
}

/// An open session with a server that gives no session id.
async fn open_without_id(server: &mut Server) -> Arc<Session> {
    let (config, tracker) = (config_for(server), TaskTracker::new());
    let script = async {
        server.next().await.json(INITIALIZED);
        server.next().await.status(202, "");
    };
    let (opened, ()) = tokio::join!(opening(config, &tracker), script);
    Arc::new(opened.unwrap().0)
}

/// Sends a request; gives its answer, and the messages that came before.
async fn ask(session: &Session) -> (Result<String, ClientError>, Vec<String>) {
    let id = session.next_id();
    let mut said = Vec::new();
    let request = rpc::request(id, "m", "{}");
    let answer = session.request(request, id, &mut |message| said.push(message.text().to_string())).await;
    (answer.map(|answer| answer.text().to_string()), said)
}

#[tokio::test]
async fn every_request_of_a_session_names_it() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, said), ()) = tokio::join!(ask(&session), async {
        let asked = server.next().await;
        assert_eq!(asked.header("mcp-session-id"), "s-1");
        assert_eq!(asked.header("mcp-protocol-version"), "2025-11-25");
        assert_eq!(asked.header("accept"), "application/json, text/event-stream");
        assert_eq!(asked.body, r#"{"jsonrpc":"2.0","id":2,"method":"m","params":{}}"#);
        asked.json(ANSWER);
    });
    assert_eq!((answer.unwrap().as_str(), said), (ANSWER, vec![]));
}

#[tokio::test]
async fn what_comes_before_the_answer_is_told_however_it_is_cut() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let text = format!("id: a\r\ndata:\r\n\r\n: alive\n\nevent: message\ndata: {NOTE}\n\ndata: {ANSWER}\n\n");
    let ((answer, said), ()) = tokio::join!(ask(&session), async {
        let stream = server.next().await.events();
        text.as_bytes().chunks(7).for_each(|piece| stream.send(std::str::from_utf8(piece).unwrap()));
    });
    assert_eq!((answer.unwrap().as_str(), said), (ANSWER, vec![NOTE.to_owned()]));
}

#[tokio::test]
async fn a_json_answer_may_come_in_pieces() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        let body = server.next().await.head(200, &[("content-type", "Application/JSON")]);
        let (first, second) = ANSWER.split_at(10);
        body.send(first);
        body.send(second);
    });
    assert_eq!(answer.unwrap(), ANSWER);
}

#[tokio::test]
async fn an_error_without_an_id_is_the_answer_to_its_request() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, _), ()) = tokio::join!(ask(&session), async { server.next().await.json(UNATTRIBUTED) });
    assert_eq!(answer.unwrap(), UNATTRIBUTED);
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        server.next().await.events().message(UNATTRIBUTED);
    });
    assert_eq!(answer.unwrap(), UNATTRIBUTED);
}

#[tokio::test]
async fn answers_that_are_too_large_are_not_read_on() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let long = "x".repeat(600);
    let ((answer, _), body) = tokio::join!(ask(&session), async {
        let body = server.next().await.head(200, &[("content-type", "application/json")]);
        body.send(&long);
        body.send(&long);
        body
    });
    assert!(matches!(answer, Err(ClientError::TooLarge { limit: 1000 })), "{answer:?}");
    body.given_up().await;

    let ((answer, _), body) = tokio::join!(ask(&session), async {
        let body = server.next().await.events();
        body.send(&format!("data: {long}\n"));
        body.send(&format!("data: {long}\n"));
        body
    });
    assert!(matches!(answer, Err(ClientError::Stream(_) | ClientError::TooLarge { .. })), "{answer:?}");
    body.given_up().await;
}

#[tokio::test]
async fn redirects_are_told_and_not_followed() {
    let (mut server, mut elsewhere) = (Server::start().await, Server::start().await);
    let session = open(&mut server).await;
    let target = "http://127.0.0.1:1/elsewhere";
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        drop(server.next().await.head(307, &[("location", target)]));
    });
    let error = answer.unwrap_err();
    let expected = format!(
        "HTTP 307 Temporary Redirect: redirects are not followed; the server points to {target}, use that as url"
    );
    assert_eq!(error.to_string(), expected);
    server.assert_nothing_asked();
    elsewhere.assert_nothing_asked();
}

#[tokio::test]
async fn a_lost_session_is_told_from_other_refusals() {
    let mut server = Server::start().await;
    let with_id = open(&mut server).await;
    let without_id = open_without_id(&mut server).await;
    for (session, status, text, lost) in [
        (&with_id, 404, "", true),
        (&with_id, 400, "Bad Request: No valid Session ID provided", true),
        (&with_id, 400, "mcp: invalid session ID header", true),
        (&with_id, 400, "Invalid or missing session ID", true),
        (&with_id, 400, "no such argument", false),
        (&with_id, 400, "the argument \"session\" is missing", false),
        (&with_id, 400, "session recording is off", false),
        (&with_id, 401, "no session", false),
        (&without_id, 404, "no session", false),
        (&without_id, 400, "no session", false),
    ] {
        let ((answer, _), ()) =
            tokio::join!(ask(session), async { server.next().await.status(status, text) });
        let error = answer.unwrap_err();
        assert_eq!(error.is_session_lost(), lost, "{error}");
        assert!(error.was_sent());
    }
}

#[tokio::test]
async fn a_refusal_of_the_gateway_is_none_of_the_server() {
    let mut server = Server::start().await;
    let marker = http::HeaderName::from_static("x-route");
    let config = ClientConfig { route_marker: Some(marker), ..config_for(&server) };
    let session = open_with(&mut server, config, &TaskTracker::new()).await;
    for (status, text, headers, lost, sent) in [
        (404, "route not found", &[][..], false, false),
        (404, "", &[("x-route", "1")], true, true),
        (503, "upstream call failed: Connect: refused", &[], false, false),
        (503, "upstream call failed: reset", &[], false, true),
    ] {
        let ((answer, _), ()) = tokio::join!(ask(&session), async {
            server.next().await.head(status, headers).send(text);
        });
        let error = answer.unwrap_err();
        assert_eq!((error.is_session_lost(), error.was_sent()), (lost, sent), "{error}");
    }
}

#[tokio::test]
async fn a_gateway_that_marks_nothing_answers_for_the_server() {
    let mut server = Server::start().await;
    let config = ClientConfig { route_marker: Some("x-route".parse().unwrap()), ..config_for(&server) };
    let script = async {
        server.next().await.initialized_with(&[]);
        server.next().await.status(202, "");
    };
    let tracker = TaskTracker::new();
    let (opened, ()) = tokio::join!(opening(config, &tracker), script);
    let session = Arc::new(opened.unwrap().0);
    let ((answer, _), ()) =
        tokio::join!(ask(&session), async { server.next().await.status(404, "no such session") });
    let error = answer.unwrap_err();
    assert!(error.is_session_lost() && error.was_sent(), "{error}");
}

#[tokio::test]
async fn a_refused_connection_has_sent_nothing() {
    // Bound, so that nobody else gets the port, and not listening.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let authority = socket.local_addr().unwrap().to_string().parse().unwrap();
    let origin = watch::Sender::new(Origin::new(authority, http::HeaderMap::new())).subscribe();
    let error = soon(opening(config(origin), &TaskTracker::new())).await.unwrap_err();
    assert!(matches!(error, ClientError::Connect(_)) && !error.was_sent(), "{error}");
}

/// So does a gateway that hangs, once its queue is full.
#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_takes_is_given_up() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    // The queue holds one more than was asked for.
    let _queued = std::net::TcpStream::connect(address).unwrap();
    for host in ["127.0.0.1", "localhost"] {
        let authority = format!("{host}:{}", address.port()).parse().unwrap();
        let origin = watch::Sender::new(Origin::new(authority, http::HeaderMap::new())).subscribe();
        let tracker = TaskTracker::new();
        let opened = opening(config(origin), &tracker);
        // Longer than one try of the system.
        let error =
            tokio::time::timeout(Duration::from_secs(60), opened).await.expect("still tries").unwrap_err();
        assert!(matches!(error, ClientError::Connect(_)) && !error.was_sent(), "{host}: {error}");
    }
}

#[tokio::test]
async fn a_request_whose_connection_breaks_is_not_sent_again() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, _), ()) = tokio::join!(ask(&session), async { drop(server.next().await) });
    let error = answer.unwrap_err();
    assert!(matches!(error, ClientError::Send(_)) && error.was_sent(), "{error}");
    server.assert_nothing_asked();
}
