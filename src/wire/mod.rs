//! MCP on the wire: JSON-RPC envelopes, streamable HTTP as server and as client, and stdio framing.
//!
//! A message is parsed once into a [`Message`], which keeps the text it came from and knows where the parts are that a
//! relay touches. Relaying is *splicing*: the few bytes that must differ (an id, a name, a token) are exchanged, all
//! others are copied as they are, so unknown fields, key order and number spelling survive.
//!
//! | part | owns |
//! | --- | --- |
//! | [`message`] | one JSON-RPC message: its kind and the spans of its parts |
//! | [`json`] | finding members of an object and splicing text, without building a tree |
//! | [`rpc`] | the messages that this project says itself: results and errors |
//! | [`schema`] | what a property of a tool's `inputSchema` takes |
//! | [`version`] | protocol versions, and which era of the protocol a request belongs to |
//! | [`sse`] | server-sent events, both directions |
//! | [`stream`] | one resumable stream of messages to a peer, bounded |
//! | [`server`] | streamable HTTP as a server: sessions, POST, GET, DELETE, Host and Origin |
//! | [`client`] | streamable HTTP as a client: one upstream session |
//! | [`stdio`] | newline-delimited messages over a pipe |
//! | [`pipe`] | a client on a pair of pipes, joined to a streamable HTTP server |
//!
//! Invariants: no message is decoded into typed fields and encoded again; no buffer grows without a limit; no lock is
//! held across an await. Knows nothing of the names of servers.

pub mod client;
pub mod json;
pub mod message;
pub mod pipe;
pub mod rpc;
pub mod schema;
pub mod server;
pub mod sse;
pub mod stdio;
pub mod stream;
#[cfg(test)]
pub(crate) mod texts;
pub mod version;

pub use message::{Message, ParseError, RequestId};
pub use version::ProtocolVersion;
