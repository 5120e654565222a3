//! The messages of an event stream, as a client reads them.

use std::collections::VecDeque;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt as _;

use super::Body;
use super::error::ClientError;
use crate::wire::message::{self, Message};
use crate::wire::sse::Decoder;

/// Does something, while the messages of a stream that may be there are taken.
pub(super) async fn while_reading<T>(
    events: &mut Option<Events>,
    on_message: &mut (dyn FnMut(Message) + Send),
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            message = next_of(events) => match message {
                Ok(Some(message)) => on_message(message),
                Ok(None) | Err(_) => *events = None,
            },
        }
    }
}

/// The next message of a stream that may not be there; then it waits for ever.
pub(super) async fn next_of(events: &mut Option<Events>) -> Result<Option<Message>, ClientError> {
    match events {
        Some(events) => events.next().await,
        None => std::future::pending().await,
    }
}

/// The messages of an event stream.
pub(super) struct Events {
    pub(super) body: Body,
    pub(super) decoder: Decoder,
    limit: usize,
    /// What is left of a batch, which 2025-03-26 allows in an event.
    batch: VecDeque<Message>,
    /// Something has come over the present body.
    spoken: bool,
}

impl Events {
    pub(super) fn new(response: Response<Body>, limit: usize) -> Self {
        Self {
            body: response.into_body(),
            decoder: Decoder::new(limit),
            limit,
            batch: VecDeque::new(),
            spoken: false,
        }
    }

    /// Goes on with another response; the id to resume after is kept until a new one comes.
    pub(super) fn resume(&mut self, response: Response<Body>) {
        self.body = response.into_body();
        self.decoder.restart();
        self.spoken = false;
    }

    /// How long the server wants us to stay away, now that the stream has ended like this; `None` where it has no such wish
    /// (2025-11-25, basic/transports, "Sending Messages to the Server", item 6):
    ///
    /// - a stream that broke was not ended by the server: its gateway has gone, and what the server says until we are back may
    ///   be lost, since some keep nothing for who is not there;
    /// - a stream over which nothing came at all was not ended to be asked for again, but has nothing more to say: so servers
    ///   made with the official Rust SDK end a stream that they have forgotten.
    pub(super) fn wanted_wait(&self, end: &ClientError) -> Option<Duration> {
        let ended_by_server = matches!(end, ClientError::NoAnswer);
        self.decoder.retry().filter(|_| ended_by_server && self.spoken)
    }

    pub(super) async fn next(&mut self) -> Result<Option<Message>, ClientError> {
        loop {
            if let Some(message) = self.batch.pop_front() {
                return Ok(Some(message));
            }
            while let Some(event) = self.decoder.next_event()? {
                // Empty data only sets the id. Other kinds of events are not MCP's.
                if !event.data.is_empty() && event.name.as_deref().is_none_or(|name| name == "message") {
                    match Message::parse_batch(event.data.into_bytes())? {
                        message::Incoming::Single(message) => return Ok(Some(message)),
                        message::Incoming::Batch(messages) => {
                            self.batch.extend(messages);
                            return Ok(self.batch.pop_front());
                        }
                    }
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(ClientError::Body(error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        if data.len() > self.limit {
                            return Err(ClientError::TooLarge { limit: self.limit });
                        }
                        self.spoken |= !data.is_empty();
                        self.decoder.push(data);
                    }
                }
            }
        }
    }
}
