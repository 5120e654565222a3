//! One request of a client, and its answer: by ourselves, from the catalogue, or by the server it is for.
//!
//! Invariants: every request that can take long is told to whoever observes calls, once, when it is over; after the instance
//! began to stop no server is asked; stopping waits for every request that came before, until its answer is on its way.
//!
//! Meta tools have been resolved before (`meta_tools`).

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytestring::ByteString;
use tokio::sync::watch;

use super::{Aggregate, shown};
use crate::aggregator::behind;
use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::client::Client;
use crate::aggregator::observed::{self, outcome_of_error, outcome_of_result};
use crate::aggregator::offer::Kind;
use crate::aggregator::relay::Relay;
use crate::aggregator::request::ClientRequest;
use crate::aggregator::route::Route;
use crate::aggregator::scope::Scope;
use crate::aggregator::session::ClientSession;
use crate::aggregator::{call_id, context, elicitations, tasks, uris};
use crate::telemetry::calls::{Call as Observed, Outcome};
use crate::wire::json;
use crate::wire::message::{Message, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::Reply;

impl Aggregate {
    /// Waits until every request has been answered that came before the instance began to stop.
    pub async fn idle(&self) {
        // The sender is ours: waiting cannot fail.
        let _ = self.unanswered.subscribe().wait_for(|requests| *requests == 0).await;
    }

    /// Counts a request as unanswered as long as the value lives; `None` for one that comes when the instance is stopping,
    /// which asks no server and is not waited for.
    pub(super) fn unanswered(&self) -> Option<Unanswered<'_>> {
        // Before it is known whether to wait for it: who stops would not see it otherwise.
        self.unanswered.send_modify(|requests| *requests += 1);
        let unanswered = Unanswered(&self.unanswered);
        (!self.stopping.is_cancelled()).then_some(unanswered)
    }

    /// How many calls are under way.
    pub fn calls_in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
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
        session: &ClientSession,
        request: &ClientRequest<'_>,
        reply: &Reply,
    ) -> Option<Result<ByteString, RpcError>> {
        let parent = context::parent(request, self.calls.propagation());
        let observed = self.calls.begin(observed::begin(&session.client, request, parent));
        let mut answer = observed.carrying(self.answer(session, request, reply, &observed)).await;
        match &mut answer {
            Some(Ok(_)) => observed.ends(Outcome::Ok, None),
            Some(Err(error)) => {
                observed.ends(Outcome::Error { code: error.code.into() }, Some(&error.message));
                // Our own words, which may quote what somebody has said on the way.
                error.message = self.calls.secrets().hide(&error.message).into_owned();
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
        session: &ClientSession,
        request: &ClientRequest<'_>,
        reply: &Reply,
        observed: &Observed,
    ) -> Option<Result<ByteString, RpcError>> {
        if request.method == "ping" {
            return Some(Ok(rpc::result(request.id, "{}")));
        }
        let client = &session.client;
        let catalogue = self.catalogue();
        if let Some(kind) = Kind::listed_by(request.method)
            && offers(&catalogue, &client.scope, kind.capability())
        {
            let listed = shown(client, &catalogue, kind);
            let told = self.told_behind(&client.scope, &client.declared, &catalogue);
            let told = told.map(|told| behind::with(listed, &told));
            return Some(list(told.as_ref().unwrap_or(listed), request));
        }
        match request.method {
            "logging/setLevel" if offers(&catalogue, &client.scope, "logging") => {
                let answer = self.set_level(session, request).await;
                return Some(answer.map(|()| rpc::result(request.id, "{}")));
            }
            "tasks/list" => return Some(Ok(tasks::list(session, request).await)),
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
        let route = match Route::of(request, session, &catalogue, &self.registry) {
            Ok(route) => route,
            Err(error) => return Some(Err(error)),
        };
        // Calls can take long: the snapshot they were routed by should not.
        drop(catalogue);
        observed.routed(route.link.server());
        let answer = match request.method {
            "resources/subscribe" => self.subscribe(session, request, &route, reply, observed).await,
            "resources/unsubscribe" => self.unsubscribe(session, request, &route, reply, observed).await,
            _ => self.carry(session, request, &route, reply, observed).await,
        };
        Some(answer?.map(|answer| answer.text))
    }

    /// Asks a server. `None` where there is no answer: the request was cancelled.
    pub(super) async fn carry(
        &self,
        session: &ClientSession,
        request: &ClientRequest<'_>,
        route: &Route,
        reply: &Reply,
        observed: &Observed,
    ) -> Option<Result<Answer, RpcError>> {
        let placed = match session.begin(request, &route.link, reply.stream()) {
            Ok(placed) => placed,
            Err(error) => return Some(Err(error)),
        };
        let _counted = InFlight::new(&self.in_flight);
        let context = context::outgoing(request, observed.trace(), self.calls.propagation());
        let registry = &self.registry;
        let (edits, placed) = (&route.edits, &placed);
        let relay = Relay { request, edits, session, placed, reply, observed, context, registry };
        let answer = match relay.run().await? {
            Ok(answer) => answer,
            Err(error) => return Some(Err(error)),
        };
        if request.is_task {
            tasks::remember(session, placed, &answer);
        }
        Some(Ok(match answer.view() {
            View::Response { id, outcome: Err(error) } => {
                let (outcome, message) = outcome_of_error(error);
                observed.ends(outcome, message.as_deref());
                elicitations::remember(&session.client, &placed.ledger, error);
                // An error without an id is one that the server could not attribute; it came as the answer to this call.
                let text = id.map_or_else(|| rpc::error(request.id, error), |_| answer.with_id(request.id));
                Answer { text, is_error: true }
            }
            View::Response { outcome: Ok(result), .. } => {
                observed.ends(outcome_of_result(request.method, result), None);
                let text = self.exposed(&session.client, request, route, observed, &answer, result);
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
struct InFlight<'s>(&'s AtomicUsize);

impl<'s> InFlight<'s> {
    fn new(counter: &'s AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a request as unanswered as long as this lives.
pub(super) struct Unanswered<'s>(&'s watch::Sender<usize>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}
