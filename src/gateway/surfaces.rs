//! What stands on the admin, stats and readiness ports.

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use super::body::ResponseBody;
use super::error::Surface;
use super::proxy::{self, plain};
use super::state::Gateway;

/// Answers one request on `surface`. All of them read only.
pub(super) async fn answer(
    gateway: &Gateway,
    surface: Surface,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    match (surface, request.method(), request.uri().path()) {
        (Surface::Data, _, _) => proxy::call(gateway, request).await,
        // The data port is bound and the first configuration in force before this port accepts.
        (Surface::Readiness, &Method::GET, "/healthz/ready") => plain(StatusCode::OK, "ready"),
        (Surface::Stats, &Method::GET, "/metrics") => {
            typed(gateway.metrics.render(), "text/plain; version=0.0.4; charset=utf-8")
        }
        (Surface::Admin, &Method::GET, "/config_dump") => match gateway.snapshot().dump() {
            Ok(json) => typed(json, "application/json"),
            Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        },
        _ => plain(StatusCode::NOT_FOUND, "not found"),
    }
}

fn typed(body: impl Into<bytes::Bytes>, content_type: &'static str) -> Response<ResponseBody> {
    let mut response = plain(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
