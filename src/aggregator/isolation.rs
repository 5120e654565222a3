//! How clients get sessions of their own with a server, where they do.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::upstream::Dialer;

/// How clients get sessions of their own.
pub struct Isolation {
    pub(super) dialer: Dialer,
    pub(super) drain: Duration,
    /// Kept as long as there are such sessions.
    _keep: Arc<dyn Any + Send + Sync>,
    /// Fires when sessions are to be had another way, or not any more.
    pub(super) is_over: CancellationToken,
}

impl Isolation {
    /// Sessions are opened with `dialer`. When they are not to be had any more, calls in flight get `drain` to end; until
    /// the last is closed, `keep` is kept.
    pub fn new(dialer: Dialer, drain: Duration, keep: Arc<dyn Any + Send + Sync>) -> Self {
        Self { dialer, drain, _keep: keep, is_over: CancellationToken::new() }
    }
}

impl fmt::Debug for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Isolation")
            .field("dialer", &self.dialer)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}
