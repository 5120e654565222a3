//! The relay of one tool call.
//!
//! What differs between what the client sent and what the server gets is the id, the tool's name and the progress
//! token; on the way back the id, and the token in progress. Everything else is the same bytes.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::catalogue::Target;
use super::upstream::Upstream;
use crate::wire::client::ClientError;
use crate::wire::json;
use crate::wire::message::{Message, View};
use crate::wire::rpc::{self, RpcError};
use crate::wire::server::Reply;
use crate::wire::stream::Weight;

/// Waits between tries of a call of which nothing was sent.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LONGEST_RETRY: Duration = Duration::from_millis(250);

/// A `tools/call` request, taken apart.
#[derive(Debug)]
pub(super) struct ToolCall<'a> {
    text: &'a ByteString,
    id: &'a str,
    /// The raw JSON string of the name.
    raw_name: &'a str,
    /// The exposed name.
    pub(super) name: String,
    /// The raw progress token, where the client wants progress.
    token: Option<&'a str>,
}

impl<'a> ToolCall<'a> {
    /// Takes a request apart.
    ///
    /// # Errors
    ///
    /// What the client gets as the answer.
    pub(super) fn parse(
        text: &'a ByteString,
        id: &'a str,
        params: Option<&'a str>,
    ) -> Result<Self, RpcError> {
        let invalid = |why: String| RpcError::new(RpcError::INVALID_PARAMS, format!("tools/call: {why}"));
        let params = params.ok_or_else(|| invalid("\"params\" is missing".to_owned()))?;
        let [name, meta] =
            json::members(params, ["name", "_meta"]).map_err(|error| invalid(error.to_string()))?;
        let raw_name = name.ok_or_else(|| invalid("\"params.name\" is missing".to_owned()))?;
        let name =
            json::string(raw_name).ok_or_else(|| invalid("\"params.name\" is not a string".to_owned()))?;
        let token = match meta {
            None | Some("null") => None,
            Some(meta) => {
                json::members(meta, ["progressToken"]).map_err(|error| invalid(error.to_string()))?[0]
            }
        };
        Ok(Self { text, id, raw_name, name: name.into_owned(), token })
    }

    /// The request as the server gets it.
    fn for_server(&self, id: u64, tool: &str) -> ByteString {
        let id = id.to_string();
        let name = json::quoted(tool);
        let at = |part: &str| json::span(self.text, part);
        match self.token {
            // The id serves as token: it is unique in the session, which the client's token is not.
            Some(token) => {
                json::splice(self.text, [(at(self.id), &id), (at(self.raw_name), &name), (at(token), &id)])
            }
            None => json::splice(self.text, [(at(self.id), &id), (at(self.raw_name), &name)]),
        }
    }
}

/// Calls a tool and answers the client.
///
/// `cancelled` fires when the client has cancelled the call, or has gone; then the server is told, and there is no
/// answer.
pub(super) async fn relay(call: &ToolCall<'_>, target: &Target, reply: Reply, cancelled: &CancellationToken) {
    match attempt(call, target, &reply, cancelled).await {
        Some(Ok(answer)) => match answer.view() {
            // An error that the server could not attribute; it came as the answer to this call.
            View::Response { id: None, outcome: Err(error) } => reply.answer(rpc::error(call.id, error)),
            _ => reply.answer(answer.with_id(call.id)),
        },
        Some(Err(error)) => reply.answer(error.response(Some(call.id))),
        None => {}
    }
}

/// `None`: cancelled.
async fn attempt(
    call: &ToolCall<'_>,
    target: &Target,
    reply: &Reply,
    cancelled: &CancellationToken,
) -> Option<Result<Message, RpcError>> {
    let server = target.link.server();
    let unavailable = |why: &dyn std::fmt::Display| {
        RpcError::new(RpcError::UPSTREAM, format!("server {server} did not answer {}: {why}", call.name))
    };
    let started = Instant::now();
    let mut reopened = false;
    let mut wait = FIRST_RETRY;
    loop {
        let Some(upstream) = cancelled.run_until_cancelled(target.link.session()).await? else {
            return Some(Err(RpcError::new(RpcError::UPSTREAM, format!("server {server} is not connected"))));
        };
        let error =
            match send(call, &target.tool, &upstream, reply, cancelled, target.link.limits().call_timeout)
                .await?
            {
                Ok(answer) => return Some(Ok(answer)),
                Err(Failure::Timeout(limit)) => {
                    let why = format!("no answer within {} s (spec.callTimeout)", limit.as_secs());
                    return Some(Err(unavailable(&why)));
                }
                Err(Failure::Client(error)) => error,
            };
        if error.is_session_lost() {
            upstream.mark_lost();
            if !reopened {
                // The server has not taken the call: it may go to the next session, once.
                reopened = true;
                continue;
            }
        } else if !error.was_sent() && started.elapsed() + wait < target.link.limits().timeout {
            debug!(%error, %server, "nothing was sent yet; trying again");
            cancelled.run_until_cancelled(tokio::time::sleep(wait)).await?;
            wait = (wait * 2).min(LONGEST_RETRY);
            continue;
        }
        return Some(Err(unavailable(&error)));
    }
}

