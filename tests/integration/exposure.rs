//! Exposure `meta`: a few tools that find and use all others.

use http::StatusCode;
use rstest::rstest;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::support::definitions::{built_in, example, remote, with};
use super::support::mcp_client::{Http, LATEST, Message, RawResponse};
use super::support::optional::Through;
use super::support::scripted::{Offered, Scripted};
use super::support::sidegate::Builder;
use super::support::stdio_client::StdioClient;
use super::support::{McpClient, Sidegate, eventually};

const META: [&str; 12] = [
    "list_tools",
    "filter_tools",
    "describe_tool",
    "call_tool",
    "list_resources",
    "filter_resources",
    "describe_resource",
    "get_resource",
    "list_prompts",
    "filter_prompts",
    "describe_prompt",
    "get_prompt",
];

const CONFIG: &str = "aggregator: {exposure: meta}\n";

/// A client that sees the meta tools, and can do everything.
async fn meta(sidegate: &Sidegate) -> McpClient {
    connect(sidegate, "meta").await
}

async fn connect(sidegate: &Sidegate, exposure: &str) -> McpClient {
    let capabilities = json!({"sampling": {}, "elicitation": {"form": {}, "url": {}}, "roots": {}});
    let headers = [("x-sidegate-exposure", exposure)];
    McpClient::initialize_with(sidegate.url(), LATEST, capabilities, &headers).await
}

/// `call_tool`.
fn call(tool: &str, arguments: Value) -> Value {
    json!({"name": "call_tool", "arguments": {"name": tool, "arguments": arguments}})
}

/// The values of a meta tool's answer, which its text must say, too.
async fn values(client: &McpClient, tool: &str, arguments: Value) -> Value {
    let answer = client.call(tool, arguments).await;
    let values = answer.value()["structuredContent"].clone();
    assert_eq!(serde_json::from_str::<Value>(&answer.text()).unwrap(), values, "{}", answer.raw());
    values
}

/// The text of an answer that is an error of the call.
async fn refused(client: &McpClient, tool: &str, arguments: Value) -> String {
    let answer = client.call(tool, arguments).await;
    assert_eq!(answer.value()["isError"], true, "{}", answer.raw());
    answer.text()
}

fn names(page: &Value, member: &str, key: &str) -> Vec<String> {
    page[member].as_array().unwrap().iter().map(|entry| entry[key].as_str().unwrap().to_owned()).collect()
}

fn offered() -> Offered {
    Offered {
        tools: vec![
            json!({"name": "link", "title": "A link", "description": "Gives a link.\nMore.", "inputSchema": {"type": "object"}}),
        ],
        prompts: vec![json!({"name": "ask", "description": "Asks something", "x-odd": 1.5})],
        resources: vec![json!({"uri": "s://1", "name": "one"}), json!({"uri": "s://2", "name": "two"})],
        templates: vec![json!({"uriTemplate": "s://item/{id}", "name": "items"})],
        instructions: Some("Be kind.".to_owned()),
    }
}

async fn started(builder: Builder) -> Sidegate {
    builder.wait_for_servers().start().await
}

/// Two servers that offer the same.
async fn two() -> (Sidegate, Scripted, Scripted) {
    let (a, b) = (Scripted::start(offered()).await, Scripted::start(offered()).await);
    let builder = Sidegate::builder().definition("a", &remote(&a.url)).definition("b", &remote(&b.url));
    (started(builder).await, a, b)
}

