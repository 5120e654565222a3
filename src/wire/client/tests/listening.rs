//! The GET stream, and what becomes of requests and streams when the origin is replaced.

use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use http::Method;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::server::Asked;
use super::*;

/// A session that listens.
struct Listening {
    heard: mpsc::UnboundedReceiver<String>,
    ended: AbortOnDropHandle<Result<(), ClientError>>,
}

impl Listening {
    fn start(session: &Arc<Session>) -> Self {
        let (sender, heard) = mpsc::unbounded_channel();
        let session = Arc::clone(session);
        let listening = async move {
            session.listen(&mut |message| sender.send(message.text().to_string()).unwrap()).await
        };
        Self { heard, ended: AbortOnDropHandle::new(tokio::spawn(listening)) }
    }

    async fn hears(&mut self, number: u32) {
        assert_eq!(soon(self.heard.recv()).await, Some(note(number)));
    }

    async fn end(self) -> Result<(), ClientError> {
        soon(self.ended).await.unwrap()
    }
}

fn note(number: u32) -> String {
    format!(r#"{{"jsonrpc":"2.0","method":"note/{number}"}}"#)
}

#[track_caller]
fn assert_is_get(asked: &Asked, last_event_id: &str) {
    assert_eq!((&asked.method, asked.header("last-event-id")), (&Method::GET, last_event_id));
    assert_eq!(asked.header("accept"), "text/event-stream");
}

#[tokio::test]
async fn a_server_without_a_get_stream_is_well() {
    let mut server = Server::start().await;
    let with_id = open(&mut server).await;
    let without_id = open_without_id(&mut server).await;
    let listening = Listening::start(&with_id);
    server.next().await.status(405, "");
    listening.end().await.unwrap();
    let listening = Listening::start(&without_id);
    server.next().await.status(404, "");
    listening.end().await.unwrap();
    let listening = Listening::start(&with_id);
    server.next().await.json("{}");
    listening.end().await.unwrap();
    server.assert_nothing_asked();
}

#[tokio::test]
async fn refusals_that_pass_are_waited_out() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    for status in [409, 429, 503] {
        let mut listening = Listening::start(&session);
        server.next().await.status(status, "");
        let asked = server.next().await;
        assert_is_get(&asked, "");
        let stream = asked.events();
        stream.message(&note(1));
        listening.hears(1).await;
        // Aborted before its stream ends, which it would open again.
        drop(listening);
        stream.given_up().await;
    }
}

#[tokio::test]
async fn a_lost_session_and_a_refused_stream_are_errors() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    for (status, lost) in [(404, true), (403, false)] {
        let listening = Listening::start(&session);
        server.next().await.status(status, "");
        assert_eq!(listening.end().await.unwrap_err().is_session_lost(), lost, "{status}");
    }
}

#[tokio::test]
async fn a_stream_that_ends_goes_on_after_its_last_event() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let mut listening = Listening::start(&session);
    let asked = server.next().await;
    assert_is_get(&asked, "");
    asked.events().send(&format!("id: 0-1\ndata: {}\n\n", note(1)));
    let asked = server.next().await;
    assert_is_get(&asked, "0-1");
    asked.events().break_off();
    let asked = server.next().await;
    assert_is_get(&asked, "0-1");
    asked.events().message(&note(2));
    listening.hears(1).await;
    listening.hears(2).await;
}

#[tokio::test]
async fn an_eager_server_is_not_asked_all_the_time() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let _listening = Listening::start(&session);
    let begun = Instant::now();
    for _ in 0..3 {
        server.next().await.events().send("retry: 0\n\n");
    }
    server.next().await;
    // 50 ms, and then twice as long each time.
    assert!(begun.elapsed() >= Duration::from_millis(350), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_server_says_how_long_to_wait_before_its_stream_is_opened_again() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let _listening = Listening::start(&session);
    server.next().await.events().send("retry: 300\n\n");
    let ended = Instant::now();
    server.next().await;
    assert!(ended.elapsed() >= Duration::from_millis(300), "{:?}", ended.elapsed());
}

#[tokio::test]
async fn what_a_server_says_about_waiting_holds_until_it_says_something_else() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let _listening = Listening::start(&session);
    server.next().await.events().send("retry: 300\n\n");
    drop(server.next().await.events());
    let ended = Instant::now();
    server.next().await;
    assert!(ended.elapsed() >= Duration::from_millis(300), "{:?}", ended.elapsed());
}

