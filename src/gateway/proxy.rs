//! One call.

use std::error::Error;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::body::ResponseBody;
use super::headers::remove_hop_by_hop;
use super::pool::{Backend, Connection};
use super::route::{Route, Target, Upstream};
use super::state::Gateway;
use crate::error::chain;

/// Answers one request on the data port.
pub(super) async fn call(gateway: &Gateway, request: Request<Incoming>) -> Response<ResponseBody> {
    let found = gateway.snapshot().routes.find(request.uri().path()).cloned();
    let Some(route) = found else {
        gateway.metrics.count_unrouted();
        return plain(StatusCode::NOT_FOUND, "route not found");
    };
    let start = Instant::now();
    let response = answer(&route, request).await;
    route.metrics.count(response.status(), start.elapsed());
    debug!(
        route = route.name,
        status = response.status().as_u16(),
        micros = start.elapsed().as_micros(),
        "call"
    );
    response
}

async fn answer(route: &Route, mut request: Request<Incoming>) -> Response<ResponseBody> {
    if !route.admits(request.headers()) {
        return plain(StatusCode::FORBIDDEN, "authorization failed");
    }
    let mut response = match &route.target {
        Target::Answer { status, body } => {
            let mut response = Response::new(ResponseBody::Own(body.clone()));
            *response.status_mut() = *status;
            response
        }
        Target::Upstream(upstream) => {
            *request.uri_mut() = upstream.uri_of(request.uri());
            *request.version_mut() = Version::HTTP_11;
            upstream.rewrite(request.headers_mut());
            match forward(&upstream.backend, request).await {
                Ok(response) => response,
                Err(failure) => {
                    warn!(route = route.name, error = &failure as &dyn Error, "upstream call failed");
                    plain(StatusCode::SERVICE_UNAVAILABLE, failure.body())
                }
            }
        }
    };
    route.response.apply(response.headers_mut());
    response
}

impl Upstream {
    fn uri_of(&self, incoming: &Uri) -> Uri {
        let Some(query) = incoming.query() else { return self.uri.clone() };
        let separator = if self.uri.query().is_some() { '&' } else { '?' };
        // Both parts have been valid each for itself, and stay so together.
        Uri::try_from(format!("{}{separator}{query}", self.uri)).unwrap_or_else(|_| self.uri.clone())
    }
}

/// Why a backend gave no response. The texts are agentgateway's, and callers decide by them what may be sent again.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Nothing was sent.
    #[error("no connection")]
    Connect(#[source] std::io::Error),
    /// It may have been executed.
    #[error("no response")]
    Send(#[source] hyper::Error),
}

impl Failure {
    fn body(&self) -> String {
        let (stage, source): (_, &(dyn Error + 'static)) = match self {
            Self::Connect(error) => ("Connect", error),
            Self::Send(error) => ("SendRequest", error),
        };
        format!("upstream call failed: {stage}: {}", chain(source))
    }
}

/// Sends on an idle connection if there is one; if that took none of the request, once more on a new one.
async fn forward(backend: &Backend, request: Request<Incoming>) -> Result<Response<ResponseBody>, Failure> {
    let request = match backend.reuse() {
        None => request,
        Some(mut connection) => match connection.send(request).await {
            Ok(response) => return Ok(relay(response, connection, backend)),
            Err(mut unsent) => match unsent.take_message() {
                Some(request) => request,
                None => return Err(Failure::Send(unsent.into_error())),
            },
        },
    };
    let mut connection = backend.connect().await.map_err(Failure::Connect)?;
    match connection.send(request).await {
        Ok(response) => Ok(relay(response, connection, backend)),
        Err(unsent) => Err(Failure::Send(unsent.into_error())),
    }
}

fn relay(response: Response<Incoming>, connection: Connection, backend: &Backend) -> Response<ResponseBody> {
    let (mut head, incoming) = response.into_parts();
    remove_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    Response::from_parts(head, ResponseBody::Upstream(backend.body(incoming, connection)))
}

pub(super) fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Own(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}
