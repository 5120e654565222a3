//! Many clients, servers and interleavings: nobody gets what is another one's, and everybody gets all of their own.
//!
//! Whatever belongs to client 7 says `@7@` somewhere. What happens is drawn from a seed; what overlaps with what is up to
//! the scheduler.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use rstest::rstest;
use serde_json::{Value, json};

use super::support::definitions::{remote, with};
use super::support::mcp_client::{EventStream, LATEST, Message};
use super::support::scripted::{Offered, Scripted};
use super::support::{McpClient, Sidegate, eventually};

const CLIENTS: u64 = 12;
/// Calls that a client has under way at once, one after the other in each lane.
const LANES: u64 = 3;
const CALLS: usize = 12;
const SERVERS: [&str; 3] = ["a", "b", "own"];

/// A sequence that looks random and is the same each time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Panics where a text holds another client's mark.
fn check(number: u64, text: &str) {
    for mark in text.split('@').skip(1).step_by(2) {
        assert_eq!(mark, number.to_string(), "client {number} got {text}");
    }
}

async fn connect(sidegate: &Sidegate) -> McpClient {
    let capabilities = json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}});
    McpClient::initialize(sidegate.url(), LATEST, capabilities).await
}

/// Answers what it is asked; whether the message was a question.
async fn answer(client: &McpClient, number: u64, message: &Message) -> bool {
    check(number, message.raw());
    let envelope = message.envelope();
    let is_question = envelope.method.is_some() && envelope.id.is_some();
    if is_question {
        let id = envelope.id.map_or("null", |id| id.get());
        // Not accepted where the client is leaving: a question of a call that it has cancelled comes late.
        client.post(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"by":"@{number}@"}}}}"#)).await;
    }
    is_question
}

async fn listen(client: Arc<McpClient>, number: u64, mut stream: EventStream) {
    // A quiet stream is fine.
    while let Ok(Some(message)) = tokio::time::timeout(Duration::from_secs(60), stream.next_message()).await {
        answer(&client, number, &message).await;
    }
}

/// What a call is to do, how much progress is told of it, and how many questions are asked on its own stream.
fn steps(dice: &mut Dice, number: u64, unique: u64) -> (Vec<Value>, usize) {
    let (mut steps, mut progress) = (Vec::new(), 0);
    let mark = format!("@{number}@ {unique}");
    for _ in 0..dice.below(6) {
        let on = if dice.below(2) == 0 { "own" } else { "get" };
        let params = json!({"about": mark, "_meta": {"progressToken": mark}});
        steps.push(match dice.below(8) {
            0 | 1 => {
                progress += 1;
                json!({"say": {"method": "notifications/progress", "params": {
                    "progressToken": "$token", "progress": 1, "message": mark,
                }}, "on": on})
            }
            2 => json!({"say": {"method": "notifications/message", "params": {"level": "info", "data": mark}}, "on": on}),
            3 => json!({"ask": {"method": "sampling/createMessage", "params": params}, "on": on}),
            4 => json!({"ask": {"method": "elicitation/create", "params": params}, "on": on, "cancel": true}),
            5 => json!({"say": {"method": "vendor/note", "params": {"about": mark}}, "on": on}),
            6 => json!({"say": {"method": "notifications/elicitation/complete", "params": {"elicitationId": mark}}, "on": on}),
            _ => json!({"wait": dice.below(4)}),
        });
    }
    (steps, progress)
}

