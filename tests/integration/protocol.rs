//! Everything in the protocol besides tools: through the aggregate, to the right server and the right client.

use http::StatusCode;
use serde_json::{Value, json};

use super::support::definitions::{example, remote, with};
use super::support::mcp_client::{EventStream, LATEST, Message};
use super::support::scripted::{Offered, Scripted};
use super::support::sidegate::Builder;
use super::support::{McpClient, Sidegate, eventually};

fn offered() -> Offered {
    Offered {
        tools: vec![json!({"name": "link", "inputSchema": {"type": "object"}})],
        prompts: vec![json!({"name": "ask", "x-odd": 1.5})],
        resources: vec![json!({"uri": "s://1", "name": "one"}), json!({"uri": "s://2", "name": "two"})],
        templates: vec![json!({"uriTemplate": "s://item/{id}", "name": "items"})],
        instructions: Some("Be kind.".to_owned()),
    }
}

/// Two servers that offer the same.
async fn two() -> (Sidegate, Scripted, Scripted) {
    let (a, b) = (Scripted::start(offered()).await, Scripted::start(offered()).await);
    let builder = Sidegate::builder().definition("a", &remote(&a.url)).definition("b", &remote(&b.url));
    (started(builder).await, a, b)
}

async fn started(builder: Builder) -> Sidegate {
    builder.wait_for_servers().start().await
}

/// The session of a client that can do everything.
async fn able(sidegate: &Sidegate) -> McpClient {
    let capabilities = json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}});
    McpClient::initialize(sidegate.url(), LATEST, capabilities).await
}

fn act(server: &str, steps: Value) -> Value {
    json!({
        "name": format!("x_{server}_act"),
        "arguments": {"steps": steps},
        "_meta": {"progressToken": "mine"},
    })
}

