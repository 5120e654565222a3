//! Requests of servers that a client has been asked and that it has not answered yet.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Mutex, Weak};

use bytestring::ByteString;
use futures_util::future::BoxFuture;

use crate::sync::lock;
use crate::wire::json;
use crate::wire::message::{Message, RequestId, View};
use crate::wire::rpc::RpcError;

/// Requests that one client may be asked at once; more are refused.
const MOST_ASKED: usize = 1024;

/// Who has asked a client something: a session with a server.
pub(super) trait Asker: Debug + Send + Sync {
    /// The request with this id needs no answer any more.
    fn is_answered(&self, id: &RequestId);

    /// Sends something to the server soon, or never where too much waits already.
    fn reply(&self, text: ByteString);

    /// Sends something to the server soon; waits while too much waits already.
    fn send(&self, text: ByteString) -> BoxFuture<'_, ()>;
}

/// A request of a server that a client is to answer.
#[derive(Debug)]
pub(super) struct Expected {
    /// Who waits for the answer.
    pub(super) asker: Weak<dyn Asker>,
    /// The server's id.
    pub(super) id: RequestId,
    /// The server's progress token, raw.
    pub(super) token: Option<ByteString>,
}

/// What a client has been asked, by the numbers that serve it as ids and as progress tokens.
#[derive(Debug, Default)]
pub(super) struct Asked(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: u64,
    expected: HashMap<u64, Expected>,
    is_over: bool,
}

impl Asked {
    /// Enters a request; gives its number.
    ///
    /// # Errors
    ///
    /// What the server gets as the answer: the client has gone, or has been asked too much.
    pub(super) fn expect(&self, expected: Expected) -> Result<u64, RpcError> {
        let mut state = lock(&self.0);
        let refused = |why: String| Err(RpcError::new(RpcError::UPSTREAM, why));
        if state.is_over {
            return refused("the client has gone".to_owned());
        }
        if state.expected.len() >= MOST_ASKED {
            return refused(format!("the client has {MOST_ASKED} requests to answer already"));
        }
        state.last += 1;
        let number = state.last;
        state.expected.insert(number, expected);
        Ok(number)
    }

    /// Takes a request out.
    pub(super) fn forget(&self, number: u64) -> Option<Expected> {
        lock(&self.0).expected.remove(&number)
    }

    /// Takes the client's answer to its server.
    pub(super) async fn answer(&self, message: &Message) {
        let View::Response { id: Some(raw), .. } = message.view() else { return };
        let expected = raw.parse().ok().and_then(|number| self.forget(number));
        let Some(expected) = expected else { return tracing::debug!(?message, "an answer to no request") };
        if let Some(asker) = expected.asker.upgrade() {
            asker.is_answered(&expected.id);
            asker.send(message.with_id(expected.id.as_raw())).await;
        }
    }

    /// Takes the client's progress with a request to its server.
    pub(super) async fn progress(&self, message: &Message, params: Option<&str>) {
        let raw = params.and_then(|params| json::members(params, ["progressToken"]).ok()?[0]);
        let Some((raw, number)) = raw.and_then(|raw| Some((raw, raw.parse::<u64>().ok()?))) else { return };
        let (asker, token) = match lock(&self.0).expected.get(&number) {
            Some(Expected { asker, token: Some(token), .. }) => (asker.clone(), token.clone()),
            _ => return,
        };
        if let Some(asker) = asker.upgrade() {
            asker.reply(json::splice(message.text(), [(json::span(message.text(), raw), &token)]));
        }
    }

    /// The client has gone: its servers get errors.
    pub(super) fn give_up(&self) {
        let expected = {
            let mut state = lock(&self.0);
            state.is_over = true;
            std::mem::take(&mut state.expected)
        };
        for expected in expected.into_values() {
            if let Some(asker) = expected.asker.upgrade() {
                asker.is_answered(&expected.id);
                let error = RpcError::new(RpcError::UPSTREAM, "the client has gone");
                asker.reply(error.response(Some(expected.id.as_raw())));
            }
        }
    }
}
