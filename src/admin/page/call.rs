//! A call of a tool, the way every client makes it: a session with the aggregate, the call, the end of the session.
//!
//! Nothing goes over the network: the requests are handed to the endpoint as if they had arrived there. So they are named,
//! limited, recorded and cancelled like everybody's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::aggregator::endpoint::Aggregate;
use crate::aggregator::exposure::EXPOSURE;
use crate::aggregator::scope::ALL_PATH;
use crate::wire::json::quoted;
use crate::wire::message::{Message, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::{Body, PROTOCOL_VERSION, SESSION_ID, StreamableHttp};
use crate::wire::sse::Decoder;

/// How long a call may take; nobody looks at a page for longer.
pub(super) const LONGEST: Duration = Duration::from_secs(300);

/// The largest answer that is read, in bytes.
const LARGEST: usize = 64 << 20;

/// Not the newest: with this version streams are not cut to be polled (2025-11-25, basic/transports).
const VERSION: &str = "2025-06-18";

/// How a call came out, and how long it took.
#[derive(Debug)]
pub(super) struct Called {
    pub(super) outcome: Result<Value, CallError>,
    pub(super) took: Duration,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// The aggregate, or the server, answers with an error.
    #[error("{message} (code {code})")]
    Answered { message: String, code: i64 },
    /// It takes too long.
    #[error("there was no answer within {} s, so the call was cancelled", LONGEST.as_secs())]
    TooSlow,
    /// Whoever asked has gone.
    #[error("the call was cancelled")]
    Cancelled,
    /// The answer is none.
    #[error("{0}")]
    Unreadable(String),
}

/// Calls `tool` with `arguments`, the text of a JSON object. Cancels it when `cancelled` comes.
pub(super) async fn call(
    aggregate: Arc<StreamableHttp<Aggregate>>,
    tool: &str,
    arguments: &str,
    cancelled: CancellationToken,
) -> Called {
    let started = Instant::now();
    let outcome = async {
        let visit = Visit::open(aggregate).await?;
        let begun = Instant::now();
        let call = tokio::time::timeout(LONGEST, visit.call(tool, arguments));
        let outcome = match cancelled.run_until_cancelled(call).await {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(CallError::TooSlow),
            None => Err(CallError::Cancelled),
        };
        let took = begun.elapsed();
        // What is still under way is cancelled by that.
        visit.close().await;
        Ok((outcome, took))
    };
    match outcome.await {
        Ok((outcome, took)) => Called { outcome, took },
        Err(error) => Called { outcome: Err(error), took: started.elapsed() },
    }
}

/// A session for one call.
struct Visit {
    aggregate: Arc<StreamableHttp<Aggregate>>,
    session: Option<HeaderValue>,
}

impl Visit {
    async fn open(aggregate: Arc<StreamableHttp<Aggregate>>) -> Result<Self, CallError> {
        let mut visit = Self { aggregate, session: None };
        let params = json!({
            "protocolVersion": VERSION,
            "capabilities": {},
            "clientInfo": {"name": "sidegate-page", "version": env!("CARGO_PKG_VERSION")},
        });
        let response = visit.send(Method::POST, rpc::request(0, "initialize", &params.to_string())).await;
        visit.session = response.headers().get(SESSION_ID).cloned();
        visit.answer(response, 0).await?;
        visit.send(Method::POST, rpc::notification("notifications/initialized", None)).await;
        Ok(visit)
    }

    async fn call(&self, tool: &str, arguments: &str) -> Result<Value, CallError> {
        const ID: u64 = 1;
        // As it was written: numbers keep their spelling.
        let params = format!(r#"{{"name":{},"arguments":{arguments}}}"#, quoted(tool));
        let response = self.send(Method::POST, rpc::request(ID, "tools/call", &params)).await;
        self.answer(response, ID).await
    }

    async fn close(self) {
        if self.session.is_some() {
            let response = self.send(Method::DELETE, ByteString::new()).await;
            debug!(status = %response.status(), "the page's session is over");
        }
    }

    async fn send(&self, method: Method, text: ByteString) -> Response<Body> {
        let mut request = Request::new(Full::new(text.into_bytes()));
        *request.method_mut() = method;
        *request.uri_mut() = http::Uri::from_static(ALL_PATH);
        let headers = request.headers_mut();
        for (name, value) in [
            (header::HOST, "localhost"),
            (header::ACCEPT, "application/json, text/event-stream"),
            (header::CONTENT_TYPE, "application/json"),
            // Whatever clients are shown: tools are called by their own names here.
            (EXPOSURE, "direct"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, session.clone());
            headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(VERSION));
        }
        Arc::clone(&self.aggregate).handle(request).await
    }

    /// Reads up to the answer to the request `id`.
    async fn answer(&self, response: Response<Body>, id: u64) -> Result<Value, CallError> {
        let (parts, body) = response.into_parts();
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let mut body = Limited::new(body, LARGEST);
        if kind.is_none_or(|kind| !kind.starts_with("text/event-stream")) {
            let body = body.collect().await.map_err(|error| CallError::Unreadable(error.to_string()))?;
            return result(&body.to_bytes(), parts.status);
        }
        let mut decoder = Decoder::new(LARGEST);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| CallError::Unreadable(error.to_string()))?;
            let Ok(chunk) = frame.into_data() else { continue };
            decoder.push(&chunk);
            while let Some(event) =
                decoder.next_event().map_err(|error| CallError::Unreadable(error.to_string()))?
            {
                let Ok(message) = Message::from_text(event.data.clone()) else { continue };
                match message.view() {
                    View::Response { id: Some(answered), .. } if answered == id.to_string() => {
                        return result(&event.data.into_bytes(), parts.status);
                    }
                    View::Request { id, method, .. } => {
                        let answer = match method {
                            "ping" => rpc::result(id, "{}"),
                            // Nothing was offered; whoever asks all the same must not wait for ever.
                            _ => RpcError::new(
                                RpcError::METHOD_NOT_FOUND,
                                format!("{method} is not supported by the page"),
                            )
                            .response(Some(id)),
                        };
                        Box::pin(self.send(Method::POST, answer)).await;
                    }
                    // Progress and the like: the page shows the end.
                    _ => {}
                }
            }
        }
        Err(CallError::Unreadable("the stream ended without an answer".to_owned()))
    }
}

/// The `result` of an answer.
fn result(text: &Bytes, status: StatusCode) -> Result<Value, CallError> {
    let unreadable =
        |why: String| CallError::Unreadable(format!("the answer ({status}) cannot be read: {why}"));
    let mut answer: Value = serde_json::from_slice(text).map_err(|error| unreadable(error.to_string()))?;
    let error = answer["error"].take();
    if !error.is_null() {
        let message = error["message"].as_str().unwrap_or("it did not say why").to_owned();
        return Err(CallError::Answered { message, code: error["code"].as_i64().unwrap_or_default() });
    }
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(unreadable("it has neither result nor error".to_owned())),
    }
}
