//! The catalogue of all tools, the sessions of clients, and the relay between them and the servers.
//!
//! | part | owns |
//! | --- | --- |
//! | [`naming`] | exposed names, and what is said of collisions |
//! | [`catalogue`] | every tool at one time, as an immutable snapshot |
//! | [`registry`] | which servers are in the catalogue; swaps snapshots |
//! | [`link`] | the way to one server, which outlives its sessions |
//! | [`upstream`] | one session with one server |
//! | [`endpoint`] | what clients see: sessions, lists, announcements |
//! | `call` | the relay of one tool call |
//!
//! Invariants: names are looked up in a table, never split; a client gets what belongs to its own calls only; a call is
//! sent again only where the server cannot have seen it; no lock is held across an await.
//!
//! Knows nothing of files and processes.

mod call;
pub mod catalogue;
pub mod endpoint;
pub mod link;
pub mod naming;
pub mod registry;
pub mod upstream;
