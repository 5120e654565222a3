//! A remote MCP server in this process that does what its calls tell it to, on whichever stream they say.
//!
//! Its tool `act` takes `steps`, one after the other:
//!
//! - `{"say": {notification}, "on": "own" | "get"}`: says it; the string `"$token"` stands for the call's progress token;
//! - `{"ask": {request without id}, "on": …}`: asks the client and waits for its answer;
//! - `{"ask": …, "on": …, "cancel": true}`: asks, and says that it does not want to know any more;
//! - `{"wait": milliseconds}`; `{"until_cancelled": true}`.
//!
//! The answers are in the result, under `structuredContent.answers`.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use sidegate::wire::message::{Message, RequestId, View};
use sidegate::wire::rpc::{self, RpcError};
use sidegate::wire::server::{
    Endpoint, Opened, Reply, RequestContext, ServerConfig, SessionHandle, StreamableHttp, serve_connections,
};
use sidegate::wire::stream::Weight;
use sidegate::wire::version::ProtocolVersion;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A running server; ends when dropped.
pub(crate) struct Scripted {
    pub(crate) url: String,
    server: Arc<StreamableHttp<Script>>,
    _stop: DropGuard,
}

/// What a server offers, besides `act`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Offered {
    pub(crate) tools: Vec<Value>,
    pub(crate) prompts: Vec<Value>,
    pub(crate) resources: Vec<Value>,
    pub(crate) templates: Vec<Value>,
    pub(crate) instructions: Option<String>,
}

struct Script {
    offered: Offered,
    sessions: Mutex<Vec<Arc<Session>>>,
    /// Every request but `act`, and every notification: method and parameters.
    seen: Mutex<Vec<(String, Value)>>,
    /// The headers of calls.
    headers: Mutex<Vec<http::HeaderMap>>,
}

struct Session {
    handle: SessionHandle,
    capabilities: Value,
    subscriptions: Mutex<HashSet<String>>,
    answers: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    calls: Mutex<HashMap<RequestId, CancellationToken>>,
    next: AtomicU64,
}

impl Scripted {
    pub(crate) async fn start(offered: Offered) -> Self {
        Self::start_at("127.0.0.1:0", offered).await
    }

    /// As [`start`](Self::start), at another address.
    pub(crate) async fn start_at(address: &str, offered: Offered) -> Self {
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let script =
            Script { offered, sessions: Mutex::default(), seen: Mutex::default(), headers: Mutex::default() };
        let config = ServerConfig { max_body: 64 << 20, ..ServerConfig::default() };
        let server = StreamableHttp::new(script, config, tracker.clone(), stop.clone());
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let handler = {
            let server = Arc::clone(&server);
            move |request| Arc::clone(&server).handle(request)
        };
        tokio::spawn(serve_connections(listener, handler, stop.clone(), tracker));
        Self { url, server, _stop: stop.drop_guard() }
    }

    /// What was asked and said, but for `act`: the parameters of this method, in order.
    pub(crate) fn seen(&self, method: &str) -> Vec<Value> {
        let seen = self.server.endpoint().seen.lock().unwrap();
        seen.iter().filter(|(known, _)| known == method).map(|(_, params)| params.clone()).collect()
    }

    /// The headers that the calls of tools came with.
    pub(crate) fn call_headers(&self) -> Vec<http::HeaderMap> {
        self.server.endpoint().headers.lock().unwrap().clone()
    }

    /// The capabilities that the open sessions were opened with.
    pub(crate) fn sessions(&self) -> Vec<Value> {
        self.server.endpoint().sessions.lock().unwrap().iter().map(|s| s.capabilities.clone()).collect()
    }

    /// Ends every session: clients are told that they are not known.
    pub(crate) fn end_sessions(&self) {
        for session in self.server.endpoint().sessions.lock().unwrap().drain(..) {
            session.handle.end();
        }
    }

    /// Says something on the GET stream of each session.
    pub(crate) fn say(&self, method: &str, params: &Value) {
        for session in self.server.endpoint().sessions.lock().unwrap().iter() {
            session.say(None, method, params);
        }
    }

