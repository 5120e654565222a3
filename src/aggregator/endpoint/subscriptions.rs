//! Subscriptions to resources: clients share those of the session that they share.
//!
//! A client that subscribes is entered first, and the server is asked each time: it may refuse. The server hears that a
//! subscription is over when the last subscriber has gone.

use std::borrow::Cow;
use std::sync::Arc;

use super::Aggregate;
use super::answer::Answer;
use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::client::Client;
use crate::aggregator::ledger::{Ledger, Left};
use crate::aggregator::request::ClientRequest;
use crate::aggregator::route::Route;
use crate::aggregator::session::ClientSession;
use crate::telemetry::calls::Call as Observed;
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::Reply;

/// What a client subscribes to, or does not any more.
struct Resource<'r> {
    /// Its URI, as the client says it.
    exposed: Cow<'r, str>,
    /// Its URI, as the server says it.
    own: Cow<'r, str>,
    /// Where its subscribers are.
    ledger: Arc<Ledger>,
}

impl<'r> Resource<'r> {
    fn of(session: &ClientSession, request: &ClientRequest<'r>, route: &'r Route) -> Result<Self, RpcError> {
        let exposed = request.string("uri", request.uri)?;
        let own = route.own_uri.as_deref().map_or_else(|| exposed.clone(), Cow::Borrowed);
        Ok(Self { exposed, own, ledger: session.ledger_of(&route.link) })
    }
}

impl Aggregate {
    pub(super) async fn subscribe(
        &self,
        session: &ClientSession,
        request: &ClientRequest<'_>,
        route: &Route,
        reply: &Reply,
        observed: &Observed,
    ) -> Option<Result<Answer, RpcError>> {
        let Resource { exposed, own, ledger } = match Resource::of(session, request, route) {
            Ok(resource) => resource,
            Err(error) => return Some(Err(error)),
        };
        if let Err(error) = session.count_subscription() {
            return Some(Err(error));
        }
        let is_new = ledger.subscribe(&session.client, &own, &exposed);
        let answer = self.carry(session, request, route, reply, observed).await;
        let is_refused = !matches!(&answer, Some(Ok(answer)) if !answer.is_error);
        if is_new && is_refused {
            ledger.unsubscribe(&session.client, &own);
        }
        if is_refused || !is_new {
            session.discount_subscription();
        }
        answer
    }

    pub(super) async fn unsubscribe(
        &self,
        session: &ClientSession,
        request: &ClientRequest<'_>,
        route: &Route,
        reply: &Reply,
        observed: &Observed,
    ) -> Option<Result<Answer, RpcError>> {
        let Resource { own, ledger, .. } = match Resource::of(session, request, route) {
            Ok(resource) => resource,
            Err(error) => return Some(Err(error)),
        };
        let (was_subscribed, left) = ledger.unsubscribe(&session.client, &own);
        if was_subscribed {
            session.discount_subscription();
        }
        if left == Left::Others {
            return Some(Ok(Answer { text: rpc::result(request.id, "{}"), is_error: false }));
        }
        let answer = self.carry(session, request, route, reply, observed).await;
        if let Some(upstream) = session.current_of(&route.link) {
            upstream.resubscribe(&own).await;
        }
        answer
    }

    /// A client has gone: what nobody else is subscribed to is given up.
    pub(super) fn give_up_subscriptions(&self, client: &Arc<Client>, catalogue: &Catalogue) {
        for (_, member) in catalogue.servers() {
            let orphans = member.link.ledger().forget(client);
            let Some(upstream) = member.link.current() else { continue };
            for uri in orphans {
                upstream.unsubscribe(uri);
            }
        }
    }
}
