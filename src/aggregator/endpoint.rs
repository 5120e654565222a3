//! What clients see: the MCP server that aggregates all others, and their sessions with it.
//!
//! | part | owns |
//! | --- | --- |
//! | `introduction` | what a client is told at `initialize` |
//! | `meta_tools` | calls of meta tools |
//! | `answer` | one request and its answer |
//! | `subscriptions`, `logging` | requests that servers and we answer together |
//! | `announce` | telling clients that lists have changed |

mod announce;
mod answer;
mod introduction;
mod logging;
mod meta_tools;
mod subscriptions;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::behind;
use super::catalogue::Catalogue;
use super::client::{Client, Clients};
use super::declared::Declared;
use super::exposure;
use super::offer::Kind;
use super::registry::Registry;
use super::request::{ClientRequest, HttpContext};
use super::scope::Scope;
use super::session::ClientSession;
use super::standing::{Outlook, Standings};
use crate::config::Exposure;
use crate::mcpserver::ServerName;
use crate::telemetry::calls::CallLog;
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::{Endpoint, Opened, Reply, RequestContext, SessionHandle};
use crate::wire::version::ProtocolVersion;
use introduction::introduce;

/// How long a client that wants a single server waits for it to be connected.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// The aggregate as an MCP server.
#[derive(Debug)]
pub struct Aggregate {
    registry: Arc<Registry>,
    /// What clients see that have not said what they want to.
    exposure: Exposure,
    /// The list of the meta tools.
    meta_tools: ByteString,
    /// Set when the instance is stopping: no new calls.
    stopping: CancellationToken,
    /// Requests that have no answer yet on its way to their client.
    unanswered: watch::Sender<usize>,
    /// Those of them that are at a server, or a tool of our own.
    in_flight: AtomicUsize,
    calls: Arc<CallLog>,
    /// Results tell the ids of their calls.
    call_ids: bool,
}

impl Aggregate {
    /// The aggregate of what `registry` holds. After `stopping` new calls are refused.
    pub fn new(registry: Arc<Registry>, stopping: CancellationToken) -> Self {
        Self {
            registry,
            exposure: Exposure::Direct,
            meta_tools: exposure::meta_tools(),
            stopping,
            unanswered: watch::Sender::new(0),
            in_flight: AtomicUsize::new(0),
            calls: CallLog::new(Vec::new(), false),
            call_ids: false,
        }
    }

    /// The same, shown as `exposure` says to clients that do not say what they want to see.
    #[must_use]
    pub fn exposing(self, exposure: Exposure) -> Self {
        Self { exposure, ..self }
    }

    /// As it is, with calls that are told to `calls`.
    #[must_use]
    pub fn with_calls(self, calls: Arc<CallLog>) -> Self {
        Self { calls, ..self }
    }

    /// As it is, but results tell the ids of their calls, in `_meta`, if `call_ids`.
    #[must_use]
    pub fn with_call_ids(self, call_ids: bool) -> Self {
        Self { call_ids, ..self }
    }

    /// The calls under way, and the last that have ended.
    pub fn calls(&self) -> &Arc<CallLog> {
        &self.calls
    }

    /// Everyone who is connected.
    fn clients(&self) -> &Clients {
        self.registry.clients()
    }

    /// Waits for a server that may be about to be connected.
    async fn wait_for(&self, server: &ServerName) -> Result<(), RpcError> {
        let mut catalogues = self.registry.subscribe();
        let connected = catalogues.wait_for(|catalogue| catalogue.server(server).is_some());
        let mut standings = self.registry.standings().subscribe();
        let is_hopeless = |standings: &Standings| {
            let outlook = standings.get(server).map(|standing| standing.outlook);
            matches!(outlook, Some(Outlook::Broken | Outlook::Resting))
        };
        let is_connected = tokio::select! {
            biased;
            connected = connected => connected.is_ok(),
            _ = standings.wait_for(is_hopeless) => false,
            () = tokio::time::sleep(FIRST_CONTACT) => false,
        };
        if is_connected { Ok(()) } else { Err(self.registry.not_connected(server)) }
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        self.registry.catalogue()
    }

    /// What a client is told of who is behind us, where it has asked. A list of a single server is that server's, and tells it
    /// itself.
    fn told_behind(&self, scope: &Scope, declared: &Declared, catalogue: &Catalogue) -> Option<String> {
        let is_told = *scope == Scope::All && declared.asks_behind;
        let behind = catalogue.servers().map(|(_, member)| &member.offer.behind);
        is_told.then(|| self.registry.identity().told(behind))?
    }

    /// What a client sees that connects like this.
    fn wanted(&self, context: &RequestContext) -> Result<(Scope, Exposure), RpcError> {
        let scope = Scope::of_path(&context.path).unwrap_or(Scope::All);
        let exposure = exposure::chosen(&context.headers, &scope, self.exposure)?;
        Ok((scope, exposure))
    }
}

impl Endpoint for Aggregate {
    type Session = ClientSession;

    fn admit(&self, context: &RequestContext) -> Result<(), RpcError> {
        self.wanted(context).map(drop)
    }

