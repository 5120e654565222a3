//! Servers that do not answer as they should: what the caller gets to know.

use super::*;

#[tokio::test]
async fn what_is_no_answer_is_an_error() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let foreign = r#"{"jsonrpc":"2.0","id":99,"result":{}}"#;
    let ((answer, _), ()) = tokio::join!(ask(&session), async { server.next().await.json(foreign) });
    assert_eq!(
        answer.unwrap_err().to_string(),
        "the server answered something else than request 2: result 99"
    );
    let ((answer, _), ()) = tokio::join!(ask(&session), async { server.next().await.json("<html>") });
    assert!(matches!(answer, Err(ClientError::Message(_))), "{answer:?}");
    let ((answer, _), ()) = tokio::join!(ask(&session), async { server.next().await.status(202, "") });
    let text = answer.unwrap_err().to_string();
    assert_eq!(text, "the server answered with HTTP 202 Accepted and no content, which is no answer");
}

#[tokio::test]
async fn half_an_event_is_no_answer() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    for half in [&format!("data: {ANSWER}\n"), "data: {\"jsonrpc\"", "event: mess"] {
        let ((answer, said), ()) =
            tokio::join!(ask(&session), async { server.next().await.events().send(half) });
        assert!(matches!(answer, Err(ClientError::NoAnswer)), "{answer:?}");
        assert!(said.is_empty() && answer.unwrap_err().was_sent());
    }
    server.assert_nothing_asked();
}

#[tokio::test]
async fn an_event_that_is_no_message_is_an_error() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, _), stream) = tokio::join!(ask(&session), async {
        let stream = server.next().await.events();
        stream.message("{\"half\":");
        stream
    });
    assert!(matches!(answer, Err(ClientError::Message(_))), "{answer:?}");
    stream.given_up().await;
}

#[tokio::test]
async fn an_accepted_request_is_not_answered_whatever_its_body_says() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let ((answer, _), ()) = tokio::join!(ask(&session), async {
        server.next().await.head(202, &[("content-type", "text/plain")]).send("Accepted");
    });
    let text = answer.unwrap_err().to_string();
    assert_eq!(
        text,
        "the server answered with HTTP 202 Accepted and content type \"text/plain\", which is not MCP"
    );
}

#[tokio::test]
async fn a_notification_is_taken_with_any_success() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    for status in [200, 202, 204] {
        let sending = session.send(rpc::notification("n", None));
        let (sent, ()) = tokio::join!(sending, async { server.next().await.status(status, "Accepted") });
        sent.unwrap();
    }
}

#[tokio::test]
async fn the_first_answer_counts_and_the_connection_lives_on() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let second = r#"{"jsonrpc":"2.0","id":2,"result":{"second":true}}"#;
    let ((answer, said), ()) = tokio::join!(ask(&session), async {
        let stream = server.next().await.events();
        stream.message(ANSWER);
        stream.message(second);
    });
    assert_eq!((answer.unwrap().as_str(), said), (ANSWER, vec![]));
    let ((answer, _), ()) = tokio::join!(ask(&session), async { server.next().await.json(UNATTRIBUTED) });
    answer.unwrap();
}

#[tokio::test]
async fn an_answer_to_something_else_is_none() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    // Ids are compared as they are written: `"2"` is not `2`.
    for foreign in [r#"{"jsonrpc":"2.0","id":99,"result":{}}"#, r#"{"jsonrpc":"2.0","id":"2","result":{}}"#] {
        let id = session.next_id();
        let mut said = 0;
        let mut count = |_| said += 1;
        let asking = session.request(rpc::request(id, "m", "{}"), id, &mut count);
        let (answer, ()) = tokio::join!(asking, async {
            server.next().await.events().message(foreign);
        });
        assert!(matches!(answer, Err(ClientError::NoAnswer)), "{answer:?}");
        assert_eq!(said, 1);
    }
}

#[tokio::test]
async fn each_request_gets_its_own_answer_whatever_the_order() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let script = async {
        let (first, second) = (server.next().await, server.next().await);
        for asked in [second, first] {
            let id = asked.body.split(r#""id":"#).nth(1).unwrap().split(',').next().unwrap().to_owned();
            asked.json(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"of":{id}}}}}"#));
        }
    };
    let ((first, _), (second, _), ()) = tokio::join!(ask(&session), ask(&session), script);
    assert!(first.unwrap().contains(r#""of":2"#));
    assert!(second.unwrap().contains(r#""of":3"#));
}

#[tokio::test]
async fn answers_in_a_batch_are_understood() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    let batch = format!("[{NOTE},{ANSWER}]");
    let ((answer, said), ()) = tokio::join!(ask(&session), async { server.next().await.json(&batch) });
    assert_eq!((answer.unwrap().as_str(), said), (ANSWER, vec![NOTE.to_owned()]));
    let batch = format!("[{NOTE},{UNATTRIBUTED},{NOTE}]");
    let ((answer, said), ()) =
        tokio::join!(ask(&session), async { server.next().await.events().message(&batch) });
    assert_eq!((answer.unwrap().as_str(), said), (UNATTRIBUTED, vec![NOTE.to_owned()]));
}

#[tokio::test]
async fn refusals_say_what_the_server_said() {
    let mut server = Server::start().await;
    let session = open(&mut server).await;
    for (status, headers, body, text) in [
        (
            429,
            &[("retry-after", "7")][..],
            "slow down",
            "HTTP 429 Too Many Requests (it asks to wait 7 s): slow down",
        ),
        (429, &[("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT")], "", "HTTP 429 Too Many Requests"),
        (
            401,
            &[("www-authenticate", "Bearer realm=\"x\"")],
            "",
            "HTTP 401 Unauthorized (it wants authorization by Bearer realm=\"x\")",
        ),
        (
            401,
            &[],
            "no",
            "HTTP 401 Unauthorized (it wants authorization, and does not say of which kind): no",
        ),
        (
            500,
            &[("content-type", "text/html")],
            "<h1>oops</h1>",
            "HTTP 500 Internal Server Error: <h1>oops</h1>",
        ),
        (503, &[("retry-after", "1")], "", "HTTP 503 Service Unavailable (it asks to wait 1 s)"),
    ] {
        let ((answer, _), ()) =
            tokio::join!(ask(&session), async { server.next().await.head(status, headers).send(body) });
        let error = answer.unwrap_err();
        assert_eq!(error.to_string(), text);
        // It may have been executed: nobody sends it again.
        assert!(error.was_sent() && !error.is_session_lost());
    }
    server.assert_nothing_asked();
}
