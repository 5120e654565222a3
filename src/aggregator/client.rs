//! One client's session: what it may see, what it has been told, and its calls.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

use bytestring::ByteString;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::asked::Asked;
use super::catalogue::Catalogue;
use super::declared::Declared;
use super::exposure::MetaTools;
use super::ledger::Ledger;
use super::level::{Level, LevelCell};
use super::link::Link;
use super::offer::{Kind, PerKind};
use super::own::OwnSessions;
use super::request::ClientRequest;
use super::scope::Scope;
use crate::mcpserver::ServerName;
use crate::sync::lock;
use crate::wire::message::RequestId;
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::SessionHandle;
use crate::wire::stream::{EventStream, Weight};
use crate::wire::version::ProtocolVersion;

/// Requests of one client that may be under way at once; more are refused.
const MOST_CALLS: usize = 4096;

/// Tasks of one client that are remembered; the oldest are forgotten.
const MOST_TASKS: usize = 1024;

/// Resources that one client may be subscribed to.
const MOST_SUBSCRIPTIONS: usize = 4096;

/// One client's session.
#[derive(Debug)]
pub struct Client {
    /// Tells it from every other client.
    pub(super) number: u64,
    pub(super) scope: Scope,
    /// The tools that it sees in place of all others, where it wants them so.
    pub(super) meta: Option<Arc<MetaTools>>,
    pub(super) handle: SessionHandle,
    /// The id of its session, hashed: what may be told of it.
    pub(super) hashed_session: Arc<str>,
    pub(super) version: ProtocolVersion,
    pub(super) declared: Declared,
    /// What servers want to know of it.
    pub(super) asked: Asked,
    /// The log level that it wants.
    pub(super) level: LevelCell,
    /// Tasks that it has begun, oldest first, and where.
    tasks: Mutex<VecDeque<(String, Arc<Link>)>>,
    subscriptions: AtomicUsize,
    /// Sessions with servers that it shares with nobody.
    pub(super) own: OwnSessions,
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
    /// Who shares the session that it goes over.
    pub(super) ledger: Arc<Ledger>,
    /// Where messages that belong to it go.
    pub(super) stream: Arc<EventStream>,
    /// Its id at the server, which is its progress token there, too. Ids begin with 1.
    at_server: AtomicU64,
    progressed: Notify,
}

impl Call {
    /// The call's id at the server; 0 before it was sent.
    pub(super) fn at_server(&self) -> u64 {
        self.at_server.load(Ordering::Acquire)
    }

    pub(super) fn set_at_server(&self, id: u64) {
        self.at_server.store(id, Ordering::Release);
    }

    /// The server is at work: the time of the call begins again.
    pub(super) fn has_progressed(&self) {
        self.progressed.notify_one();
    }

    /// Waits for progress.
    pub(super) async fn progress(&self) {
        self.progressed.notified().await;
    }
}

impl Client {
    /// The session of a client that has been told of nothing but `catalogue`.
    pub(super) fn new(
        number: u64,
        scope: Scope,
        meta: Option<Arc<MetaTools>>,
        handle: SessionHandle,
        version: ProtocolVersion,
        declared: Declared,
        catalogue: &Catalogue,
    ) -> Arc<Self> {
        let known = PerKind::from_fn(|kind| listed(catalogue, &scope, meta.as_deref(), kind).clone());
        Arc::new(Self {
            number,
            scope,
            meta,
            hashed_session: handle.id().hashed(),
            handle,
            version,
            declared,
            asked: Asked::default(),
            level: LevelCell::default(),
            tasks: Mutex::default(),
            subscriptions: AtomicUsize::new(0),
            own: OwnSessions::default(),
            calls: Mutex::default(),
            closed: CancellationToken::new(),
            known: Mutex::new(known),
        })
    }

    /// The `result` that lists one kind for this client, as JSON text.
    pub(super) fn list<'c>(&'c self, catalogue: &'c Catalogue, kind: Kind) -> &'c ByteString {
        listed(catalogue, &self.scope, self.meta.as_deref(), kind)
    }

    /// Counts a request as under way to `link`.
    ///
    /// # Errors
    ///
    /// There are too many, or another one has its id.
    pub(super) fn begin<'c>(
        self: &'c Arc<Self>,
        request: &ClientRequest<'_>,
        link: &Arc<Link>,
        stream: &Arc<EventStream>,
    ) -> Result<UnderWay<'c>, RpcError> {
        let id = RequestId::from_raw(request.id);
        let ledger = link.ledger_of(self);
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
                    ledger,
                    stream: Arc::clone(stream),
                    at_server: AtomicU64::new(0),
                    progressed: Notify::new(),
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

    /// The calls that are under way over the sessions of `ledger`, in the order in which they were sent.
    pub(super) fn calls_to(&self, ledger: &Arc<Ledger>) -> Vec<Arc<Call>> {
        let mut calls: Vec<Arc<Call>> =
            lock(&self.calls).values().filter(|call| Arc::ptr_eq(&call.ledger, ledger)).cloned().collect();
        calls.sort_by_key(|call| call.at_server());
        calls
    }

    /// Sends a notification that belongs to no call.
    pub(super) fn say(&self, text: ByteString) {
        self.handle.standalone().push(text, Weight::Droppable);
    }

    /// Sends what must arrive: with a call, as long as that has no answer, else outside of any.
    pub(super) fn say_for_sure(&self, call: Option<&Call>, text: ByteString) {
        if !call.is_some_and(|call| call.stream.try_push(text.clone(), Weight::Required)) {
            self.handle.standalone().push(text, Weight::Required);
        }
    }

    /// Whether it wants a log message of a level from those who share `ledger`.
    ///
    /// A client that has not said what it wants gets what the server sends of itself; where others have asked that server
    /// for more, what is no debugging.
    pub(super) fn wants_log(&self, ledger: &Ledger, level: impl FnOnce() -> Level) -> bool {
        match self.level.get() {
            Some(least) => level() >= least,
            None => ledger.level.get().is_none() || level() >= Level::Info,
        }
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

    /// Tells the client which lists have changed, if any has.
    pub(super) fn tell(&self, catalogue: &Catalogue) {
        let mut known = lock(&self.known);
        let mut learn = |kind| {
            let list = self.list(catalogue, kind);
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

fn listed<'c>(
    catalogue: &'c Catalogue,
    scope: &Scope,
    meta: Option<&'c MetaTools>,
    kind: Kind,
) -> &'c ByteString {
    match meta {
        Some(meta) if kind == Kind::Tool => &meta.list,
        _ => catalogue.list(scope, kind),
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

    /// Tells everyone of the catalogue that `latest` gives. Who comes meanwhile has found it, or an older one.
    pub(super) fn tell_all(&self, latest: impl FnOnce() -> Arc<Catalogue>) -> Arc<Catalogue> {
        let connected = lock(&self.0);
        let catalogue = latest();
        for client in connected.by_number.values().filter_map(Weak::upgrade) {
            client.tell(&catalogue);
        }
        catalogue
    }
}
