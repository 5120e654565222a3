//! What clients see: the MCP server that aggregates all others.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::call_id;
use super::catalogue::Catalogue;
use super::client::{Client, Clients};
use super::context::{self, HttpContext};
use super::declared::Declared;
use super::elicitations;
use super::exposure::{self, MetaTools};
use super::observed::{self, outcome_of_error, outcome_of_result};
use super::offer::Kind;
use super::registry::Registry;
use super::relay::Relay;
use super::request::ClientRequest;
use super::route::Route;
use super::scope::Scope;
use super::{tasks, uris};
use crate::config::Exposure;
use crate::mcpserver::ServerName;
use crate::telemetry::calls::{Call as Observed, CallLog, Outcome};
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::{Endpoint, Opened, Reply, RequestContext, SessionHandle};
use crate::wire::version::ProtocolVersion;

/// A change of the catalogue is announced when nothing more has changed for this long, so that what changes together
/// is announced once, but no later than `ANNOUNCE_AT_LATEST` after it began.
const ANNOUNCE_QUIET: Duration = Duration::from_millis(10);
const ANNOUNCE_AT_LATEST: Duration = Duration::from_millis(100);

/// What clients of all servers are promised, besides tools.
const CAPABILITIES: &str = concat!(
    r#""prompts":{"listChanged":true},"#,
    r#""resources":{"subscribe":true,"listChanged":true},"logging":{},"completions":{}"#,
);

/// How long a client that wants a single server waits for it to be connected.
const FIRST_CONTACT: Duration = Duration::from_secs(5);

