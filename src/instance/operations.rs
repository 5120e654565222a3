//! What the owner of an instance can ask of it through the control socket.
//!
//! | request | does |
//! | --- | --- |
//! | `GET /v1/status` | says what the instance, its gateway and its servers are: [`Status`] |
//! | `GET /v1/calls/ID` | says what is known of the calls with an id: [`Calls`](crate::admin::calls::Calls) |
//! | `POST /v1/gateway/restart` | replaces the gateway without a gap |
//! | `POST /v1/servers/NAME/start`, `…/stop`, `…/restart` | answers when it is done |

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::StartError;
use super::gateways::Gateways;
use super::info::GatewayInfo;
use super::status::{Identity, status};
use crate::admin::calls;
use crate::admin::status::Status;
use crate::aggregator::registry::Registry;
use crate::error::chain;
use crate::reconciler::{Done, OperateError, Operator, Problems, Statuses};
use crate::telemetry::calls::CallLog;
use crate::telemetry::secrets::Secrets;
use crate::wire::server::Body;

/// What operations work with.
pub(super) struct Operations {
    pub(super) identity: Identity,
    pub(super) gateways: Arc<Gateways>,
    pub(super) registry: Arc<Registry>,
    pub(super) statuses: watch::Receiver<Statuses>,
    pub(super) problems: watch::Receiver<Problems>,
    pub(super) operator: Operator,
    pub(super) calls: Arc<CallLog>,
    pub(super) secrets: Secrets,
}

impl Operations {
    /// Answers one request.
    pub(super) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Body> {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/v1/status") => {
                answer(StatusCode::OK, &serde_json::to_value(self.status()).unwrap_or_default())
            }
            (&Method::GET, path) if let Some(id) = path.strip_prefix("/v1/calls/") => {
                match calls::find(&self.calls, id) {
                    Ok(calls) => answer(StatusCode::OK, &serde_json::to_value(calls).unwrap_or_default()),
                    Err(error) => answer(StatusCode::NOT_FOUND, &json!({"error": error.to_string()})),
                }
            }
            (&Method::POST, "/v1/gateway/restart") => {
                match self.gateways.swap(None, "its restart was asked for").await {
                    Ok(info) => answer(StatusCode::OK, &gateway(&info)),
                    Err(error @ StartError::Elsewhere) => {
                        answer(StatusCode::CONFLICT, &json!({"error": error.to_string()}))
                    }
                    Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, &json!({"error": chain(&error)})),
                }
            }
            (&Method::POST, path) if let Some((server, action)) = server_action(path) => {
                let done = match action {
                    Action::Start => self.operator.start(server).await,
                    Action::Stop => self.operator.stop(server).await,
                    Action::Restart => self.operator.restart(server).await,
                };
                operated(server, done)
            }
            (method, path) => {
                let error = format!("{method} {path} is not known to this version of sidegate");
                answer(StatusCode::NOT_FOUND, &json!({"error": error}))
            }
        }
    }

    /// What the instance is at this moment.
    pub(super) fn status(&self) -> Status {
        status(
            &self.identity,
            &self.gateways,
            &self.statuses.borrow(),
            &self.problems.borrow(),
            &self.registry.catalogue(),
            &self.secrets,
        )
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Start,
    Stop,
    Restart,
}

/// Takes `/v1/servers/NAME/ACTION` apart.
fn server_action(path: &str) -> Option<(&str, Action)> {
    let (server, action) = path.strip_prefix("/v1/servers/")?.split_once('/')?;
    let action = match action {
        "start" => Action::Start,
        "stop" => Action::Stop,
        "restart" => Action::Restart,
        _ => return None,
    };
    Some((server, action))
}

fn operated(server: &str, done: Result<Done, OperateError>) -> Response<Body> {
    let status = match &done {
        Ok(_) => StatusCode::OK,
        Err(OperateError::NotFound(_)) => StatusCode::NOT_FOUND,
        Err(OperateError::NotRunning { .. }) => StatusCode::CONFLICT,
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let value = match done {
        Ok(done) => {
            json!({"schema": 1, "server": server, "result": done.word(), "message": sentence(done, server)})
        }
        Err(error) => json!({"error": chain(&error)}),
    };
    answer(status, &value)
}

/// What was done, in the words of the commands; the management tools have others.
fn sentence(done: Done, server: &str) -> String {
    match done {
        Done::Started => format!("Started the MCP server '{server}'"),
        Done::AlreadyRunning => format!("The MCP server '{server}' is running already"),
        Done::Stopped => format!("Stopped the MCP server '{server}'"),
        Done::AlreadyStopped => format!("The MCP server '{server}' is stopped already"),
        Done::Restarted => format!("Restarted the MCP server '{server}'"),
    }
}

fn gateway(info: &GatewayInfo) -> Value {
    let mut value = serde_json::to_value(info).unwrap_or_default();
    value["reason"] = info.reason.as_str().into();
    value
}

fn answer(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::text(format!("{value}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