#[tokio::test]
async fn the_list_has_the_meta_tools_and_stays_the_same() {
    let builder = Sidegate::builder()
        .env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS", "full")
        .config(CONFIG)
        .definition("near", &built_in());
    let sidegate = started(builder).await;
    let client = McpClient::connect(sidegate.url()).await;
    let initialized = client.initialize_result();
    assert_eq!(initialized["capabilities"]["tools"], json!({}), "it does not change");
    let instructions = initialized["instructions"].as_str().unwrap();
    assert!(instructions.contains("call it with call_tool"), "{instructions}");
    assert!(instructions.contains("Servers at the moment: near."), "{instructions}");
    let list = client.request("tools/list", json!({})).await;
    assert_eq!(client.tool_names().await, META);

    // The lists that people pick from are those that all clients have, and change as they do.
    let scripted = Scripted::start(offered()).await;
    let mut standalone = client.listen().await;
    sidegate.write_definition("far", &remote(&scripted.url));
    let mut told = Vec::new();
    while !(told.contains(&"prompts".to_owned()) && told.contains(&"resources".to_owned())) {
        let message = standalone.next_message().await.unwrap();
        let method = message.envelope().method.unwrap();
        told.extend(
            method.strip_prefix("notifications/").unwrap().strip_suffix("/list_changed").map(str::to_owned),
        );
    }
    let direct = connect(&sidegate, "direct").await;
    assert_eq!(direct.tool_names().await.len(), 11 + 7 + 2);
    assert_eq!(direct.initialize_result()["capabilities"]["tools"], json!({"listChanged": true}));
    for method in ["prompts/list", "resources/list", "resources/templates/list"] {
        let [ours, theirs] = [&client, &direct].map(|client| client.request(method, json!({})));
        assert_eq!(ours.await.result().get(), theirs.await.result().get(), "{method}");
    }
    let again = client.request("tools/list", json!({})).await;
    assert_eq!(again.result().get(), list.result().get());
    // All of that was told before; of tools nothing was.
    client.delete().await;
    while let Some(message) = standalone.next_message().await {
        told.push(message.raw().to_owned());
    }
    assert!(!told.iter().any(|told| told.contains("tools")), "{told:?}");
}