fn keys(list: &Value, key: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn everything_is_listed_and_found_under_its_exposed_name() {
    let (sidegate, a, b) = two().await;
    let client = McpClient::connect(sidegate.url()).await;
    let initialized = client.initialize_result();
    assert_eq!(initialized["instructions"], "# a\n\nBe kind.\n\n# b\n\nBe kind.");
    let capabilities = &initialized["capabilities"];
    assert_eq!(capabilities["resources"], json!({"subscribe": true, "listChanged": true}));
    assert_eq!(capabilities["prompts"], json!({"listChanged": true}));
    assert_eq!((&capabilities["logging"], &capabilities["completions"]), (&json!({}), &json!({})));

    let list = async |method: &str| client.request(method, json!({})).await.value();
    let prompts = list("prompts/list").await;
    assert_eq!(
        prompts["prompts"],
        json!([{"name": "x_a_ask", "x-odd": 1.5}, {"name": "x_b_ask", "x-odd": 1.5}])
    );
    let uris = keys(&list("resources/list").await["resources"], "uri");
    assert_eq!(uris, ["s://1", "s://2", "b+s://1", "b+s://2"]);
    let templates = keys(&list("resources/templates/list").await["resourceTemplates"], "uriTemplate");
    assert_eq!(templates, ["s://item/{id}", "b+s://item/{id}"]);

    let prompt = client.request("prompts/get", json!({"name": "x_b_ask", "arguments": {"é": "1"}})).await;
    assert_eq!(prompt.value()["got"], json!({"name": "ask", "arguments": {"é": "1"}}));
    assert_eq!((a.seen("prompts/get").len(), b.seen("prompts/get").len()), (0, 1));
    for (uri, own) in [
        ("s://1", "s://1"),
        ("b+s://2", "s://2"),
        ("b+s://item/7", "s://item/7"),
        ("s://item/7", "s://item/7"),
    ] {
        let read = client.request("resources/read", json!({"uri": uri})).await.value();
        assert_eq!(read["contents"], json!([{"uri": uri, "text": format!("text of {own}")}]));
    }
    assert_eq!(b.seen("resources/read"), [json!({"uri": "s://2"}), json!({"uri": "s://item/7"})]);
    let linked = client.request("tools/call", json!({"name": "x_b_link"})).await.value();
    assert_eq!(linked["content"][0]["uri"], "b+s://1");
    for (reference, own) in [
        (json!({"type": "ref/prompt", "name": "x_b_ask"}), json!({"type": "ref/prompt", "name": "ask"})),
        (
            json!({"type": "ref/resource", "uri": "b+s://item/{id}"}),
            json!({"type": "ref/resource", "uri": "s://item/{id}"}),
        ),
    ] {
        let completed = client.request("completion/complete", json!({"ref": reference, "argument": 7})).await;
        assert_eq!(completed.value()["got"], json!({"ref": own, "argument": 7}));
    }

    for (method, params, code) in [
        ("prompts/get", json!({"name": "ask"}), -32602),
        ("resources/read", json!({"uri": "t://1"}), -32002),
        ("completion/complete", json!({"ref": {"type": "ref/prompt", "name": "x"}}), -32602),
        ("completion/complete", json!({}), -32602),
        ("prompts/x", json!({"name": "x_a_ask"}), -32601),
        ("vendor/thing", json!({}), -32601),
        ("logging/setLevel", json!({"level": "loud"}), -32602),
    ] {
        assert_eq!(client.request(method, &params).await.error()["code"], code, "{method} {params}");
    }
}

#[tokio::test]
async fn updates_are_for_subscribers_and_outlive_the_session() {
    let (sidegate, _a, b) = two().await;
    let (one, two, other) =
        (able(&sidegate).await, able(&sidegate).await, McpClient::connect(sidegate.url()).await);
    let mut streams = [one.listen().await, two.listen().await, other.listen().await];
    let uri = json!({"uri": "b+s://1"});
    assert_eq!(one.request("resources/subscribe", &uri).await.value(), json!({}));
    assert_eq!(two.request("resources/subscribe", &uri).await.value(), json!({}));
    let refused = other.request("resources/subscribe", json!({"uri": "b+s://item/secret"})).await;
    assert_eq!(refused.error(), json!({"code": -32099, "message": "not yours"}));

    let updated = async |stream: &mut EventStream| {
        stream.expect("notifications/resources/updated").await.params()["uri"].clone()
    };
    assert_eq!(b.touch("s://1"), 1);
    for stream in &mut streams[..2] {
        assert_eq!(updated(stream).await, "b+s://1");
    }
    // One leaves it, and the server does not hear of that.
    assert_eq!(one.request("resources/unsubscribe", &uri).await.value(), json!({}));
    assert!(b.seen("resources/unsubscribe").is_empty());
    assert_eq!(b.touch("s://1"), 1);
    assert_eq!(updated(&mut streams[1]).await, "b+s://1");

    // A new session is told of what the old one was.
    b.end_sessions();
    eventually("the subscription in a new session", async || (b.touch("s://1") == 1).then_some(())).await;
    assert_eq!(updated(&mut streams[1]).await, "b+s://1");

    // The last one leaves for good.
    assert_eq!(two.delete().await, StatusCode::NO_CONTENT);
    eventually("the end of the subscription", async || (b.touch("s://1") == 0).then_some(())).await;
    let [of_one, _, of_other] = &mut streams;
    for (client, stream) in [(one, of_one), (other, of_other)] {
        client.delete().await;
        assert_eq!(stream.next_message().await, None, "for nobody who is subscribed");
    }
}

#[tokio::test]
async fn each_client_gets_the_log_messages_that_it_wants() {
    let (sidegate, a, _b) = two().await;
    let (loud, quiet) = (able(&sidegate).await, able(&sidegate).await);
    let log = |level: &str| json!({"say": {"method": "notifications/message", "params": {"level": level, "data": level}}});
    let heard = async |client: &McpClient| {
        let steps = json!([log("debug"), log("info"), log("error"), log("emergency")]);
        let mut exchange = client.start("tools/call", act("a", steps)).await;
        let mut heard = Vec::new();
        while let Some(message) = exchange.next_message().await {
            if message.envelope().method.is_some() {
                heard.push(message.params()["level"].as_str().unwrap().to_owned());
            }
        }
        heard
    };
    assert_eq!(heard(&quiet).await.len(), 4, "nobody has said anything");
    quiet.request("logging/setLevel", json!({"level": "error"})).await.value();
    assert_eq!(a.seen("logging/setLevel"), [json!({"level": "info"})], "the other one may want more");
    loud.request("logging/setLevel", json!({"level": "debug"})).await.value();
    assert_eq!(a.seen("logging/setLevel").last(), Some(&json!({"level": "debug"})));
    assert_eq!(heard(&quiet).await, ["error", "emergency"]);
    assert_eq!(heard(&loud).await, ["debug", "info", "error", "emergency"]);
    assert_eq!(heard(&able(&sidegate).await).await, ["info", "error", "emergency"], "has not said");

    a.end_sessions();
    eventually("the level in a new session", async || (a.seen("logging/setLevel").len() == 3).then_some(()))
        .await;
    assert_eq!(loud.delete().await, StatusCode::NO_CONTENT);
    eventually("less", async || {
        (a.seen("logging/setLevel").last() == Some(&json!({"level": "info"}))).then_some(())
    })
    .await;
}

/// Answers what a server asks, with `result`; gives what it asked.
async fn asked(client: &McpClient, stream: &mut EventStream, method: &str, result: Value) -> Message {
    let request = stream.expect(method).await;
    client.respond(&request, result).await;
    request
}

#[tokio::test]
async fn a_servers_question_reaches_the_caller_and_the_answer_the_server() {
    let (sidegate, _a, _b) = two().await;
    let client = able(&sidegate).await;
    let bystander = able(&sidegate).await;
    let mut bystanders = bystander.listen().await;
    for on in ["own", "get"] {
        let steps = json!([
            {"ask": {"method": "sampling/createMessage", "params": {"x": 1.5, "_meta": {"progressToken": "s"}}}, "on": on},
            {"ask": {"method": "elicitation/create", "params": {"mode": "url", "elicitationId": on}}, "on": on},
            {"say": {"method": "notifications/elicitation/complete", "params": {"elicitationId": on}}, "on": "get"},
            {"ask": {"method": "roots/list"}, "on": on},
        ]);
        let mut standalone = client.listen().await;
        let mut stream = client.start("tools/call", act("a", steps)).await.into_stream();
        let request = stream.expect("sampling/createMessage").await;
        let number = request.envelope().id.unwrap().get().to_owned();
        assert_eq!(
            request.params(),
            json!({"x": 1.5, "_meta": {"progressToken": number.parse::<u64>().unwrap()}})
        );
        client.respond(&request, json!({"model": "m", "é": null})).await;
        asked(&client, &mut stream, "elicitation/create", json!({"action": "accept"})).await;
        let complete = standalone.expect("notifications/elicitation/complete").await;
        assert_eq!(complete.params(), json!({"elicitationId": on}));
        let answers = stream.next_message().await.unwrap().value()["structuredContent"]["answers"].clone();
        assert_eq!(answers[0], json!({"model": "m", "é": null}));
        assert_eq!(answers[1], json!({"action": "accept"}));
        assert_eq!(answers[2]["error"]["code"], -32601, "clients share the session: {answers}");
    }
    // One that cannot, does not.
    let unable = McpClient::connect(sidegate.url()).await;
    let steps = json!([
        {"ask": {"method": "sampling/createMessage", "params": {}}},
        {"ask": {"method": "elicitation/create", "params": {"mode": "form"}}},
        {"ask": {"method": "ping"}},
    ]);
    let answers = unable.request("tools/call", act("a", steps)).await.value()["structuredContent"].clone();
    assert_eq!(answers["answers"][0]["error"]["message"], "the client does not support sampling");
    assert_eq!(answers["answers"][1]["error"]["message"], "the client does not support elicitation");
    assert_eq!(answers["answers"][2], json!({}));

    bystander.delete().await;
    assert_eq!(bystanders.next_message().await, None, "it was asked nothing");
}

#[tokio::test]
async fn a_question_outside_of_calls_is_for_the_only_caller_or_nobody() {
    let (sidegate, _a, _b) = two().await;
    let (one, two) = (able(&sidegate).await, able(&sidegate).await);
    let ask = json!({"ask": {"method": "sampling/createMessage", "params": {}}, "on": "get"});
    let waiting = one.start(
        "tools/call",
        act("a", json!([
            {"say": {"method": "notifications/progress", "params": {"progressToken": "$token", "progress": 1}}},
            {"until_cancelled": true},
        ])),
    );
    let mut waiting = waiting.await;
    assert_eq!(waiting.expect("notifications/progress").await.params()["progressToken"], "mine");
    let answer = two.request("tools/call", act("a", json!([ask]))).await.value();
    let error = &answer["structuredContent"]["answers"][0]["error"];
    assert!(error["message"].as_str().unwrap().contains("several have calls under way"), "{error}");
    // With another server it is the only one.
    let mut stream = two.start("tools/call", act("b", json!([ask]))).await.into_stream();
    asked(&two, &mut stream, "sampling/createMessage", json!({"model": "two"})).await;
    assert_eq!(
        stream.next_message().await.unwrap().value()["structuredContent"]["answers"][0]["model"],
        "two"
    );
}

#[tokio::test]
async fn a_question_ends_with_whoever_asks_or_is_asked() {
    let (sidegate, a, _b) = two().await;
    let client = able(&sidegate).await;
    let mut standalone = client.listen().await;
    let question = json!({"method": "sampling/createMessage", "params": {}});
    // The server does not want to know any more.
    let steps = json!([{"ask": question, "cancel": true}, {"wait": 20}]);
    let mut stream = client.start("tools/call", act("a", steps)).await.into_stream();
    let request = stream.expect("sampling/createMessage").await;
    let cancelled = standalone.expect("notifications/cancelled").await.params();
    let id = request.envelope().id.unwrap().get().to_owned();
    assert_eq!(cancelled, json!({"requestId": id.parse::<u64>().unwrap(), "reason": "not any more"}));
    // An answer that is late is nobody's.
    client.respond(&request, json!({"model": "late"})).await;
    assert_eq!(
        stream.next_message().await.unwrap().value()["structuredContent"]["answers"],
        json!(["cancelled"])
    );

    // The client cancels its call; the server hears of that.
    let (id, starting) = client.starting("tools/call", act("a", json!([{"ask": question}])));
    let mut stream = starting.await.into_stream();
    stream.expect("sampling/createMessage").await;
    client.notify("notifications/cancelled", json!({"requestId": id})).await;
    eventually("the cancellation", async || (a.seen("notifications/cancelled").len() == 1).then_some(()))
        .await;

    // The session goes, and with it the question.
    let mut stream = client.start("tools/call", act("a", json!([{"ask": question}]))).await.into_stream();
    let request = stream.expect("sampling/createMessage").await;
    a.end_sessions();
    let id: u64 = request.envelope().id.unwrap().get().parse().unwrap();
    loop {
        let cancelled = standalone.expect("notifications/cancelled").await.params();
        if cancelled["requestId"] == id {
            assert_eq!(cancelled["reason"], "the server has gone");
            break;
        }
    }
}

#[tokio::test]
async fn tasks_are_their_clients_own() {
    let (sidegate, a, _b) = two().await;
    let (one, two) = (able(&sidegate).await, able(&sidegate).await);
    assert!(one.initialize_result()["capabilities"]["tasks"]["list"].is_object());
    let mut streams = [one.listen().await, two.listen().await];
    for (client, id) in [(&one, "t1"), (&two, "t2")] {
        let mut call = act("a", json!([]));
        call["task"] = json!({"ttl": 1});
        call["arguments"]["id"] = json!(id);
        let begun = client.request("tools/call", call).await.value();
        assert_eq!(begun["task"]["taskId"], id);
    }
    let list =
        async |client: &McpClient| client.request("tasks/list", json!({})).await.value()["tasks"].clone();
    assert_eq!(list(&one).await, json!([{"taskId": "t1"}]));
    assert_eq!(list(&two).await, json!([{"taskId": "t2"}]));
    let got = one.request("tasks/get", json!({"taskId": "t1"})).await.value();
    assert_eq!(got["got"], json!({"taskId": "t1"}));
    assert_eq!(one.request("tasks/get", json!({"taskId": "t2"})).await.error()["code"], -32602);
    assert_eq!(a.seen("tasks/get").len(), 1);
    for (stream, id) in streams.iter_mut().zip(["t1", "t2"]) {
        a.say("notifications/tasks/status", &json!({"taskId": id}));
        assert_eq!(stream.expect("notifications/tasks/status").await.params()["taskId"], id);
    }
}

#[tokio::test]
async fn servers_of_a_family_share_their_tools() {
    let (a, b) = (Scripted::start(offered()).await, Scripted::start(offered()).await);
    let family = "family: {name: pair, instanceArg: which}";
    let sidegate = started(
        Sidegate::builder()
            .definition("a", &with(remote(&a.url), family))
            .definition("b", &with(remote(&b.url), family)),
    )
    .await;
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await, ["x_pair_act", "x_pair_link"]);
    let tools = client.request("tools/list", json!({})).await.value();
    assert_eq!(tools["tools"][1]["inputSchema"]["properties"]["which"]["enum"], json!(["a", "b"]));
    assert_eq!(tools["tools"][1]["inputSchema"]["required"], json!(["which"]));
    let call = async |arguments: Value| {
        client.request("tools/call", json!({"name": "x_pair_link", "arguments": arguments})).await
    };
    for (which, uri) in [("a", "s://1"), ("b", "b+s://1")] {
        let called = call(json!({"x": 1.5, "which": which, "y": null})).await.value();
        assert_eq!(called["got"], json!({"name": "link", "arguments": {"x": 1.5, "y": null}}));
        assert_eq!(called["content"][0]["uri"], uri);
    }
    for arguments in [json!({}), json!({"which": "c"}), json!({"which": 7})] {
        let error = call(arguments).await.error();
        assert_eq!(error["code"], -32602);
        assert!(error["message"].as_str().unwrap().contains("must be one of a, b"), "{error}");
    }
    let alone = McpClient::connect(&format!("{}/a", sidegate.url())).await;
    assert_eq!(alone.tool_names().await, ["act", "link"]);
}