/// One call, from its request to its answer; it may be cancelled on the way.
async fn call(client: &McpClient, dice: &mut Dice, number: u64, unique: u64) {
    let server = SERVERS[usize::try_from(dice.below(3)).unwrap()];
    let (steps, progress) = steps(dice, number, unique);
    let on_get =
        steps.iter().filter(|step| step["on"] == "get" && step["say"]["method"] == "notifications/progress");
    let on_get = on_get.count();
    let arguments = json!({"steps": steps, "echo": format!("@{number}@")});
    let token = format!("token {unique} of @{number}@");
    let params = json!({
        "name": format!("x_{server}_act"), "arguments": arguments, "_meta": {"progressToken": token},
    });
    let (id, exchange) = client.starting("tools/call", params);
    let is_cancelled = dice.below(6) == 0;
    let after = Duration::from_millis(dice.below(5));
    let cancelling = async {
        if is_cancelled {
            tokio::time::sleep(after).await;
            client.notify("notifications/cancelled", json!({"requestId": id})).await;
        }
    };
    let reading = async {
        let mut stream = exchange.await.into_stream();
        let (mut heard, mut answered) = (0, None);
        while let Some(message) = stream.next_message().await {
            if answer(client, number, &message).await {
                continue;
            }
            match message.envelope().method.as_deref() {
                Some("notifications/progress") => {
                    assert_eq!(message.params()["progressToken"], token);
                    heard += 1;
                }
                Some(_) => {}
                None => answered = Some(message),
            }
        }
        (heard, answered)
    };
    let ((), (heard, answered)) = tokio::join!(cancelling, reading);
    if is_cancelled {
        return;
    }
    let structured =
        answered.expect("a call that is not cancelled is answered").value()["structuredContent"].clone();
    assert_eq!(structured["echo"], format!("@{number}@"));
    // What is said on another stream may come after the answer.
    assert!((progress - on_get..=progress).contains(&heard), "{heard} of {progress}, {on_get} elsewhere");
    let asked = steps.iter().filter(|step| step["ask"].is_object());
    for (question, answer) in asked.zip(structured["answers"].as_array().unwrap()) {
        let is_mine = answer["by"] == format!("@{number}@");
        let may_fail = question["on"] == "get" && server != "own";
        let is_fine = is_mine || question["cancel"] == true || (may_fail && answer["error"].is_object());
        assert!(is_fine, "{question}: {answer}");
    }
}

/// A client that calls, subscribes, leaves and comes back.
async fn live(sidegate: Arc<Sidegate>, number: u64, seed: u64) {
    let mut dice = Dice(seed ^ number.wrapping_mul(0x0dd0_1234_5678_9abc));
    for life in 0..2 {
        let client = Arc::new(connect(&sidegate).await);
        let stream = client.listen().await;
        let listening = tokio::spawn(listen(Arc::clone(&client), number, stream));
        let uri = json!({"uri": format!("s://item/@{number}@")});
        client.request("resources/subscribe", &uri).await.value();
        let lanes = (0..LANES).map(|lane| {
            let (mut dice, client) = (Dice(dice.next()), Arc::clone(&client));
            async move {
                for turn in 0..CALLS {
                    let unique = (life * LANES + lane) * 1000 + u64::try_from(turn).unwrap();
                    call(&client, &mut dice, number, unique).await;
                }
            }
        });
        join_all(lanes).await;
        assert!(client.delete().await.is_success());
        listening.await.unwrap();
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_gets_what_is_another_ones(#[values(1, 2, 3)] seed: u64) {
    let templates = vec![json!({"uriTemplate": "s://item/{id}", "name": "items"})];
    let offered = Offered { templates, ..Offered::default() };
    let servers = join_all(SERVERS.map(|_| Scripted::start(offered.clone()))).await;
    let mut builder = Sidegate::builder();
    for (name, server) in SERVERS.iter().zip(&servers) {
        let definition = remote(&server.url);
        let definition = if *name == "own" { with(definition, "isolation: session") } else { definition };
        builder = builder.definition(name, &definition);
    }
    let sidegate = Arc::new(builder.wait_for_servers().start().await);
    let clients = (1..=CLIENTS).map(|number| tokio::spawn(live(Arc::clone(&sidegate), number, seed)));
    let living = join_all(clients);
    tokio::pin!(living);
    let mut dice = Dice(seed);
    let ended = loop {
        tokio::select! {
            ended = &mut living => break ended,
            () = tokio::time::sleep(Duration::from_millis(2)) => {
                // Everybody is subscribed with the first server that has the template.
                servers[0].touch(&format!("s://item/@{}@", 1 + dice.below(CLIENTS)));
            }
        }
    };
    for client in ended {
        client.unwrap();
    }
    // Their sessions are closed, but for the one with which each server is listed.
    for server in &servers {
        eventually("the end of clients' own sessions", async || (server.sessions().len() == 1).then_some(()))
            .await;
    }
}
