//! How sessions end: closed once, whoever gives them up and when.

use futures_util::FutureExt as _;
use http::Method;

use super::*;

/// Waits for everything that the client still does, which must be one DELETE of the session.
async fn assert_deleted_once(server: &mut Server, tracker: &TaskTracker) {
    let asked = server.next().await;
    assert_eq!((&asked.method, asked.header("mcp-session-id")), (&Method::DELETE, "s-1"));
    asked.status(204, "");
    tracker.close();
    soon(tracker.wait()).await;
    server.assert_nothing_asked();
}

#[tokio::test]
async fn a_session_that_is_closed_twice_is_deleted_once() {
    let (mut server, tracker) = (Server::start().await, TaskTracker::new());
    let config = config_for(&server);
    let session = open_with(&mut server, config, &tracker).await;
    let (closed, ()) = tokio::join!(session.close(), assert_deleted_once(&mut server, &tracker));
    closed.unwrap();
    tokio::select! {
        closed = session.close() => closed.unwrap(),
        _ = server.next() => panic!("it is deleted twice"),
    }
    drop(session);
    tracker.close();
    soon(tracker.wait()).await;
    server.assert_nothing_asked();
}

#[tokio::test]
async fn a_session_without_an_id_needs_no_end() {
    let mut server = Server::start().await;
    let session = open_without_id(&mut server).await;
    soon(session.close()).await.unwrap();
    drop(session);
    server.assert_nothing_asked();
}

#[tokio::test]
async fn a_server_that_lets_nobody_delete_sessions_is_fine() {
    let mut server = Server::start().await;
    for status in [404, 405] {
        let session = open(&mut server).await;
        let (closed, ()) = tokio::join!(session.close(), async { server.next().await.status(status, "") });
        closed.unwrap();
    }
    let session = open(&mut server).await;
    let (closed, ()) = tokio::join!(session.close(), async { server.next().await.status(500, "") });
    assert_eq!(closed.unwrap_err().to_string(), "HTTP 500 Internal Server Error");
}

#[tokio::test]
async fn an_open_session_that_is_dropped_is_deleted() {
    let (mut server, tracker) = (Server::start().await, TaskTracker::new());
    let config = config_for(&server);
    drop(open_with(&mut server, config, &tracker).await);
    assert_deleted_once(&mut server, &tracker).await;
}

#[tokio::test]
async fn a_session_that_is_given_up_while_initialize_is_answered_is_deleted() {
    let (mut server, tracker) = (Server::start().await, TaskTracker::new());
    let mut opening = Box::pin(opening(config_for(&server), &tracker));
    let head = [("content-type", "text/event-stream"), ("mcp-session-id", "s-1")];
    let stream = tokio::select! {
        _ = &mut opening => unreachable!("it is not answered"),
        asked = server.next() => asked.head(200, &head),
    };
    // The client has seen the head when it gives up because of the body.
    stream.send("data: no message\n\n");
    soon(opening).await.unwrap_err();
    assert_deleted_once(&mut server, &tracker).await;
}

#[tokio::test]
async fn a_session_that_is_given_up_before_it_is_initialized_is_deleted() {
    let (mut server, tracker) = (Server::start().await, TaskTracker::new());
    let opening = opening(config_for(&server), &tracker);
    let unanswered = tokio::select! {
        _ = opening => unreachable!("notifications/initialized is not answered"),
        asked = async {
            server.next().await.initialized();
            server.next().await
        } => asked,
    };
    assert!(unanswered.body.contains("notifications/initialized"), "{}", unanswered.body);
    assert_deleted_once(&mut server, &tracker).await;
}

#[tokio::test]
async fn a_session_whose_opening_fails_is_deleted() {
    let unknown = INITIALIZED.replace("2025-11-25", "1999-01-01");
    let no_version = INITIALIZED.replace("protocolVersion", "version");
    let refused = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"not today"}}"#;
    for answer in [&unknown, &no_version, refused] {
        let (mut server, tracker) = (Server::start().await, TaskTracker::new());
        let config = config_for(&server);
        let script = async {
            let head = [("content-type", "application/json"), ("mcp-session-id", "s-1")];
            server.next().await.head(200, &head).send(answer);
            assert_deleted_once(&mut server, &tracker).await;
        };
        let opening = async {
            let opened = opening(config, &tracker).await;
            assert_eq!(opened.is_ok(), answer == refused, "{opened:?}");
        };
        tokio::join!(opening, script);
    }
}

#[tokio::test]
async fn outside_of_a_runtime_a_dropped_session_is_only_dropped() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let dropped = std::thread::spawn(move || drop(session)).join();
    assert!(dropped.is_ok());
    assert!(server.next().now_or_never().is_none());
}
