//! Whom requests go to, which may change while sessions are open.

use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use http::{HeaderMap, Uri};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::error::ClientError;

/// Whom to ask at the moment: the gateway, which may be replaced by another while sessions are open.
#[derive(Debug)]
pub struct Origin {
    authority: Authority,
    pub(super) headers: HeaderMap,
    requests: TaskTracker,
}

impl Origin {
    /// An origin at `authority`, over plain HTTP; `headers` go with every request to it.
    pub fn new(authority: Authority, headers: HeaderMap) -> Arc<Self> {
        Arc::new(Self { authority, headers, requests: TaskTracker::new() })
    }

    /// Waits until no request is under way. For an origin that has been replaced. GET streams do not count: they move.
    pub async fn idle(&self) {
        self.requests.close();
        self.requests.wait().await;
    }

    pub(super) fn uri(&self, path: &PathAndQuery) -> Result<Uri, ClientError> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(http::uri::Scheme::HTTP);
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path.clone());
        Uri::from_parts(parts)
            .map_err(|error| ClientError::Protocol(format!("the address is wrong: {error}")))
    }
}

/// A request that is counted at its origin.
pub(super) struct Lease {
    pub(super) origin: Arc<Origin>,
    _counted: TaskTrackerToken,
}

impl Lease {
    /// The origin of a request that begins now; it is counted there as long as the value lives.
    pub(super) fn take(current: &watch::Receiver<Arc<Origin>>) -> Self {
        loop {
            let origin = Arc::clone(&current.borrow());
            let token = origin.requests.token();
            // Whoever replaces an origin waits for its requests afterwards. A request that is not counted by then must
            // not begin there.
            if Arc::ptr_eq(&origin, &current.borrow()) {
                return Self { origin, _counted: token };
            }
        }
    }
}
