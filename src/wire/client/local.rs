//! Servers in this process.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Request, Response, Uri};
use http_body_util::Full;

use super::Body;
use crate::wire::server::{self, Endpoint, StreamableHttp};

/// Answers requests without a connection.
pub trait Serve: Send + Sync + 'static {
    /// Answers a request, whose URI is a path.
    fn serve(self: Arc<Self>, request: Request<Full<Bytes>>) -> BoxFuture<'static, Response<server::Body>>;
}

impl<E: Endpoint> Serve for StreamableHttp<E> {
    fn serve(self: Arc<Self>, request: Request<Full<Bytes>>) -> BoxFuture<'static, Response<server::Body>> {
        self.handle(request).boxed()
    }
}

/// A server that can be asked without a connection, as well as through an origin.
#[derive(Clone)]
pub struct Local {
    server: Arc<dyn Serve>,
    path: PathAndQuery,
}

impl Local {
    /// What `server` has at `path`.
    pub fn new(server: Arc<dyn Serve>, path: PathAndQuery) -> Self {
        Self { server, path }
    }

    /// Answers a request. What says that an answer is the server's own, `marker`, is put on it.
    pub(super) async fn ask(
        &self,
        mut request: Request<Full<Bytes>>,
        marker: Option<&HeaderName>,
    ) -> Response<Body> {
        *request.uri_mut() = Uri::from(self.path.clone());
        let mut response = Arc::clone(&self.server).serve(request).await;
        if let Some(marker) = marker {
            response.headers_mut().insert(marker.clone(), HeaderValue::from_static("local"));
        }
        response.map(Body::Local)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local").field("path", &self.path).finish_non_exhaustive()
    }
}
