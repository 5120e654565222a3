//! What a server says besides its answers, and whom it is for.
//!
//! On a call's own stream it is for that call's client. Elsewhere it is for whoever can be told from the message (a
//! progress token, a subscription, the id of a task), for the only client that it can be for, or for nobody.
//!
//! Invariants: a client gets nothing that may be another one's; a request of the server is answered, by a client or
//! with an error.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, Weak};

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Duration, Instant};
use tracing::{debug, info};

use super::asked::{Asker, Expected};
use super::call::Call;
use super::client::Client;
use super::ledger::{Audience, Ledger};
use super::level::Level;
use super::offer::{Kind, PerKind};
use crate::sync::lock;
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::stream::Dropped;

/// Where a message came from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin<'o> {
    /// The stream of a client's call.
    Call(&'o Arc<Client>, &'o Call),
    /// The GET stream, or that of something we have asked.
    Outside,
}

/// The server's side of one session: what it says, and what it is answered.
#[derive(Debug)]
pub(super) struct ServerSide {
    pub(super) ledger: Arc<Ledger>,
    lists: Arc<ListChanges>,
    outbox: mpsc::Sender<ByteString>,
    /// Counts what does not fit into it.
    unsent: Dropped,
    /// Requests of the server that clients have been asked, by the server's ids: whom, and under which number.
    asked: Mutex<HashMap<RequestId, (Weak<Client>, u64)>>,
    opened: Instant,
    /// Read for each call, written for each client.
    users: RwLock<Users>,
}

/// How long a server may speak of a call that was given up, or of those of a client that has left.
const AFTERMATH: Duration = Duration::from_secs(10);

/// How much later than an answer something may arrive that came before it on another stream, in milliseconds.
const JUST_NOW: u64 = 1000;

/// The clients that have used a session.
#[derive(Debug, Default)]
struct Users {
    /// Those that are still there, by number, and when the last call of each was answered, in milliseconds of the
    /// session's time; 0 where none was.
    present: HashMap<u64, AtomicU64>,
    /// Those that have given up a call or left, and until when the server may still speak of it.
    unsettled: HashMap<u64, Instant>,
}

/// The lists of which a server has said that they have changed.
#[derive(Debug, Default)]
pub(super) struct ListChanges {
    changed: PerKind<AtomicBool>,
    woken: Notify,
}

impl ListChanges {
    /// Waits until something has changed. What was said while nobody waited counts once.
    pub(super) async fn wait(&self) {
        self.woken.notified().await;
    }

    /// What has changed since this was asked last.
    pub(super) fn take(&self) -> PerKind<bool> {
        PerKind::from_fn(|kind| self.changed[kind].swap(false, Ordering::AcqRel))
    }

    fn note(&self, kinds: &[Kind]) {
        for kind in kinds {
            self.changed[*kind].store(true, Ordering::Release);
        }
        self.woken.notify_one();
    }
}

impl ServerSide {
    pub(super) fn new(
        ledger: Arc<Ledger>,
        lists: Arc<ListChanges>,
        outbox: mpsc::Sender<ByteString>,
        unsent: Dropped,
    ) -> Arc<Self> {
        Arc::new(Self {
            ledger,
            lists,
            outbox,
            unsent,
            asked: Mutex::default(),
            opened: Instant::now(),
            users: RwLock::default(),
        })
    }

    /// A client uses the session.
    pub(super) fn used_by(&self, client: &Client) {
        if !self.users().present.contains_key(&client.number) {
            self.users_mut().present.entry(client.number).or_default();
        }
    }

    /// A call of a client was answered.
    pub(super) fn has_answered(&self, client: &Client) {
        if let Some(answered) = self.users().present.get(&client.number) {
            answered.store(self.now().max(1), Ordering::Relaxed);
        }
    }

    /// The session's time, in milliseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A client has given up a call, and the server may still be at it.
    pub(super) fn given_up_by(&self, client: &Client) {
        let now = Instant::now();
        let mut users = self.users_mut();
        users.unsettled.retain(|_, until| *until > now);
        users.unsettled.insert(client.number, now + AFTERMATH);
    }

