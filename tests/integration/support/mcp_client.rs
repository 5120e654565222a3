//! An MCP client over streamable HTTP that shows what came over the wire, byte for byte.
//!
//! It knows as little of MCP as it can: sessions, ids and event streams. It never retries, reconnects or answers by
//! itself, so that what a test sees is what the server did.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use super::sse::{Event, Parser};
use super::within;

/// The newest protocol version that all of the product's parts speak.
pub(crate) const LATEST: &str = "2025-11-25";

/// An initialized session.
#[derive(Debug)]
pub(crate) struct McpClient {
    http: Http,
    version: String,
    session: Option<String>,
    initialize_result: Box<RawValue>,
    next_id: AtomicU64,
}

/// Plain HTTP requests to one URL.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Uri,
    token: Option<String>,
}

/// A response whose body was read to its end.
#[derive(Debug)]
pub(crate) struct RawResponse {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// One JSON-RPC message as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    raw: String,
    /// The id of the server-sent event that carried it, if one did.
    pub(crate) event_id: Option<String>,
}

/// The members of a JSON-RPC message, each as it was written.
#[derive(Debug, Deserialize)]
pub(crate) struct Envelope<'a> {
    #[serde(borrow)]
    pub(crate) id: Option<&'a RawValue>,
    pub(crate) method: Option<String>,
    #[serde(borrow)]
    pub(crate) params: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) result: Option<&'a RawValue>,
    #[serde(borrow)]
    pub(crate) error: Option<&'a RawValue>,
}

/// A request that was sent: the messages that come back for it, its response last.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// The request's own id.
    pub(crate) id: u64,
    stream: EventStream,
}

/// Messages from one HTTP response: an event stream, or a single JSON body.
#[derive(Debug)]
pub(crate) struct EventStream {
    pub(crate) headers: HeaderMap,
    body: Option<Incoming>,
    parser: Parser,
    events: VecDeque<Event>,
}

impl McpClient {
    /// Opens a session in the newest version, as a client that offers no capabilities.
    pub(crate) async fn connect(url: &str) -> Self {
        Self::initialize(url, LATEST, json!({})).await
    }

    /// Opens a session: `initialize`, then `notifications/initialized`.
    pub(crate) async fn initialize(url: &str, version: &str, capabilities: Value) -> Self {
        Self::initialize_with(url, version, capabilities, &[]).await
    }

    /// As [`initialize`](Self::initialize), with these headers besides.
    pub(crate) async fn initialize_with(
        url: &str,
        version: &str,
        capabilities: Value,
        headers: &[(&str, &str)],
    ) -> Self {
        Self::initialize_over(Http::new(url), version, capabilities, headers).await
    }

    /// Opens a session where a token is needed.
    pub(crate) async fn with_token(url: &str, token: &str) -> Self {
        Self::initialize_over(Http::new(url).with_token(token), LATEST, json!({}), &[]).await
    }

    async fn initialize_over(
        http: Http,
        version: &str,
        capabilities: Value,
        headers: &[(&str, &str)],
    ) -> Self {
        let request = json!({
            "jsonrpc": "2.0",
            "id": 0,
            "method": "initialize",
            "params": {
                "protocolVersion": version,
                "capabilities": capabilities,
                "clientInfo": {"name": "sidegate-tests", "version": "0"},
            },
        });
        let response = within("initialize", http.post(request.to_string(), headers)).await;
        let mut stream = EventStream::new(response).await;
        let session = stream.headers.get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
        let message = stream.next_message().await.expect("initialize is answered");
        let client = Self {
            http,
            version: version.to_owned(),
            session,
            initialize_result: message.result().to_owned(),
            next_id: AtomicU64::new(1),
        };
        client.notify("notifications/initialized", json!({})).await;
        client
    }

    pub(crate) fn session_id(&self) -> Option<&str> {
        self.session.as_deref()
    }

    pub(crate) fn initialize_result(&self) -> Value {
        serde_json::from_str(self.initialize_result.get()).unwrap()
    }

    /// Sends a request and waits for its response; other messages on its stream are dropped.
    pub(crate) async fn request(&self, method: &str, params: impl Serialize) -> Message {
        self.start(method, params).await.response().await
    }

