//! A client of the instance in its own process, for whoever starts one in code.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri, header};
use serde_json::{Value, json};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_util::task::TaskTracker;

use crate::wire::client::{ClientConfig, ClientError, Origin, Pool, Session};
use crate::wire::message::{Message, View};
use crate::wire::rpc::{self, RpcError};

/// How long the end of the session is waited for.
const GOODBYE: Duration = Duration::from_secs(2);

/// The largest answer taken, in bytes.
const LARGEST_ANSWER: usize = 64 << 20;

/// A tool, as clients see it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// Its exposed name.
    pub name: String,
    /// What it is for; empty where its server does not say.
    pub description: String,
    /// All that its server says of it: `inputSchema`, `annotations`, and the rest.
    pub definition: Value,
}

/// What a tool has answered: the `result` of `tools/call`.
#[derive(Clone, Debug, PartialEq)]
pub struct CallResult(Value);

impl CallResult {
    /// Whether the tool says that it has failed.
    pub fn is_error(&self) -> bool {
        self.0["isError"] == true
    }

    /// Its texts, each on a line of its own; what is no text is left out.
    pub fn text(&self) -> String {
        let content = self.0["content"].as_array().into_iter().flatten();
        let texts: Vec<&str> = content.filter_map(|item| item["text"].as_str()).collect();
        texts.join("\n")
    }

    /// Its structured content, where it has any.
    pub fn structured(&self) -> Option<&Value> {
        self.0.get("structuredContent")
    }

    /// The whole result, as it came.
    pub fn json(&self) -> &Value {
        &self.0
    }
}

/// Why a call got no result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No answer came.
    #[error("the instance did not answer")]
    NoAnswer(#[from] ClientError),
    /// The answer is an error: there is no such tool, say, or its server is not there.
    #[error("{message} (code {code})")]
    Refused {
        /// The code, as JSON-RPC 2.0 and MCP have it.
        code: i64,
        /// Why.
        message: String,
    },
    /// The answer is not what MCP says it is.
    #[error("the answer cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// The instance cannot be called as it is: its token has changed, say.
    #[error("the instance cannot be called: {0}")]
    Unreachable(String),
}

/// A client with one session, which is opened when it is needed and kept.
#[derive(Debug)]
pub(super) struct Client {
    config: Result<ClientConfig, String>,
    /// Held while a session is being opened, so that there is one.
    session: Mutex<Option<Arc<Session>>>,
    tracker: TaskTracker,
}

impl Client {
    /// A client of the endpoint at `url`, whose token is in `token_file`.
    pub(super) fn new(url: &str, token_file: Option<&Path>, tracker: TaskTracker) -> Self {
        Self { config: config(url, token_file), session: Mutex::default(), tracker }
    }

    pub(super) async fn tools(&self) -> Result<Vec<Tool>, CallError> {
        let mut tools = Vec::new();
        let mut params = json!({});
        loop {
            let mut page = self.request("tools/list", &params).await?;
            if let Value::Array(page) = page["tools"].take() {
                tools.extend(page.into_iter().map(|definition| Tool {
                    name: definition["name"].as_str().unwrap_or_default().to_owned(),
                    description: definition["description"].as_str().unwrap_or_default().to_owned(),
                    definition,
                }));
            }
            match page["nextCursor"].take() {
                Value::String(cursor) if params["cursor"] != *cursor => params = json!({"cursor": cursor}),
                _ => return Ok(tools),
            }
        }
    }

    pub(super) async fn call(&self, tool: &str, arguments: &Value) -> Result<CallResult, CallError> {
        let params = json!({"name": tool, "arguments": arguments});
        self.request("tools/call", &params).await.map(CallResult)
    }

    async fn request(&self, method: &str, params: &Value) -> Result<Value, CallError> {
        let session = self.session().await?;
        match ask(&session, method, params).await {
            // It was idle for too long. What a lost session refuses was not done.
            Err(CallError::NoAnswer(error)) if error.is_session_lost() => {
                self.forget(&session).await;
                ask(&*self.session().await?, method, params).await
            }
            asked => asked,
        }
    }

