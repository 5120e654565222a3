//! Streamable HTTP as a client: one upstream session (2025-11-25, basic/transports, "Streamable HTTP").
//!
//! [`Session::open`] sends `initialize`; the session then carries requests, each with the messages that belong to it,
//! and the GET stream. A stream that ends or breaks before its answer came is resumed by `Last-Event-ID` where the
//! server gave ids; the GET stream is opened again whenever it ends. Redirects are not followed: credentials would go where nobody meant them to.
//!
//! Errors say whether the request can have been executed ([`ClientError::was_sent`]); only what was not may be sent
//! again. Time limits are the caller's: every future here may be dropped at any await.

mod answer;
mod direct;
mod error;
mod events;
mod local;
mod origin;
mod said;
mod session;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::net::TcpStream;
use tokio::task::coop::poll_proceed;

use crate::http1;
use crate::wire::server;

pub use error::{ClientError, StatusError};
pub use local::{Local, Serve};
pub use origin::{Habits, InvalidOrigin, Origin};
pub use said::Said;
pub use session::{ClientConfig, Session};

/// A pool of keep-alive connections, shared by all sessions. Cheap to clone. Origins at an address of their own, which a gateway of
/// ours is, are asked without it.
#[derive(Clone, Debug)]
pub struct Pool(Connections);

/// A gateway of ours is on this machine: calls to it do not carry the code for TLS.
#[derive(Clone, Debug)]
enum Connections {
    Plain(Client<HttpConnector, Full<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
}

/// How long a connection may take. The system tries for two minutes, with longer and longer pauses: where a gateway hung, took no
/// connection any more and was replaced, a new try finds its successor at once, and the old one only at the end of its pause.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Idle connections are given up after this long. Shorter than the other side's patience, so that a request rarely
/// meets a connection that is being closed.
const IDLE: std::time::Duration = std::time::Duration::from_secs(20);

/// Idle connections to one host that are kept. Each holds some 30 KiB, and hundreds of servers that come at once leave
/// hundreds behind; calls that follow one another need one each.
const MOST_IDLE: usize = 64;

impl Pool {
    /// An empty pool of plain connections.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        Self(Connections::Plain(client(connector)))
    }

    /// An empty pool that speaks TLS, as `tls` says, where a URL begins with `https`.
    pub fn with_tls(tls: Arc<rustls::ClientConfig>) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        connector.enforce_http(false);
        Self(Connections::Tls(client(HttpsConnector::from((connector, tls)))))
    }

    async fn request(&self, request: Request<Full<Bytes>>) -> Result<Response<Body>, ClientError> {
        let sent = match &self.0 {
            Connections::Plain(client) => client.request(request),
            Connections::Tls(client) => client.request(request),
        };
        match sent.await {
            Ok(response) => Ok(response.map(|body| Body::Carried(http1::Body::driven_elsewhere(body)))),
            Err(error) if error.is_connect() => Err(ClientError::Connect(error.into())),
            Err(error) => Err(ClientError::Send(error.into())),
        }
    }
}

/// The body of a response.
enum Body {
    /// Of a connection.
    Carried(http1::Body<TcpStream, Full<Bytes>>),
    /// Of a server in this process.
    Local(server::Body),
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Carried(body) => Pin::new(body).poll_frame(cx),
            Self::Local(body) => {
                // As a connection does by itself: what always has something to say leaves others their turn.
                let budget = ready!(poll_proceed(cx));
                let frame = Pin::new(body).poll_frame(cx).map_err(|never| match never {});
                if frame.is_ready() {
                    budget.made_progress();
                }
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Carried(body) => body.is_end_stream(),
            Self::Local(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Carried(body) => body.size_hint(),
            Self::Local(body) => body.size_hint(),
        }
    }
}

fn client<C: Connect + Clone>(connector: C) -> Client<C, Full<Bytes>> {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .pool_max_idle_per_host(MOST_IDLE)
        // Only what hyper knows was never written to the connection.
        .retry_canceled_requests(true)
        .build(connector)
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
pub(crate) mod tests;
