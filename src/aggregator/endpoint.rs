//! What clients see: the MCP server that aggregates all others.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::call::{self, ToolCall};
use super::catalogue::Catalogue;
use super::registry::Registry;
use crate::sync::lock;
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::{Endpoint, Opened, Reply, RequestContext, SessionHandle};
use crate::wire::stream::Weight;
use crate::wire::version::ProtocolVersion;

/// A change of the catalogue is announced when nothing more has changed for this long, so that what changes together
/// is announced once, but no later than `ANNOUNCE_AT_LATEST` after it began.
const ANNOUNCE_QUIET: Duration = Duration::from_millis(10);
const ANNOUNCE_AT_LATEST: Duration = Duration::from_millis(100);

/// Requests of one client that may be under way at once; more are refused.
const MOST_CALLS: usize = 4096;

/// The aggregate as an MCP server.
#[derive(Debug)]
pub struct Aggregate {
    registry: Arc<Registry>,
    /// Everyone to tell of changes. Sessions leave when they are closed.
    clients: Mutex<Vec<Weak<Client>>>,
    /// Set when the instance is stopping: no new calls.
    stopping: CancellationToken,
    in_flight: watch::Sender<usize>,
}

/// One client's session.
#[derive(Debug)]
pub struct Client {
    handle: SessionHandle,
    /// The calls that are under way, by the client's own ids.
    calls: Mutex<HashMap<RequestId, CancellationToken>>,
    closed: CancellationToken,
    /// The list of tools that was there when the session was opened, or that the client was told of last; shared with the
    /// catalogue of then. The text and not the catalogue is compared: the same list can be made anew.
    known_tools: Mutex<ByteString>,
}

impl Aggregate {
    /// The aggregate of what `registry` holds. After `stopping` new calls are refused.
    pub fn new(registry: Arc<Registry>, stopping: CancellationToken) -> Self {
        Self { registry, clients: Mutex::default(), stopping, in_flight: watch::Sender::new(0) }
    }

    /// Waits until no call is under way.
    pub async fn idle(&self) {
        // The sender is ours: waiting cannot fail.
        let _ = self.in_flight.subscribe().wait_for(|calls| *calls == 0).await;
    }

    /// How many calls are under way.
    pub fn calls_in_flight(&self) -> usize {
        *self.in_flight.borrow()
    }

    /// Tells clients when the list of tools has changed. Runs until `stop`.
    pub async fn announce_changes(&self, stop: CancellationToken) {
        let mut catalogues = self.registry.subscribe();
        let mut announced = Arc::clone(&catalogues.borrow_and_update());
        let announcing = async {
            while catalogues.changed().await.is_ok() {
                let quiet = async {
                    while let Ok(Ok(())) = tokio::time::timeout(ANNOUNCE_QUIET, catalogues.changed()).await {}
                };
                // The limit itself is of no interest: either way the news is told now.
                let _ = tokio::time::timeout(ANNOUNCE_AT_LATEST, quiet).await;
                // Under the lock: who has come by now has found this catalogue or an older one.
                let mut clients = lock(&self.clients);
                let catalogue = Arc::clone(&catalogues.borrow_and_update());
                if catalogue.tools_result() != announced.tools_result() {
                    tell(&mut clients, "notifications/tools/list_changed", &catalogue);
                }
                announced = catalogue;
            }
        };
        // Ends with `stop`; there is nothing to tell any more then.
        let _ = stop.run_until_cancelled(announcing).await;
    }

    fn list_tools(&self, id: &str, params: Option<&str>) -> Result<ByteString, RpcError> {
        let cursor = json::members(params.unwrap_or("{}"), ["cursor"]);
        match cursor {
            Ok([None | Some("null")]) => Ok(rpc::result(id, self.catalogue().tools_result())),
            Ok([Some(cursor)]) => {
                let why = format!("tools/list: no cursor {cursor} was given out; all tools are on one page");
                Err(RpcError::new(RpcError::INVALID_PARAMS, why))
            }
            Err(error) => Err(RpcError::new(RpcError::INVALID_PARAMS, format!("tools/list: {error}"))),
        }
    }

