//! What is served on the listen address: the aggregate, the page, and whether we are well.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::token::Token;
use crate::admin::page::{self, Page};
use crate::aggregator::endpoint::Aggregate;
use crate::aggregator::registry::Registry;
use crate::aggregator::scope::{ALL_PATH, Scope};
use crate::error::chain;
use crate::reconciler::{Front, Statuses};
use crate::telemetry::metrics::{Metrics, TEXT_TYPE};
use crate::wire::server::{Body, HostPolicy, StreamableHttp};

/// Everything that a request may ask for.
pub(super) struct Surface {
    pub(super) aggregate: Arc<StreamableHttp<Aggregate>>,
    pub(super) hosts: HostPolicy,
    pub(super) token: Option<Arc<Token>>,
    pub(super) page: Arc<Page>,
    pub(super) statuses: watch::Receiver<Statuses>,
    pub(super) registry: Arc<Registry>,
    pub(super) front: Arc<Front>,
    pub(super) metrics: Arc<Metrics>,
}

impl Surface {
    /// Answers one request.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        if self.is_mcp(request.uri().path()) {
            if let Some(refused) = self.without_token(request.headers()) {
                return refused;
            }
            return Arc::clone(&self.aggregate).handle(request).await;
        }
        if let Err(error) = self.hosts.check(request.uri(), request.headers()) {
            return text(StatusCode::FORBIDDEN, format!("{error}\n"));
        }
        if Page::is_at(request.uri().path()) {
            return Arc::clone(&self.page).handle(request).await;
        }
        match request.uri().path() {
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => self.readiness(),
            // It names servers and tools.
            "/metrics" => match self.without_token(request.headers()) {
                Some(refused) => refused,
                None => self.metrics().await,
            },
            path => text(StatusCode::NOT_FOUND, format!("{}\n", self.nothing_at(path, request.headers()))),
        }
    }

    /// What to say of a path at which nothing is.
    fn nothing_at(&self, path: &str, headers: &HeaderMap) -> String {
        match path.strip_prefix(ALL_PATH).and_then(|rest| rest.strip_prefix('/')) {
            // The names of servers are for those who may ask for them.
            Some(server) if !server.is_empty() && self.without_token(headers).is_none() => {
                self.registry.no_server(server)
            }
            _ => format!(
                "nothing at {path}; the MCP endpoint is {ALL_PATH}, that of one server alone {ALL_PATH}/<server>, the page {}",
                page::ROOT
            ),
        }
    }

    /// What a request without the token gets, where one is needed.
    fn without_token(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        let token = self.token.as_ref()?;
        if token.is_in(headers) {
            return None;
        }
        let mut response = text(StatusCode::UNAUTHORIZED, "a bearer token is needed\n".to_owned());
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        Some(response)
    }

    async fn metrics(&self) -> Response<Body> {
        let metrics = Arc::clone(&self.metrics);
        // It reads files of every child.
        let collected = tokio::task::spawn_blocking(move || metrics.text()).await;
        let why = match collected {
            Ok(Ok(collected)) => {
                let mut response = text(StatusCode::OK, collected);
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TEXT_TYPE));
                return response;
            }
            Ok(Err(error)) => chain(&error),
            Err(error) => error.to_string(),
        };
        text(StatusCode::INTERNAL_SERVER_ERROR, format!("no metrics: {why}\n"))
    }

    /// Whether there is an MCP endpoint at `path`: that of all servers, or of one that is defined.
    fn is_mcp(&self, path: &str) -> bool {
        match Scope::of_path(path) {
            Some(Scope::All) => true,
            Some(Scope::Server(server)) => self.statuses.borrow().contains_key(&server),
            None => false,
        }
    }

    /// Ready: a generation is in force, where the gateway has any, and every server that starts by itself has succeeded or failed once.
    fn readiness(&self) -> Response<Body> {
        let mut missing = Vec::new();
        if self.front.status().is_some_and(|status| status.in_force.is_none()) {
            missing.push("gateway: no generation is in force".to_owned());
        }
        let statuses = self.statuses.borrow();
        let unsettled = statuses.iter().filter(|(_, status)| !status.state.is_settled());
        missing.extend(unsettled.map(|(name, status)| format!("{name}: {}", status.state)));
        if missing.is_empty() {
            text(StatusCode::OK, "ready\n".to_owned())
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready\n{}\n", missing.join("\n")))
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Body::text(text));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