    /// `tools/call`, as [`request`](Self::request).
    pub(crate) async fn call(&self, tool: &str, arguments: impl Serialize) -> Message {
        let arguments = to_raw_value(&arguments).unwrap();
        #[derive(Serialize)]
        struct Params<'a> {
            name: &'a str,
            arguments: &'a RawValue,
        }
        self.request("tools/call", Params { name: tool, arguments: &arguments }).await
    }

    /// The names in `tools/list`, over all pages, in the order they came.
    pub(crate) async fn tool_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut cursor = None;
        loop {
            let params = cursor.map_or(json!({}), |cursor: String| json!({ "cursor": cursor }));
            let message = self.request("tools/list", params).await;
            let page: ToolsPage = serde_json::from_str(message.result().get()).unwrap();
            names.extend(page.tools.into_iter().map(|tool| tool.name));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return names;
            }
        }
    }

    /// Sends a request and gives its stream, for calls during which something happens.
    pub(crate) async fn start(&self, method: &str, params: impl Serialize) -> Exchange {
        self.starting(method, params).1.await
    }

    /// As [`start`](Self::start), with the id at once: a server need not begin its response before it has something to
    /// say. Nothing is sent before the future is polled.
    pub(crate) fn starting(
        &self,
        method: &str,
        params: impl Serialize,
    ) -> (u64, impl Future<Output = Exchange>) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let params = to_raw_value(&params).unwrap();
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        let method = method.to_owned();
        let exchange = async move {
            let response = within(&method, self.post(body)).await;
            Exchange { id, stream: EventStream::new(response).await }
        };
        (id, exchange)
    }

    /// Sends a notification, which the server must accept.
    pub(crate) async fn notify(&self, method: &str, params: impl Serialize) {
        let params = to_raw_value(&params).unwrap();
        self.deliver(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#)).await;
    }

    /// Answers a request that the server made.
    pub(crate) async fn respond(&self, request: &Message, result: impl Serialize) {
        let (id, result) = (request.envelope().id.unwrap().get(), to_raw_value(&result).unwrap());
        self.deliver(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)).await;
    }

    /// Opens the stream for messages that belong to no request.
    pub(crate) async fn listen(&self) -> EventStream {
        self.resume(None).await
    }

    /// Opens a stream that goes on after the event of that id.
    pub(crate) async fn resume(&self, last_event_id: Option<&str>) -> EventStream {
        let mut headers = self.headers();
        headers.extend(last_event_id.map(|id| ("last-event-id", id)));
        let response = within("GET", self.http.send(Method::GET, Bytes::new(), &headers)).await;
        EventStream::new(response).await
    }

    /// Ends the session; gives the status.
    pub(crate) async fn delete(&self) -> StatusCode {
        within("DELETE", self.http.send(Method::DELETE, Bytes::new(), &self.headers())).await.status()
    }

    /// POSTs `body` within this session.
    pub(crate) async fn post(&self, body: impl Into<Bytes>) -> Response<Incoming> {
        self.http.post(body, &self.headers()).await
    }

    fn headers(&self) -> Vec<(&'static str, &str)> {
        let mut headers = vec![("mcp-protocol-version", self.version.as_str())];
        headers.extend(self.session.as_deref().map(|session| ("mcp-session-id", session)));
        headers
    }

    async fn deliver(&self, body: String) {
        let response = RawResponse::read(within("POST", self.post(body)).await).await;
        assert_eq!(response.status, StatusCode::ACCEPTED, "{}", response.text());
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolsPage {
    tools: Vec<NamedTool>,
    next_cursor: Option<String>,
}

#[derive(Deserialize)]
struct NamedTool {
    name: String,
}

impl Http {
    pub(crate) fn new(url: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        Self { client, url: url.parse().unwrap(), token: None }
    }

    /// Sends this bearer token with every request.
    pub(crate) fn with_token(self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self }
    }

    /// POSTs with the headers every MCP client sends; `headers` come on top, an empty value removes one.
    pub(crate) async fn post(&self, body: impl Into<Bytes>, headers: &[(&str, &str)]) -> Response<Incoming> {
        self.send(Method::POST, body, headers).await
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        body: impl Into<Bytes>,
        headers: &[(&str, &str)],
    ) -> Response<Incoming> {
        let accept =
            if method == Method::GET { "text/event-stream" } else { "application/json, text/event-stream" };
        let mut all = HeaderMap::new();
        all.insert(header::ACCEPT, accept.parse().unwrap());
        if method == Method::POST {
            all.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        }
        if let Some(token) = &self.token {
            all.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
        }
        for &(name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            if value.is_empty() {
                all.remove(name);
            } else {
                all.insert(name, value.parse().unwrap());
            }
        }
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = method;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = all;
        self.client.request(request).await.unwrap()
    }
}

impl RawResponse {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body = within("the body's end", body.collect()).await.unwrap().to_bytes();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Exchange {
    /// The next message on this request's stream; `None` at its end.
    #[track_caller]
    pub(crate) fn next_message(&mut self) -> impl Future<Output = Option<Message>> {
        self.stream.next_message()
    }

