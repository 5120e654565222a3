//! Takes the client's messages to the server, and brings what comes back to the outbox.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use bytestring::ByteString;
use http::StatusCode;
use tokio::io::AsyncRead;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::calls::{Call, Calls};
use super::old_clients::{lowered, raised};
use super::outbox::Outbox;
use super::{GOODBYE, PipeConfig, UNSENT};
use crate::wire::client::{ClientError, Session};
use crate::wire::json;
use crate::wire::message::{Incoming, Message, RequestId, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::stdio::LineReader;
use crate::wire::version::ProtocolVersion;

/// The longest line taken, in bytes.
const LONGEST: usize = UNSENT;

/// A cancellation can overtake its request on the way, so it is sent again while the request is under way: this often, and
/// at first after this time, then after twice of it, and so on.
const CANCEL_TRIES: u32 = 6;
const CANCEL_AGAIN: Duration = Duration::from_millis(50);

pub(super) struct Carrier {
    config: PipeConfig,
    outbox: Outbox,
    session: OnceLock<Arc<Session>>,
    calls: Calls,
    /// The tasks of requests.
    requests: TaskTracker,
    /// All other tasks.
    tracker: TaskTracker,
    cut: CancellationToken,
    unsent: Arc<Semaphore>,
    lost: mpsc::Sender<ClientError>,
    lost_receiver: tokio::sync::Mutex<mpsc::Receiver<ClientError>>,
}

impl Carrier {
    pub(super) fn new(config: PipeConfig, outbox: Outbox) -> Self {
        // The first one counts.
        let (lost, lost_receiver) = mpsc::channel(1);
        Self {
            config,
            outbox,
            session: OnceLock::new(),
            calls: Calls::default(),
            requests: TaskTracker::new(),
            tracker: TaskTracker::new(),
            cut: CancellationToken::new(),
            unsent: Arc::new(Semaphore::new(UNSENT)),
            lost,
            lost_receiver: tokio::sync::Mutex::new(lost_receiver),
        }
    }

    /// Reads the client's messages and takes each to where it belongs, until the input ends.
    pub(super) async fn read_all<R: AsyncRead + Unpin>(self: &Arc<Self>, input: R) -> io::Result<()> {
        let mut lines = LineReader::new(input, LONGEST);
        loop {
            match lines.next().await {
                Ok(Some(line)) => self.take_line(line).await,
                Ok(None) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.refuse(None, &RpcError::new(RpcError::INVALID_REQUEST, error.to_string()));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_line(self: &Arc<Self>, line: Bytes) {
        match Message::parse_batch(line) {
            Ok(Incoming::Single(message)) => self.take(message).await,
            Ok(Incoming::Batch(messages)) => {
                let version = self.session().and_then(|session| session.version());
                if !version.is_some_and(ProtocolVersion::has_batches) {
                    let why =
                        "batches are for sessions of protocol version 2025-03-26; send one message a line";
                    return self.refuse(None, &RpcError::new(RpcError::INVALID_REQUEST, why));
                }
                for message in messages {
                    self.take(message).await;
                }
            }
            Err(error) => self.refuse(None, &RpcError::from(&error)),
        }
    }

    async fn take(self: &Arc<Self>, message: Message) {
        match (message.view(), self.session()) {
            (View::Request { method: "initialize", .. }, None) => self.initialize(&message).await,
            // Answered by whoever gets it: before the session that is us (basic/lifecycle, "Initialization").
            (View::Request { method: "ping", id, .. }, None) => self.outbox.push(rpc::result(id, "{}")),
            (View::Request { id, .. }, None) => {
                let why = "there is no session yet; send initialize first";
                self.refuse(Some(id), &RpcError::new(RpcError::INVALID_REQUEST, why));
            }
            (_, None) => debug!(?message, "ignored, as there is no session yet"),
            (View::Request { .. }, Some(session)) => self.begin(session, message).await,
            (View::Notification { method: "notifications/cancelled", params }, Some(session)) => {
                let id = params.and_then(|params| json::members(params, ["requestId"]).ok()?[0]);
                self.cancel(session, id.map(RequestId::from_raw), message.text().clone());
            }
            (View::Notification { .. } | View::Response { .. }, Some(session)) => {
                self.deliver(session, message.text().clone()).await;
            }
        }
    }

    async fn initialize(self: &Arc<Self>, message: &Message) {
        let Some(id) = message.id() else { return };
        let raised = raised(message);
        let text = raised.clone().unwrap_or_else(|| message.text().clone());
        let PipeConfig { pool, server, .. } = &self.config;
        match Session::open_for(pool.clone(), server.clone(), self.tracker.clone(), text, &id).await {
            Ok((session, answer)) => {
                let lowered = raised.and_then(|_| lowered(&answer));
                if session.version().is_some() {
                    self.tracker.spawn(Arc::clone(self).listen(self.enter(session)));
                }
                self.outbox.push(lowered.unwrap_or_else(|| answered(&answer, &id)));
            }
            Err(error) => self.outbox.push(failed(&id, &error)),
        }
    }

    fn enter(&self, session: Session) -> Arc<Session> {
        Arc::clone(self.session.get_or_init(|| Arc::new(session)))
    }

    /// Brings what the server says outside of requests.
    async fn listen(self: Arc<Self>, session: Arc<Session>) {
        let mut on_message = |message: Message| self.outbox.push(message.text().clone());
        let listening = self.outbox.at_its_pace(session.listen(&mut on_message));
        // It ends well where the server has no such stream.
        if let Some(Err(error)) = self.cut.run_until_cancelled(listening).await {
            self.lose(error);
        }
    }

    /// Sends a request, as a task of its own.
    async fn begin(self: &Arc<Self>, session: &Arc<Session>, message: Message) {
        let Some(id) = message.id().map(|id| RequestId::from_raw(id.as_raw())) else { return };
        let call = match self.calls.begin(&id) {
            Ok(call) => call,
            Err(error) => return self.refuse(Some(id.as_raw()), &error),
        };
        let text = self.held(message.text().clone(), &call).await;
        let (carrier, session) = (Arc::clone(self), Arc::clone(session));
        self.requests.spawn(async move {
            let mut on_message = |message: Message| carrier.outbox.push(message.text().clone());
            let asking = carrier.outbox.at_its_pace(session.request_for(text, &id, &mut on_message));
            let Some(answer) = call.over.run_until_cancelled(asking).await else { return };
            if carrier.calls.end(&id).is_none() {
                return;
            }
            match answer {
                Ok(answer) => carrier.outbox.push(answered(&answer, &id)),
                Err(error) if is_over(&error) => {
                    carrier.outbox.push(failed(&id, &error));
                    carrier.lose(error);
                }
                // A request that was cancelled is not answered.
                Err(ClientError::NoAnswer) if call.is_cancelled() => {}
                Err(error) => carrier.outbox.push(failed(&id, &error)),
            }
        });
    }

    /// The text, once there is room for it; the room is given back when its bytes have been sent.
    async fn held(&self, text: ByteString, call: &Arc<Call>) -> ByteString {
        let size = u32::try_from(text.len().min(UNSENT)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let room = Arc::clone(&self.unsent).acquire_many_owned(size).await.ok();
        let bytes = Bytes::from_owner(Held { text: text.clone(), call: Arc::clone(call), _room: room });
        // It was UTF-8 before.
        ByteString::try_from(bytes).unwrap_or(text)
    }

    /// Sends a notification, or an answer to a request of the server.
    async fn deliver(&self, session: &Session, text: ByteString) {
        match session.send(text).await {
            Ok(()) => {}
            Err(error) if is_over(&error) => self.lose(error),
            Err(error) => warn!(%error, "a message of the client was not taken"),
        }
    }

    /// Sends a cancellation. One of a request that is not under way has come too late, and is for nobody.
    fn cancel(self: &Arc<Self>, session: &Arc<Session>, id: Option<RequestId>, text: ByteString) {
        let Some(call) = id.and_then(|id| self.calls.get(&id)).filter(|call| call.cancel()) else {
            return debug!("there is nothing to cancel");
        };
        let (carrier, session) = (Arc::clone(self), Arc::clone(session));
        self.tracker.spawn(async move {
            let cancelling = async {
                call.sent.cancelled().await;
                for attempt in 0..CANCEL_TRIES {
                    carrier.deliver(&session, text.clone()).await;
                    tokio::time::sleep(CANCEL_AGAIN * 2u32.pow(attempt)).await;
                }
            };
            // Where the request is over, so is this.
            let _ = call.over.run_until_cancelled(cancelling).await;
        });
    }

    /// Waits until no request is under way.
    pub(super) async fn idle(&self) {
        self.requests.close();
        self.requests.wait().await;
    }

    /// Waits until the session is lost.
    pub(super) async fn lost(&self) -> ClientError {
        match self.lost_receiver.lock().await.recv().await {
            Some(error) => error,
            // The sender is ours.
            None => std::future::pending().await,
        }
    }

    /// Answers what is under way with an error, and ends the session and every task.
    pub(super) async fn end(&self, why: &str) {
        for (id, call) in self.calls.end_all() {
            if !call.is_cancelled() {
                self.refuse(Some(id.as_raw()), &RpcError::new(RpcError::UPSTREAM, why));
            }
        }
        self.cut.cancel();
        if let Some(session) = self.session() {
            match tokio::time::timeout(GOODBYE, session.close()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "the session could not be ended"),
                Err(_) => debug!("the session could not be ended in time"),
            }
        }
        self.requests.close();
        self.tracker.close();
        let tasks = async { tokio::join!(self.requests.wait(), self.tracker.wait()) };
        if tokio::time::timeout(GOODBYE, tasks).await.is_err() {
            debug!("something is still being read");
        }
    }

    fn session(&self) -> Option<&Arc<Session>> {
        self.session.get()
    }

    fn lose(&self, error: ClientError) {
        // Where there is no room, somebody has said so already.
        let _ = self.lost.try_send(error);
    }

    fn refuse(&self, id: Option<&str>, error: &RpcError) {
        self.outbox.push(error.response(id));
    }
}

/// The text of a request as long as it has not been sent.
struct Held {
    text: ByteString,
    call: Arc<Call>,
    _room: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.call.sent.cancel();
    }
}

/// Whether the session is over (2025-11-25, basic/transports, "Session Management", item 3). A 400 is about the message here:
/// whatever the server's words, there was a client before it that could be wrong.
fn is_over(error: &ClientError) -> bool {
    matches!(error, ClientError::Status(status) if status.status == StatusCode::NOT_FOUND)
}

/// An answer for the client: as it came, but with its id where the server could not tell.
fn answered(answer: &Message, id: &RequestId) -> ByteString {
    match answer.view() {
        View::Response { id: None, outcome: Err(error) } => rpc::error(id.as_raw(), error),
        _ => answer.text().clone(),
    }
}

/// What the client is told where there is no answer. A server that refuses says why in JSON-RPC, too.
fn failed(id: &RequestId, error: &ClientError) -> ByteString {
    if let ClientError::Status(status) = error
        && let Ok(refusal) = Message::from_text(status.body.as_str().into())
        && let View::Response { outcome: Err(refusal), .. } = refusal.view()
    {
        return rpc::error(id.as_raw(), refusal);
    }
    RpcError::new(RpcError::UPSTREAM, format!("there is no answer: {error}")).response(Some(id.as_raw()))
}
