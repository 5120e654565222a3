//! Which request of a session waits for what, for servers that say everything on one stream.
//!
//! An answer goes to the request with its id, progress to the request with its token, and everything else to the
//! session's GET stream.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::sync::oneshot;
use tracing::debug;

use crate::sync::lock;
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc::RpcError;
use crate::wire::server::{Reply, SessionHandle};
use crate::wire::stream::Weight;
use crate::wire::version::ProtocolVersion;

/// The requests of one session.
#[derive(Debug)]
pub(super) struct Pending {
    handle: SessionHandle,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: HashMap<RequestId, Waiter>,
    /// Why nothing can be asked any more.
    over: Option<RpcError>,
}

#[derive(Debug)]
enum Waiter {
    /// The answer to `initialize`, which opens the session.
    Initialize(oneshot::Sender<Result<Message, RpcError>>),
    /// The answer to any other request, and its progress token.
    Request(Reply, Option<RequestId>),
}

impl Waiter {
    fn fail(self, id: &RequestId, error: &RpcError) {
        match self {
            // Whoever opened the session may have gone.
            Self::Initialize(sender) => drop(sender.send(Err(error.clone()))),
            Self::Request(reply, _) => reply.answer(error.response(Some(id.as_raw()))),
        }
    }
}

impl Pending {
    pub(super) fn new(handle: SessionHandle) -> Self {
        Self { handle, waiting: Mutex::default() }
    }

    /// Waits for the answer to `initialize`, whose id this is; see [`opened`].
    pub(super) fn expect_initialize(&self, id: RequestId) -> oneshot::Receiver<Result<Message, RpcError>> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = lock(&self.waiting);
        if waiting.over.is_none() {
            waiting.requests.insert(id, Waiter::Initialize(sender));
        }
        receiver
    }

    /// Waits for the answer to a request, which goes to `reply`. Whether the request is to be sent: one that is refused
    /// has been answered.
    pub(super) fn begin(&self, request: &Message, reply: Reply) -> bool {
        let View::Request { id: raw, params, .. } = request.view() else { return false };
        let id = RequestId::from_raw(raw);
        let token = progress_token(params).map(RequestId::from_raw);
        let (error, reply) = {
            let mut waiting = lock(&self.waiting);
            match &waiting.over {
                Some(error) => (error.clone(), reply),
                None if waiting.requests.contains_key(&id) => {
                    let why = format!("id {raw} is that of a request which is still under way");
                    (RpcError::new(RpcError::INVALID_REQUEST, why), reply)
                }
                None => {
                    waiting.requests.insert(id, Waiter::Request(reply, token));
                    return true;
                }
            }
        };
        reply.answer(error.response(Some(raw)));
        false
    }

    /// Forgets a request that the client has cancelled, if `message` says so: it expects no answer (2025-11-25,
    /// basic/utilities/cancellation).
    pub(super) fn cancelled(&self, message: &Message) {
        let View::Notification { method: "notifications/cancelled", params } = message.view() else { return };
        if let Some(id) = params.and_then(|params| json::members(params, ["requestId"]).ok()?[0]) {
            let forgotten = lock(&self.waiting).requests.remove(&RequestId::from_raw(id));
            // Dropped outside of the lock: it ends the response.
            drop(forgotten);
        }
    }

    /// A message of the server.
    pub(super) fn take(&self, message: &Message) {
        match message.view() {
            View::Response { id: Some(id), .. } => {
                let waiter = lock(&self.waiting).requests.remove(&RequestId::from_raw(id));
                match waiter {
                    Some(Waiter::Request(reply, _)) => reply.answer(message.text().clone()),
                    Some(Waiter::Initialize(sender)) => drop(sender.send(Ok(message.clone()))),
                    None => debug!(?message, "an answer to no request"),
                }
            }
            View::Notification { method: "notifications/progress", params } => {
                let token = progress_token_of_notification(params);
                let waiting = lock(&self.waiting);
                let request = waiting.requests.values().find_map(|waiter| match waiter {
                    Waiter::Request(reply, wanted) if wanted.is_some() && *wanted == token => Some(reply),
                    _ => None,
                });
                match request {
                    Some(reply) => reply.send(message.text().clone(), Weight::Droppable),
                    None => debug!("progress that belongs to no request"),
                }
            }
            View::Notification { .. } => {
                self.handle.standalone().push(message.text().clone(), Weight::Droppable)
            }
            View::Request { .. } | View::Response { id: None, .. } => {
                self.handle.standalone().push(message.text().clone(), Weight::Required);
            }
        }
    }

    /// Tells whoever waits for the answer to `id` that there will be none.
    pub(super) fn fail(&self, id: &RequestId, error: &RpcError) {
        let waiter = lock(&self.waiting).requests.remove(id);
        if let Some(waiter) = waiter {
            waiter.fail(id, error);
        }
    }

    /// Tells everyone who waits that there will be no answer, and ends the session.
    pub(super) fn end(&self, error: &RpcError) {
        let requests = {
            let mut waiting = lock(&self.waiting);
            // The first reason is the one.
            waiting.over.get_or_insert_with(|| error.clone());
            std::mem::take(&mut waiting.requests)
        };
        for (id, waiter) in requests {
            waiter.fail(&id, error);
        }
        self.handle.end();
    }
}

/// The answer to `initialize`, and the version that it agrees on.
pub(super) async fn opened(
    answer: oneshot::Receiver<Result<Message, RpcError>>,
) -> Result<(Message, ProtocolVersion), RpcError> {
    let failed = |why: &str| RpcError::new(RpcError::UPSTREAM, why);
    let answer = answer.await.unwrap_or_else(|_| Err(failed("the server has ended")))?;
    let version = match answer.view() {
        View::Response { outcome: Ok(result), .. } => json::members(result, ["protocolVersion"])
            .ok()
            .and_then(|[version]| json::string(version?)?.parse().ok())
            .unwrap_or(ProtocolVersion::LATEST),
        // A server that refuses is asked nothing more; the client gets its words.
        View::Response { outcome: Err(error), .. } => return Err(relayed(error)),
        _ => return Err(failed("initialize was not answered")),
    };
    Ok((answer, version))
}

fn progress_token(params: Option<&str>) -> Option<&str> {
    let [meta] = json::members(params?, ["_meta"]).ok()?;
    json::members(meta?, ["progressToken"]).ok()?[0]
}

fn progress_token_of_notification(params: Option<&str>) -> Option<RequestId> {
    json::members(params?, ["progressToken"]).ok()?[0].map(RequestId::from_raw)
}

/// An error of the server, for whoever wanted the session.
fn relayed(error: &str) -> RpcError {
    let [code, message] = json::members(error, ["code", "message"]).unwrap_or_default();
    let code = code.and_then(|code| code.parse().ok()).unwrap_or(RpcError::UPSTREAM);
    let message = message.and_then(json::string).map_or_else(|| error.to_owned(), |text| text.into_owned());
    RpcError::new(code, message)
}