    async fn call_tool(
        &self,
        client: &Client,
        request: &Message,
        id: &str,
        params: Option<&str>,
        reply: Reply,
    ) {
        let call = match ToolCall::parse(request.text(), id, params) {
            Ok(call) => call,
            Err(error) => return reply.answer(error.response(Some(id))),
        };
        if self.stopping.is_cancelled() {
            let error = RpcError::new(RpcError::UPSTREAM, "sidegate is stopping");
            return reply.answer(error.response(Some(id)));
        }
        let Some(target) = self.catalogue().target(&call.name).cloned() else {
            // The code that the specification gives for unknown tools (2025-11-25, server/tools, "Error Handling").
            let error = RpcError::new(RpcError::INVALID_PARAMS, format!("tool not found: {}", call.name));
            return reply.answer(error.response(Some(id)));
        };
        let under_way = match client.begin(RequestId::from_raw(id)) {
            Ok(under_way) => under_way,
            Err(error) => return reply.answer(error.response(Some(id))),
        };
        let _counted = InFlight::new(&self.in_flight);
        call::relay(&call, &target, reply, &under_way.cancelled).await;
    }

    fn catalogue(&self) -> Arc<Catalogue> {
        self.registry.catalogue()
    }
}

impl Endpoint for Aggregate {
    type Session = Client;

    async fn initialize(
        &self,
        request: &Message,
        _context: &RequestContext,
        handle: &SessionHandle,
    ) -> Result<Opened<Client>, RpcError> {
        let View::Request { id, params, .. } = request.view() else {
            return Err(RpcError::new(RpcError::INVALID_REQUEST, "initialize must be a request"));
        };
        let invalid = |why: String| RpcError::new(RpcError::INVALID_PARAMS, format!("initialize: {why}"));
        let [version] = json::members(params.unwrap_or("{}"), ["protocolVersion"])
            .map_err(|error| invalid(error.to_string()))?;
        let version = version
            .and_then(json::string)
            .ok_or_else(|| invalid("\"params.protocolVersion\" is missing or not a string".to_owned()))?;
        let version = ProtocolVersion::negotiate(&version);
        let result = format!(
            r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{"listChanged":true}}}},"serverInfo":{{"name":"sidegate","title":"Sidegate","version":"{}"}}}}"#,
            env!("CARGO_PKG_VERSION"),
        );
        let mut clients = lock(&self.clients);
        let client = Arc::new(Client {
            handle: handle.clone(),
            calls: Mutex::default(),
            closed: CancellationToken::new(),
            known_tools: Mutex::new(self.catalogue().tools_result().clone()),
        });
        clients.push(Arc::downgrade(&client));
        drop(clients);
        debug!(session = ?handle.id(), %version, "a client has connected");
        Ok(Opened { session: client, response: rpc::result(id, &result), version })
    }

    async fn request(
        &self,
        session: &Arc<Client>,
        request: Message,
        _context: &RequestContext,
        reply: Reply,
    ) {
        let View::Request { id, method, params } = request.view() else { return };
        match method {
            "tools/call" => self.call_tool(session, &request, id, params, reply).await,
            "tools/list" => {
                let answer = self.list_tools(id, params);
                reply.answer(answer.unwrap_or_else(|error| error.response(Some(id))));
            }
            "ping" => reply.answer(rpc::result(id, "{}")),
            _ => {
                let error = RpcError::new(RpcError::METHOD_NOT_FOUND, format!("method not found: {method}"));
                reply.answer(error.response(Some(id)));
            }
        }
    }

    async fn deliver(&self, session: &Arc<Client>, message: Message) {
        match message.view() {
            View::Notification { method: "notifications/cancelled", params } => {
                let request = params.and_then(|params| json::members(params, ["requestId"]).ok()?[0]);
                match request {
                    Some(id) => session.cancel(&RequestId::from_raw(id)),
                    None => debug!("a cancellation that names no request"),
                }
            }
            _ => debug!(?message, "nothing to do"),
        }
    }

    async fn closed(&self, session: &Arc<Client>) {
        debug!(session = ?session.handle.id(), "a client has gone");
        session.closed.cancel();
        let gone = Arc::downgrade(session);
        lock(&self.clients).retain(|client| !client.ptr_eq(&gone));
    }
}