/// The aggregate as an MCP server.
#[derive(Debug)]
pub struct Aggregate {
    registry: Arc<Registry>,
    /// What clients see that have not said what they want to.
    exposure: Exposure,
    meta: Arc<MetaTools>,
    /// Set when the instance is stopping: no new calls.
    stopping: CancellationToken,
    in_flight: watch::Sender<usize>,
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
            meta: Arc::new(MetaTools::new()),
            stopping,
            in_flight: watch::Sender::new(0),
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
                let catalogue = self.clients().tell_all(|| Arc::clone(&catalogues.borrow_and_update()));
                // Servers that have come are asked for what others were asked for. They answer when they like.
                drop(self.align_levels(&catalogue));
            }
        };
        // Ends with `stop`; there is nothing to tell any more then.
        let _ = stop.run_until_cancelled(announcing).await;
    }

    /// Calls a tool of our own, which gives its result; `None` where it is not one.
    fn call_local<'a>(
        &'a self,
        client: &Client,
        request: &ClientRequest<'a>,
    ) -> Option<impl Future<Output = ByteString> + Send + 'a> {
        if request.method != "tools/call" || client.scope != Scope::All {
            return None;
        }
        let name = json::string(request.name?)?;
        let call = self.registry.local()?.call(&name, request.arguments.unwrap_or("{}"))?;
        Some(async move {
            let _counted = InFlight::new(&self.in_flight);
            call.await
        })
    }

    /// Answers a request, which calls no meta tool, and tells whoever observes calls. `None` where there is no answer.
    pub(super) async fn answer_observed(
        &self,
        client: &Arc<Client>,
        request: &ClientRequest<'_>,
        reply: &Reply,
    ) -> Option<Result<ByteString, RpcError>> {
        let parent = context::parent(request, self.calls.propagation());
        let observed = self.calls.begin(observed::begin(client, request, parent));
        let answer = self.answer(client, request, reply, &observed).await;
        match &answer {
            Some(Ok(_)) => observed.ends(Outcome::Ok, None),
            Some(Err(error)) => {
                observed.ends(Outcome::Error { code: error.code.into() }, Some(&error.message));
            }
            None => observed.ends(Outcome::Cancelled, None),
        }
        answer
    }

    /// Answers the call of a tool that needs nobody else, and tells whoever observes calls.
    pub(super) fn answer_at_once(
        &self,
        client: &Client,
        request: &ClientRequest<'_>,
        result: impl FnOnce() -> String,
    ) -> ByteString {
        let observed = self.calls.begin(observed::begin(client, request, None));
        let result = result();
        observed.ends(outcome_of_result(request.method, &result), None);
        rpc::result(request.id, &result)
    }

    /// Answers a request, which calls no meta tool. `None` where there is no answer: it was cancelled.
    async fn answer(
        &self,
        client: &Arc<Client>,
        request: &ClientRequest<'_>,
        reply: &Reply,
        observed: &Observed,
    ) -> Option<Result<ByteString, RpcError>> {
        if request.method == "ping" {
            return Some(Ok(rpc::result(request.id, "{}")));
        }
        let catalogue = self.catalogue();
        if let Some(kind) = Kind::listed_by(request.method)
            && offers(&catalogue, &client.scope, kind.capability())
        {
            return Some(list(client.list(&catalogue, kind), request));
        }
        match request.method {
            "logging/setLevel" if offers(&catalogue, &client.scope, "logging") => {
                let answer = self.set_level(client, request).await;
                return Some(answer.map(|()| rpc::result(request.id, "{}")));
            }
            "tasks/list" => return Some(Ok(self.list_tasks(client, request).await)),
            _ => {}
        }
        if self.stopping.is_cancelled() {
            return Some(Err(RpcError::new(RpcError::UPSTREAM, "sidegate is stopping")));
        }
        if let Some(call) = self.call_local(client, request) {
            let answer = client.closed.run_until_cancelled(call).await?;
            observed.ends(outcome_of_result(request.method, &answer), None);
            let answer = rpc::result(request.id, &answer);
            return Some(Ok(self.with_call_id(request, observed, answer)));
        }
        let route = match Route::of(request, client, &catalogue) {
            Ok(route) => route,
            Err(error) => return Some(Err(error)),
        };
        // Calls can take long: the snapshot they were routed by should not.
        drop(catalogue);
        observed.routed(route.link.server());
        let answer = match request.method {
            "resources/subscribe" => self.subscribe(client, request, &route, reply, observed).await,
            "resources/unsubscribe" => self.unsubscribe(client, request, &route, reply, observed).await,
            _ => self.carry(client, request, &route, reply, observed).await,
        };
        Some(answer?.map(|answer| answer.text))
    }

    /// Asks a server. `None` where there is no answer: the request was cancelled.
    pub(super) async fn carry(
        &self,
        client: &Arc<Client>,
        request: &ClientRequest<'_>,
        route: &Route,
        reply: &Reply,
        observed: &Observed,
    ) -> Option<Result<Answer, RpcError>> {
        let under_way = match client.begin(request, &route.link, reply.stream()) {
            Ok(under_way) => under_way,
            Err(error) => return Some(Err(error)),
        };
        let call = &under_way.call;
        let _counted = InFlight::new(&self.in_flight);
        let context = context::outgoing(request, observed.trace(), self.calls.propagation());
        let relay = Relay { request, edits: &route.edits, client, call, reply, observed, context };
        let answer = match relay.run().await? {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        if request.is_task {
            tasks::remember(client, call, &answer);
        }
        Some(Ok(match answer.view() {
            View::Response { id, outcome: Err(error) } => {
                let (outcome, message) = outcome_of_error(error);
                observed.ends(outcome, message.as_deref());
                elicitations::remember(client, call, error);
                // An error without an id is one that the server could not attribute; it came as the answer to this call.
                let text = id.map_or_else(|| rpc::error(request.id, error), |_| answer.with_id(request.id));
                Answer { text, is_error: true }
            }
            View::Response { outcome: Ok(result), .. } => {
                observed.ends(outcome_of_result(request.method, result), None);
                let text = self.exposed(client, request, route, observed, &answer, result);
                Answer { text, is_error: false }
            }
            _ => Answer { text: answer.with_id(request.id), is_error: false },
        }))
    }

    /// The answer with the client's id, and with URIs as the client sees them.
    fn exposed(
        &self,
        client: &Client,
        request: &ClientRequest<'_>,
        route: &Route,
        observed: &Observed,
        answer: &Message,
        result: &str,
    ) -> ByteString {
        let call_id = self.call_id(request, observed, answer.text(), result);
        let (server, catalogue) = (route.link.server(), self.catalogue());
        if client.scope != Scope::All || !catalogue.has_renamed(server) {
            let call_id = call_id.as_ref().map(|(range, new)| (range.clone(), new.as_str()));
            let id = answer.id_span().map(|span| (span, request.id));
            return match (id, call_id) {
                (Some(id), Some(call_id)) => json::splice(answer.text(), [id, call_id]),
                _ => answer.with_id(request.id),
            };
        }
        let asked_for = route.own_uri.as_deref().zip(request.uri.and_then(json::string));
        let exposed = |own: &str| match &asked_for {
            Some((asked, exposed)) if own == *asked => Some(exposed.clone().into_owned()),
            _ => catalogue.exposed_uri(server, own),
        };
        let edits = uris::exposed_uris(request.method, answer.text(), result, exposed);
        let mut all: Vec<(Range<usize>, &str)> =
            edits.iter().chain(&call_id).map(|(range, new)| (range.clone(), new.as_str())).collect();
        all.extend(answer.id_span().map(|span| (span, request.id)));
        json::splice_all(answer.text(), &mut all)
    }

    /// What is put into a result so that it tells the id of its call.
    fn call_id(
        &self,
        request: &ClientRequest<'_>,
        observed: &Observed,
        text: &str,
        result: &str,
    ) -> Option<(Range<usize>, String)> {
        let is_told = self.call_ids && call_id::is_told(request.method);
        if is_told { call_id::edit(text, result, observed.trace().id) } else { None }
    }

    /// An answer of our own, with the id of its call.
    fn with_call_id(
        &self,
        request: &ClientRequest<'_>,
        observed: &Observed,
        answer: ByteString,
    ) -> ByteString {
        let edit = json::members(&answer, ["result"])
            .ok()
            .and_then(|[result]| self.call_id(request, observed, &answer, result?));
        match edit {
            Some((range, new)) => json::splice(&answer, [(range, &new)]),
            None => answer,
        }
    }

    /// Everyone who is connected.
    pub(super) fn clients(&self) -> &Clients {
        self.registry.clients()
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

    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        self.registry.catalogue()
    }

    /// What a client sees that connects like this.
    fn wanted(&self, context: &RequestContext) -> Result<(Scope, Exposure), RpcError> {
        let scope = Scope::of_path(&context.path).unwrap_or(Scope::All);
        let exposure = exposure::chosen(&context.headers, &scope, self.exposure)?;
        Ok((scope, exposure))
    }
}