enum Failure {
    Client(ClientError),
    Timeout(Duration),
}

/// `None`: cancelled.
async fn send(
    call: &ToolCall<'_>,
    tool: &str,
    upstream: &Arc<Upstream>,
    reply: &Reply,
    cancelled: &CancellationToken,
    limit: Option<Duration>,
) -> Option<Result<Message, Failure>> {
    let _under_way = upstream.call();
    let id = upstream.session().next_id();
    let request = call.for_server(id, tool);
    // Progress begins the time of the call again.
    let (progress, progressed) = watch::channel(());
    let mut on_message = |message: Message| {
        let _ = progress.send(());
        forward(call, id, message, upstream, reply);
    };
    let timer = async {
        match limit {
            Some(limit) => expire(limit, progressed).await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        // An answer that is there counts, whatever else has happened.
        biased;
        answer = upstream.session().request(request, id, &mut on_message) => {
            return Some(answer.map_err(Failure::Client));
        }
        () = upstream.closed() => {
            let gone = "the server was removed or restarted before it answered".to_owned();
            return Some(Err(Failure::Client(ClientError::Protocol(gone))));
        }
        () = cancelled.cancelled() => None,
        limit = timer => Some(limit),
    };
    let why = if reason.is_some() { "timed out" } else { "cancelled by the client" };
    let params = format!(r#"{{"requestId":{id},"reason":{}}}"#, json::quoted(why));
    upstream.reply(rpc::notification("notifications/cancelled", Some(&params)));
    reason.map(|limit| Err(Failure::Timeout(limit)))
}

/// Returns when `limit` has passed since the last progress.
async fn expire(limit: Duration, mut progressed: watch::Receiver<()>) -> Duration {
    while let Ok(Ok(())) = tokio::time::timeout(limit, progressed.changed()).await {}
    limit
}

/// Passes on what the server says on the call's own stream.
fn forward(call: &ToolCall<'_>, id: u64, message: Message, upstream: &Upstream, reply: &Reply) {
    match message.view() {
        View::Notification { method: "notifications/progress", params } => {
            let token = params.and_then(|params| json::members(params, ["progressToken"]).ok()?[0]);
            match (token, call.token) {
                (Some(token), Some(wanted)) if token.parse() == Ok(id) => {
                    let text = message.text();
                    reply.send(json::splice(text, [(json::span(text, token), wanted)]), Weight::Droppable);
                }
                _ => debug!("progress that belongs to no call"),
            }
        }
        View::Notification { method: "notifications/message", .. } => {
            reply.send(message.text().clone(), Weight::Droppable);
        }
        _ => upstream.take(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &ByteString) -> Result<ByteString, RpcError> {
        let message = Message::from_text(text.clone()).unwrap();
        let View::Request { id, params, .. } = message.view() else { panic!("not a request") };
        ToolCall::parse(message.text(), id, params).map(|call| call.for_server(9, "tool \"q\""))
    }

    #[test]
    fn only_id_name_and_token_change() {
        let text = r#"{"id":"c-1", "params":{"arguments":{"name":"é","n":1.0e2}, "name" : "x_a_tool",
            "_meta":{"v":1,"progressToken":"t"}},"jsonrpc":"2.0","method":"tools/call","x":null}"#;
        let expected = text
            .replace("\"c-1\"", "9")
            .replace("\"x_a_tool\"", r#""tool \"q\"""#)
            .replace("\"progressToken\":\"t\"", "\"progressToken\":9");
        assert_eq!(&*parse(&text.into()).unwrap(), expected);
    }

    #[test]
    fn a_call_without_a_usable_name_is_refused() {
        for (params, why) in [
            ("", "\"params\" is missing"),
            (r#","params":{}"#, "\"params.name\" is missing"),
            (r#","params":{"name":7}"#, "not a string"),
            (r#","params":{"name":"a","name":"b"}"#, "\"name\" stands twice"),
            (r#","params":{"name":"a","_meta":7}"#, "expected an object"),
            (r#","params":["a"]"#, "expected an object"),
        ] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{params}}}"#);
            let error = parse(&text.into()).unwrap_err();
            assert_eq!(error.code, RpcError::INVALID_PARAMS);
            assert!(error.message.contains(why), "{}", error.message);
        }
    }
}
