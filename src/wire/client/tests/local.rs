//! Servers in this process.

use std::sync::Mutex;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};

use super::super::{Habits, Local, Serve};
use super::*;
use crate::wire::server::Body;

/// Answers as the server of the test would, and keeps what it was asked: path, session, body.
#[derive(Default)]
struct Near(Mutex<Vec<(String, String, String)>>);

impl Serve for Near {
    fn serve(self: Arc<Self>, request: Request<Full<Bytes>>) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            let session = head.headers.get("mcp-session-id").map_or("", |id| id.to_str().unwrap());
            let answer = Response::builder().header("content-type", "application/json");
            let (answer, text) = match body.contains("initialize") {
                true => (answer.header("mcp-session-id", "s-1"), INITIALIZED),
                false => (answer, ANSWER),
            };
            self.0.lock().unwrap().push((head.uri.to_string(), session.to_owned(), body));
            answer.body(Body::text(text)).unwrap()
        })
    }
}

impl Near {
    fn asked(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[tokio::test]
async fn it_is_asked_where_nothing_in_between_matters() {
    let mut server = Server::start().await;
    let near = Arc::new(Near::default());
    let authority: http::uri::Authority = server.address.to_string().parse().unwrap();
    let habits = Habits { adds_nothing: true, ..Habits::default() };
    let passed_over = Origin::gateway(authority, http::HeaderMap::new(), habits);
    let (sender, origin) = watch::channel(passed_over);
    let local = Local::new(Arc::clone(&near) as _, "/near".parse().unwrap());
    let config = ClientConfig {
        local: Some(local),
        route_marker: Some(http::HeaderName::from_static("x-route")),
        ..config(origin)
    };
    let (session, _) = opening(config, &TaskTracker::new()).await.unwrap();
    assert_eq!(ask(&session).await.0.unwrap(), ANSWER);
    let request = r#"{"jsonrpc":"2.0","id":2,"method":"m","params":{}}"#;
    let last = near.0.lock().unwrap().last().cloned();
    assert_eq!(last, Some(("/near".to_owned(), "s-1".to_owned(), request.to_owned())));
    server.assert_nothing_asked();

    // Another gateway: the session goes on through it.
    sender.send_replace(Arc::clone(&server.origin));
    let before = near.asked();
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        let asked = server.next().await;
        assert_eq!((asked.path.as_str(), asked.header("mcp-session-id")), ("/mcp", "s-1"));
        asked.json(UNATTRIBUTED);
    });
    assert_eq!(answer.unwrap(), UNATTRIBUTED);
    assert_eq!(near.asked(), before);
}

/// Without the mark an error would be the gateway's, and not the server's.
#[tokio::test]
async fn what_it_refuses_is_its_own_refusal() {
    struct Refusing;
    impl Serve for Refusing {
        fn serve(self: Arc<Self>, _: Request<Full<Bytes>>) -> BoxFuture<'static, Response<Body>> {
            Box::pin(async { Response::builder().status(503).body(Body::text("no")).unwrap() })
        }
    }
    let habits = Habits { adds_nothing: true, ..Habits::default() };
    let origin = Origin::gateway("127.0.0.1:1".parse().unwrap(), http::HeaderMap::new(), habits);
    let config = ClientConfig {
        local: Some(Local::new(Arc::new(Refusing), "/near".parse().unwrap())),
        route_marker: Some(http::HeaderName::from_static("x-route")),
        ..config(watch::Sender::new(origin).subscribe())
    };
    match opening(config, &TaskTracker::new()).await {
        Err(ClientError::Status(error)) => {
            assert_eq!((error.status.as_u16(), error.body.as_str(), error.from_server), (503, "no", true));
        }
        other => panic!("{other:?}"),
    }
}

/// An origin that is passed over may go while the server is still at work.
#[tokio::test]
async fn an_origin_does_not_wait_for_what_does_not_go_through_it() {
    struct Slow;
    impl Serve for Slow {
        fn serve(self: Arc<Self>, request: Request<Full<Bytes>>) -> BoxFuture<'static, Response<Body>> {
            Box::pin(async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                match std::str::from_utf8(&body).unwrap() {
                    body if body.contains("initialize") => {
                        let answer = Response::builder().header("content-type", "application/json");
                        answer.body(Body::text(INITIALIZED)).unwrap()
                    }
                    _ => std::future::pending().await,
                }
            })
        }
    }
    let habits = Habits { adds_nothing: true, ..Habits::default() };
    let origin = Origin::gateway("127.0.0.1:1".parse().unwrap(), http::HeaderMap::new(), habits);
    let config = ClientConfig {
        local: Some(Local::new(Arc::new(Slow), "/near".parse().unwrap())),
        ..config(watch::Sender::new(Arc::clone(&origin)).subscribe())
    };
    let text = rpc::request(1, "initialize", "{}");
    let id = crate::wire::message::RequestId::number(1);
    let opening = Session::open_for(Pool::new(), config, TaskTracker::new(), text, &id);
    let session = opening.await.unwrap().0;
    let asking = tokio::spawn(async move { ask(&session).await });
    tokio::task::yield_now().await;
    server::soon(origin.idle()).await;
    assert!(!asking.is_finished());
    asking.abort();
}

/// A connection shares the processor by itself; this has to be made to.
#[tokio::test]
async fn a_body_that_always_has_something_leaves_others_their_turn() {
    use futures_util::FutureExt as _;

    let bodies = (0..1000).map(|_| super::super::Body::Local(Body::text("x")));
    let ready = bodies.filter_map(|mut body| body.frame().now_or_never()).count();
    assert!((1..1000).contains(&ready), "{ready} in one turn");
}
