//! Streams that end or break before the answer came, and are read on elsewhere.

use super::*;

#[tokio::test]
async fn a_broken_stream_is_resumed_after_its_last_event() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, said), ()) = tokio::join!(ask(&session), async {
        let stream = server.next().await.events();
        stream.send(&format!("id: 1-1\ndata: {NOTE}\n\n"));
        // Half an event, which the next stream tells again.
        stream.send("id: 1-2\ndata: {");
        stream.break_off();
        let asked = server.next().await;
        assert_eq!((&asked.method, asked.header("last-event-id")), (&http::Method::GET, "1-1"));
        let stream = asked.events();
        stream.message(NOTE);
        stream.message(ANSWER);
    });
    assert_eq!((answer.unwrap().as_str(), said.len()), (ANSWER, 2));
}

#[tokio::test]
async fn a_stream_without_ids_is_not_resumed() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        server.next().await.events().message(NOTE);
    });
    assert!(matches!(answer, Err(ClientError::NoAnswer)), "{answer:?}");
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        server.next().await.events().break_off();
    });
    assert!(matches!(answer, Err(ClientError::Body(_))), "{answer:?}");
    assert!(answer.unwrap_err().was_sent());
    server.assert_nothing_asked();
}

/// More often than a stream without progress is resumed.
const OFTEN: u32 = 12;

// The clock is stopped: it goes on whenever everybody waits.
#[tokio::test(start_paused = true)]
async fn a_stream_that_comes_closer_to_its_answer_is_resumed_as_often_as_the_server_likes() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let script = async {
        let mut asked = server.next_at_last().await;
        for number in 0..OFTEN {
            asked.events().send(&format!("id: 1-{number}\ndata:\n\n"));
            asked = server.next_at_last().await;
            assert_eq!(asked.header("last-event-id"), format!("1-{number}"));
        }
        for _ in 0..OFTEN {
            // Progress without new ids.
            asked.events().message(NOTE);
            asked = server.next_at_last().await;
        }
        asked.events().message(ANSWER);
    };
    let mut asking = Box::pin(ask(&session));
    tokio::select! {
        biased;
        () = script => {}
        (answer, _) = &mut asking => panic!("it is given up: {answer:?}"),
    }
    let (answer, _) = asking.await;
    assert_eq!(answer.unwrap(), ANSWER);
}

#[tokio::test(start_paused = true)]
async fn a_stream_without_progress_is_given_up() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let script = async {
        let mut resumed = 0;
        server.next_at_last().await.events().send("id: 1-0\ndata:\n\n");
        loop {
            drop(server.next_at_last().await.events());
            resumed += 1;
            assert!(resumed < OFTEN);
        }
    };
    tokio::select! {
        (answer, _) = ask(&session) => assert!(matches!(answer, Err(ClientError::NoAnswer)), "{answer:?}"),
        () = script => {}
    }
}

#[tokio::test]
async fn a_server_says_how_long_to_wait_before_a_stream_is_resumed() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    for (retry, least) in [(200, 200), (0, 50)] {
        let ((answer, _), ()) = tokio::join!(ask(&session), async {
            let asked = server.next().await;
            let stream = asked.events();
            stream.send(&format!("retry: {retry}\nid: 1-1\ndata:\n\n"));
            let ended = std::time::Instant::now();
            drop(stream);
            let asked = server.next().await;
            assert!(ended.elapsed().as_millis() >= least, "{retry}: after {:?}", ended.elapsed());
            asked.events().message(UNATTRIBUTED);
        });
        answer.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_cannot_be_resumed_broke_for_the_first_reason() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    for status in [400, 404, 405] {
        let ((answer, _), ()) = tokio::join!(ask(&session), async {
            let stream = server.next().await.events();
            stream.send("id: 1-1\ndata:\n\n");
            stream.break_off();
            server.next().await.status(status, "no such session");
        });
        assert!(matches!(answer, Err(ClientError::Body(_))), "{status}: {answer:?}");
    }
    server.assert_nothing_asked();
}

/// Waits for the answer; gives also how often and for how long the server sent us away.
async fn ask_and_watch(session: &Session) -> (Result<String, ClientError>, Vec<Duration>) {
    let id = session.next_id();
    let mut away = Vec::new();
    let mut on_said = |said| match said {
        Said::Away(wait) => away.push(wait),
        Said::Head => {}
        Said::Message(message) => panic!("{message:?}"),
    };
    let answer = session.request_and_watch(rpc::request(id, "m", "{}"), id, &[], &mut on_said).await;
    (answer.map(|answer| answer.text().to_string()), away)
}

#[tokio::test(start_paused = true)]
async fn a_server_may_want_us_to_stay_away_for_long() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let mut asking = Box::pin(ask_and_watch(&session));
    let script = async {
        server.next_at_last().await.events().send("retry: 600000\nid: 1-0\ndata:\n\n");
        let ended = tokio::time::Instant::now();
        let asked = server.next_at_last().await;
        assert!(ended.elapsed() >= Duration::from_secs(600), "{:?}", ended.elapsed());
        // The request is not under way meanwhile: nobody has to wait for it.
        asked.events().message(ANSWER);
    };
    tokio::select! {
        biased;
        () = script => {}
        answer = &mut asking => panic!("it is not answered yet: {answer:?}"),
    }
    let (answer, away) = asking.await;
    assert_eq!((answer.unwrap().as_str(), away), (ANSWER, vec![Duration::from_secs(600)]));
}

