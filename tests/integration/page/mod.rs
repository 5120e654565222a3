//! The page at `/ui`, over HTTP: who gets to see what, which forms count, and what they do.

mod browser;

use http::{Method, StatusCode, header};
use rstest::rstest;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use url::form_urlencoded;

use super::support::definitions::{built_in, example, remote, spec};
use super::support::mcp_client::{Http, RawResponse};
use super::support::scripted::{Offered, Scripted};
use super::support::sidegate::Builder;
use super::support::{McpClient, Sidegate, eventually};

/// A browser that knows nothing of scripts.
struct Visitor {
    /// `http://127.0.0.1:PORT`.
    origin: String,
    headers: Vec<(String, String)>,
}

impl Visitor {
    fn new(sidegate: &Sidegate) -> Self {
        let origin = sidegate.url().strip_suffix("/mcp").unwrap().replace("0.0.0.0", "127.0.0.1");
        Self { origin, headers: Vec::new() }
    }

    fn with(&self, name: &str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push((name.to_owned(), value.to_owned()));
        Self { origin: self.origin.clone(), headers }
    }

    async fn send(&self, method: Method, path: &str, body: String) -> RawResponse {
        let mut headers =
            vec![("accept", "text/html"), ("content-type", "application/x-www-form-urlencoded")];
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let http = Http::new(&format!("{}{path}", self.origin));
        RawResponse::read(http.send(method, body, &headers).await).await
    }

    async fn get(&self, path: &str) -> RawResponse {
        self.send(Method::GET, path, String::new()).await
    }

