//! The answer to one request: read from its response, and from the streams that resume it.
//!
//! A stream that ends or breaks before the answer is resumed by GET with the id of its last event, where the server gave
//! one (2025-11-25, basic/transports, "Resumability and Redelivery"): a server may end it on purpose and let itself be
//! polled, a gateway may have been replaced or have crashed. Asking for the rest is safe to repeat, asking the request
//! itself is not.

use std::time::Duration;

use bytestring::ByteString;
use http::Response;
use tokio::time::Instant;
use tracing::debug;

use super::Body;
use super::error::{ClientError, Refusal, refusal};
use super::events::Events;
use super::origin::Lease;
use super::said::Said;
use super::session::{FIRST_WAIT, LONGEST_WAIT, Session, is, unexpected_type};
use crate::wire::message::{self, Message, RequestId, View};

/// How often a stream is resumed in a row without anything new coming.
const FRUITLESS: u32 = 5;

/// Between two such tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

impl Session {
    pub(super) async fn read_answer(
        &self,
        mut lease: Lease,
        response: Response<Body>,
        id: &RequestId,
        on_said: &mut (dyn FnMut(Said) + Send),
    ) -> Result<Message, ClientError> {
        if is(&response, "application/json") {
            return self.read_json(response, id, on_said).await;
        }
        if !is(&response, "text/event-stream") {
            return Err(unexpected_type(&response));
        }
        let mut events = Events::new(response, self.config.max_message);
        let mut fruitless = 0;
        let mut resumed_after: Option<ByteString> = None;
        loop {
            let end = loop {
                match events.next().await {
                    Ok(Some(message)) if is_answer_to(&message, id) => {
                        self.drain(events.body);
                        return Ok(message);
                    }
                    Ok(Some(message)) => {
                        fruitless = 0;
                        on_said(Said::Message(message));
                    }
                    Ok(None) => break ClientError::NoAnswer,
                    Err(error @ ClientError::Body(_)) => break error,
                    Err(error) => return Err(error),
                }
            };
            let Some(last) = events.decoder.last_event_id().cloned() else { return Err(end) };
            if resumed_after.as_ref() != Some(&last) {
                // It comes closer to the answer: a server may let itself be asked as often as it likes.
                fruitless = 0;
            }
            if fruitless >= FRUITLESS {
                return Err(end);
            }
            let retry = events.wanted_wait(&end);
            if let Some(retry) = retry {
                on_said(Said::Away(retry));
            }
            // Nobody waits for what is not under way, and the server may want us to stay away for long.
            drop(lease);
            // However eager the server is, it is not asked all the time.
            let wait = retry.unwrap_or_default().max(FIRST_WAIT * 2u32.pow(fruitless));
            tokio::time::sleep(wait).await;
            fruitless += 1;
            let Some((at, response)) = self.resume(&last).await else { return Err(end) };
            lease = at;
            events.resume(response);
            resumed_after = Some(last);
        }
    }

    /// Asks for the rest of a stream; `None` when there is none to be had.
    async fn resume(&self, last: &ByteString) -> Option<(Lease, Response<Body>)> {
        let begun = Instant::now();
        let mut pause = FIRST_WAIT;
        loop {
            // Whoever is asked now: the request may have gone through a gateway that is no more.
            let lease = self.lease();
            let error = match self.get(&lease.origin, Some(last)).await {
                Ok(response) => return Some((lease, response)),
                Err(error) => error,
            };
            drop(lease);
            if refusal(&error) != Refusal::ForNow || begun.elapsed() >= self.config.patience {
                debug!(%error, "the stream cannot be resumed");
                return None;
            }
            debug!(%error, "the stream cannot be resumed yet");
            tokio::time::sleep(error.retry_after().unwrap_or_default().clamp(pause, LONGEST_WAIT)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// An answer that is alone, or with others in a batch, which 2025-03-26 allows.
    async fn read_json(
        &self,
        response: Response<Body>,
        id: &RequestId,
        on_said: &mut (dyn FnMut(Said) + Send),
    ) -> Result<Message, ClientError> {
        let wrong = |message| {
            ClientError::Protocol(format!(
                "the server answered something else than request {id:?}: {message:?}"
            ))
        };
        match Message::parse_batch(self.collect(response.into_body()).await?)? {
            message::Incoming::Single(message) if is_answer_to(&message, id) => Ok(message),
            message::Incoming::Single(message) => Err(wrong(message)),
            message::Incoming::Batch(messages) => {
                let mut answer = None;
                for message in messages {
                    if answer.is_none() && is_answer_to(&message, id) {
                        answer = Some(message);
                    } else {
                        on_said(Said::Message(message));
                    }
                }
                answer.ok_or(ClientError::NoAnswer)
            }
        }
    }
}

fn is_answer_to(message: &Message, id: &RequestId) -> bool {
    match message.view() {
        View::Response { id: Some(raw), .. } => raw == id.as_raw(),
        // An error that could not be attributed, on the stream of this request.
        View::Response { id: None, outcome: Err(_) } => true,
        _ => false,
    }
}