    /// A client has left.
    pub(super) fn left_by(&self, client: &Client) {
        // What the server has said of the last call may be on its way.
        if self.users_mut().present.remove(&client.number).is_some() {
            self.given_up_by(client);
        }
    }

    /// Whether the server may speak of what another client than `number` has begun, though it has no call any more.
    fn is_unsettled_by_others(&self, number: u64) -> bool {
        let now = Instant::now();
        self.users().unsettled.iter().any(|(other, until)| *other != number && *until > now)
    }

    /// Whether a call of another client than `number` was answered just now: a question that came before the answer, on
    /// another stream, may arrive after it.
    fn has_just_answered_others(&self, number: u64) -> bool {
        let now = self.now();
        let was_just_now = |answered: &AtomicU64| {
            let answered = answered.load(Ordering::Relaxed);
            answered > 0 && now.saturating_sub(answered) < JUST_NOW
        };
        self.users().present.iter().any(|(other, answered)| *other != number && was_just_now(answered))
    }

    fn users(&self) -> RwLockReadGuard<'_, Users> {
        self.users.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn users_mut(&self) -> RwLockWriteGuard<'_, Users> {
        self.users.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message of the server that is no answer.
    pub(super) fn take(self: &Arc<Self>, message: &Message, origin: Origin<'_>) {
        match message.view() {
            View::Notification { method, params } => self.hear(message, method, params, origin),
            View::Request { id, method: "ping", .. } => self.reply(rpc::result(id, "{}")),
            View::Request { id, method, params } => {
                let asked = match origin {
                    Origin::Call(client, call) => self.ask(client, Some(call), message, id, method, params),
                    Origin::Outside => self.only_caller(method).and_then(|(client, call)| {
                        self.ask(&client, call.as_deref(), message, id, method, params)
                    }),
                };
                if let Err(error) = asked {
                    debug!(server = %self.ledger.server, %method, %error, "no client is asked");
                    self.reply(error.response(Some(id)));
                }
            }
            View::Response { .. } => debug!(?message, "an answer to no request"),
        }
    }

    fn hear(&self, message: &Message, method: &str, params: Option<&str>, origin: Origin<'_>) {
        let member = |key| params.and_then(|params| json::members(params, [key]).ok()?[0]);
        match method {
            "notifications/progress" => self.progress(message, member("progressToken"), origin),
            "notifications/message" => self.log(message, params, origin),
            "notifications/tools/list_changed" => self.lists.note(&[Kind::Tool]),
            "notifications/prompts/list_changed" => self.lists.note(&[Kind::Prompt]),
            "notifications/resources/list_changed" => self.lists.note(&[Kind::Resource, Kind::Template]),
            "notifications/resources/updated" => self.updated(message, member("uri")),
            "notifications/cancelled" => self.cancelled(message, member("requestId")),
            "notifications/elicitation/complete" => {
                let id = member("elicitationId").and_then(json::string);
                self.tell(message, id.and_then(|id| self.ledger.elicitation(&id)), origin);
            }
            "notifications/tasks/status" => {
                let id = member("taskId").and_then(json::string);
                self.tell(message, id.and_then(|id| self.ledger.task(&id)), origin);
            }
            // What is not known here may mean something to a client.
            _ => self.tell(message, None, origin),
        }
    }

    /// Passes a notification on to `owner`, else to whom its origin names.
    fn tell(&self, message: &Message, owner: Option<Arc<Client>>, origin: Origin<'_>) {
        match (owner, origin) {
            (Some(owner), Origin::Call(client, call)) if Arc::ptr_eq(&owner, client) => {
                call.say(message.text().clone());
            }
            (Some(owner), _) => owner.say(message.text().clone()),
            (None, Origin::Call(_, call)) => call.say(message.text().clone()),
            (None, Origin::Outside) => match self.only_client() {
                Some(client) => client.say(message.text().clone()),
                None => debug!(?message, "it is not known whom this is for"),
            },
        }
    }

