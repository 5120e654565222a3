//! The catalogue of everything that servers offer, the sessions of clients, and the relay between them and the servers.
//!
//! | part | owns |
//! | --- | --- |
//! | [`offer`] | what one server offers, in its own words |
//! | [`naming`] | exposed names and URIs, and what is said of collisions |
//! | [`catalogue`] | what all servers offer at one time, as an immutable snapshot |
//! | [`registry`] | which servers are in the catalogue; swaps snapshots |
//! | [`link`] | the way to one server, which outlives its sessions |
//! | [`upstream`] | one session with one server |
//! | [`scope`] | whose things a client sees: `/mcp`, or `/mcp/<server>` |
//! | [`endpoint`] | what clients see: sessions, lists, announcements |
//! | `client` | one client's session |
//! | `request`, `route`, `relay` | one request: its parts, where it goes, its way there and back |
//! | `template` | which URIs a URI template gives |
//!
//! Invariants: names are looked up in a table, never split; a client gets what belongs to its own calls only; a call is
//! sent again only where the server cannot have seen it; no lock is held across an await.
//!
//! Knows nothing of files and processes.

pub mod catalogue;
mod client;
pub mod endpoint;
pub mod link;
pub mod local;
pub mod naming;
pub mod offer;
pub mod registry;
mod relay;
mod request;
mod route;
pub mod scope;
mod template;
pub mod upstream;
