//! One client's session: what it may see, what it has been told, and its calls.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, Weak};

use bytestring::ByteString;
use tokio_util::sync::CancellationToken;

use super::catalogue::Catalogue;
use super::link::Link;
use super::offer::{Kind, PerKind};
use super::request::ClientRequest;
use super::scope::Scope;
use crate::sync::lock;
use crate::wire::message::RequestId;
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::SessionHandle;
use crate::wire::stream::Weight;

/// Requests of one client that may be under way at once; more are refused.
const MOST_CALLS: usize = 4096;

/// One client's session.
#[derive(Debug)]
pub struct Client {
    pub(super) scope: Scope,
    pub(super) handle: SessionHandle,
    /// The calls that are under way, by the client's own ids.
    calls: Mutex<HashMap<RequestId, Arc<Call>>>,
    pub(super) closed: CancellationToken,
    /// The lists that were there when the session was opened, or that the client was told of last; shared with the
    /// catalogue of then. The texts and not the catalogue are compared: the same list can be made anew.
    known: Mutex<PerKind<ByteString>>,
}

/// A request of a client that is under way at a server.
#[derive(Debug)]
pub(super) struct Call {
    /// Fires when the client has cancelled it, or has gone.
    pub(super) cancelled: CancellationToken,
    /// The client's progress token, raw.
    pub(super) token: Option<ByteString>,
    /// Where it went.
    pub(super) link: Arc<Link>,
}

impl Client {
    /// The session of a client that has been told of nothing but `catalogue`.
    pub(super) fn new(scope: Scope, handle: SessionHandle, catalogue: &Catalogue) -> Arc<Self> {
        let known = PerKind::from_fn(|kind| catalogue.list(&scope, kind).clone());
        Arc::new(Self {
            scope,
            handle,
            calls: Mutex::default(),
            closed: CancellationToken::new(),
            known: Mutex::new(known),
        })
    }

    /// Counts a request as under way to `link`.
    ///
    /// # Errors
    ///
    /// There are too many, or another one has its id.
    pub(super) fn begin(
        &self,
        request: &ClientRequest<'_>,
        link: &Arc<Link>,
    ) -> Result<UnderWay<'_>, RpcError> {
        let id = RequestId::from_raw(request.id);
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
                let call = entry.insert(Arc::new(Call {
                    cancelled: self.closed.child_token(),
                    token: request.token.map(|token| request.own(token)),
                    link: Arc::clone(link),
                }));
                Ok(UnderWay { client: self, call: Arc::clone(call), id })
            }
        }
    }

    /// Cancels a call. One that is not under way is none.
    pub(super) fn cancel(&self, id: &RequestId) {
        if let Some(call) = lock(&self.calls).get(id) {
            call.cancelled.cancel();
        }
    }

    /// Tells the client which lists have changed, if any has.
    pub(super) fn tell(&self, catalogue: &Catalogue) {
        let mut known = lock(&self.known);
        let mut learn = |kind| {
            let list = catalogue.list(&self.scope, kind);
            let is_news = known[kind] != *list;
            if is_news {
                known[kind].clone_from(list);
            }
            is_news
        };
        // Templates have no notification of their own.
        let news = [
            (learn(Kind::Tool), "notifications/tools/list_changed"),
            (learn(Kind::Prompt), "notifications/prompts/list_changed"),
            (learn(Kind::Resource) | learn(Kind::Template), "notifications/resources/list_changed"),
        ];
        for (_, method) in news.iter().filter(|(is_news, _)| *is_news) {
            self.handle.standalone().push(rpc::notification(method, None), Weight::Droppable);
        }
    }
}

/// A call of a client that is under way; it is known as such as long as this lives.
pub(super) struct UnderWay<'c> {
    client: &'c Client,
    pub(super) call: Arc<Call>,
    id: RequestId,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.client.calls).remove(&self.id);
    }
}

/// Everyone who is connected.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<Vec<Weak<Client>>>);

impl Clients {
    /// Enters a client; `make` is called when nobody is told of anything meanwhile.
    pub(super) fn enter(&self, make: impl FnOnce() -> Arc<Client>) -> Arc<Client> {
        let mut clients = lock(&self.0);
        let client = make();
        clients.push(Arc::downgrade(&client));
        client
    }

    /// Takes a client out.
    pub(super) fn leave(&self, client: &Arc<Client>) {
        let gone = Arc::downgrade(client);
        lock(&self.0).retain(|known| !known.ptr_eq(&gone));
    }

    /// Tells everyone of the catalogue that `latest` gives. Who comes meanwhile has found it, or an older one.
    pub(super) fn tell_all(&self, latest: impl FnOnce() -> Arc<Catalogue>) {
        let clients = lock(&self.0);
        let catalogue = latest();
        for client in clients.iter().filter_map(Weak::upgrade) {
            client.tell(&catalogue);
        }
    }
}