    /// The text of a page, which is there.
    async fn page(&self, path: &str) -> String {
        let page = self.get(path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {}", page.text());
        page.text().to_owned()
    }

    /// Sends a form as it is.
    async fn post_raw(&self, path: &str, fields: &[(&str, &str)]) -> RawResponse {
        let body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.send(Method::POST, path, body).await
    }

    /// Sends a form with the secret that stands in the page.
    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> RawResponse {
        let secret = self.secret().await;
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", secret.as_str())]).collect();
        self.post_raw(path, &fields).await
    }

    async fn secret(&self) -> String {
        let page = self.page("/ui/tool?name=x_near_now").await;
        let (_, rest) = page.split_once(r#"name="csrf" value=""#).expect("a form with a secret");
        rest.split('"').next().unwrap().to_owned()
    }
}

fn near() -> Builder {
    Sidegate::builder().definition("near", &built_in()).wait_for_servers()
}

#[tokio::test]
async fn every_answer_allows_nothing_but_the_page_itself() {
    let sidegate = near().start().await;
    let visitor = Visitor::new(&sidegate);
    for (path, status, kind) in [
        ("/ui", 200, "text/html; charset=utf-8"),
        ("/ui/", 200, "text/html; charset=utf-8"),
        ("/ui/servers/near", 200, "text/html; charset=utf-8"),
        ("/ui/tools", 200, "text/html; charset=utf-8"),
        ("/ui/tool?name=x_near_now", 200, "text/html; charset=utf-8"),
        ("/ui/calls", 200, "text/html; charset=utf-8"),
        ("/ui/logs", 200, "text/html; charset=utf-8"),
        ("/ui/gateway", 200, "text/html; charset=utf-8"),
        ("/ui/style.css", 200, "text/css; charset=utf-8"),
        ("/ui/live.js", 200, "text/javascript; charset=utf-8"),
        ("/ui/nothing", 404, "text/html; charset=utf-8"),
        ("/ui/tool?name=none", 404, "text/html; charset=utf-8"),
        ("/ui/servers/none", 404, "text/html; charset=utf-8"),
        ("/ui/call", 303, "text/plain; charset=utf-8"),
    ] {
        let answer = visitor.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        for (name, value) in [
            ("content-type", kind),
            (
                "content-security-policy",
                "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
            ),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cache-control", "no-store"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
        ] {
            assert_eq!(answer.headers[name], value, "{path}: {name}");
        }
        assert!(!answer.headers.contains_key("set-cookie"), "{path}");
        // Nothing inline, so the policy breaks nothing.
        let text = answer.text();
        assert!(
            !text.contains(" style=") && !text.contains("<style") && !text.contains(" onclick"),
            "{path}"
        );
        assert_eq!(text.matches("<script").count(), usize::from(kind.starts_with("text/html")), "{path}");
    }
    let other = visitor.send(Method::PUT, "/ui", String::new()).await;
    assert_eq!(other.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(visitor.get("/uix").await.status, StatusCode::NOT_FOUND);
    assert_eq!(visitor.with("host", "evil.example").get("/ui").await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn only_its_own_forms_count() {
    let sidegate = near().start().await;
    let visitor = Visitor::new(&sidegate);
    let (stop, secret) = ("/ui/servers/near/stop", visitor.secret().await);
    let right = [("csrf", secret.as_str())];
    for fields in [&[][..], &[("csrf", "")], &[("csrf", "0".repeat(64).as_str())], &[("CSRF", &secret)]] {
        assert_eq!(visitor.post_raw(stop, fields).await.status, StatusCode::FORBIDDEN, "{fields:?}");
    }
    let own = visitor.origin.clone();
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        // Allowed at the endpoint; here it is another page.
        ("origin", "http://localhost:3000"),
        ("origin", "http://127.0.0.1"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("content-type", "text/plain"),
        ("content-type", "multipart/form-data"),
        ("host", "evil.example"),
    ] {
        let refused = visitor.with(name, value).post_raw(stop, &right).await;
        assert!(refused.status.is_client_error(), "{name}: {value}: {}", refused.status);
    }
    let large = visitor.post_raw(stop, &[("csrf", &secret), ("x", &"x".repeat(2 << 20))]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    for path in [stop, "/ui/servers/near/restart"] {
        assert_eq!(visitor.get(path).await.status, StatusCode::NOT_FOUND, "a GET does nothing");
    }
    let embedded =
        [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")];
    let embedded =
        embedded.iter().fold(visitor.with("x", "y"), |visitor, (name, value)| visitor.with(name, value));
    assert_eq!(embedded.get("/ui").await.status, StatusCode::FORBIDDEN, "nobody embeds it");
    assert!(visitor.page("/ui").await.contains(">running<"), "it has never been stopped");

    let taken =
        visitor.with("origin", &own).with("sec-fetch-site", "same-origin").post_raw(stop, &right).await;
    assert_eq!((taken.status, &taken.headers["location"]), (StatusCode::SEE_OTHER, &"/ui".parse().unwrap()));
    assert!(visitor.page("/ui").await.contains(">stopped<"));
}

#[tokio::test]
async fn servers_are_stopped_started_and_restarted() {
    let sidegate = near().start().await;
    let visitor = Visitor::new(&sidegate);
    let back = [("back", "server")];
    let done = visitor.post("/ui/servers/near/restart", &back).await;
    assert_eq!(done.headers["location"], "/ui/servers/near");
    let client = McpClient::connect(sidegate.url()).await;
    assert!(client.tool_names().await.contains(&"x_near_now".to_owned()));

    let secret = visitor.secret().await;
    visitor.post_raw("/ui/servers/near/stop", &[("csrf", &secret)]).await;
    assert!(client.tool_names().await.is_empty());
    assert!(sidegate.read("config/mcpservers/near.yaml").contains("suspended: true"));
    let page = visitor.page("/ui/servers/near").await;
    assert!(page.contains("/ui/servers/near/start") && !page.contains("/ui/servers/near/stop"), "{page}");

    let started = visitor.post_raw("/ui/servers/near/start", &[("csrf", &secret)]).await;
    assert_eq!(started.status, StatusCode::SEE_OTHER);
    assert!(client.tool_names().await.contains(&"x_near_now".to_owned()));
    for path in ["/ui/servers/none/stop", "/ui/servers/near/destroy", "/ui/servers/..%2f/stop", "/ui/servers"]
    {
        assert_eq!(
            visitor.post_raw(path, &[("csrf", &secret)]).await.status,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why_on_its_page() {
    let broken = spec("{type: stdio, command: /nonexistent/<b>server</b>}");
    let sidegate = near().definition("broken", &broken).definition("wrong", &spec("{type: 7}")).start().await;
    let visitor = Visitor::new(&sidegate);
    let tried = visitor.post("/ui/servers/broken/restart", &[]).await;
    assert_eq!(tried.status, StatusCode::SEE_OTHER);
    let page = visitor.page("/ui/servers/broken").await;
    assert!(page.contains(">failed<") && page.contains("/nonexistent/&lt;b&gt;server&lt;/b&gt;"), "{page}");
    assert!(page.contains("failed; next one"), "{page}");
    let page = visitor.page("/ui").await;
    assert!(page.contains(">invalid<") && page.contains("wrong.yaml:3:"), "{page}");
}

#[tokio::test]
async fn a_form_calls_its_tool() {
    let sidegate =
        near().definition("all", &example("everything", &[])).definition("near", &built_in()).start().await;
    let visitor = Visitor::new(&sidegate);
    let page = visitor.page("/ui/tool?name=x_near_calculate").await;
    assert!(page.contains(r#"name="arg.expression""#), "{page}");
    let secret = visitor.secret().await;
    let call = async |tool: &str, fields: &[(&str, &str)]| {
        let fields: Vec<_> =
            fields.iter().copied().chain([("csrf", secret.as_str()), ("tool", tool)]).collect();
        visitor.post_raw("/ui/call", &fields).await
    };
    let answer = call("x_near_calculate", &[("arg.expression", "6 * 7")]).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(answer.text().contains("Result") && answer.text().contains("42"), "{}", answer.text());
    assert!(answer.text().contains(">\n6 * 7</textarea>"), "what was entered stays: {}", answer.text());

    // JSON goes as it was written.
    let answer = call("x_all_echo", &[("json", r#"{"n": 1.0e2, "t": "<i>"}"#)]).await;
    assert!(answer.text().contains("&quot;t&quot;: &quot;&lt;i&gt;&quot;"), "{}", answer.text());
    let answer = call("x_all_test_error_handling", &[]).await;
    assert!(answer.text().contains("The tool says that it failed"), "{}", answer.text());
    // Progress comes as a stream.
    let answer = call("x_all_test_tool_with_progress", &[]).await;
    assert!(answer.status.is_success() && answer.text().contains("Result"), "{}", answer.text());
    // What a server wants of a client that can nothing.
    let answer = call("x_all_test_elicitation", &[("json", r#"{"message": "who?"}"#)]).await;
    assert!(answer.text().contains("The tool says that it failed"), "{}", answer.text());

    let image = call("x_all_test_image_content", &[]).await;
    assert!(image.text().contains(r#"<img src="data:image/png;base64,"#), "{}", image.text());
    assert!(image.headers["content-security-policy"].to_str().unwrap().contains("; img-src data:;"));

    for (tool, fields, why) in [
        ("x_all_sleep", &[("arg.ms", "soon")][..], "&quot;soon&quot; where integer is wanted"),
        ("x_all_sleep", &[("arg.ms", "")], "a value is needed"),
        ("x_all_echo", &[("json", "[1]")], "this is no JSON object"),
        ("x_all_echo", &[("json", "{\"a\":")], "this is no JSON object"),
    ] {
        let answer = call(tool, fields).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        assert!(answer.text().contains(why), "{why}: {}", answer.text());
    }
    assert_eq!(call("x_all_none", &[]).await.status, StatusCode::NOT_FOUND);
    let nested = format!(r#"{{"a":{}{}}}"#, "[".repeat(126), "]".repeat(126));
    let answer = call("x_all_echo", &[("json", &nested)]).await;
    assert!(answer.text().contains("nested deeper"), "{}", answer.text());
}

#[tokio::test]
async fn sessions_of_the_page_do_not_stay() {
    let sidegate = near().config("aggregator: {maxSessions: 2}\n").start().await;
    let visitor = Visitor::new(&sidegate);
    let client = McpClient::connect(sidegate.url()).await;
    let _in_use = client.listen().await;
    for _ in 0..5 {
        let answer = visitor.post("/ui/call", &[("tool", "x_near_now")]).await;
        assert!(answer.text().contains("Result"), "{}", answer.text());
    }
    let other = McpClient::connect(sidegate.url()).await;
    let _in_use_too = other.listen().await;
    let answer = visitor.post("/ui/call", &[("tool", "x_near_now")]).await;
    assert!(answer.text().contains("too many sessions are open"), "{}", answer.text());
}

#[tokio::test]
async fn calls_are_shown_with_how_they_went() {
    let sidegate = near().definition("all", &example("everything", &[])).start().await;
    let visitor = Visitor::new(&sidegate);
    assert!(visitor.page("/ui/calls").await.contains("None yet"));
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_near_now", json!({})).await.result();
    client.call("x_all_test_error_handling", json!({})).await.result();
    visitor.post("/ui/call", &[("tool", "x_near_uuid")]).await;
    let (id, sleeping) =
        client.starting("tools/call", json!({"name": "x_all_sleep", "arguments": {"ms": 600_000}}));
    tokio::pin!(sleeping);
    let looking = eventually("the call that is under way", async || {
        let page = visitor.page("/ui/calls").await;
        page.contains(">under way<").then_some(page)
    });
    let page = tokio::select! {
        page = looking => page,
        _ = &mut sleeping => panic!("it sleeps for ten minutes"),
    };
    let order = ["x_all_sleep", "x_near_uuid", "x_all_test_error_handling", "x_near_now"];
    let at: Vec<usize> = order
        .iter()
        .map(|tool| page.find(&format!("name={tool}\"")).unwrap_or_else(|| panic!("{tool}: {page}")))
        .collect();
    assert!(at.is_sorted(), "the newest first: {page}");
    assert!(page.contains(">tool error<") && page.matches(">ok<").count() == 2, "{page}");
    assert!(page.contains(" ms<"), "{page}");

    let of_near = visitor.page("/ui/calls?server=near").await;
    assert!(of_near.contains("x_near_now") && !of_near.contains("x_all_sleep"), "{of_near}");
    assert!(visitor.page("/ui/servers/all").await.contains("name=x_all_sleep\""));
    assert_eq!(visitor.get("/ui/calls?server=none").await.status, StatusCode::NOT_FOUND);

    client.notify("notifications/cancelled", json!({"requestId": id})).await;
    eventually("its end", async || visitor.page("/ui/calls").await.contains(">cancelled<").then_some(()))
        .await;
}

#[tokio::test]
async fn changes_of_the_gateways_configuration_are_remembered() {
    let sidegate = near().start().await;
    let visitor = Visitor::new(&sidegate);
    let changes = async || {
        let page = visitor.page("/ui/gateway").await;
        let (_, table) = page.split_once("Changes, the newest first").expect("a table");
        table.split("</table>").next().unwrap().matches("<tr>").count() - 1
    };
    let before = changes().await;
    assert!(before >= 1);
    sidegate.write_definition("later", &built_in());
    eventually("one more", async || (changes().await > before).then_some(())).await;
    let page = visitor.page("/ui/gateway").await;
    assert!(page.contains(">embedded ") && !page.contains("agentgateway's own page"), "{page}");
}

#[tokio::test]
async fn a_call_ends_when_the_browser_leaves() {
    let sidegate = near().definition("all", &example("everything", &[])).start().await;
    let visitor = Visitor::new(&sidegate);
    let client = McpClient::connect(sidegate.url()).await;
    let counts =
        async || client.call("x_all_sleep_counts", json!({})).await.value()["structuredContent"].take();
    let secret = visitor.secret().await;
    let (leave, left) = oneshot::channel::<()>();
    let calling = tokio::spawn(async move {
        let fields = [("tool", "x_all_sleep"), ("arg.ms", "600000"), ("csrf", secret.as_str())];
        tokio::select! {
            answer = visitor.post_raw("/ui/call", &fields) => panic!("{}", answer.text()),
            _ = left => {}
        }
    });
    let running = |counts: &Value| counts["running"] == 1;
    eventually("the call at the server", async || running(&counts().await).then_some(())).await;
    leave.send(()).unwrap();
    calling.await.unwrap();
    eventually("its end", async || (counts().await["cancelled"] == 1).then_some(())).await;
}

#[tokio::test]
async fn what_servers_say_stays_text() {
    let hostile = r#"</pre></script><script>alert(1)</script><img src=x onerror=alert(2)>"'&lt;"#;
    let escapes = "\u{1b}[2J\u{1b}]8;;http://evil.example\u{7}link\u{202e}gpj\0";
    let tool = json!({
        "name": hostile,
        "title": format!("{escapes}{hostile}"),
        "description": format!("{hostile}\n{escapes}"),
        "icons": [{"src": "javascript:alert(3)"}],
        "annotations": {"title": hostile, "readOnlyHint": hostile},
        "inputSchema": {
            "type": "object",
            "properties": {hostile: {"type": "string", "description": hostile, "default": hostile, "enum": [hostile]},
                           "list": {"type": hostile}},
            "required": [hostile],
        },
        "outputSchema": {"type": "object", "title": hostile},
    });
    let offered = Offered { tools: vec![tool], ..Offered::default() };
    let scripted = Scripted::start(offered).await;
    let all = example("everything", &[]);
    let sidegate = near().definition("hostile", &remote(&scripted.url)).definition("all", &all).start().await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_all_stderr", json!({"text": format!("{hostile}{escapes}")})).await.result();
    let visitor = Visitor::new(&sidegate);
    let name = format!("x_hostile_{hostile}");
    let query = |path: &str, name: &str, value: &str| {
        format!(
            "{path}?{}",
            form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish()
        )
    };
    let mut pages = vec![
        visitor.page("/ui").await,
        visitor.page("/ui/tools").await,
        visitor.page("/ui/servers/hostile").await,
        visitor.page(&query("/ui/tools", "q", hostile)).await,
        visitor.page(&query("/ui/tools", "server", hostile)).await,
        visitor.page(&query("/ui/tool", "name", &name)).await,
    ];
    assert!(pages[5].contains("alert(1)") && pages[5].contains("link⟨202E⟩gpj⟨00⟩"), "{}", pages[5]);
    let log = async || {
        let page = visitor.page("/ui/logs?of=all").await;
        page.contains("alert(1)").then_some(page)
    };
    pages.push(eventually("the line in the log", log).await);
    for page in &pages {
        assert!(!page.contains(['\u{1b}', '\0', '\u{202e}', '\u{7}']), "{page}");
    }
    for text in [hostile, escapes] {
        let value = visitor
            .post("/ui/call", &[("tool", "x_all_echo"), ("json", &json!({text: text}).to_string())])
            .await;
        pages.push(value.text().to_owned());
        let argument = format!("arg.{hostile}");
        pages.push(visitor.post("/ui/call", &[("tool", &name), (&argument, text)]).await.text().to_owned());
        pages.push(visitor.post("/ui/call", &[("tool", text)]).await.text().to_owned());
        pages.push(visitor.post("/ui/call", &[("tool", &name), ("json", text)]).await.text().to_owned());
        pages.push(visitor.get(&query("/ui/tool", "name", text)).await.text().to_owned());
        pages.push(visitor.get(&query("/ui/logs", "of", text)).await.text().to_owned());
    }
    for page in &pages {
        assert_eq!(page.matches("<script").count(), 1, "{page}");
        assert!(!page.contains("<img") && !page.contains("href=\"javascript"), "{page}");
        for (start, _) in page.match_indices("onerror=") {
            assert!(page[..start].ends_with("&lt;img src=x "), "{page}");
        }
    }
}

#[tokio::test]
async fn logs_are_shown_by_the_names_of_servers_only() {
    let sidegate = near().start().await;
    let visitor = Visitor::new(&sidegate);
    assert!(visitor.page("/ui/logs").await.contains("Log of gateway"));
    visitor.page("/ui/logs?of=near").await;
    for name in ["none", "..%2Finstance", "..%2F..%2Fconfig", "near.log", "%00", "NEAR"] {
        assert_eq!(visitor.get(&format!("/ui/logs?of={name}")).await.status, StatusCode::NOT_FOUND, "{name}");
    }
}

#[tokio::test]
async fn a_server_called_gateway_has_its_own_log() {
    let sidegate = Sidegate::builder()
        .definition("gateway", &example("everything", &[]))
        .wait_for_servers()
        .start()
        .await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_gateway_stderr", json!({"text": "from the server"})).await.result();
    let visitor = Visitor::new(&sidegate);
    for path in ["/ui/servers/gateway", "/ui/logs?of=gateway.server"] {
        eventually("its line", async || visitor.page(path).await.contains("from the server").then_some(()))
            .await;
    }
    let page = visitor.page("/ui/logs").await;
    assert!(!page.contains("from the server") && page.contains("/ui/logs?of=gateway.server"), "{page}");
}

#[tokio::test]
async fn thousands_of_tools_come_in_pages() {
    let many = example("everything", &["--tools", "3000"]);
    let sidegate = near().definition("many", &many).start().await;
    let visitor = Visitor::new(&sidegate);
    let page = visitor.page("/ui/tools").await;
    let links = |page: &str| page.matches(r#"<a href="/ui/tool?name="#).count();
    assert_eq!(links(&page), 50);
    assert!(page.contains("Page 1 of 6") && page.contains(r#"href="/ui/tools?page=2""#), "{page}");
    let found = visitor.page("/ui/tools?q=CALCULATE&server=near").await;
    assert_eq!(links(&found), 1, "{found}");
    assert_eq!(links(&visitor.page("/ui/tools?q=calculate+nothing").await), 0);
    let last = visitor.page("/ui/tools?server=many&page=999999").await;
    assert!(last.contains(r#"rel="prev""#) && !last.contains(r#"rel="next""#), "{last}");
    assert!(visitor.page("/ui/servers/many").await.len() < 100_000);
}

#[rstest]
#[case("0.0.0.0:0")]
#[case("127.0.0.1:0")]
#[tokio::test]
async fn a_token_is_given_once_and_kept_as_a_cookie(#[case] listen: &str) {
    let sidegate = near().config("aggregator: {tokenFile: token}\n").listen(listen).start().await;
    let token = fs_err::read_to_string(sidegate.ready.token_file.clone().unwrap()).unwrap();
    let token = token.trim();
    let visitor = Visitor::new(&sidegate);
    for path in ["/ui", "/ui/tools", "/ui/logs", "/ui/nothing"] {
        let refused = visitor.get(path).await;
        assert_eq!(
            (refused.status, &refused.headers["www-authenticate"]),
            (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
        );
        assert!(refused.text().contains(r#"action="/ui/sign-in""#) && !refused.text().contains("csrf"));
    }
    assert_eq!(visitor.get("/ui/style.css").await.status, StatusCode::OK);
    for path in ["/ui/call", "/ui/servers/near/stop", "/ui/sign-out"] {
        assert_eq!(visitor.post_raw(path, &[]).await.status, StatusCode::UNAUTHORIZED);
    }
    let bearer = visitor.with("authorization", &format!("Bearer {token}"));
    assert!(bearer.page("/ui").await.contains("near"));

    for wrong in ["", "0", &"0".repeat(64), &format!("{token}0")] {
        let refused = visitor.post_raw("/ui/sign-in", &[("token", wrong)]).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.text().contains("That is not the token"), "{}", refused.text());
        assert!(!refused.headers.contains_key(header::SET_COOKIE));
    }
    let foreign =
        visitor.with("origin", "http://localhost:1").post_raw("/ui/sign-in", &[("token", token)]).await;
    assert_eq!(foreign.status, StatusCode::FORBIDDEN);

    let signed_in = visitor.post_raw("/ui/sign-in", &[("token", token)]).await;
    assert_eq!(
        (signed_in.status, &signed_in.headers["location"]),
        (StatusCode::SEE_OTHER, &"/ui".parse().unwrap())
    );
    let cookie = signed_in.headers[header::SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.ends_with("; Path=/ui; HttpOnly; SameSite=Strict") && !cookie.contains(token), "{cookie}");
    let with_cookie = visitor.with("cookie", cookie.split(';').next().unwrap());
    assert!(with_cookie.page("/ui").await.contains("Sign out"));
    let answer = with_cookie.post("/ui/call", &[("tool", "x_near_now")]).await;
    assert!(answer.text().contains("Result"), "{}", answer.text());
    // It is the page's, and nobody else's.
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}});
    let mcp = with_cookie
        .with("content-type", "application/json")
        .send(Method::POST, "/mcp", initialize.to_string())
        .await;
    assert_eq!(mcp.status, StatusCode::UNAUTHORIZED);

    let signed_out = with_cookie.post("/ui/sign-out", &[]).await;
    assert!(signed_out.headers[header::SET_COOKIE].to_str().unwrap().contains("=; "));
    let ended = sidegate.stop().await;
    assert!(!ended.stderr.contains(token) && ended.stderr.contains("with a wrong token"), "{}", ended.stderr);
}
