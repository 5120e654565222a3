//! What clients see: the MCP server that aggregates all others.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::catalogue::Catalogue;
use super::client::{Client, Clients};
use super::offer::Kind;
use super::registry::Registry;
use super::relay::Relay;
use super::request::ClientRequest;
use super::route::Route;
use super::scope::Scope;
use crate::mcpserver::ServerName;
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::{Endpoint, Opened, Reply, RequestContext, SessionHandle};
use crate::wire::version::ProtocolVersion;

/// A change of the catalogue is announced when nothing more has changed for this long, so that what changes together
/// is announced once, but no later than `ANNOUNCE_AT_LATEST` after it began.
const ANNOUNCE_QUIET: Duration = Duration::from_millis(10);
const ANNOUNCE_AT_LATEST: Duration = Duration::from_millis(100);

/// What clients of all servers are promised.
const CAPABILITIES: &str = r#"{"tools":{"listChanged":true}}"#;

/// How long a client that wants a single server waits for it to be connected.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// The aggregate as an MCP server.
#[derive(Debug)]
pub struct Aggregate {
    registry: Arc<Registry>,
    /// Everyone to tell of changes. Sessions leave when they are closed.
    clients: Arc<Clients>,
    /// Set when the instance is stopping: no new calls.
    stopping: CancellationToken,
    in_flight: watch::Sender<usize>,
}

