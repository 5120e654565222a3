//! The relay of one request.
//!
//! What differs between what the client sent and what the server gets is the id, the name or URI and the progress
//! token; on the way back the id, and the token in progress. Everything else is the same bytes.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::call::Call;
use super::context::Outgoing;
use super::observed;
use super::pauses::Pauses;
use super::registry::Registry;
use super::request::{ClientRequest, Edit};
use super::said::Origin;
use super::session::{ClientSession, NoSession, PlacedCall};
use super::upstream::Upstream;
use crate::telemetry::calls::{Call as Observed, Failure, Outcome};
use crate::wire::client::{ClientError, Said};
use crate::wire::json;
use crate::wire::message::Message;
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::Reply;

/// A request on its way to its server and back.
pub(super) struct Relay<'r> {
    pub(super) request: &'r ClientRequest<'r>,
    /// What is exchanged besides id and token.
    pub(super) edits: &'r [Edit],
    pub(super) session: &'r ClientSession,
    pub(super) placed: &'r PlacedCall<'r>,
    pub(super) reply: &'r Reply,
    /// Who is told what happens.
    pub(super) observed: &'r Observed,
    /// The trace context that the server gets.
    pub(super) context: Outgoing,
    /// Who knows where a server stands that cannot be called.
    pub(super) registry: &'r Registry,
}

impl Relay<'_> {
    /// The server's answer, with the server's id. `None` where the call was cancelled: the server has been told then,
    /// and there is no answer.
    pub(super) async fn run(&self) -> Option<Result<Message, RpcError>> {
        let (link, cancelled) = (self.placed.link, &self.call().cancelled);
        let server = link.server();
        let unavailable = |why: &dyn std::fmt::Display| {
            let what = self.request.describe();
            RpcError::new(RpcError::UPSTREAM, format!("server {server} did not answer {what}: {why}"))
        };
        let started = Instant::now();
        let mut reopened = false;
        let mut pauses = Pauses::new();
        loop {
            let opening = self.session.upstream_of(link);
            let upstream = match cancelled.run_until_cancelled(opening).await? {
                Ok(upstream) => upstream,
                Err(error) => {
                    let error = match error {
                        NoSession::NotConnected => self.registry.not_connected(server),
                        NoSession::Refused(why) => RpcError::new(RpcError::UPSTREAM, why),
                    };
                    self.observed.ends(Outcome::Failed(Failure::NotConnected), Some(&error.message));
                    return Some(Err(error));
                }
            };
            let error = match self.send(&upstream, link.limits().call_timeout).await? {
                Ok(answer) => return Some(Ok(answer)),
                Err(Failed::Timeout(limit)) => {
                    let why = format!("no answer within {} s (spec.callTimeout)", limit.as_secs());
                    self.observed.ends(Outcome::Timeout, Some(&why));
                    return Some(Err(unavailable(&why)));
                }
                Err(Failed::Gone) => {
                    let why = "the server was removed or restarted before it answered";
                    self.observed.ends(Outcome::Failed(Failure::Gone), Some(why));
                    return Some(Err(unavailable(&why)));
                }
                Err(Failed::Client(error)) => error,
            };
            if error.is_session_lost() {
                upstream.mark_lost();
                if !reopened {
                    // The server has not taken the call: it may go to the next session, once.
                    reopened = true;
                    continue;
                }
            } else if !error.was_sent() && started.elapsed() + pauses.next() < link.limits().timeout {
                debug!(%error, %server, "nothing was sent yet; trying again");
                cancelled.run_until_cancelled(pauses.pass()).await?;
                continue;
            }
            self.observed.ends(Outcome::Failed(observed::failure(&error)), Some(&error.to_string()));
            return Some(Err(unavailable(&error)));
        }
    }

    fn call(&self) -> &Call {
        self.placed.call()
    }

    /// `None`: cancelled.
    async fn send(
        &self,
        upstream: &Arc<Upstream>,
        limit: Option<Duration>,
    ) -> Option<Result<Message, Failed>> {
        let _under_way = upstream.call();
        let id = upstream.session().next_id();
        let request = self.request.for_server(id, self.edits.iter().chain(&self.context.edit));
        let (client, call) = (&self.session.client, self.call());
        call.set_at_server(id);
        upstream.side().used_by(client);
        self.observed.sent(upstream.facts(), upstream.session().id(), id);
        let mut on_said = |said| match said {
            Said::Head => self.observed.head(),
            Said::Message(message) => {
                // Progress begins the time of the call again.
                call.has_progressed();
                upstream.side().take(&message, Origin::Call(client, call));
            }
            // As the server does with us.
            Said::Away(retry) => self.reply.send_away(retry),
        };
        let timer = async {
            match limit {
                Some(limit) => expire(limit, call).await,
                None => std::future::pending().await,
            }
        };
        let reason = tokio::select! {
            // An answer that is there counts, whatever else has happened.
            biased;
            answer = upstream.session().request_and_watch(request, id, &self.context.headers, &mut on_said) => {
                self.observed.returned();
                upstream.side().has_answered(client);
                return Some(answer.map_err(Failed::Client));
            }
            // Before the end of the session: that of a client alone ends because the client leaves.
            () = call.cancelled.cancelled() => None,
            () = upstream.closed() => {
                self.observed.returned();
                return Some(Err(Failed::Gone));
            }
            limit = timer => Some(limit),
        };
        self.observed.returned();
        upstream.side().given_up_by(client);
        let why = if reason.is_some() { "timed out" } else { "cancelled by the client" };
        let params = format!(r#"{{"requestId":{id},"reason":{}}}"#, json::quoted(why));
        upstream.tell(rpc::notification("notifications/cancelled", Some(&params)));
        reason.map(|limit| Err(Failed::Timeout(limit)))
    }
}

enum Failed {
    Client(ClientError),
    Timeout(Duration),
    /// The server was removed or restarted.
    Gone,
}

/// Returns when `limit` has passed since the last progress.
async fn expire(limit: Duration, call: &Call) -> Duration {
    while tokio::time::timeout(limit, call.progress()).await.is_ok() {}
    limit
}