/// The gateway has gone and comes back. What the server says meanwhile may be what a call waits for.
#[tokio::test(start_paused = true)]
async fn a_stream_that_broke_is_opened_again_whatever_the_server_said_about_waiting() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let _listening = Listening::start(&session);
    let stream = server.next_at_last().await.events();
    // Longer than the clock goes on while a socket is waited for.
    let long = Duration::from_secs(3600);
    stream.send(&format!("retry: {}\nid: 0-1\ndata:\n\n", long.as_millis()));
    stream.break_off();
    let broke = tokio::time::Instant::now();
    drop(server.next_at_last().await);
    server.next_at_last().await.status(503, "upstream call failed: Connect: refused");
    assert_is_get(&server.next_at_last().await, "0-1");
    assert!(broke.elapsed() < long, "{:?}", broke.elapsed());
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed_is_opened_anew() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let mut listening = Listening::start(&session);
    server.next().await.events().send(&format!("id: 0-1\ndata: {}\n\n", note(1)));
    let asked = server.next().await;
    assert_is_get(&asked, "0-1");
    asked.status(400, "never heard of it");
    let asked = server.next().await;
    assert_is_get(&asked, "");
    asked.events().message(&note(2));
    listening.hears(1).await;
    listening.hears(2).await;
}

#[tokio::test]
async fn events_that_are_no_messages_are_skipped() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let mut listening = Listening::start(&session);
    let stream = server.next().await.events();
    stream.send("retry: 10\nid: 0-0\ndata: \n\nevent: ping\ndata: {}\n\n: hello\n\n");
    stream.message(&note(1));
    listening.hears(1).await;
}

/// A session that listens at one origin, which another one is about to replace.
struct Moving {
    old: Server,
    new: Server,
    origin: watch::Sender<Arc<Origin>>,
    session: Arc<Session>,
    listening: Listening,
    old_stream: super::server::Stream,
}

impl Moving {
    async fn start() -> Self {
        let (mut old, new) = (Server::start().await, Server::start().await);
        let origin = watch::Sender::new(Arc::clone(&old.origin));
        let session = open_with(&mut old, config(origin.subscribe()), &TaskTracker::new()).await;
        let mut listening = Listening::start(&session);
        let old_stream = old.next().await.events();
        old_stream.send(&format!("id: 0-1\ndata: {}\n\n", note(1)));
        listening.hears(1).await;
        Self { old, new, origin, session, listening, old_stream }
    }

    fn replace(&self) {
        self.origin.send_replace(Arc::clone(&self.new.origin));
    }
}

#[tokio::test]
async fn new_requests_go_to_the_new_origin_and_the_old_one_is_waited_for() {
    let mut moving = Moving::start().await;
    let mut under_way = Box::pin(ask(&moving.session));
    let asked = tokio::select! {
        _ = &mut under_way => unreachable!("it is not answered"),
        asked = moving.old.next() => asked,
    };
    moving.replace();
    let ((answer, _), ()) = tokio::join!(ask(&moving.session), async {
        loop {
            let asked = moving.new.next().await;
            if asked.method == Method::POST {
                return asked.json(UNATTRIBUTED);
            }
            // The GET stream, which moves too.
            asked.status(405, "");
        }
    });
    answer.unwrap();
    let old = Arc::clone(&moving.old.origin);
    let mut idle = Box::pin(old.idle());
    assert!((&mut idle).now_or_never().is_none(), "a request is under way");
    asked.json(ANSWER);
    let (answer, _) = soon(under_way).await;
    assert_eq!(answer.unwrap(), ANSWER);
    // The GET stream is still open there, and is not waited for.
    soon(idle).await;
}

#[tokio::test]
async fn the_get_stream_moves_and_loses_nothing() {
    let mut moving = Moving::start().await;
    moving.replace();
    let asked = moving.new.next().await;
    assert_is_get(&asked, "0-1");
    // While the new one is being opened, and afterwards, the old one is heard.
    moving.old_stream.message(&note(2));
    moving.listening.hears(2).await;
    let new_stream = asked.events();
    new_stream.message(&note(3));
    moving.listening.hears(3).await;
    moving.old_stream.message(&note(4));
    moving.listening.hears(4).await;
    drop(moving.old_stream);
    new_stream.message(&note(5));
    moving.listening.hears(5).await;
    moving.old.assert_nothing_asked();
}

#[tokio::test]
async fn where_one_stream_is_allowed_the_old_one_is_read_to_its_end() {
    let mut moving = Moving::start().await;
    moving.replace();
    moving.new.next().await.status(409, "");
    moving.old_stream.message(&note(2));
    moving.listening.hears(2).await;
    // Longer than the first wait after a failure.
    let asked_too_early = tokio::time::timeout(Duration::from_millis(100), moving.new.next()).await;
    assert!(asked_too_early.is_err(), "the old stream is still open");
    drop(moving.old_stream);
    let asked = moving.new.next().await;
    asked.events().message(&note(3));
    moving.listening.hears(3).await;
}

#[tokio::test]
async fn an_old_stream_is_heard_while_the_new_one_has_to_wait() {
    let mut moving = Moving::start().await;
    moving.replace();
    let stream = moving.new.next().await.events();
    stream.send("retry: 3600000\n\n");
    drop(stream);
    moving.old_stream.message(&note(2));
    moving.listening.hears(2).await;
    moving.new.assert_nothing_asked();
}
