//! What is known of those who share the sessions with one server, and outlives these sessions: who subscribed to what,
//! which log level is wanted, and whose task or elicitation it is.
//!
//! Invariants: every table is bounded, by what each client may have or by itself; clients that have gone are not kept
//! alive. Knows nothing of sessions.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};

use bytestring::ByteString;

use super::call::Sharers;
use super::client::{Client, Clients};
use super::level::{Level, LevelCell};
use crate::mcpserver::ServerName;
use crate::sync::lock;

/// Tasks, or elicitations, of which it is remembered whose they are; the oldest are forgotten.
const MOST_OWNED: usize = 4096;

/// Who gets what a server says.
#[derive(Debug)]
pub(super) enum Audience {
    /// Everyone who is connected may use the session.
    Shared(Arc<Clients>),
    /// One client has it for itself.
    One(Weak<Client>),
}

/// What those who share sessions have in common.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) server: ServerName,
    pub(super) audience: Audience,
    /// Tells the calls of these sessions from those of every other ledger, also of one with the same audience.
    pub(super) sharers: Sharers,
    /// The level that the server was last asked for.
    pub(super) level: LevelCell,
    /// Subscribers by the server's own URI.
    subscribers: Mutex<HashMap<String, Vec<Subscriber>>>,
    elicitations: Mutex<Owned<()>>,
    tasks: Mutex<Owned<TaskProgress>>,
}

#[derive(Debug)]
struct Subscriber {
    client: Weak<Client>,
    /// What stands before the server's URIs when the client sees them.
    lead: String,
}

/// How progress of a task is told once its request was answered.
#[derive(Clone, Debug)]
pub(super) struct TaskProgress {
    /// The token that the server was given.
    pub(super) at_server: u64,
    /// The client's own, raw.
    pub(super) token: Option<ByteString>,
}