/// How long a server wants us to stay away: longer than the clock goes on while a socket is waited for.
const LONG_AWAY: Duration = Duration::from_secs(3600);

/// Runs the clock until `script` is done, which must be before the answer; then gives that.
async fn answered_after<T>(asking: impl Future<Output = T>, script: impl Future<Output = ()>) -> T {
    let mut asking = Box::pin(asking);
    tokio::select! {
        biased;
        () = script => {}
        _ = &mut asking => panic!("it is given up"),
    }
    asking.await
}

#[tokio::test(start_paused = true)]
async fn a_break_is_not_the_wish_of_the_server() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let script = async {
        let stream = server.next_at_last().await.events();
        stream.send(&format!("retry: {}\nid: 1-0\ndata:\n\n", LONG_AWAY.as_millis()));
        stream.break_off();
        let broke = tokio::time::Instant::now();
        // The gateway comes back, and the server gives the answer to who is there.
        drop(server.next_at_last().await);
        let asked = server.next_at_last().await;
        assert!(broke.elapsed() < LONG_AWAY, "{:?}", broke.elapsed());
        asked.events().message(ANSWER);
    };
    let (answer, away) = answered_after(ask_and_watch(&session), script).await;
    assert_eq!((answer.unwrap().as_str(), away), (ANSWER, vec![]));
}

/// So servers made with the official Rust SDK answer where they have nothing to resume any more.
#[tokio::test(start_paused = true)]
async fn a_resumed_stream_without_a_word_is_not_waited_for_as_long_as_the_server_once_said() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let begun = tokio::time::Instant::now();
    let script = async {
        let stream = server.next_at_last().await.events();
        stream.send(&format!("retry: {}\nid: 1-0\ndata:\n\n", LONG_AWAY.as_millis()));
        stream.break_off();
        loop {
            drop(server.next_at_last().await.events());
        }
    };
    let (answer, away) = tokio::select! {
        answered = ask_and_watch(&session) => answered,
        () = script => unreachable!("it never ends"),
    };
    assert!(matches!(answer, Err(ClientError::NoAnswer)), "{answer:?}");
    assert!(away.is_empty(), "{away:?}");
    assert!(begun.elapsed() < LONG_AWAY, "{:?}", begun.elapsed());
}

/// What was said once holds, as long as the server goes on to say something.
#[tokio::test(start_paused = true)]
async fn a_server_that_lets_itself_be_polled_again_is_waited_for_again() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let script = async {
        server.next_at_last().await.events().send("retry: 60000\nid: 1-0\ndata:\n\n");
        for number in 1..4 {
            let ended = tokio::time::Instant::now();
            let asked = server.next_at_last().await;
            assert!(ended.elapsed() >= Duration::from_secs(60), "{:?}", ended.elapsed());
            asked.events().send(&format!("id: 1-{number}\ndata:\n\n"));
        }
        server.next_at_last().await.events().message(ANSWER);
    };
    let (answer, away) = answered_after(ask_and_watch(&session), script).await;
    assert_eq!((answer.unwrap().as_str(), away), (ANSWER, vec![Duration::from_secs(60); 4]));
}

#[tokio::test]
async fn a_stream_is_resumed_as_soon_as_it_can_be() {
    let mut server = Server::start().await;
    let marker = http::HeaderName::from_static("x-route");
    let config = ClientConfig { route_marker: Some(marker), ..config_for(&server) };
    let session = open_with(&mut server, config, &TaskTracker::new()).await;
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        server.next().await.events().send("id: 1-0\ndata:\n\n");
        // Ours is the gateway's problem, not the server's.
        for (status, text) in
            [(404, "route not found"), (503, "upstream call failed: Connect: refused"), (502, "")]
        {
            server.next().await.status(status, text);
        }
        drop(server.next().await);
        server.next().await.head(503, &[("x-route", "1")]).send("busy");
        server.next().await.events().message(ANSWER);
    });
    assert_eq!(answer.unwrap(), ANSWER);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_cannot_be_resumed_for_long_is_given_up() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let script = async {
        server.next_at_last().await.events().send("id: 1-0\ndata:\n\n");
        loop {
            server.next_at_last().await.status(503, "");
        }
    };
    tokio::select! {
        (answer, _) = ask(&session) => assert!(matches!(answer, Err(ClientError::NoAnswer)), "{answer:?}"),
        () = script => {}
    }
}

#[tokio::test]
async fn the_rest_is_asked_of_whoever_is_there_now() {
    let (mut old, mut new) = (Server::start().await, Server::start().await);
    let origin = watch::Sender::new(Arc::clone(&old.origin));
    let session = open_with(&mut old, config(origin.subscribe()), &TaskTracker::new()).await;
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        let stream = old.next().await.events();
        stream.send("id: 1-0\ndata:\n\n");
        origin.send_replace(Arc::clone(&new.origin));
        // Whoever waits for the old one does not wait for what is no longer asked there.
        let idle = Arc::clone(&old.origin);
        stream.break_off();
        soon(idle.idle()).await;
        let asked = new.next().await;
        assert_eq!(asked.header("last-event-id"), "1-0");
        asked.events().message(ANSWER);
    });
    assert_eq!(answer.unwrap(), ANSWER);
    old.assert_nothing_asked();
}