    /// Waits for the response; other messages are dropped.
    #[track_caller]
    pub(crate) fn response(mut self) -> impl Future<Output = Message> {
        within("the response", async move {
            while let Some(message) = self.stream.read_message().await {
                if message.answers(self.id) {
                    return message;
                }
            }
            panic!("the stream ended without a response");
        })
    }

    /// Waits for a notification or request of that method on this request's stream; other messages are dropped.
    #[track_caller]
    pub(crate) fn expect(&mut self, method: &str) -> impl Future<Output = Message> {
        self.stream.expect(method)
    }

    /// The events as they come, for tests about streams themselves.
    pub(crate) fn into_stream(self) -> EventStream {
        self.stream
    }
}

impl EventStream {
    /// Panics unless the response is an event stream or a JSON document.
    async fn new(response: Response<Incoming>) -> Self {
        let content_type = response.headers().get(header::CONTENT_TYPE).cloned();
        let media_type = content_type.as_ref().map_or("", |value| value.to_str().unwrap());
        if response.status() == StatusCode::OK && media_type.starts_with("text/event-stream") {
            let (parts, body) = response.into_parts();
            let (parser, events) = (Parser::default(), VecDeque::new());
            return Self { headers: parts.headers, body: Some(body), parser, events };
        }
        let is_json = media_type.starts_with("application/json");
        let response = RawResponse::read(response).await;
        assert!(response.status == StatusCode::OK && is_json, "{}: {}", response.status, response.text());
        let event = Event { data: Some(response.text().to_owned()), ..Event::default() };
        Self { headers: response.headers, body: None, parser: Parser::default(), events: [event].into() }
    }

    /// The next event; `None` at the stream's end.
    #[track_caller]
    pub(crate) fn next_event(&mut self) -> impl Future<Output = Option<Event>> {
        within("an event", self.read_event())
    }

    /// The next event with data, which is one message; `None` at the stream's end.
    #[track_caller]
    pub(crate) fn next_message(&mut self) -> impl Future<Output = Option<Message>> {
        within("a message", self.read_message())
    }

    /// Waits for a notification or request of that method; other messages are dropped.
    #[track_caller]
    pub(crate) fn expect(&mut self, method: &str) -> impl Future<Output = Message> {
        within(&format!("a message {method}"), async move {
            while let Some(message) = self.read_message().await {
                if message.envelope().method.as_deref() == Some(method) {
                    return message;
                }
            }
            panic!("the stream ended without {method}");
        })
    }

    async fn read_event(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            match self.body.as_mut()?.frame().await {
                Some(Ok(frame)) => {
                    let bytes = frame.into_data().unwrap_or_default();
                    self.events.extend(self.parser.push(&bytes));
                }
                // A connection that breaks is an end as well: servers are killed in these tests.
                Some(Err(_)) | None => self.body = None,
            }
        }
    }

    async fn read_message(&mut self) -> Option<Message> {
        loop {
            let event = self.read_event().await?;
            if let Some(raw) = event.data.filter(|data| !data.is_empty()) {
                return Some(Message { raw, event_id: event.id });
            }
        }
    }
}

impl Message {
    /// The text as it was written.
    pub(crate) fn raw(&self) -> &str {
        &self.raw
    }

    pub(crate) fn envelope(&self) -> Envelope<'_> {
        serde_json::from_str(&self.raw).unwrap_or_else(|error| panic!("{error}: {}", self.raw))
    }

    /// The `result` as it was written; panics on an error.
    #[track_caller]
    pub(crate) fn result(&self) -> &RawValue {
        self.envelope().result.unwrap_or_else(|| panic!("not a result: {}", self.raw))
    }

    /// The `result` decoded; panics on an error.
    #[track_caller]
    pub(crate) fn value(&self) -> Value {
        serde_json::from_str(self.result().get()).unwrap()
    }

    /// The `error` decoded; panics on a result.
    #[track_caller]
    pub(crate) fn error(&self) -> Value {
        let error = self.envelope().error.unwrap_or_else(|| panic!("not an error: {}", self.raw));
        serde_json::from_str(error.get()).unwrap()
    }

    /// The `params` decoded.
    #[track_caller]
    pub(crate) fn params(&self) -> Value {
        let params = self.envelope().params.unwrap_or_else(|| panic!("no params: {}", self.raw));
        serde_json::from_str(params.get()).unwrap()
    }

    /// The text of the first content block of a tool's result.
    #[track_caller]
    pub(crate) fn text(&self) -> String {
        let result = self.value();
        result["content"][0]["text"]
            .as_str()
            .unwrap_or_else(|| panic!("no text content: {result}"))
            .to_owned()
    }

    fn answers(&self, id: u64) -> bool {
        let envelope = self.envelope();
        envelope.method.is_none() && envelope.id.is_some_and(|found| found.get() == id.to_string())
    }
}