#[tokio::test]
async fn a_client_says_what_it_wants_to_see() {
    let sidegate = started(Sidegate::builder().config(CONFIG).definition("near", &built_in())).await;
    assert_eq!(connect(&sidegate, "direct").await.tool_names().await.len(), 7);
    assert_eq!(meta(&sidegate).await.tool_names().await, META);
    // One server alone is always shown as it is.
    let alone = McpClient::connect(&sidegate.server_url("near")).await;
    assert_eq!(alone.tool_names().await.len(), 7);

    let initialize = r#"{"jsonrpc":"2.0","id":"i","method":"initialize","params":{"protocolVersion":"x"}}"#;
    let near = sidegate.server_url("near");
    for (url, exposure, why) in [
        (sidegate.url(), "all", r#"unknown value \"all\"; write direct or meta"#),
        (near.as_str(), "meta", "one server alone shows its own tools"),
    ] {
        let answer = Http::new(url).post(initialize, &[("x-sidegate-exposure", exposure)]).await;
        let answer = RawResponse::read(answer).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.headers.get("mcp-session-id").is_none());
        let text = answer.text();
        assert!(text.starts_with(r#"{"jsonrpc":"2.0","id":"i","error":{"code":-32600,"#), "{text}");
        assert!(text.contains("X-Sidegate-Exposure: ") && text.contains(why), "{text}");
    }
}

/// Arguments that are easily read or printed otherwise than they were written.
const ODD: [&str; 6] = [
    "{}",
    r#"{ "b" : [1.0, 1e2, -0 ,null], "a":{"é":"\u00e9\/", "":[]}}"#,
    r#"{"name":"call_tool","arguments":{"name":"x"}}"#,
    r#"{"n":18446744073709551616,"m":0.10}"#,
    r#"{"s":"\"}],\\"}"#,
    r#"{"_meta":{"progressToken":"not mine"},"task":null}"#,
];

/// The result or error of a direct call, and of the same through `call_tool`.
async fn both(clients: [&McpClient; 2], tool: &str, arguments: &str) -> [String; 2] {
    let arguments: &RawValue = serde_json::from_str(arguments).unwrap();
    let raw = |text: String| RawValue::from_string(text).unwrap();
    let outcome = |answer: Message| {
        let envelope = answer.envelope();
        envelope.result.or(envelope.error).unwrap().get().to_owned()
    };
    let direct = raw(format!(r#"{{"name":{tool:?},"arguments":{arguments}}}"#));
    let through = raw(format!(r#"{{"name":"call_tool","arguments":{direct}}}"#));
    [
        outcome(clients[0].request("tools/call", direct).await),
        outcome(clients[1].request("tools/call", through).await),
    ]
}

#[rstest]
#[tokio::test]
async fn a_call_through_call_tool_is_the_direct_call(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let scripted = Scripted::start(offered()).await;
    let builder = builder
        .env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS", "read")
        .definition("near", &example("everything", &[]))
        .definition("example", &built_in())
        .definition("rude", &example("rude_server", &["weird-fields"]))
        .definition("far", &remote(&scripted.url));
    let sidegate = started(builder).await;
    let clients = [connect(&sidegate, "direct").await, meta(&sidegate).await];
    let clients = [&clients[0], &clients[1]];

    let mut seen = 0;
    for tool in clients[0].tool_names().await {
        // Those never give the same twice, wait for somebody, or have an answer only when they are told what it is.
        let differs = [
            "now",
            "random_number",
            "uuid",
            "sleep",
            "sampling",
            "elicit",
            "pid",
            "_act",
            "reconnection",
            "add",
            "remove",
        ];
        if differs.iter().any(|part| tool.contains(part)) {
            continue;
        }
        seen += 1;
        for arguments in [r#"{}"#, r#"{"name":"near"}"#, r#"{"text":"é\n"}"#] {
            let [direct, through] = both(clients, &tool, arguments).await;
            assert_eq!(through, direct, "{tool} {arguments}");
        }
    }
    assert!(seen > 20, "{seen}");
    for arguments in ODD {
        for tool in ["x_near_echo", "x_far_link", "x_rude_weird"] {
            let [direct, through] = both(clients, tool, arguments).await;
            assert_eq!(through, direct, "{tool} {arguments}");
        }
    }
    // What it is called directly can be called directly, too: nothing is forbidden, it is only not listed.
    let echoed = clients[1].call("x_near_echo", json!({"a": 1})).await;
    assert_eq!(echoed.value()["structuredContent"], json!({"a": 1}));
}

#[tokio::test]
async fn what_is_said_during_a_call_is_said_on_its_own_stream() {
    let (sidegate, a, _b) = two().await;
    let client = meta(&sidegate).await;
    let with_token = |steps: Value| {
        let mut call = call("x_a_act", json!({"steps": steps}));
        call["_meta"] = json!({"progressToken": "mine"});
        call
    };
    let say = |method: &str, params: Value| json!({"say": {"method": method, "params": params}});
    let steps = json!([
        say("notifications/progress", json!({"progressToken": "$token", "progress": 1})),
        say("notifications/message", json!({"level": "error", "data": "d"})),
        {"ask": {"method": "sampling/createMessage", "params": {"x": 1.5}}},
    ]);
    let mut exchange = client.start("tools/call", with_token(steps)).await;
    let progress = exchange.expect("notifications/progress").await.params();
    assert_eq!(progress, json!({"progressToken": "mine", "progress": 1}));
    assert_eq!(exchange.expect("notifications/message").await.params()["data"], "d");
    let question = exchange.expect("sampling/createMessage").await;
    client.respond(&question, json!({"model": "m"})).await;
    let answer = exchange.response().await.value();
    assert_eq!(answer["structuredContent"]["answers"], json!([{"model": "m"}]));

    // The client's id is the call's.
    let steps = json!([
        say("notifications/progress", json!({"progressToken": "$token", "progress": 1})),
        {"until_cancelled": true},
    ]);
    let (id, starting) = client.starting("tools/call", with_token(steps));
    let mut exchange = starting.await;
    exchange.expect("notifications/progress").await;
    client.notify("notifications/cancelled", json!({"requestId": id})).await;
    assert_eq!(exchange.next_message().await, None, "a cancelled call has no answer");
    eventually("the cancellation", async || (a.seen("notifications/cancelled").len() == 1).then_some(()))
        .await;
}

#[tokio::test]
async fn a_call_may_be_a_task() {
    let (sidegate, a, _b) = two().await;
    let client = meta(&sidegate).await;
    let list = client.request("tools/list", json!({})).await.value();
    assert_eq!(list["tools"][3]["execution"], json!({"taskSupport": "optional"}));
    let mut begin = call("x_a_act", json!({"id": "t1"}));
    begin["task"] = json!({"ttl": 1});
    assert_eq!(client.request("tools/call", begin).await.value()["task"]["taskId"], "t1");
    let got = client.request("tasks/get", json!({"taskId": "t1"})).await.value();
    assert_eq!((got["got"].clone(), a.seen("tasks/get").len()), (json!({"taskId": "t1"}), 1));
    assert_eq!(client.request("tasks/list", json!({})).await.value()["tasks"], json!([{"taskId": "t1"}]));
}

#[tokio::test]
async fn a_call_that_takes_too_long_is_given_up() {
    let scripted = Scripted::start(offered()).await;
    let definition = with(remote(&scripted.url), "callTimeout: 1");
    let sidegate = started(Sidegate::builder().definition("a", &definition)).await;
    let client = meta(&sidegate).await;
    let stuck = json!({"steps": [{"until_cancelled": true}]});
    let error = client.request("tools/call", call("x_a_act", stuck)).await.error();
    let why = error["message"].as_str().unwrap();
    assert!(why.contains("x_a_act") && why.contains("within 1 s (spec.callTimeout)"), "{error}");
}

#[tokio::test]
async fn tools_of_families_and_our_own_are_behind_it_as_well() {
    let (a, b) = (Scripted::start(offered()).await, Scripted::start(offered()).await);
    let family = "family: {name: pair, instanceArg: which}";
    let builder = Sidegate::builder()
        .env("SIDEGATE_AGGREGATOR_MANAGEMENT_TOOLS", "read")
        .definition("a", &with(remote(&a.url), family))
        .definition("b", &with(remote(&b.url), family));
    let sidegate = started(builder).await;
    let client = meta(&sidegate).await;
    let page = values(&client, "list_tools", json!({})).await;
    assert_eq!(page["total"], 7);
    let tools = names(&page, "tools", "name");
    assert!(
        tools.contains(&"core_service_list".to_owned()) && tools.contains(&"x_pair_link".to_owned()),
        "{page}"
    );
    let described = values(&client, "describe_tool", json!({"name": "x_pair_link"})).await;
    assert_eq!(described["inputSchema"]["properties"]["which"]["enum"], json!(["a", "b"]));
    let called =
        client.request("tools/call", call("x_pair_link", json!({"which": "b", "n": 1}))).await.value();
    assert_eq!(called["got"], json!({"name": "link", "arguments": {"n": 1}}));
    assert_eq!(called["content"][0]["uri"], "b+s://1");
    let error = client.request("tools/call", call("x_pair_link", json!({"which": "c"}))).await.error();
    assert_eq!(error["code"], -32602);
    let services = client.request("tools/call", call("core_service_list", json!({}))).await.value();
    assert_eq!(services["structuredContent"]["total"], 2);
}

#[tokio::test]
async fn tools_are_found_by_words_and_patterns_and_shown_as_they_are() {
    let (sidegate, _a, _b) = two().await;
    let client = meta(&sidegate).await;
    let link = |server: &str| json!({"name": format!("x_{server}_link"), "title": "A link", "description": "Gives a link."});
    let page = values(&client, "filter_tools", json!({"query": "a link"})).await;
    assert_eq!(page["tools"][0], link("a"));
    assert_eq!(page["tools"][1], link("b"));
    let page = values(&client, "filter_tools", json!({"pattern": "X_B_*"})).await;
    assert_eq!(page, json!({"total": 2, "tools": [{"name": "x_b_act"}, link("b")]}));
    let page = values(&client, "filter_tools", json!({"pattern": "LIN", "query": "gives"})).await;
    assert_eq!(page, json!({"total": 2, "tools": [link("a"), link("b")]}));
    assert_eq!(
        values(&client, "filter_tools", json!({"query": "weather"})).await,
        json!({"total": 0, "tools": []})
    );

    // The whole entry, byte for byte.
    let direct = connect(&sidegate, "direct").await;
    let list = direct.request("tools/list", json!({})).await;
    let described = client.call("describe_tool", json!({"name": "x_b_link"})).await;
    let entry = described.text();
    assert!(list.raw().contains(&entry) && described.raw().contains(&entry), "{}", described.raw());

    for (tool, arguments, why) in [
        (
            "describe_tool",
            json!({"name": "x_b_lnk"}),
            r#"there is no tool "x_b_lnk"; there is x_b_act, x_b_link, x_a_act; filter_tools finds tools"#,
        ),
        (
            "call_tool",
            json!({"name": "z".repeat(501)}),
            "there is no tool of a name with more than 500 characters",
        ),
        ("call_tool", json!({"name": "zzz"}), r#"there is no tool "zzz"; filter_tools finds tools"#),
        ("call_tool", json!({"name": "list_tools"}), "list_tools is not behind call_tool: call it itself"),
        ("call_tool", json!({}), "name is missing"),
        (
            "call_tool",
            json!({"name": "x_a_link", "args": {}}),
            "unknown argument args; call_tool takes name, arguments",
        ),
        (
            "call_tool",
            json!({"name": "x_a_link", "arguments": "{}"}),
            r#"arguments must be an object, not "{}""#,
        ),
        ("filter_tools", json!({"pattern": "x_[a"}), r#"pattern "x_[a" is wrong: a "[" without its "]""#),
        ("filter_tools", json!({"query": "?!"}), "query has no words; leave it out, or say what to look for"),
        (
            "list_tools",
            json!({"cursor": "x"}),
            r#"cursor "x" is none of this list (any more); begin again without it"#,
        ),
        ("list_tools", json!([]), "the arguments of list_tools must be an object"),
        ("get_resource", json!({"uri": "u://1"}), r#"there is no resource "u://1"; there is"#),
        ("get_prompt", json!({"name": "ask"}), r#"there is no prompt "ask"; there is x_a_ask, x_b_ask"#),
    ] {
        let said = refused(&client, tool, arguments).await;
        assert!(said.starts_with(why), "{tool}: {said}");
    }
    // The meta tools are for those that see them.
    let error = direct.request("tools/call", call("x_a_link", json!({}))).await.error();
    assert_eq!(error, json!({"code": -32602, "message": "tool not found: call_tool"}));
}

#[tokio::test]
async fn resources_and_prompts_are_behind_their_own() {
    let (sidegate, _a, b) = two().await;
    let near = example("everything", &[]);
    sidegate.write_definition("near", &near);
    let client = meta(&sidegate).await;
    let page = eventually("the third server", async || {
        let page = values(&client, "list_prompts", json!({})).await;
        (page["total"].as_u64() > Some(2)).then_some(page)
    })
    .await;
    assert_eq!(page["prompts"][0], json!({"name": "x_a_ask", "description": "Asks something"}));
    let described = values(&client, "describe_prompt", json!({"name": "x_b_ask"})).await;
    assert_eq!(described, json!({"name": "x_b_ask", "description": "Asks something", "x-odd": 1.5}));
    let page = values(&client, "filter_prompts", json!({"query": "image", "pattern": "x_near_*"})).await;
    assert_eq!(names(&page, "prompts", "name"), ["x_near_test_prompt_with_image"]);

    let page = values(&client, "filter_resources", json!({"pattern": "b+*"})).await;
    assert_eq!(
        page["resources"],
        json!([
            {"uri": "b+s://1", "name": "one"},
            {"uri": "b+s://2", "name": "two"},
            {"uriTemplate": "b+s://item/{id}", "name": "items"},
        ])
    );
    let described = values(&client, "describe_resource", json!({"uri": "b+s://item/7"})).await;
    assert_eq!(described, json!({"uriTemplate": "b+s://item/{id}", "name": "items"}));
    for (uri, own) in [("b+s://2", "s://2"), ("b+s://item/7", "s://item/7")] {
        let read = client.call("get_resource", json!({"uri": uri})).await.value();
        let text = format!("text of {own}");
        assert_eq!(read, json!({"content": [{"type": "resource", "resource": {"uri": uri, "text": text}}]}));
    }
    assert_eq!(b.seen("resources/read"), [json!({"uri": "s://2"}), json!({"uri": "s://item/7"})]);

    // Images and the like stay what they are.
    let direct = connect(&sidegate, "direct").await;
    let name = "x_near_test_prompt_with_image";
    let prompt = direct.request("prompts/get", json!({"name": name})).await.value();
    let got = client.call("get_prompt", json!({"name": name})).await.value();
    assert_eq!(got["content"][0], json!({"type": "text", "text": "user:"}));
    assert_eq!(got["content"][1], prompt["messages"][0]["content"]);
    let arguments = json!({"arg1": "1", "arg2": "é"});
    let name = "x_near_test_prompt_with_arguments";
    let got = client.call("get_prompt", json!({"name": name, "arguments": arguments})).await.value();
    assert!(got["content"][1]["text"].as_str().unwrap().contains("é"), "{got}");
    // What a server says is wrong is told as it says it.
    let error = client.call("get_prompt", json!({"name": name, "arguments": {"arg1": 7}})).await.error();
    let own = direct.request("prompts/get", json!({"name": name, "arguments": {"arg1": 7}})).await.error();
    assert_eq!(error, own);
}

#[tokio::test]
async fn a_catalogue_of_any_size_comes_in_pages() {
    const TOOLS: usize = 1234;
    let tool = |number: usize| {
        json!({
            "name": format!("t{number}"),
            "description": format!("Number {number}.\n{}", "x".repeat(2000)),
            "inputSchema": {"type": "object"},
        })
    };
    let tools = (0..TOOLS).map(tool).collect();
    let scripted = Scripted::start(Offered { tools, ..Offered::default() }).await;
    let sidegate = started(Sidegate::builder().definition("a", &remote(&scripted.url))).await;
    let client = meta(&sidegate).await;
    let mut found = Vec::new();
    let mut arguments = json!({"limit": 500});
    let mut pages = 0;
    loop {
        let page = values(&client, "list_tools", arguments.clone()).await;
        assert_eq!(page["total"], TOOLS + 1);
        found.extend(names(&page, "tools", "name"));
        pages += 1;
        match page.get("nextCursor") {
            Some(cursor) => arguments["cursor"] = cursor.clone(),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    let direct = connect(&sidegate, "direct").await;
    assert_eq!(found, direct.tool_names().await);

    let page = client.call("list_tools", json!({})).await;
    assert_eq!(page.value()["structuredContent"]["tools"].as_array().unwrap().len(), 100);
    assert!(page.raw().len() < 20_000, "{}", page.raw().len());
    // A page goes on where the one before ended, whatever was found by.
    let filter = json!({"query": "number 1233 77", "limit": 1});
    let first = values(&client, "filter_tools", filter.clone()).await;
    let mut next = filter;
    next["cursor"] = first["nextCursor"].clone();
    let second = values(&client, "filter_tools", next).await;
    let best = [&first, &second].map(|page| page["tools"][0]["name"].as_str().unwrap().to_owned());
    assert_eq!((best, &first["total"]), (["x_a_t77".to_owned(), "x_a_t1233".to_owned()], &json!(TOOLS)));
}

#[tokio::test]
async fn commands_see_the_tools_themselves() {
    let builder = Sidegate::builder().config(CONFIG).definition("near", &built_in());
    let sidegate = started(builder.clone()).await;
    let runtime_dir = sidegate.ready.runtime_dir.to_str().unwrap();
    let command = async |arguments: &[&str]| {
        let ended = builder.clone().command(&[arguments, &["--runtime-dir", runtime_dir]].concat()).await;
        assert!(ended.status.success(), "{}", ended.stderr);
        ended.stdout
    };
    let tools = command(&["tools", "--output", "json"]).await;
    let tools: Value = serde_json::from_str(&tools).unwrap();
    assert_eq!(tools["tools"].as_array().unwrap().len(), 7);
    let called = command(&["call", "x_near_calculate", "--arg", "expression=6*7"]).await;
    assert!(called.contains("42"), "{called}");
}

#[rstest]
#[case(CONFIG, &[], true)]
#[case(CONFIG, &["--exposure", "direct"], false)]
#[case("{}\n", &["--exposure", "meta"], true)]
#[tokio::test]
async fn a_client_of_pipes_sees_what_it_is_to_see(
    #[case] config: &str,
    #[case] arguments: &[&str],
    #[case] is_meta: bool,
) {
    let builder = Sidegate::builder().config(config).definition("near", &built_in());
    let mut client = StdioClient::connect(&builder, arguments).await;
    client.request("list", "tools/list", json!({})).await;
    let list = client.answer("list").await["result"].clone();
    let expected = if is_meta { META.len() } else { 7 };
    assert_eq!(list["tools"].as_array().unwrap().len(), expected);
    if is_meta {
        let params = call("x_near_calculate", json!({"expression": "6*7"}));
        client.request("call", "tools/call", params).await;
        assert_eq!(client.answer("call").await["result"]["structuredContent"], json!({"value": 42.0}));
    }
}
