//! While an instance runs, and when none does.

use http::Method;
use serde_json::json;

use super::super::support::McpClient;
use super::super::support::definitions::{built_in, example, remote, spec, sse, stdio, with};
use super::super::support::mcp_client::{Http, RawResponse};
use super::book::{Chapter, place};
use super::played::Played;

/// What a server on the network answers to `initialize`, and when somebody meets that.
const ANSWERS: &[(&str, &str, &str)] = &[
    (
        "it wants a token",
        "unauthorized",
        "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer resource_metadata=\"https://sign-in.example\"\r\ncontent-length: 0\r\n\r\n",
    ),
    ("it forbids", "forbidden", "HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
    ("there is no MCP endpoint", "not-found", "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    (
        "it speaks the older transport",
        "older",
        "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "it has moved",
        "moved",
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: https://elsewhere.example/mcp\r\ncontent-length: 0\r\n\r\n",
    ),
    (
        "it has too much to do",
        "busy",
        "HTTP/1.1 429 Too Many Requests\r\nretry-after: 7\r\ncontent-length: 9\r\n\r\nslow down",
    ),
    ("it has failed", "broken", "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops"),
    (
        "it is a web page",
        "page",
        "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
    ),
    ("it answers with nothing", "nothing", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    (
        "it answers with no JSON",
        "no-json",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 6\r\n\r\n<html>",
    ),
    (
        "it answers with no message",
        "no-message",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    ),
    (
        "it answers something else",
        "other",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 36\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}",
    ),
    (
        "it ends a stream without an answer",
        "stream",
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: \n\n",
    ),
    ("it hangs up", "hangs-up", ""),
];

pub(super) async fn servers() -> String {
    let mut chapter = Chapter::new("Servers that cannot be reached or do not work");
    // A limit only where it is what happens: a busy machine must not be told of another one.
    let never = |definition: String| with(definition, "timeout: 1");
    let rude = |mode: &str| example("rude_server", &[mode]);
    let mut place = place().env("PATH", "/nowhere:/usr/bin:/bin");
    let mut played = Vec::new();
    for (_, name, answer) in ANSWERS {
        let server = Played::saying(answer).await;
        place = place.definition(name, &remote(&server.url()));
        played.push(server);
    }
    let (silent, untrusted, plain) =
        (Played::silent().await, Played::self_signed().await, Played::saying(ANSWERS[2].2).await);
    let not_sse =
        Played::saying("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}")
            .await;
    let no_endpoint = Played::saying(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: x\n\n",
    )
    .await;
    let sealed = place.script("sealed", "exit 0");
    fs_err::set_permissions(&sealed, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let killed = place.script("killed", "kill -9 $$");
    let mute = place.script("mute", "exec >&-; cat >/dev/null");
    let place = place
        .definition("refused", &remote("http://127.0.0.1:9/mcp"))
        .definition("silent", &never(remote(&silent.url())))
        .definition("untrusted", &remote(&format!("https://{}/mcp", untrusted.address)))
        .definition("no-tls", &remote(&format!("https://{}/mcp", plain.address)))
        .definition("sse-gone", &sse("http://127.0.0.1:9/sse"))
        .definition("sse-other", &sse(&not_sse.url()))
        .definition("sse-nameless", &sse(&no_endpoint.url()))
        .definition("absent", &stdio("no-such-command", &[]))
        .definition("missing", &stdio("./no/such/file", &[]))
        .definition("sealed", &stdio(sealed.to_str().unwrap(), &[]))
        .definition("nowhere", &with(built_in(), "cwd: no/such/directory"))
        .definition("exits", &rude("exit"))
        .definition("killed", &stdio(killed.to_str().unwrap(), &[]))
        .definition("mute", &stdio(mute.to_str().unwrap(), &[]))
        .definition("rubbish", &never(rude("rubbish")))
        .definition("speechless", &never(rude("silent")))
        .definition("unset", &with(built_in(), "env: {KEY: '${NOPE}'}"))
        .definition(
            "signs-in",
            &spec("{type: streamable-http, url: 'http://127.0.0.1:9', auth: {type: oauth}}"),
        )
        .definition("own-route", &with(built_in(), "route: mcp"))
        .definition("policies", &with(built_in(), "policies: {timeout: {requestTimeout: 5s}}"));
    let sidegate = place.clone().wait_for_servers().start().await;
    // It may have been given up before it had begun to print.
    sidegate.wait_for_stderr("(more of them are not shown)").await;
    let stderr = sidegate.kill().await.stderr;
    for (when, name, _) in ANSWERS {
        chapter.logged(when, &place, &stderr, &format!("server={name} "));
    }
    for (when, of) in [
        ("nobody listens there", "server=refused state=failed"),
        ("it does not answer", "server=silent state=failed"),
        ("its certificate is not trusted", "server=untrusted state=failed"),
        ("it does not speak TLS", "server=no-tls state=failed"),
        ("sse: nobody listens there", "server=sse-gone state=failed"),
        ("sse: it answers with something else", "server=sse-other state=failed"),
        ("sse: it does not say where messages go", "server=sse-nameless state=failed"),
        ("its command is not on PATH", "server=absent state=failed"),
        ("its command is not there", "server=missing state=failed"),
        ("its command may not be run", "server=sealed state=failed"),
        ("its directory is not there", "server=nowhere state=failed"),
        ("it ends at once", "server=exits state=failed"),
        ("it is killed", "server=killed state=failed"),
        ("it closes its output", "server=mute state=failed"),
        ("it prints something else", "(more of them are not shown)"),
        ("and says nothing else", "server=rubbish state=failed"),
        ("it says nothing at all", "server=speechless state=failed"),
        ("a variable that it needs is not set", "server=unset"),
        ("it wants somebody to sign in", "server=signs-in"),
        ("it asks for agentgateway's own backend", "server=own-route"),
        ("it asks for agentgateway's policies", "server=policies"),
    ] {
        chapter.logged(when, &place, &stderr, of);
    }
    chapter.text()
}

pub(super) async fn catalogue() -> String {
    let mut chapter = Chapter::new("Names that do not go together");
    let place = place()
        .definition("one", &with(built_in(), "toolPrefix: same"))
        .definition("two", &with(built_in(), "toolPrefix: same"))
        .definition("sum", &with(built_in(), "family: {name: sums, instanceArg: expression}"))
        .definition("total", &with(built_in(), "family: {name: sums, instanceArg: expression}"))
        .definition("clock", &with(built_in(), "family: {name: clocks, instanceArg: zone}"))
        .definition(
            "watch",
            &with(example("rude_server", &["pages"]), "family: {name: clocks, instanceArg: place}"),
        )
        .definition("a-server-with-a-name-that-leaves-no-room-for-those-of-its-tools", &built_in());
    let sidegate = place.clone().wait_for_servers().start().await;
    let stderr = sidegate.kill().await.stderr;
    for (when, of) in [
        ("two servers have one prefix", "x_same_now"),
        ("servers of a family disagree", "instanceArg"),
        ("tools of a family have such an argument already", "\"expression\" of its own"),
        ("a name is too long", "more than 64 characters"),
    ] {
        chapter.logged(when, &place, &stderr, of);
    }
    chapter.text()
}

pub(super) async fn changes() -> String {
    let mut chapter = Chapter::new("Changes while it runs");
    let place = place().definition("good", &built_in());
    let sidegate = place.clone().wait_for_servers().start().await;
    sidegate.write_definition("good", "kind: nonsense\n");
    sidegate.wait_for_stderr("last good definition").await;
    fs_err::write(place.config_dir().join("config.yaml"), "gateway: {mode: embeded}\n").unwrap();
    sidegate.signal(rustix::process::Signal::HUP);
    sidegate.wait_for_stderr("config.yaml").await;
    fs_err::rename(place.config_dir().join("mcpservers"), place.config_dir().join("away")).unwrap();
    sidegate.wait_for_stderr("cannot be read").await;
    let stderr = sidegate.stderr();
    chapter.logged("a definition becomes wrong", &place, &stderr, "last good definition");
    chapter.logged("SIGHUP, and config.yaml is wrong", &place, &stderr, "config.yaml");
    chapter.logged("the directory is removed", &place, &stderr, "cannot be read");
    fs_err::remove_dir_all(&sidegate.ready.runtime_dir).unwrap();
    let asking = place.clone().env("SIDEGATE_INSTANCE", &sidegate.ready.runtime_dir);
    chapter.commands("the runtime directory is removed", &asking, &[&["status"], &["logs"]]).await;
    sidegate.kill().await;
    chapter.text()
}

pub(super) async fn commands() -> String {
    let mut chapter = Chapter::new("Commands that ask an instance");
    let place =
        place().definition("calc", &built_in()).definition("other", &example("rude_server", &["duplicate"]));
    fs_err::create_dir(place.config_dir().with_file_name("a b")).unwrap();
    let id = "0af7651916cd43dd8448eb211c80319c";
    chapter
        .commands(
            "none runs",
            &place,
            &[
                &["status"],
                &["list"],
                &["call", "x_calc_now"],
                &["stop", "calc"],
                &["logs"],
                &["gateway", "restart"],
                &["status", "--runtime-dir", "nowhere"],
                &["status", "--config-dir", "a b"],
                &["logs", "--config-dir", "a b"],
                &["list", "--config-dir", "a b"],
                &["status", "--config-dir", "misspelt"],
            ],
        )
        .await;
    let sidegate = place.clone().wait_for_servers().start().await;
    let asking = place.clone().env("SIDEGATE_INSTANCE", &sidegate.ready.runtime_dir);
    chapter
        .commands(
            "what is asked for is not there",
            &asking,
            &[
                &["get", "clac"],
                &["start", "clac"],
                &["stop", "zzz"],
                &["tools", "x_calc_nwo"],
                &["tools", "zzz"],
                &["call", "x_calc_nwo"],
                &["logs", "clac"],
                &["logs", "zzz"],
                &["logs", "other"],
                &["tools", "calc_now"],
                &["tools", "*nothing*"],
                &["explain", id],
            ],
        )
        .await;
    chapter
        .commands(
            "arguments of a tool are wrong",
            &asking,
            &[
                &["call", "x_calc_calculate"],
                &["call", "x_calc_calculate", "--arg", "expression=1/0"],
                &["call", "x_calc_calculate", "--arg", "expresion=1"],
                &["call", "x_calc_calculate", "--arg", "expression=1", "--arg", "expression=2"],
                &["call", "x_calc_calculate", "--arg", "zzz=1"],
                &["call", "x_other_poke", "--arg", "zzz=1"],
                &["call", "x_calc_text_stats", "--arg", "text=a", "--arg", "zzz"],
                &["call", "x_calc_random_number", "--arg", "min=much"],
                &["call", "x_calc_random_number", "--arg", "count=much"],
                &["call", "x_calc_calculate", "--json", "{"],
                &["call", "x_calc_calculate", "--json", "[]"],
                &["call", "x_calc_calculate", "--arg", "expression"],
            ],
        )
        .await;
    let address =
        place.clone().without_env("SIDEGATE_LISTEN").env("SIDEGATE_INSTANCE", &sidegate.ready.runtime_dir);
    chapter
        .command("connect: the address ends with the instance", &address, &["connect", "cursor", "--write"])
        .await;
    sidegate.kill().await;
    chapter.command("the manual is written", &place, &["man", "a b/man"]).await;
    chapter.command("the manual cannot be written", &place, &["man", "/proc/man"]).await;
    chapter.text()
}

pub(super) async fn tokens_and_states() -> String {
    let mut chapter = Chapter::new("Commands and the state of things");
    let place = place()
        .file("token", "0123456789abcdef\n")
        .env("SIDEGATE_AGGREGATOR_TOKEN_FILE", "token")
        .definition("exits", &example("rude_server", &["exit"]))
        .definition("rests", &with(built_in(), "suspended: true"));
    let token = place.config_dir().with_file_name("token");
    fs_err::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let sidegate = place.clone().wait_for_servers().start().await;
    let asking = place.clone().env("SIDEGATE_INSTANCE", &sidegate.ready.runtime_dir);
    chapter.command("a server that does not work is started", &asking, &["start", "exits"]).await;
    chapter
        .commands(
            "there are no tools",
            &asking,
            &[&["tools"], &["tools", "x_exits_poke"], &["call", "x_rests_now"], &["tools", "x_nobody_poke"]],
        )
        .await;
    let elsewhere = place.clone().env("SIDEGATE_INSTANCE", "elsewhere");
    chapter.command("a variable names an instance that has ended", &elsewhere, &["status"]).await;
    chapter
        .command(
            "a token does not belong into the file of a project",
            &asking,
            &["connect", "claude", "--scope", "project"],
        )
        .await;
    let response = Http::new(sidegate.url()).send(Method::POST, "{}", &[]).await;
    chapter.answered("a client without a token", &place, "POST /mcp", &RawResponse::read(response).await);
    fs_err::write(&token, "fedcba9876543210\n").unwrap();
    chapter.command("the token has been changed", &asking, &["tools"]).await;
    fs_err::remove_file(&token).unwrap();
    chapter.command("the token has been removed", &asking, &["tools"]).await;
    sidegate.kill().await;
    let proxied = place
        .without_env("SIDEGATE_AGGREGATOR_TOKEN_FILE")
        .env("HTTPS_PROXY", "socks5://127.0.0.1:9")
        .definition("far", &remote("https://far.example/mcp"));
    let sidegate = proxied.clone().wait_for_servers().start().await;
    let ended = sidegate.kill().await;
    chapter.logged("the proxy cannot be used", &proxied, &ended.stderr, "server=far");
    chapter.text()
}

pub(super) async fn requests() -> String {
    let mut chapter = Chapter::new("Requests of clients");
    let place = place()
        .definition("calc", &built_in())
        .env("SIDEGATE_AGGREGATOR_MAX_SESSIONS", "1")
        .env("SIDEGATE_AGGREGATOR_MAX_BODY", "64KiB");
    let sidegate = place.clone().wait_for_servers().start().await;
    let http = Http::new(sidegate.url());
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"a","version":"0"}}}"#;
    let large = " ".repeat(65 * 1024);
    let deep = "[".repeat(600);
    for (when, method, body, headers) in [
        ("no JSON", Method::POST, "{", &[][..]),
        ("no message", Method::POST, "{}", &[]),
        ("nothing", Method::POST, "[]", &[]),
        ("no session", Method::POST, ping, &[]),
        ("a session that is over", Method::POST, ping, &[("mcp-session-id", "0123456789abcdef")]),
        (
            "a protocol version that is not known",
            Method::POST,
            ping,
            &[("mcp-protocol-version", "1999-12-31")],
        ),
        ("another method", Method::PUT, ping, &[]),
        ("another type", Method::POST, ping, &[("content-type", "text/plain")]),
        ("a client that takes JSON only", Method::POST, ping, &[("accept", "application/json")]),
        ("initialize in a session", Method::POST, initialize, &[("mcp-session-id", "0123456789abcdef")]),
        ("a page with a name for this machine", Method::POST, ping, &[("host", "evil.example")]),
        ("a page from elsewhere", Method::POST, ping, &[("origin", "https://evil.example")]),
        ("a stream that is over", Method::GET, "", &[("accept", "application/json")]),
        ("a body that is too large", Method::POST, &large, &[]),
        ("a body that is too deep", Method::POST, &deep, &[]),
        ("an exposure that is none", Method::POST, ping, &[("x-sidegate-exposure", "all")]),
    ] {
        let request = format!("{method} /mcp");
        let response = RawResponse::read(http.send(method, body.to_owned(), headers).await).await;
        chapter.answered(when, &place, &request, &response);
    }
    for path in ["/nothing", "/mcp/nobody", "/mcp/clac"] {
        let elsewhere = Http::new(&sidegate.url().replace("/mcp", path));
        let response = RawResponse::read(elsewhere.post(ping, &[]).await).await;
        chapter.answered("another path", &place, &format!("POST {path}"), &response);
    }
    let client = McpClient::connect(sidegate.url()).await;
    for (when, method, params) in [
        ("a tool that is not there", "tools/call", json!({"name": "x_calc_nope"})),
        ("a call without a name", "tools/call", json!({})),
        ("a prompt that is not there", "prompts/get", json!({"name": "x_calc_nope"})),
        ("a resource that is not there", "resources/read", json!({"uri": "file:///nope"})),
        ("a cursor that nobody gave out", "tools/list", json!({"cursor": "x"})),
        ("a level that is none", "logging/setLevel", json!({"level": "loud"})),
        ("a method that is not known", "no/such/method", json!({})),
    ] {
        let message = client.request(method, params).await;
        chapter.said(when, &place, &format!("{method}\n{}", message.error()));
    }
    sidegate.kill().await;
    let signs_in = Played::saying(ANSWERS[0].2).await;
    let place = place
        .definition("bad", &example("rude_server", &["dies-on-call"]))
        .definition("refused", &remote("http://127.0.0.1:9/mcp"))
        .definition("rests", &with(built_in(), "suspended: true"))
        .definition("signs-in", &remote(&signs_in.url()))
        .definition("wrong", &spec("{type: stdio, comand: a}"))
        .definition("later", &spec("{type: streamable-http, url: 'http://h/', auth: {type: oauth}}"));
    let sidegate = place.clone().wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    for (when, method, params) in [
        ("a tool of a server that has failed", "tools/call", json!({"name": "x_refused_search"})),
        ("of one that is stopped", "tools/call", json!({"name": "x_rests_calculate"})),
        ("of one that wants a token", "tools/call", json!({"name": "x_signs-in_search"})),
        ("of one whose definition is wrong", "tools/call", json!({"name": "x_wrong_search"})),
        ("of one that this version cannot do", "prompts/get", json!({"name": "x_later_review"})),
        ("a resource that may be anybody's", "resources/read", json!({"uri": "file:///notes"})),
    ] {
        let message = client.request(method, params).await;
        chapter.said(when, &place, &format!("{method}\n{}", message.error()));
    }
    let message = client.call("x_bad_poke", json!({})).await;
    chapter.said(
        "a server that ends in the middle of a call",
        &place,
        &format!("tools/call\n{}", message.error()),
    );
    let alone = Http::new(&sidegate.server_url("refused"));
    let response = RawResponse::read(alone.post(initialize, &[]).await).await;
    chapter.answered("a server alone that cannot be reached", &place, "POST /mcp/refused", &response);
    sidegate.kill().await;
    chapter.text()
}

pub(super) async fn nowhere_to_write() -> String {
    let mut chapter = Chapter::new("Nowhere to write");
    let place = place().definition("calc", &built_in());
    for (when, line) in [
        ("the disk is full: data", "\"$0\" config show > /dev/full"),
        ("the disk is full: help", "\"$0\" --help > /dev/full"),
        ("the disk is full: an instance", "\"$0\" serve --ephemeral --output json > /dev/full"),
        ("the reader has gone", "\"$0\" config show | true"),
    ] {
        chapter.shell(when, &place, line).await;
    }
    chapter.text()
}