    async fn initialize(
        &self,
        request: &Message,
        context: &RequestContext,
        handle: &SessionHandle,
    ) -> Result<Opened<ClientSession>, RpcError> {
        let View::Request { id, params, .. } = request.view() else {
            return Err(RpcError::new(RpcError::INVALID_REQUEST, "initialize must be a request"));
        };
        let invalid = |why: String| RpcError::new(RpcError::INVALID_PARAMS, format!("initialize: {why}"));
        let params = params.unwrap_or("{}");
        let [version] =
            json::members(params, ["protocolVersion"]).map_err(|error| invalid(error.to_string()))?;
        let declared = Declared::parse(request.text(), params).map_err(|error| invalid(error.to_string()))?;
        let version = version
            .and_then(json::string)
            .ok_or_else(|| invalid("\"params.protocolVersion\" is missing or not a string".to_owned()))?;
        let version = ProtocolVersion::negotiate(&version);
        let (scope, exposure) = self.wanted(context)?;
        if let Scope::Server(server) = &scope {
            self.wait_for(server).await?;
        }
        let catalogue = self.catalogue();
        let mut result = format!(
            r#"{{"protocolVersion":"{version}",{}}}"#,
            introduce(&scope, exposure, &catalogue, &self.registry)?
        )
        .into();
        if let Some(told) = self.told_behind(&scope, &declared, &catalogue) {
            result = behind::with(&result, &told);
        }
        let meta_tools = (exposure == Exposure::Meta).then(|| self.meta_tools.clone());
        let client = self.clients().enter(|number| {
            let client = Client::new(number, scope, meta_tools, handle.clone(), version, declared);
            let catalogue = self.catalogue();
            client.learn(|kind| shown(&client, &catalogue, kind));
            client
        });
        debug!(session = ?handle.id(), %version, "a client has connected");
        Ok(Opened {
            session: Arc::new(ClientSession::new(client)),
            response: rpc::result(id, &result),
            version,
        })
    }

    async fn request(
        &self,
        session: &Arc<ClientSession>,
        request: Message,
        context: &RequestContext,
        reply: Reply,
    ) {
        let View::Request { id, .. } = request.view() else { return };
        // Until the client's stream has the answer: who waits for that closes the stream next.
        let _unanswered = self.unanswered();
        let answer = match ClientRequest::parse(&request) {
            Ok(request) => {
                let request = ClientRequest { http: HttpContext::of(&context.headers), ..request };
                self.answer_or_meta(session, &request, &reply).await
            }
            Err(error) => Some(Err(error)),
        };
        if let Some(answer) = answer {
            reply.answer(answer.unwrap_or_else(|error| error.response(Some(id))));
        }
    }

    async fn deliver(&self, session: &Arc<ClientSession>, message: Message) {
        let client = &session.client;
        match message.view() {
            View::Notification { method: "notifications/cancelled", params } => {
                let request = params.and_then(|params| json::members(params, ["requestId"]).ok()?[0]);
                match request {
                    Some(id) => client.cancel(&RequestId::from_raw(id)),
                    None => debug!("a cancellation that names no request"),
                }
            }
            View::Notification { method: "notifications/progress", params } => {
                client.asked.progress(&message, params).await;
            }
            View::Response { .. } => client.asked.answer(&message).await,
            // Roots are known to servers that share the client with nobody.
            View::Notification { method: "notifications/roots/list_changed", .. } => {
                session.own.tell(&message)
            }
            _ => debug!(?message, "nothing to do"),
        }
    }

    async fn closed(&self, session: &Arc<ClientSession>) {
        let client = &session.client;
        debug!(session = ?client.handle.id(), "a client has gone");
        let catalogue = self.catalogue();
        // Before its calls are cancelled: that they are is what servers may be haunted by.
        for upstream in catalogue.servers().filter_map(|(_, member)| member.link.current()) {
            upstream.side().left_by(client);
        }
        client.closed.cancel();
        client.asked.give_up();
        self.clients().leave(client);
        self.give_up_subscriptions(client, &catalogue);
        // Nobody waits for it.
        drop(self.align_levels(&catalogue));
        session.own.close().await;
    }
}

/// The `result` that lists one kind for a client, as JSON text.
fn shown<'c>(client: &'c Client, catalogue: &'c Catalogue, kind: Kind) -> &'c ByteString {
    match &client.meta_tools {
        Some(tools) if kind == Kind::Tool => tools,
        _ => catalogue.list(&client.scope, kind),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::Request;
    use http_body_util::Full;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::telemetry::calls::Outcome;
    use crate::wire::server::{SESSION_ID, ServerConfig, StreamableHttp};

    pub(super) fn request(
        method: &str,
        session: Option<&http::HeaderValue>,
        body: &'static str,
    ) -> Request<Full<Bytes>> {
        let builder = Request::builder().method(method).uri("/mcp").header("host", "localhost");
        let mut request = builder.header("content-type", "application/json").body(Full::from(body)).unwrap();
        if let Some(session) = session {
            request.headers_mut().insert(SESSION_ID, session.clone());
        }
        request
    }

    #[tokio::test]
    async fn what_meta_tools_answer_themselves_is_told_to_observers() {
        let stop = CancellationToken::new();
        let aggregate = Aggregate::new(Registry::new("x"), stop.clone()).exposing(Exposure::Meta);
        let server = StreamableHttp::new(aggregate, ServerConfig::default(), TaskTracker::new(), stop);
        let initialize =
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#;
        let opened = Arc::clone(&server).handle(request("POST", None, initialize)).await;
        let session = opened.headers()[SESSION_ID].clone();
        for call in [
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"list_tools"}}"#,
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"call_tool"}}"#,
        ] {
            Arc::clone(&server).handle(request("POST", Some(&session), call)).await;
        }
        let calls = server.endpoint().calls().finished();
        let told: Vec<_> = calls
            .iter()
            .map(|call| (call.subject.as_ref().map(|subject| subject.as_str().to_owned()), call.outcome))
            .collect();
        for expected in [("list_tools", Outcome::Ok), ("call_tool", Outcome::ToolError)] {
            let expected = (Some(expected.0.to_owned()), Some(expected.1));
            assert!(told.contains(&expected), "{told:?}");
        }
    }
}
