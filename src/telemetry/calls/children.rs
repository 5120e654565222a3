//! Which child answers the calls of which session, and how long it took: what the bridge knows and the relay does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// The children of stdio servers, by the ids of the sessions that the bridge has given out.
#[derive(Debug, Default)]
pub struct Children(Mutex<HashMap<Arc<str>, Child>>);

#[derive(Debug)]
struct Child {
    pid: u32,
    /// Calls under way, by their JSON-RPC ids: where the time goes that the child took.
    calls: HashMap<u64, Arc<Served>>,
}

/// What a child took for a call.
#[derive(Debug, Default)]
pub(super) struct Served(Mutex<(Option<Instant>, Option<Duration>)>);

impl Served {
    pub(super) fn took(&self) -> Option<Duration> {
        lock(&self.0).1
    }
}

impl Children {
    /// `session` is answered by the process `pid`.
    pub fn opened(&self, session: &str, pid: u32) {
        lock(&self.0).insert(session.into(), Child { pid, calls: HashMap::new() });
    }

    /// The session's child has ended.
    pub fn closed(&self, session: &str) {
        lock(&self.0).remove(session);
    }

    /// The child has been given a request.
    pub fn asked(&self, session: &str, id: u64) {
        if let Some(served) = self.served(session, id) {
            lock(&served.0).0 = Some(Instant::now());
        }
    }

    /// The child has answered a request.
    pub fn answered(&self, session: &str, id: u64) {
        if let Some(served) = self.served(session, id) {
            let mut times = lock(&served.0);
            times.1 = times.0.map(|asked| asked.elapsed());
        }
    }

    fn served(&self, session: &str, id: u64) -> Option<Arc<Served>> {
        lock(&self.0).get(session)?.calls.get(&id).cloned()
    }

    /// A call is about to be sent; gives the child that will get it, where it is one of ours, and the session again.
    pub(super) fn expect(&self, session: &str, id: u64) -> Option<(u32, Arc<str>, Arc<Served>)> {
        let mut children = lock(&self.0);
        let session = Arc::clone(children.get_key_value(session)?.0);
        let child = children.get_mut(&session)?;
        let served = Arc::<Served>::default();
        child.calls.insert(id, Arc::clone(&served));
        Some((child.pid, session, served))
    }

    /// The call is over.
    pub(super) fn forget(&self, session: &str, id: u64) {
        if let Some(child) = lock(&self.0).get_mut(session) {
            child.calls.remove(&id);
        }
    }
}
