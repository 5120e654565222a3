//! One session with a server that speaks the HTTP+SSE transport of 2024-11-05.
//!
//! A GET opens the event stream, whose first event, `endpoint`, says where messages are posted; everything that the
//! server says comes on the stream. The session is the stream's: a server knows it no longer when the stream has ended,
//! and no event can be asked for again. So when it ends, whoever waits for an answer is told so, the session is over, and
//! the client opens another one, which is what reconnecting means here.
//!
//! Invariants: messages go to the origin of the definition's url only, so its headers do too; a redirect is an error.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::debug;
use url::Url;

use super::MAX_MESSAGE;
use super::pending::{Pending, opened};
use super::remote::{RemoteTarget, Web, failed, json_body, refusal};
use crate::error::root_cause;
use crate::wire::message::Message;
use crate::wire::rpc::RpcError;
use crate::wire::server::{Opened, Reply, RequestContext, SessionHandle};
use crate::wire::sse::{Decoder, Event};

/// How long a server may take to accept a message. The answer to it may take longer: it comes on the stream.
const ACCEPT: Duration = Duration::from_secs(60);

/// Events that may come before the one that names the endpoint.
const PREAMBLE: usize = 16;

/// Headers of a call that go with its message, besides those of the definition.
const CALL_HEADERS: [HeaderName; 2] =
    [HeaderName::from_static("traceparent"), HeaderName::from_static("tracestate")];

/// A session with its stream.
#[derive(Debug)]
pub(super) struct SseSession {
    pending: Pending,
    web: Arc<Web>,
    target: Arc<RemoteTarget>,
    /// Where messages are posted.
    endpoint: Url,
    /// Fires when the stream is to be closed.
    end: CancellationToken,
    /// Fires when it is.
    gone: CancellationToken,
}

impl SseSession {
    /// Opens a stream and lets the server answer `initialize`.
    ///
    /// When the future is dropped, the stream is closed.
    pub(super) async fn open(
        target: &Arc<RemoteTarget>,
        web: &Arc<Web>,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        request: &Message,
        context: &RequestContext,
        handle: &SessionHandle,
    ) -> Result<Opened<Self>, RpcError> {
        let Some(id) = request.id() else {
            return Err(RpcError::new(RpcError::INVALID_REQUEST, "initialize must be a request"));
        };
        let mut stream = EventStream::open(target, web).await.map_err(failed)?;
        let endpoint = stream.endpoint(&target.url).await.map_err(failed)?;
        let session = Arc::new(Self {
            pending: Pending::new(handle.clone()),
            web: Arc::clone(web),
            target: Arc::clone(target),
            endpoint,
            end: stop.child_token(),
            gone: CancellationToken::new(),
        });
        let closing = session.end.clone().drop_guard();
        let answer = session.pending.expect_initialize(id.clone());
        tracker.spawn(Arc::clone(&session).read(stream));
        session.ask(id, request, context).await;
        let (answer, version) = opened(answer).await?;
        // From here on the session's end is what closes it.
        closing.disarm();
        Ok(Opened { session, response: answer.text().clone(), version })
    }

    /// Asks the server; its answer goes to `reply`.
    pub(super) async fn request(&self, request: &Message, context: &RequestContext, reply: Reply) {
        if let Some(id) = request.id()
            && self.pending.begin(request, reply)
        {
            self.ask(id, request, context).await;
        }
    }

    async fn ask(&self, id: crate::wire::RequestId, request: &Message, context: &RequestContext) {
        if let Err(why) = self.post(request, &context.headers).await {
            self.pending.fail(&id, &failed(why));
        }
    }

    /// Takes a notification, or an answer to a request of the server.
    pub(super) async fn deliver(&self, message: &Message) {
        self.pending.cancelled(message);
        if let Err(why) = self.post(message, &HeaderMap::new()).await {
            debug!(?message, "a server did not take a message: {why}");
        }
    }

    /// Closes the stream, by which the server forgets the session.
    pub(super) async fn end(&self) {
        self.end.cancel();
        self.gone.cancelled().await;
    }