#[tokio::test]
async fn each_client_has_its_own_session_where_that_is_wanted() {
    let own = Scripted::start(offered()).await;
    let sidegate = started(
        Sidegate::builder()
            .definition("own", &with(remote(&own.url), "isolation: session"))
            .definition("near", &with(example("everything", &[]), "isolation: session")),
    )
    .await;
    let (one, two) = (able(&sidegate).await, McpClient::connect(sidegate.url()).await);
    assert_eq!(own.sessions().len(), 1, "what is listed is listed once");
    let ask = json!([
        {"ask": {"method": "roots/list"}},
        {"ask": {"method": "roots/list"}, "on": "get"},
        {"say": {"method": "notifications/message", "params": {"level": "info", "data": "one"}}, "on": "get"},
    ]);
    let mut standalone = one.listen().await;
    let mut stream = one.start("tools/call", act("own", ask.clone())).await.into_stream();
    for _ in 0..2 {
        asked(&one, &mut stream, "roots/list", json!({"roots": []})).await;
    }
    let answer = stream.next_message().await.unwrap().value();
    assert_eq!(answer["structuredContent"]["answers"], json!([{"roots": []}, {"roots": []}]));
    assert_eq!(standalone.expect("notifications/message").await.params()["data"], "one");
    let answer = two.request("tools/call", act("own", ask)).await.value();
    assert_eq!(answer["structuredContent"]["answers"][0]["error"]["code"], -32601);

    let expected = json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}});
    assert_eq!(own.sessions()[1..], [expected, json!({})]);
    one.notify("notifications/roots/list_changed", json!({})).await;
    eventually("the news", async || (own.seen("notifications/roots/list_changed").len() == 1).then_some(()))
        .await;

    // Subscriptions and sessions are nobody else's, and end with their client.
    one.request("resources/subscribe", json!({"uri": "s://1"})).await.value();
    assert_eq!(own.touch("s://1"), 1);
    standalone.expect("notifications/resources/updated").await;
    let pid = async |client: &McpClient| {
        client.call("x_near_pid", json!({})).await.value()["structuredContent"]["pid"].as_u64().unwrap()
    };
    let pids = [pid(&one).await, pid(&two).await];
    assert_ne!(pids[0], pids[1]);
    assert_eq!(pid(&one).await, pids[0], "it stays the same");
    assert_eq!(one.delete().await, StatusCode::NO_CONTENT);
    assert_eq!(own.sessions().len(), 2);
    assert!(!std::path::Path::new(&format!("/proc/{}", pids[0])).exists(), "its process has ended");
    // A session that is lost is opened again.
    own.end_sessions();
    two.request("tools/call", act("own", json!([]))).await.value();
    // A definition that does not want it any more.
    sidegate.write_definition("near", &example("everything", &[]));
    eventually("the end of the client's own process", async || (pid(&two).await != pids[1]).then_some(()))
        .await;
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{}", ended.stderr);
}