impl Endpoint for Aggregate {
    type Session = Client;

    fn admit(&self, context: &RequestContext) -> Result<(), RpcError> {
        self.wanted(context).map(drop)
    }

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
        let result =
            format!(r#"{{"protocolVersion":"{version}",{}}}"#, introduce(&scope, exposure, &catalogue)?);
        let meta = (exposure == Exposure::Meta).then(|| Arc::clone(&self.meta));
        let client = self.clients().enter(|number| {
            Client::new(number, scope, meta, handle.clone(), version, declared, &self.catalogue())
        });
        debug!(session = ?handle.id(), %version, "a client has connected");
        Ok(Opened { session: client, response: rpc::result(id, &result), version })
    }

    async fn request(&self, session: &Arc<Client>, request: Message, context: &RequestContext, reply: Reply) {
        let View::Request { id, .. } = request.view() else { return };
        let answer = match ClientRequest::parse(&request) {
            Ok(request) => {
                let request = ClientRequest { http: HttpContext::of(&context.headers), ..request };
                self.answer_exposed(session, &request, &reply).await
            }
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
            View::Notification { method: "notifications/progress", params } => {
                session.asked.progress(&message, params).await;
            }
            View::Response { .. } => session.asked.answer(&message).await,
            // Roots are known to servers that share the client with nobody.
            View::Notification { method: "notifications/roots/list_changed", .. } => {
                session.own.tell(&message)
            }
            _ => debug!(?message, "nothing to do"),
        }
    }

    async fn closed(&self, session: &Arc<Client>) {
        debug!(session = ?session.handle.id(), "a client has gone");
        let catalogue = self.catalogue();
        // Before its calls are cancelled: that they are is what servers may be haunted by.
        for upstream in catalogue.servers().filter_map(|(_, member)| member.link.current()) {
            upstream.side().left_by(session);
        }
        session.closed.cancel();
        session.asked.give_up();
        self.clients().leave(session);
        self.give_up_subscriptions(session, &catalogue);
        // Nobody waits for it.
        drop(self.align_levels(&catalogue));
        session.own.close().await;
    }
}

/// What a server has answered, as the client gets it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: ByteString,
    /// It is a JSON-RPC error.
    pub(super) is_error: bool,
}

/// Whether a client may ask for what belongs to a capability. Those of all servers may always.
fn offers(catalogue: &Catalogue, scope: &Scope, capability: &str) -> bool {
    match scope {
        Scope::All => true,
        // One that has it not says so itself.
        Scope::Server(server) => catalogue.server(server).is_some_and(|member| member.offer.has(capability)),
    }
}

/// Answers a list request with `listed`.
fn list(listed: &str, request: &ClientRequest<'_>) -> Result<ByteString, RpcError> {
    match json::members(request.params.unwrap_or("{}"), ["cursor"]) {
        Ok([None | Some("null")]) => Ok(rpc::result(request.id, listed)),
        Ok([Some(cursor)]) => {
            let why = format!("no cursor {cursor} was given out; everything is on one page");
            Err(request.invalid(&why))
        }
        Err(error) => Err(request.invalid(&error)),
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
fn introduce(scope: &Scope, exposure: Exposure, catalogue: &Catalogue) -> Result<String, RpcError> {
    let (capabilities, info, instructions) = match scope {
        // Always all of them: servers come and go while the session lasts.
        Scope::All => {
            let info = format!(
                r#"{{"name":"sidegate","title":"Sidegate","version":"{}"}}"#,
                env!("CARGO_PKG_VERSION")
            );
            let has_tasks = catalogue.servers().any(|(_, member)| member.offer.has("tasks"));
            let tasks = if has_tasks { format!(",{}", tasks::CAPABILITY) } else { String::new() };
            let (tools, instructions) = match exposure {
                Exposure::Direct => (r#""tools":{"listChanged":true}"#, catalogue.instructions()),
                Exposure::Meta => (r#""tools":{}"#, Some(exposure::instructions(catalogue))),
            };
            (
                format!("{{{tools},{CAPABILITIES}{tasks}}}").into(),
                info.into(),
                instructions.map(ByteString::from),
            )
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

    async fn publish(registry: &Registry) -> Arc<Link> {
        let link = registry.link("a".parse().unwrap(), Limits::default());
        let offer = Arc::new(Offer::of_tools(&[r#"{"name":"t"}"#]).unwrap());
        let member = Member { prefix: "a".to_owned(), link: Arc::clone(&link), offer, family: None };
        registry.publish(member).await;
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
        publish(&registry).await;
        assert!(told().await, "something new");
        let link = publish(&registry).await;
        assert!(!told().await, "the same list, made anew");
        registry.withdraw(&link).await;
        assert!(told().await, "the list that the client came with, after another one");
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