    fn progress(&self, message: &Message, token: Option<&str>, origin: Origin<'_>) {
        let (Some(raw), Some(at_server)) = (token, token.and_then(|token| token.parse::<u64>().ok())) else {
            return debug!("progress that belongs to no call");
        };
        let with = |token: &str| {
            let text = message.text();
            json::splice(text, [(json::span(text, raw), token)])
        };
        if let Origin::Call(_, call) = origin
            && call.at_server() == at_server
        {
            match &call.token {
                Some(token) => call.say(with(token)),
                None => debug!("progress that nobody wanted"),
            }
            return;
        }
        // Servers that do not name the call when they tell of its progress do so on the GET stream.
        if let Some(call) =
            self.calls().into_iter().map(|(_, call)| call).find(|c| c.at_server() == at_server)
        {
            call.has_progressed();
            if let Some(token) = &call.token {
                call.say(with(token));
            }
        } else if let Some((client, token)) = self.ledger.task_by_token(at_server) {
            client.say(with(&token));
        } else {
            debug!("progress that belongs to no call");
        }
    }

    fn log(&self, message: &Message, params: Option<&str>, origin: Origin<'_>) {
        let client = match origin {
            Origin::Call(client, _) => Some(Arc::clone(client)),
            Origin::Outside => self.only_client(),
        };
        let Some(client) = client else {
            let params = params.unwrap_or_default();
            return info!(server = %self.ledger.server, %params, "a message that is no call's");
        };
        if !self.ledger.is_log_for(&client, || Level::of_message(params)) {
            return;
        }
        match origin {
            Origin::Call(_, call) => call.say(message.text().clone()),
            Origin::Outside => client.say(message.text().clone()),
        }
    }

    fn updated(&self, message: &Message, uri: Option<&str>) {
        let Some((raw, own)) = uri.and_then(|raw| Some((raw, json::string(raw)?))) else {
            return debug!("an update of no resource");
        };
        let text = message.text();
        for (client, lead) in self.ledger.subscribers_of(&own) {
            client.say(if lead.is_empty() {
                text.clone()
            } else {
                json::splice(text, [(json::span(text, raw), &json::quoted(&format!("{lead}{own}")))])
            });
        }
    }

    /// Asks a client what the server wants to know.
    fn ask(
        self: &Arc<Self>,
        client: &Arc<Client>,
        call: Option<&Call>,
        request: &Message,
        id: &str,
        method: &str,
        params: Option<&str>,
    ) -> Result<(), RpcError> {
        if method == "roots/list" && matches!(self.ledger.audience, Audience::Shared(_)) {
            // Roots are one client's, and the session is everybody's.
            let why = "clients share this session, so there are no roots (spec.isolation: session)";
            return Err(RpcError::new(RpcError::METHOD_NOT_FOUND, why));
        }
        client.declared.check(method, params)?;
        let server_id = RequestId::from_raw(id);
        let meta = params.and_then(|params| json::members(params, ["_meta"]).ok()?[0]);
        let token = meta.and_then(|meta| json::members(meta, ["progressToken"]).ok()?[0]);
        let number = {
            let mut asked = lock(&self.asked);
            let Entry::Vacant(entry) = asked.entry(server_id.clone()) else {
                let why = format!("id {id} is that of a request which is still under way");
                return Err(RpcError::new(RpcError::INVALID_REQUEST, why));
            };
            let number = client.asked.expect(Expected {
                asker: Arc::downgrade(self) as Weak<dyn Asker>,
                id: server_id,
                token: token.map(|token| request.text().slice_ref(token)),
            })?;
            entry.insert((Arc::downgrade(client), number));
            number
        };
        if method == "elicitation/create"
            && let Some(params) = params
            && let Ok([Some(id)]) = json::members(params, ["elicitationId"])
            && let Some(id) = json::string(id)
        {
            self.ledger.own_elicitation(id.into_owned(), client);
        }
        let text = request.text();
        let number = number.to_string();
        let id = (json::span(text, id), number.as_str());
        let text = match token {
            Some(token) => json::splice(text, [id, (json::span(text, token), &number)]),
            None => json::splice(text, [id]),
        };
        client.say_for_sure(call, text);
        Ok(())
    }

