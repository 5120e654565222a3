//! A client as servers may reach it: who it is, what it has been told, what it is asked, and its calls.
//!
//! Knows nothing of ways to servers, nor of sessions with them: those are in [`session`](super::session).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, Weak};

use bytestring::ByteString;
use tokio_util::sync::CancellationToken;

use super::asked::Asked;
use super::call::{Call, Sharers};
use super::declared::Declared;
use super::level::{Level, LevelCell};
use super::offer::{Kind, PerKind};
use super::scope::Scope;
use crate::mcpserver::ServerName;
use crate::sync::lock;
use crate::wire::message::RequestId;
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::SessionHandle;
use crate::wire::stream::Weight;
use crate::wire::version::ProtocolVersion;

/// Requests of one client that may be under way at once; more are refused.
const MOST_CALLS: usize = 4096;

/// One client.
#[derive(Debug)]
pub(super) struct Client {
    /// Tells it from every other client.
    pub(super) number: u64,
    pub(super) scope: Scope,
    /// The list of the meta tools, for one that sees them in place of the tools in the catalogue.
    pub(super) meta_tools: Option<ByteString>,
    pub(super) handle: SessionHandle,
    /// The id of its session, hashed: what may be told of it.
    pub(super) hashed_session: Arc<str>,
    pub(super) version: ProtocolVersion,
    pub(super) declared: Declared,
    /// What servers want to know of it.
    pub(super) asked: Asked,
    /// The log level that it wants.
    pub(super) level: LevelCell,
    /// The calls that are under way, by the client's own ids.
    calls: Mutex<HashMap<RequestId, Arc<Call>>>,
    pub(super) closed: CancellationToken,
    /// The lists that were there when the session was opened, or that the client was told of last; shared with the
    /// catalogue of then. Texts are compared, and not what they were made of: the same list can be made anew.
    known: Mutex<PerKind<ByteString>>,
}

impl Client {
    /// A client that has been told of nothing.
    pub(super) fn new(
        number: u64,
        scope: Scope,
        meta_tools: Option<ByteString>,
        handle: SessionHandle,
        version: ProtocolVersion,
        declared: Declared,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            scope,
            meta_tools,
            hashed_session: handle.id().hashed(),
            handle,
            version,
            declared,
            asked: Asked::default(),
            level: LevelCell::default(),
            calls: Mutex::default(),
            closed: CancellationToken::new(),
            known: Mutex::new(PerKind::from_fn(|_| ByteString::new())),
        })
    }

    /// Counts a call as under way; it is made with what cancels it.
    ///
    /// # Errors
    ///
    /// There are too many, or another one has its id.
    pub(super) fn begin(
        &self,
        id: RequestId,
        call: impl FnOnce(CancellationToken) -> Call,
    ) -> Result<UnderWay<'_>, RpcError> {
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
                let call = Arc::clone(entry.insert(Arc::new(call(self.closed.child_token()))));
                Ok(UnderWay { client: self, call, id })
            }
        }
    }

    /// Cancels a call. One that is not under way is none.
    pub(super) fn cancel(&self, id: &RequestId) {
        if let Some(call) = lock(&self.calls).get(id) {
            call.cancelled.cancel();
        }
    }

    /// The calls that are under way over the sessions of these sharers, in the order in which they were sent.
    pub(super) fn calls_of(&self, sharers: &Sharers) -> Vec<Arc<Call>> {
        let mut calls: Vec<Arc<Call>> =
            lock(&self.calls).values().filter(|call| call.sharers == *sharers).cloned().collect();
        calls.sort_by_key(|call| call.at_server());
        calls
    }

    /// Sends a notification that belongs to no call.
    pub(super) fn say(&self, text: ByteString) {
        self.handle.standalone().push(text, Weight::Droppable);
    }

    /// Sends what must arrive: with a call, as long as that has no answer, else outside of any.
    pub(super) fn say_for_sure(&self, call: Option<&Call>, text: ByteString) {
        if !call.is_some_and(|call| call.try_say_for_sure(text.clone())) {
            self.handle.standalone().push(text, Weight::Required);
        }
    }

    /// The lists that it sees are these, without a word; says which of them are news.
    pub(super) fn learn<'l>(&self, list: impl Fn(Kind) -> &'l ByteString) -> PerKind<bool> {
        let mut known = lock(&self.known);
        PerKind::from_fn(|kind| {
            let list = list(kind);
            let is_news = known[kind] != *list;
            if is_news {
                known[kind].clone_from(list);
            }
            is_news
        })
    }

    /// Tells the client which lists have changed, if any has.
    pub(super) fn tell<'l>(&self, list: impl Fn(Kind) -> &'l ByteString) {
        let is_news = self.learn(list);
        // Templates have no notification of their own.
        let news = [
            (is_news[Kind::Tool], "notifications/tools/list_changed"),
            (is_news[Kind::Prompt], "notifications/prompts/list_changed"),
            (is_news[Kind::Resource] || is_news[Kind::Template], "notifications/resources/list_changed"),
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
pub(super) struct Clients(Mutex<Connected>);

#[derive(Debug, Default)]
struct Connected {
    last: u64,
    by_number: HashMap<u64, Weak<Client>>,
}

impl Clients {
    /// Enters a client; `make` is called, with its number, when nobody is told of anything meanwhile.
    pub(super) fn enter(&self, make: impl FnOnce(u64) -> Arc<Client>) -> Arc<Client> {
        let mut connected = lock(&self.0);
        connected.last += 1;
        let number = connected.last;
        let client = make(number);
        connected.by_number.insert(number, Arc::downgrade(&client));
        client
    }

    /// Takes a client out.
    pub(super) fn leave(&self, client: &Client) {
        lock(&self.0).by_number.remove(&client.number);
    }

    /// Everyone.
    pub(super) fn all(&self) -> Vec<Arc<Client>> {
        lock(&self.0).by_number.values().filter_map(Weak::upgrade).collect()
    }

    /// A client that is still there.
    pub(super) fn by_number(&self, number: u64) -> Option<Arc<Client>> {
        lock(&self.0).by_number.get(&number)?.upgrade()
    }

    /// The least severe level that anybody who sees `server` wants, if anybody has said so. Those who have not are
    /// taken to want what is no debugging.
    pub(super) fn wanted_level(&self, server: &ServerName) -> Option<Level> {
        let sees = |client: &Arc<Client>| match &client.scope {
            Scope::All => true,
            Scope::Server(own) => own == server,
        };
        let levels: Vec<Option<Level>> =
            self.all().iter().filter(|client| sees(client)).map(|client| client.level.get()).collect();
        levels.iter().any(Option::is_some).then_some(())?;
        levels.into_iter().map(|level| level.unwrap_or(Level::Info)).min()
    }

    /// Tells everyone of what `latest` gives. Who comes meanwhile has found it, or what comes after it.
    pub(super) fn tell_all<C>(&self, latest: impl FnOnce() -> C, tell: impl Fn(&Client, &C)) -> C {
        let connected = lock(&self.0);
        let latest = latest();
        for client in connected.by_number.values().filter_map(Weak::upgrade) {
            tell(&client, &latest);
        }
        latest
    }
}
