//! How long things may take with one server.

use std::time::Duration;

/// How long things may take with one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For connecting, `initialize` and lists; also how long a call waits for a session.
    pub timeout: Duration,
    /// For one call; progress begins it again. `None`: no limit.
    pub call_timeout: Option<Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30), call_timeout: None }
    }
}