    async fn session(&self) -> Result<Arc<Session>, CallError> {
        let mut session = self.session.lock().await;
        if let Some(session) = &*session {
            return Ok(Arc::clone(session));
        }
        let config = self.config.clone().map_err(CallError::Unreachable)?;
        let info = json!({"name": "sidegate", "version": env!("CARGO_PKG_VERSION")}).to_string();
        let opening = Session::open(Pool::new(), config, self.tracker.clone(), "{}", &info);
        let (opened, answer) = opening.await?;
        outcome(&answer)?;
        Ok(Arc::clone(session.insert(Arc::new(opened))))
    }

    async fn forget(&self, lost: &Arc<Session>) {
        let mut session = self.session.lock().await;
        if session.as_ref().is_some_and(|session| Arc::ptr_eq(session, lost)) {
            *session = None;
        }
    }

    /// Ends the session. That it cannot be ended in time is nobody's loss: it ends with the instance.
    pub(super) async fn close(&self) {
        if let Some(session) = self.session.lock().await.take() {
            let _ = tokio::time::timeout(GOODBYE, session.close()).await;
        }
    }
}

async fn ask(session: &Session, method: &str, params: &Value) -> Result<Value, CallError> {
    let id = session.next_id();
    let request = rpc::request(id, method, &params.to_string());
    let (sender, mut messages) = mpsc::unbounded_channel();
    let mut on_message = |message: Message| {
        // The receiver lives as long as the request.
        let _ = sender.send(message);
    };
    let answer = session.request(request, id, &mut on_message);
    tokio::pin!(answer);
    loop {
        tokio::select! {
            Some(message) = messages.recv() => reply(session, &message).await?,
            answer = &mut answer => return outcome(&answer?),
        }
    }
}

/// Answers what a server asks meanwhile. Nothing was offered at `initialize`; who asks all the same must not wait for ever.
async fn reply(session: &Session, message: &Message) -> Result<(), ClientError> {
    let View::Request { id, method, .. } = message.view() else { return Ok(()) };
    let answer: ByteString = match method {
        "ping" => rpc::result(id, "{}"),
        _ => {
            RpcError::new(RpcError::METHOD_NOT_FOUND, format!("{method} is not supported")).response(Some(id))
        }
    };
    session.send(answer).await
}

fn outcome(answer: &Message) -> Result<Value, CallError> {
    match answer.view() {
        View::Response { outcome: Ok(result), .. } => Ok(serde_json::from_str(result)?),
        View::Response { outcome: Err(error), .. } => {
            let error: Value = serde_json::from_str(error)?;
            let message = error["message"].as_str().unwrap_or("it did not say why").to_owned();
            Err(CallError::Refused { code: error["code"].as_i64().unwrap_or_default(), message })
        }
        _ => Err(CallError::Unreachable("it answered with no answer".to_owned())),
    }
}

/// An endpoint's URL as it is reached from this machine: an unspecified address stands for all, and is none to be called by.
pub fn reachable(url: &Uri) -> Uri {
    let address = url.authority().and_then(|authority| authority.as_str().parse::<SocketAddr>().ok());
    let Some(address) = address.filter(|address| address.ip().is_unspecified()) else { return url.clone() };
    let ip = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let local = SocketAddr::new(ip, address.port());
    // An address and the path of a URL are a URL.
    format!("http://{local}{}", url.path()).parse().unwrap_or_else(|_| url.clone())
}

fn config(url: &str, token_file: Option<&Path>) -> Result<ClientConfig, String> {
    let uri: Uri = url.parse().map_err(|error| format!("{url} is no address: {error}"))?;
    let uri = reachable(&uri);
    let authority = uri.authority().cloned().ok_or_else(|| format!("{url} is no address"))?;
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut headers = HeaderMap::new();
    if let Some(file) = token_file {
        let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let value = HeaderValue::from_str(&format!("Bearer {}", token.trim()));
        let mut value = value.map_err(|_| format!("{} holds no token", file.display()))?;
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
    // A sender that is dropped sends nowhere else.
    let (_, origin) = watch::channel(Origin::new(authority, HeaderMap::new()));
    let patience = ClientConfig::ALONE;
    let max_message = LARGEST_ANSWER;
    Ok(ClientConfig { origin, path, headers, route_marker: None, local: None, max_message, patience })
}
