//! The requests of the client that are not answered yet.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio_util::sync::CancellationToken;

use crate::sync::lock;
use crate::wire::message::RequestId;
use crate::wire::rpc::RpcError;

/// Requests that may be under way at once; as many as the aggregate takes of one session.
const MOST: usize = 4096;

/// All requests that are under way, by their ids.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<HashMap<RequestId, Arc<Call>>>);

/// A request that is under way.
#[derive(Debug, Default)]
pub(super) struct Call {
    /// Its bytes have left us.
    pub(super) sent: CancellationToken,
    /// Nobody waits for it any more.
    pub(super) over: CancellationToken,
    cancelled: AtomicBool,
}

impl Call {
    /// Whether the client wants no answer.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }

    /// The client wants no answer. Whether that is new.
    pub(super) fn cancel(&self) -> bool {
        !self.cancelled.swap(true, Ordering::AcqRel)
    }
}

impl Calls {
    /// Enters a request.
    ///
    /// # Errors
    ///
    /// There are too many, or another one has its id.
    pub(super) fn begin(&self, id: &RequestId) -> Result<Arc<Call>, RpcError> {
        let mut calls = lock(&self.0);
        if calls.len() >= MOST {
            let why = format!("{MOST} requests are under way; wait for some to end");
            return Err(RpcError::new(RpcError::UPSTREAM, why));
        }
        match calls.entry(id.clone()) {
            Entry::Occupied(_) => {
                let why = format!("id {} is that of a request which is still under way", id.as_raw());
                Err(RpcError::new(RpcError::INVALID_REQUEST, why))
            }
            Entry::Vacant(entry) => Ok(Arc::clone(entry.insert(Arc::default()))),
        }
    }

    pub(super) fn get(&self, id: &RequestId) -> Option<Arc<Call>> {
        lock(&self.0).get(id).cloned()
    }

    /// Takes a request out, where nobody else has.
    pub(super) fn end(&self, id: &RequestId) -> Option<Arc<Call>> {
        let call = lock(&self.0).remove(id);
        if let Some(call) = &call {
            call.over.cancel();
        }
        call
    }

    /// Takes all requests out.
    pub(super) fn end_all(&self) -> Vec<(RequestId, Arc<Call>)> {
        let calls: Vec<_> = lock(&self.0).drain().collect();
        for (_, call) in &calls {
            call.over.cancel();
        }
        calls
    }
}
