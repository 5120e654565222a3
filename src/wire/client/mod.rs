//! Streamable HTTP as a client: one upstream session (2025-11-25, basic/transports, "Streamable HTTP").
//!
//! [`Session::open`] sends `initialize`; the session then carries requests, each with the messages that belong to it,
//! and the GET stream. A stream that ends or breaks before its answer came is resumed by `Last-Event-ID` where the
//! server gave ids; the GET stream is opened again whenever it ends. Redirects are not followed: credentials would go where nobody meant them to.
//!
//! Errors say whether the request can have been executed ([`ClientError::was_sent`]); only what was not may be sent
//! again. Time limits are the caller's: every future here may be dropped at any await.

mod answer;
mod error;
mod events;
mod origin;
mod session;

use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub use answer::Said;
pub use error::{ClientError, StatusError};
pub use origin::Origin;
pub use session::{ClientConfig, Session};

/// A pool of keep-alive connections, shared by all sessions. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool(Client<HttpConnector, Full<Bytes>>);

/// Idle connections are given up after this long. Shorter than the other side's patience, so that a request rarely
/// meets a connection that is being closed.
const IDLE: std::time::Duration = std::time::Duration::from_secs(20);

impl Pool {
    /// An empty pool.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            // Only what hyper knows was never written to the connection.
            .retry_canceled_requests(true)
            .build(connector);
        Self(client)
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
pub(crate) mod tests;