impl Aggregate {
    /// The aggregate of what `registry` holds. After `stopping` new calls are refused.
    pub fn new(registry: Arc<Registry>, stopping: CancellationToken) -> Self {
        Self { registry, clients: Arc::default(), stopping, in_flight: watch::Sender::new(0) }
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

    /// Whether `server` is in the catalogue.
    pub fn has_server(&self, server: &ServerName) -> bool {
        self.catalogue().server(server).is_some()
    }

    /// Tells clients when lists have changed. Runs until `stop`.
    pub async fn announce_changes(&self, stop: CancellationToken) {
        let mut catalogues = self.registry.subscribe();
        let announcing = async {
            while catalogues.changed().await.is_ok() {
                let quiet = async {
                    while let Ok(Ok(())) = tokio::time::timeout(ANNOUNCE_QUIET, catalogues.changed()).await {}
                };
                // The limit itself is of no interest: either way the news is told now.
                let _ = tokio::time::timeout(ANNOUNCE_AT_LATEST, quiet).await;
                self.clients.tell_all(|| Arc::clone(&catalogues.borrow_and_update()));
            }
        };
        // Ends with `stop`; there is nothing to tell any more then.
        let _ = stop.run_until_cancelled(announcing).await;
    }

    /// Answers what can be answered here; `None` where a server is to be asked.
    fn answer(&self, client: &Client, request: &ClientRequest<'_>) -> Option<Result<ByteString, RpcError>> {
        let id = request.id;
        if request.method == "ping" {
            return Some(Ok(rpc::result(id, "{}")));
        }
        let kind = Kind::listed_by(request.method)?;
        let catalogue = self.catalogue();
        if let Scope::Server(server) = &client.scope
            && !catalogue.server(server).is_some_and(|member| member.offer.has(kind.capability()))
        {
            // It says so itself.
            return None;
        }
        let cursor = json::members(request.params.unwrap_or("{}"), ["cursor"]);
        Some(match cursor {
            Ok([None | Some("null")]) => Ok(rpc::result(id, catalogue.list(&client.scope, kind))),
            Ok([Some(cursor)]) => {
                let why = format!("no cursor {cursor} was given out; everything is on one page");
                Err(request.invalid(&why))
            }
            Err(error) => Err(request.invalid(&error)),
        })
    }

    /// Calls a tool of our own; `None` where it is not one.
    fn call_local<'a>(
        &'a self,
        client: &Client,
        request: &ClientRequest<'a>,
    ) -> Option<impl Future<Output = Result<ByteString, RpcError>> + Send + 'a> {
        if request.method != "tools/call" || client.scope != Scope::All {
            return None;
        }
        let (id, name) = (request.id, json::string(request.name?)?);
        let call = self.registry.local()?.call(&name, request.arguments.unwrap_or("{}"))?;
        Some(async move {
            if self.stopping.is_cancelled() {
                return Err(RpcError::new(RpcError::UPSTREAM, "sidegate is stopping"));
            }
            let _counted = InFlight::new(&self.in_flight);
            Ok(rpc::result(id, &call.await))
        })
    }

    /// Asks a server and answers the client. `None` where there is no answer: the request was cancelled.
    async fn relay(
        &self,
        client: &Client,
        request: &ClientRequest<'_>,
        reply: &Reply,
    ) -> Option<Result<ByteString, RpcError>> {
        if self.stopping.is_cancelled() {
            return Some(Err(RpcError::new(RpcError::UPSTREAM, "sidegate is stopping")));
        }
        let route = Route::of(request, &client.scope, &self.catalogue());
        let begun = route.and_then(|route| Ok((client.begin(request, &route.link)?, route)));
        let (under_way, route) = match begun {
            Ok(begun) => begun,
            Err(error) => return Some(Err(error)),
        };
        let _counted = InFlight::new(&self.in_flight);
        let relay = Relay { request, edits: &route.edits, call: &under_way.call, reply };
        let answer = relay.run().await?;
        Some(answer.map(|answer| match answer.view() {
            // An error that the server could not attribute; it came as the answer to this call.
            View::Response { id: None, outcome: Err(error) } => rpc::error(request.id, error),
            _ => answer.with_id(request.id),
        }))
    }

    /// Waits for a server that may be about to be connected.
    async fn wait_for(&self, server: &ServerName) -> Result<(), RpcError> {
        let mut catalogues = self.registry.subscribe();
        let connected = catalogues.wait_for(|catalogue| catalogue.server(server).is_some());
        match tokio::time::timeout(FIRST_CONTACT, connected).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(not_connected(server)),
        }
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
        context: &RequestContext,
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
        let scope = Scope::of_path(&context.path).unwrap_or(Scope::All);
        if let Scope::Server(server) = &scope {
            self.wait_for(server).await?;
        }
        let catalogue = self.catalogue();
        let result = format!(r#"{{"protocolVersion":"{version}",{}}}"#, introduce(&scope, &catalogue)?);
        let client = self.clients.enter(|| Client::new(scope, handle.clone(), &self.catalogue()));
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
        let View::Request { id, .. } = request.view() else { return };
        let answer = match ClientRequest::parse(&request) {
            Ok(request) => match self.answer(session, &request) {
                Some(answer) => Some(answer),
                None => match self.call_local(session, &request) {
                    Some(call) => session.closed.run_until_cancelled(call).await,
                    None => self.relay(session, &request, &reply).await,
                },
            },
            Err(error) => Some(Err(error)),
        };
        if let Some(answer) = answer {
            reply.answer(answer.unwrap_or_else(|error| error.response(Some(id))));
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
        self.clients.leave(session);
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

/// What a client is told at `initialize`, but for the version: the members of the result.
///
/// # Errors
///
/// The server is not connected any more.
fn introduce(scope: &Scope, catalogue: &Catalogue) -> Result<String, RpcError> {
    let (capabilities, info, instructions) = match scope {
        // Always all of them: servers come and go while the session lasts.
        Scope::All => {
            let info = format!(
                r#"{{"name":"sidegate","title":"Sidegate","version":"{}"}}"#,
                env!("CARGO_PKG_VERSION")
            );
            (CAPABILITIES.into(), info.into(), catalogue.instructions().map(ByteString::from))
        }
        Scope::Server(server) => {
            let offer = &catalogue.server(server).ok_or_else(|| not_connected(server))?.offer;
            let info = offer.server_info.clone();
            let unnamed = || format!(r#"{{"name":"{server}","version":""}}"#).into();
            (offer.capabilities_for_clients(), info.unwrap_or_else(unnamed), offer.instructions.clone())
        }
    };
    let mut text = format!(r#""capabilities":{capabilities},"serverInfo":{info}"#);
    if let Some(instructions) = instructions {
        text.push_str(r#","instructions":"#);
        text.push_str(&instructions);
    }
    Ok(text)
}

fn not_connected(server: &ServerName) -> RpcError {
    RpcError::new(RpcError::UPSTREAM, format!("server {server} is not connected"))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use http::Request;
    use http_body_util::{BodyExt as _, Full};
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::aggregator::catalogue::Member;
    use crate::aggregator::link::{Limits, Link};
    use crate::aggregator::offer::Offer;
    use crate::wire::server::{SESSION_ID, ServerConfig, StreamableHttp};

    fn publish(registry: &Registry) -> Arc<Link> {
        let link = Link::new("a".parse().unwrap(), Limits::default());
        let offer = Arc::new(Offer::of_tools(&[r#"{"name":"t"}"#]).unwrap());
        registry.publish(Member { prefix: "a".to_owned(), link: Arc::clone(&link), offer });
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