    /// Says that a resource was updated where it was subscribed to; gives in how many sessions.
    pub(crate) fn touch(&self, uri: &str) -> usize {
        let sessions = self.server.endpoint().sessions.lock().unwrap();
        let subscribed = sessions.iter().filter(|s| s.subscriptions.lock().unwrap().contains(uri));
        subscribed.map(|s| s.say(None, "notifications/resources/updated", &json!({"uri": uri}))).count()
    }
}

impl Session {
    fn say(&self, own: Option<&Reply>, method: &str, params: &Value) {
        self.send(own, rpc::notification(method, Some(&params.to_string())), Weight::Droppable);
    }

    fn send(&self, own: Option<&Reply>, text: bytestring::ByteString, weight: Weight) {
        match own {
            Some(reply) => reply.send(text, weight),
            None => self.handle.standalone().push(text, weight),
        }
    }

    async fn ask(&self, own: Option<&Reply>, request: &Value, cancel: bool) -> Value {
        let id = format!("s{}", self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, answer) = oneshot::channel();
        self.answers.lock().unwrap().insert(json!(id).to_string(), sender);
        let mut text = json!({"jsonrpc": "2.0", "id": id});
        text.as_object_mut().unwrap().extend(request.as_object().unwrap().clone());
        self.send(own, text.to_string().into(), Weight::Required);
        if cancel {
            self.say(own, "notifications/cancelled", &json!({"requestId": id, "reason": "not any more"}));
            return json!("cancelled");
        }
        answer.await.unwrap_or(json!("no answer"))
    }

    async fn act(
        &self,
        arguments: &Value,
        token: &Value,
        reply: &Reply,
        cancelled: &CancellationToken,
    ) -> Value {
        let mut answers = Vec::new();
        for step in arguments["steps"].as_array().into_iter().flatten() {
            let own = (step["on"] != "get").then_some(reply);
            if let Some(ms) = step["wait"].as_u64() {
                tokio::time::sleep(Duration::from_millis(ms)).await;
            } else if step["until_cancelled"] == true {
                cancelled.cancelled().await;
            } else if step["say"].is_object() {
                let text = step["say"]["params"].to_string().replace(r#""$token""#, &token.to_string());
                let params: Value = serde_json::from_str(&text).unwrap();
                self.say(own, step["say"]["method"].as_str().unwrap(), &params);
            } else if step["ask"].is_object() {
                answers.push(self.ask(own, &step["ask"], step["cancel"] == true).await);
            }
        }
        json!({
            "content": [{"type": "text", "text": "done"}],
            "structuredContent": {"answers": answers, "echo": arguments["echo"]},
        })
    }
}

impl Script {
    fn answer(&self, session: &Session, method: &str, params: &Value) -> Result<Value, RpcError> {
        let uri = || params["uri"].as_str().unwrap_or_default().to_owned();
        Ok(match method {
            "tools/list" => {
                let mut tools = vec![json!({"name": "act", "inputSchema": {"type": "object"}})];
                tools.extend(self.offered.tools.clone());
                json!({"tools": tools})
            }
            "prompts/list" => json!({"prompts": self.offered.prompts}),
            // A page for each, so that they have to be put together.
            "resources/list" => {
                let page = params["cursor"].as_str().map_or(0, |cursor| cursor.parse().unwrap());
                let next = (page + 1 < self.offered.resources.len()).then(|| (page + 1).to_string());
                let resources: Vec<_> = self.offered.resources.iter().skip(page).take(1).collect();
                match next {
                    Some(next) => json!({"resources": resources, "nextCursor": next}),
                    None => json!({"resources": resources}),
                }
            }
            "resources/templates/list" => json!({"resourceTemplates": self.offered.templates}),
            "resources/read" => json!({"contents": [{"uri": uri(), "text": format!("text of {}", uri())}]}),
            "resources/subscribe" => {
                if uri().contains("secret") {
                    return Err(RpcError::new(-32099, "not yours"));
                }
                session.subscriptions.lock().unwrap().insert(uri());
                json!({})
            }
            "resources/unsubscribe" => {
                session.subscriptions.lock().unwrap().remove(&uri());
                json!({})
            }
            "prompts/get" | "completion/complete" | "tasks/get" | "tasks/cancel" => json!({"got": params}),
            "tasks/list" => json!({"tasks": [{"taskId": "t1"}, {"taskId": "t2"}, {"taskId": "t3"}]}),
            "logging/setLevel" | "ping" => json!({}),
            _ => return Err(RpcError::new(RpcError::METHOD_NOT_FOUND, format!("no {method} here"))),
        })
    }
}

impl Endpoint for Script {
    type Session = Session;