    /// Posts a message. An answer to it comes on the stream, before or after the post is accepted.
    ///
    /// `call` are the headers of the call that it belongs to.
    async fn post(&self, message: &Message, call: &HeaderMap) -> Result<(), String> {
        let client = self.web.client().await?;
        let mut headers = self.target.headers.clone();
        for name in CALL_HEADERS {
            if let Some(value) = call.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let posting =
            client.post(self.endpoint.clone()).headers(headers).body(json_body(message.text())).send();
        let posted = tokio::select! {
            posted = tokio::time::timeout(ACCEPT, posting) => posted,
            () = self.end.cancelled() => return Err("the session is over".to_owned()),
        };
        let response = match posted {
            Err(_) => {
                return Err(format!("the server did not accept the message within {} s", ACCEPT.as_secs()));
            }
            Ok(Err(error)) if error.is_connect() => {
                return Err(format!("cannot connect: {}", root_cause(&error)));
            }
            Ok(Err(error)) => return Err(format!("the connection broke: {}", root_cause(&error))),
            Ok(Ok(response)) => response,
        };
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let why = refusal(response).await;
        if status == StatusCode::NOT_FOUND {
            // The server has forgotten the session; its stream is of no use any more.
            self.end.cancel();
        }
        Err(why)
    }

    /// Reads the stream until it ends.
    async fn read(self: Arc<Self>, mut stream: EventStream) {
        let reading = async {
            loop {
                match stream.next().await {
                    Ok(Some(event)) => self.take(event),
                    Ok(None) => return "the server has closed its event stream".to_owned(),
                    Err(why) => return why,
                }
            }
        };
        let why = self.end.run_until_cancelled(reading).await;
        drop(stream);
        let why = why.unwrap_or_else(|| "the session was closed".to_owned());
        debug!("{why}");
        self.end.cancel();
        self.pending.end(&failed(why));
        self.gone.cancel();
    }

    fn take(&self, event: Event) {
        if event.name.as_deref().is_some_and(|name| name != "message") || event.data.is_empty() {
            debug!(name = event.name.as_deref().unwrap_or_default(), "an event that is no message");
            return;
        }
        match Message::from_text(event.data) {
            Ok(message) => self.pending.take(&message),
            Err(error) => debug!(%error, "an event whose data is no MCP message"),
        }
    }
}

impl Drop for SseSession {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// The stream of a server's events.
struct EventStream {
    response: reqwest::Response,
    decoder: Decoder,
}

impl EventStream {
    async fn open(target: &RemoteTarget, web: &Web) -> Result<Self, String> {
        let mut headers: HeaderMap = target.headers.clone();
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let sent = web.client().await?.get(target.url.clone()).headers(headers).send().await;
        let response = sent.map_err(|error| {
            let what = if error.is_connect() { "cannot connect" } else { "the connection broke" };
            format!("{what}: {}", root_cause(&error))
        })?;
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            return Err(format!(
                "the server answers with content type {:?} and not with an event stream; is it type: streamable-http?",
                kind.unwrap_or_default()
            ));
        }
        Ok(Self { response, decoder: Decoder::new(MAX_MESSAGE) })
    }

    /// Where messages are to be posted, which the first event says.
    async fn endpoint(&mut self, url: &Url) -> Result<Url, String> {
        for _ in 0..PREAMBLE {
            let Some(event) = self.next().await? else { break };
            if event.name.as_deref() != Some("endpoint") {
                continue;
            }
            let endpoint = url
                .join(event.data.trim())
                .map_err(|error| format!("the server's endpoint {:?} is no URL: {error}", &*event.data))?;
            if endpoint.origin() != url.origin() {
                let (theirs, ours) =
                    (endpoint.origin().ascii_serialization(), url.origin().ascii_serialization());
                return Err(format!(
                    "the server's endpoint is at {theirs} and not at {ours}, where its url is"
                ));
            }
            return Ok(endpoint);
        }
        Err("the server named no endpoint for messages; is it type: streamable-http?".to_owned())
    }

    async fn next(&mut self) -> Result<Option<Event>, String> {
        loop {
            match self.decoder.next_event() {
                Ok(Some(event)) => return Ok(Some(event)),
                Ok(None) => {}
                Err(error) => return Err(format!("the event stream cannot be read: {error}")),
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.decoder.push(&chunk),
                Ok(None) => return Ok(None),
                Err(error) => return Err(format!("the event stream broke: {}", root_cause(&error))),
            }
        }
    }
}

#[cfg(test)]
mod tests;