    /// The client that a request outside of any call is for.
    fn only_caller(&self, method: &str) -> Result<(Arc<Client>, Option<Arc<Call>>), RpcError> {
        if let Audience::One(client) = &self.ledger.audience {
            let gone = || RpcError::new(RpcError::UPSTREAM, "the client has gone");
            let client = client.upgrade().ok_or_else(gone)?;
            let call = client.calls_of(&self.ledger.sharers).into_iter().next();
            return Ok((client, call));
        }
        let mut calls = self.calls().into_iter();
        let nobody = |why: &str| {
            let why = format!("it is not known which client {method} is for: {why}");
            Err(RpcError::new(RpcError::UPSTREAM, why))
        };
        let Some((client, call)) = calls.next() else { return nobody("none has a call under way") };
        if calls.any(|(other, _)| !Arc::ptr_eq(&other, &client)) {
            return nobody("several have calls under way; spec.isolation: session helps");
        }
        if self.is_unsettled_by_others(client.number) || self.has_just_answered_others(client.number) {
            return nobody("another one has just had a call under way; spec.isolation: session helps");
        }
        Ok((client, Some(call)))
    }

    /// The client that anything is for: nobody else uses the session, nor did so just now.
    fn only_client(&self) -> Option<Arc<Client>> {
        match &self.ledger.audience {
            Audience::One(client) => client.upgrade(),
            Audience::Shared(clients) => {
                let number = {
                    let users = self.users();
                    let mut present = users.present.keys();
                    match (present.next(), present.next()) {
                        (Some(only), None) => *only,
                        _ => return None,
                    }
                };
                clients.by_number(number).filter(|_| !self.is_unsettled_by_others(number))
            }
        }
    }

    /// All calls that are under way to the server.
    fn calls(&self) -> Vec<(Arc<Client>, Arc<Call>)> {
        let clients = match &self.ledger.audience {
            Audience::One(client) => client.upgrade().into_iter().collect(),
            Audience::Shared(clients) => clients.all(),
        };
        let of = |client: Arc<Client>| {
            let calls = client.calls_of(&self.ledger.sharers);
            calls.into_iter().map(move |call| (Arc::clone(&client), call))
        };
        clients.into_iter().flat_map(of).collect()
    }

    /// The server does not want to know any more.
    fn cancelled(&self, message: &Message, raw: Option<&str>) {
        let Some(raw) = raw else { return debug!("a cancellation that names no request") };
        let asked = lock(&self.asked).remove(&RequestId::from_raw(raw));
        if let Some((client, number)) = asked
            && let Some(client) = client.upgrade()
            && client.asked.forget(number).is_some()
        {
            let text = message.text();
            client.say_for_sure(None, json::splice(text, [(json::span(text, raw), &number.to_string())]));
        }
    }

    /// The session is over: clients need not answer.
    pub(super) fn give_up(&self) {
        let asked = std::mem::take(&mut *lock(&self.asked));
        for (client, number) in asked.into_values() {
            if let Some(client) = client.upgrade()
                && client.asked.forget(number).is_some()
            {
                let params = format!(r#"{{"requestId":{number},"reason":"the server has gone"}}"#);
                client.say_for_sure(None, rpc::notification("notifications/cancelled", Some(&params)));
            }
        }
    }
}

impl Asker for ServerSide {
    fn is_answered(&self, id: &RequestId) {
        lock(&self.asked).remove(id);
    }

    fn reply(&self, text: ByteString) {
        if self.outbox.try_send(text).is_err() {
            self.unsent.add();
            debug!("an answer to the server is dropped: too many wait, or the session is over");
        }
    }

    fn send(&self, text: ByteString) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.outbox.send(text).await.is_err() {
                debug!("an answer to a server whose session is over");
            }
        })
    }
}