    async fn initialize(
        &self,
        request: &Message,
        _: &RequestContext,
        handle: &SessionHandle,
    ) -> Result<Opened<Session>, RpcError> {
        let View::Request { id, params, .. } = request.view() else { unreachable!("it is a request") };
        let params: Value = serde_json::from_str(params.unwrap()).unwrap();
        let session = Arc::new(Session {
            handle: handle.clone(),
            capabilities: params["capabilities"].clone(),
            subscriptions: Mutex::default(),
            answers: Mutex::default(),
            calls: Mutex::default(),
            next: AtomicU64::new(1),
        });
        self.sessions.lock().unwrap().push(Arc::clone(&session));
        let mut result = json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {
                "tools": {}, "prompts": {}, "resources": {"subscribe": true}, "logging": {}, "completions": {},
                "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
            },
            "serverInfo": {"name": "scripted", "version": "1"},
        });
        if let Some(instructions) = &self.offered.instructions {
            result["instructions"] = json!(instructions);
        }
        let response = rpc::result(id, &result.to_string());
        Ok(Opened { session, response, version: ProtocolVersion::LATEST })
    }

    async fn request(
        &self,
        session: &Arc<Session>,
        request: Message,
        context: &RequestContext,
        reply: Reply,
    ) {
        let View::Request { id, method, params } = request.view() else { return };
        if method == "tools/call" {
            self.headers.lock().unwrap().push(context.headers.clone());
        }
        let params: Value = serde_json::from_str(params.unwrap_or("{}")).unwrap();
        let result = if method == "tools/call" && params["task"].is_object() {
            Ok(json!({"task": {"taskId": params["arguments"]["id"], "status": "working"}}))
        } else if method == "tools/call" && params["name"] == "act" {
            let key = RequestId::from_raw(id);
            let cancelled = CancellationToken::new();
            session.calls.lock().unwrap().insert(key.clone(), cancelled.clone());
            let acting =
                session.act(&params["arguments"], &params["_meta"]["progressToken"], &reply, &cancelled);
            let result = cancelled.run_until_cancelled(acting).await;
            session.calls.lock().unwrap().remove(&key);
            let Some(result) = result else { return };
            Ok(result)
        } else if method == "tools/call" {
            Ok(json!({"content": [{"type": "resource_link", "uri": "s://1", "name": "one"}], "got": params}))
        } else {
            self.seen.lock().unwrap().push((method.to_owned(), params.clone()));
            self.answer(session, method, &params)
        };
        reply.answer(match result {
            Ok(result) => rpc::result(id, &result.to_string()),
            Err(error) => error.response(Some(id)),
        });
    }

    async fn deliver(&self, session: &Arc<Session>, message: Message) {
        match message.view() {
            View::Notification { method, params } => {
                let params: Value = serde_json::from_str(params.unwrap_or("{}")).unwrap();
                if method == "notifications/cancelled" {
                    let id = RequestId::from_raw(&params["requestId"].to_string());
                    if let Some(call) = session.calls.lock().unwrap().get(&id) {
                        call.cancel();
                    }
                }
                self.seen.lock().unwrap().push((method.to_owned(), params));
            }
            View::Response { id: Some(id), outcome } => {
                let waiting = session.answers.lock().unwrap().remove(id);
                let answer = outcome.map_or_else(|error| json!({"error": raw(error)}), raw);
                if let Some(waiting) = waiting {
                    let _ = waiting.send(answer);
                }
            }
            _ => {}
        }
    }

    async fn closed(&self, session: &Arc<Session>) {
        self.sessions.lock().unwrap().retain(|known| !Arc::ptr_eq(known, session));
    }
}

fn raw(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}