impl Client {
    fn begin(&self, id: RequestId) -> Result<UnderWay<'_>, RpcError> {
        let mut calls = lock(&self.calls);
        if calls.len() >= MOST_CALLS {
            let why = format!("{MOST_CALLS} calls of this session are under way; wait for some to end");
            return Err(RpcError::new(RpcError::UPSTREAM, why));
        }
        match calls.entry(id.clone()) {
            Entry::Occupied(_) => {
                let why = format!("id {} is that of a request which is still under way", id.as_raw());
                Err(RpcError::new(RpcError::INVALID_REQUEST, why))
            }
            Entry::Vacant(entry) => {
                let cancelled = entry.insert(self.closed.child_token()).clone();
                Ok(UnderWay { client: self, id, cancelled })
            }
        }
    }

    fn cancel(&self, id: &RequestId) {
        if let Some(call) = lock(&self.calls).get(id) {
            call.cancel();
        }
    }
}

/// A call of a client that is under way; it is known as such as long as this lives.
struct UnderWay<'c> {
    client: &'c Client,
    id: RequestId,
    cancelled: CancellationToken,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.client.calls).remove(&self.id);
    }
}

/// Counts a call as long as this lives.
struct InFlight<'s>(&'s watch::Sender<usize>);

impl<'s> InFlight<'s> {
    fn new(counter: &'s watch::Sender<usize>) -> Self {
        counter.send_modify(|calls| *calls += 1);
        Self(counter)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|calls| *calls -= 1);
    }
}

/// Tells everyone of `catalogue`, but for those who know its list of tools: to them it is no change.
fn tell(clients: &mut Vec<Weak<Client>>, method: &str, catalogue: &Arc<Catalogue>) {
    let text = rpc::notification(method, None);
    clients.retain(|client| match client.upgrade() {
        Some(client) => {
            let mut known = lock(&client.known_tools);
            if *known != *catalogue.tools_result() {
                known.clone_from(catalogue.tools_result());
                client.handle.standalone().push(text.clone(), Weight::Droppable);
            }
            true
        }
        None => false,
    });
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http::Request;
    use http_body_util::{BodyExt as _, Full};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::aggregator::catalogue::{Member, Tool};
    use crate::aggregator::link::{Limits, Link};
    use crate::wire::server::{SESSION_ID, ServerConfig, StreamableHttp};

    fn publish(registry: &Registry) -> Arc<Link> {
        let link = Link::new("a".parse().unwrap(), Limits::default());
        let tools = Arc::from([Tool::parse(r#"{"name":"t"}"#.into()).unwrap()]);
        registry.publish(Member { prefix: "a".to_owned(), link: Arc::clone(&link), tools });
        link
    }

    fn request(
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

    #[tokio::test(start_paused = true)]
    async fn a_client_is_told_of_every_list_that_is_not_the_one_it_knows() {
        let (registry, stop) = (Registry::new("x"), CancellationToken::new());
        let aggregate = Aggregate::new(Arc::clone(&registry), stop.clone());
        let server =
            StreamableHttp::new(aggregate, ServerConfig::default(), TaskTracker::new(), stop.clone());
        let announcer = Arc::clone(&server);
        tokio::spawn(async move { announcer.endpoint().announce_changes(stop).await });

        let initialize =
            r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#;
        let opened = Arc::clone(&server).handle(request("POST", None, initialize)).await;
        let session = opened.headers()[SESSION_ID].clone();
        let mut stream = Arc::clone(&server).handle(request("GET", Some(&session), "")).await.into_body();
        let mut told = async || {
            // The announcer waits for quiet; the clock of the test goes on when everybody waits.
            tokio::time::sleep(ANNOUNCE_AT_LATEST * 2).await;
            stream.frame().now_or_never().is_some()
        };

        assert!(!told().await, "nothing has changed");
        publish(&registry);
        assert!(told().await, "something new");
        let link = publish(&registry);
        assert!(!told().await, "the same list, made anew");
        registry.withdraw(&link);
        assert!(told().await, "the list that the client came with, after another one");
    }
}