impl Ledger {
    pub(super) fn new(server: ServerName, audience: Audience) -> Arc<Self> {
        Arc::new(Self {
            server,
            audience,
            sharers: Sharers::default(),
            level: LevelCell::default(),
            subscribers: Mutex::default(),
            elicitations: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// Whether a client wants a log message of a level from the server.
    ///
    /// A client that has not said what it wants gets what the server sends of itself; where others have asked that server
    /// for more, what is no debugging.
    pub(super) fn is_log_for(&self, client: &Client, level: impl FnOnce() -> Level) -> bool {
        match client.level.get() {
            Some(least) => level() >= least,
            None => self.level.get().is_none() || level() >= Level::Info,
        }
    }

    /// Enters a subscription; says whether it is new. `exposed` is the client's form of `own`.
    pub(super) fn subscribe(&self, client: &Arc<Client>, own: &str, exposed: &str) -> bool {
        let client = Arc::downgrade(client);
        let mut subscribers = lock(&self.subscribers);
        let subscribers = subscribers.entry(own.to_owned()).or_default();
        let is_new = !subscribers.iter().any(|subscriber| subscriber.client.ptr_eq(&client));
        if is_new {
            let lead = exposed.strip_suffix(own).unwrap_or_default().to_owned();
            subscribers.push(Subscriber { client, lead });
        }
        is_new
    }

    /// Takes a subscription out. Says whether there was one, and who else is subscribed.
    pub(super) fn unsubscribe(&self, client: &Arc<Client>, own: &str) -> (bool, Left) {
        let gone = Arc::downgrade(client);
        let mut subscribers = lock(&self.subscribers);
        let Some(others) = subscribers.get_mut(own) else { return (false, Left::Nobody) };
        let before = others.len();
        others.retain(|subscriber| !subscriber.client.ptr_eq(&gone));
        let was_subscribed = others.len() < before;
        if others.is_empty() {
            subscribers.remove(own);
            return (was_subscribed, Left::Nobody);
        }
        (was_subscribed, Left::Others)
    }

    /// Takes a client's subscriptions out. Gives the URIs that nobody is subscribed to any more.
    pub(super) fn forget(&self, client: &Arc<Client>) -> Vec<String> {
        let gone = Arc::downgrade(client);
        let mut orphans = Vec::new();
        lock(&self.subscribers).retain(|uri, subscribers| {
            let before = subscribers.len();
            subscribers.retain(|subscriber| !subscriber.client.ptr_eq(&gone));
            if subscribers.is_empty() && before > 0 {
                orphans.push(uri.clone());
            }
            !subscribers.is_empty()
        });
        orphans
    }

    /// Whether anybody is subscribed to `own`.
    pub(super) fn is_subscribed(&self, own: &str) -> bool {
        lock(&self.subscribers).contains_key(own)
    }

    /// The URIs that somebody is subscribed to.
    pub(super) fn subscriptions(&self) -> Vec<String> {
        lock(&self.subscribers).keys().cloned().collect()
    }

    /// Who is to hear that `own` was updated, with what stands before the URI for them. It may be a part of what they
    /// subscribed to (2025-11-25, schema, `ResourceUpdatedNotification`).
    pub(super) fn subscribers_of(&self, own: &str) -> Vec<(Arc<Client>, String)> {
        let covers = |subscribed: &str| {
            own.strip_prefix(subscribed)
                .is_some_and(|rest| rest.is_empty() || subscribed.ends_with('/') || rest.starts_with('/'))
        };
        let mut found: Vec<(Arc<Client>, String)> = Vec::new();
        for (_, subscribers) in lock(&self.subscribers).iter().filter(|(uri, _)| covers(uri)) {
            for Subscriber { client, lead } in subscribers {
                if let Some(client) = client.upgrade()
                    && !found.iter().any(|(known, _)| Arc::ptr_eq(known, &client))
                {
                    found.push((client, lead.clone()));
                }
            }
        }
        found
    }

    /// Remembers whose elicitation it is.
    pub(super) fn own_elicitation(&self, id: String, client: &Arc<Client>) {
        lock(&self.elicitations).insert(id, client, ());
    }

    /// Whose elicitation it is.
    pub(super) fn elicitation(&self, id: &str) -> Option<Arc<Client>> {
        lock(&self.elicitations).by_id.get(id)?.0.upgrade()
    }

    /// Remembers whose task it is.
    pub(super) fn own_task(&self, id: String, client: &Arc<Client>, progress: TaskProgress) {
        lock(&self.tasks).insert(id, client, progress);
    }

    /// Whose task it is.
    pub(super) fn task(&self, id: &str) -> Option<Arc<Client>> {
        lock(&self.tasks).by_id.get(id)?.0.upgrade()
    }

    /// Whose task has this progress token at the server, and the client's own token.
    pub(super) fn task_by_token(&self, at_server: u64) -> Option<(Arc<Client>, ByteString)> {
        let tasks = lock(&self.tasks);
        let (client, progress) =
            tasks.by_id.values().find(|(_, progress)| progress.at_server == at_server)?;
        Some((client.upgrade()?, progress.token.clone()?))
    }
}

/// Who else has a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    Nobody,
    Others,
}

/// What is whose, by ids that a server has given out.
#[derive(Debug)]
struct Owned<T> {
    by_id: HashMap<String, (Weak<Client>, T)>,
    /// The ids, oldest first.
    order: VecDeque<String>,
}

impl<T> Default for Owned<T> {
    fn default() -> Self {
        Self { by_id: HashMap::new(), order: VecDeque::new() }
    }
}

impl<T> Owned<T> {
    /// The first owner stays: a server that gives an id out twice does not take it from a client.
    fn insert(&mut self, id: String, client: &Arc<Client>, value: T) {
        if self.by_id.get(&id).is_some_and(|(owner, _)| owner.strong_count() > 0) {
            return;
        }
        if self.by_id.insert(id.clone(), (Arc::downgrade(client), value)).is_none() {
            self.order.push_back(id);
        }
        while self.order.len() > MOST_OWNED
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_id.remove(&oldest);
        }
    }
}
