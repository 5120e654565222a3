//! What the owner of an instance can ask of it through the control socket.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /v1/status` | says what the instance, its gateway and its servers are |
//! | `POST /v1/gateway/restart` | replaces the gateway without a gap |

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::gateways::Gateways;
use super::info::{GatewayInfo, InstanceInfo};
use crate::error::chain;
use crate::reconciler::Statuses;
use crate::wire::server::Body;

/// What operations work with.
pub(super) struct Operations {
    pub(super) info: InstanceInfo,
    pub(super) gateways: Arc<Gateways>,
    pub(super) statuses: watch::Receiver<Statuses>,
}

impl Operations {
    /// Answers one request.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/status") => answer(StatusCode::OK, &self.status()),
            (&Method::POST, "/v1/gateway/restart") => {
                match self.gateways.swap(None, "its restart was asked for").await {
                    Ok(info) => answer(StatusCode::OK, &gateway(&info)),
                    Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": chain(&error)})),
                }
            }
            (method, path) => {
                let error = format!("{method} {path} is not known to this version of sidegate");
                answer(StatusCode::NOT_FOUND, &json!({"error": error}))
            }
        }
    }

    fn status(&self) -> Value {
        let statuses = self.statuses.borrow();
        let servers: Vec<Value> = statuses
            .iter()
            .map(|(name, status)| {
                let mut server = json!({
                    "name": name.as_str(),
                    "state": status.state.name(),
                    "since": seconds(status.since),
                    "tools": status.tools,
                });
                if let Some(reason) = status.state.reason() {
                    server["reason"] = reason.into();
                }
                if let Some((failures, retry_in)) = status.state.next_try() {
                    server["failures"] = failures.into();
                    server["retryInSeconds"] = retry_in.as_secs_f64().into();
                }
                if let Some(stale) = &status.stale {
                    server["stale"] = stale.as_str().into();
                }
                server
            })
            .collect();
        let front = self.gateways.front().status();
        let mut gateway = gateway(&self.gateways.info().borrow());
        gateway["generation"] = front.in_force.map(|now| now.generation.to_string()).into();
        json!({
            "schema": 1,
            "url": self.info.url,
            "pid": self.info.pid,
            "runtimeDir": self.info.runtime_dir,
            "gateway": gateway,
            "servers": servers,
        })
    }
}

fn gateway(info: &GatewayInfo) -> Value {
    let mut value = serde_json::to_value(info).unwrap_or_default();
    value["reason"] = info.reason.as_str().into();
    value
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::text(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
