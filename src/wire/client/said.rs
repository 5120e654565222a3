//! What a server says before it answers a request.

use std::time::Duration;

use crate::wire::message::Message;

/// What a server says before it answers a request.
#[derive(Debug)]
pub enum Said {
    /// The head of the response is there.
    Head,
    /// A message on the request's own stream.
    Message(Message),
    /// It has ended the connection and not the stream: the rest is to be asked for after this time.
    Away(Duration),
}
