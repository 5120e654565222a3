//! One client's session: what it has with servers. Its calls, sessions of its own, tasks, and how many subscriptions.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::call::Call;
use super::client::{Client, UnderWay};
use super::ledger::Ledger;
use super::link::Link;
use super::own::OwnSessions;
use super::request::ClientRequest;
use super::upstream::Upstream;
use crate::sync::lock;
use crate::wire::message::RequestId;
use crate::wire::rpc::RpcError;
use crate::wire::stream::EventStream;

/// Tasks of one client that are remembered; the oldest are forgotten.
const MOST_TASKS: usize = 1024;

/// Resources that one client may be subscribed to.
const MOST_SUBSCRIPTIONS: usize = 4096;

/// One client's session.
#[derive(Debug)]
pub struct ClientSession {
    pub(super) client: Arc<Client>,
    /// Sessions with servers that it shares with nobody.
    pub(super) own: OwnSessions,
    /// Tasks that it has begun, oldest first, and where.
    tasks: Mutex<VecDeque<(String, Arc<Link>)>>,
    subscriptions: AtomicUsize,
}

/// Why a client gets no session with a server.
#[derive(Debug)]
pub(super) enum NoSession {
    /// The server has none for anybody.
    NotConnected,
    /// The server gives this client none of its own, and why, for the client.
    Refused(String),
}

impl ClientSession {
    /// The session of a client that has asked for nothing yet.
    pub(super) fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            own: OwnSessions::default(),
            tasks: Mutex::default(),
            subscriptions: AtomicUsize::new(0),
        }
    }

    /// Counts a request as under way to `link`.
    ///
    /// # Errors
    ///
    /// There are too many, or another one has its id.
    pub(super) fn begin<'c>(
        &'c self,
        request: &ClientRequest<'_>,
        link: &'c Arc<Link>,
        stream: &Arc<EventStream>,
    ) -> Result<PlacedCall<'c>, RpcError> {
        let ledger = self.ledger_of(link);
        let token = request.token.map(|token| request.own(token));
        let under_way = self.client.begin(RequestId::from_raw(request.id), |cancelled| {
            Call::new(cancelled, token, ledger.sharers.clone(), Arc::clone(stream))
        })?;
        Ok(PlacedCall { under_way, link, ledger })
    }

    /// What those who share the session with the server of `link` have in common that this client uses.
    pub(super) fn ledger_of(&self, link: &Arc<Link>) -> Arc<Ledger> {
        match link.isolation() {
            Some(isolation) => Arc::clone(&self.own.with(link, &self.client, &isolation).ledger),
            None => Arc::clone(link.ledger()),
        }
    }

    /// The session with the server of `link` that this client uses, lost or not, where there is one.
    pub(super) fn current_of(&self, link: &Arc<Link>) -> Option<Arc<Upstream>> {
        match link.isolation() {
            Some(isolation) => self.own.with(link, &self.client, &isolation).current(),
            None => link.current(),
        }
    }

    /// The session with the server of `link` that this client uses: that of all, or its own, which is opened if need be.
    ///
    /// # Errors
    ///
    /// There is none, and will be none soon.
    pub(super) async fn upstream_of(&self, link: &Arc<Link>) -> Result<Arc<Upstream>, NoSession> {
        // Also of use where clients have their own: a server that has no session for us has none for them.
        let Some(shared) = link.session().await else {
            return Err(NoSession::NotConnected);
        };
        let Some(isolation) = link.isolation() else { return Ok(shared) };
        let own = self.own.with(link, &self.client, &isolation);
        own.upstream(link, &self.client, &isolation).await.map_err(NoSession::Refused)
    }

    /// Counts one more subscription.
    ///
    /// # Errors
    ///
    /// There are too many.
    pub(super) fn count_subscription(&self) -> Result<(), RpcError> {
        if self.subscriptions.fetch_add(1, Ordering::AcqRel) < MOST_SUBSCRIPTIONS {
            return Ok(());
        }
        self.discount_subscription();
        let why = format!("the client is subscribed to {MOST_SUBSCRIPTIONS} resources already");
        Err(RpcError::new(RpcError::UPSTREAM, why))
    }

    pub(super) fn discount_subscription(&self) {
        self.subscriptions.fetch_sub(1, Ordering::AcqRel);
    }

    /// Remembers a task that it has begun.
    pub(super) fn begin_task(&self, id: String, link: &Arc<Link>) {
        let mut tasks = lock(&self.tasks);
        tasks.push_back((id, Arc::clone(link)));
        if tasks.len() > MOST_TASKS {
            tasks.pop_front();
        }
    }

    /// Where a task was begun.
    pub(super) fn task(&self, id: &str) -> Option<Arc<Link>> {
        lock(&self.tasks).iter().find(|(known, _)| known == id).map(|(_, link)| Arc::clone(link))
    }

    /// All tasks that are remembered.
    pub(super) fn tasks(&self) -> Vec<(String, Arc<Link>)> {
        lock(&self.tasks).iter().cloned().collect()
    }
}

/// A call that is under way, and with whom; it is known as such as long as this lives.
pub(super) struct PlacedCall<'c> {
    under_way: UnderWay<'c>,
    /// Where it goes.
    pub(super) link: &'c Arc<Link>,
    /// What those who share the session have in common that it goes over.
    pub(super) ledger: Arc<Ledger>,
}

impl PlacedCall<'_> {
    pub(super) fn call(&self) -> &Arc<Call> {
        &self.under_way.call
    }
}
