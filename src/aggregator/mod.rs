//! The catalogue of everything that servers offer, the sessions of clients, and the relay between them and the servers.
//!
//! | part | owns |
//! | --- | --- |
//! | [`offer`] | what one server offers, in its own words |
//! | [`naming`] | exposed names and URIs, and what is said of collisions |
//! | `family` | tools that several servers share |
//! | [`member`] | what one server brings, and where requests for it go |
//! | [`catalogue`] | what all servers offer at one time, as an immutable snapshot |
//! | `section` | what they offer of one kind, made anew only where it has changed |
//! | [`registry`] | which servers are in the catalogue; swaps snapshots |
//! | [`standing`] | where servers stand |
//! | `absent` | what a client is told who asks for something of a server that cannot be called |
//! | [`link`], [`limits`] | the way to one server, which outlives its sessions; how long things may take there |
//! | [`upstream`] | one session with one server |
//! | [`exposure`] | which tools a client is shown: all, or a few that find and use the others |
//! | [`scope`] | whose things a client sees: `/mcp`, or `/mcp/<server>` |
//! | [`endpoint`] | what clients see: sessions, lists, announcements; requests that servers and we answer together |
//! | `session` | what a client has with servers: calls, sessions of its own, tasks, subscriptions |
//! | `client`, `declared`, `asked`, `call` | a client as servers may reach it, what it can do, what it was asked, what it waits for |
//! | `outbox` | what is said to a server besides calls, one after the other |
//! | `pauses` | how long to wait between tries of what could not be sent |
//! | `said` | what servers say besides their answers, and whom it is for |
//! | `own`, [`isolation`] | sessions that a client shares with nobody, and how they are had |
//! | `ledger` | who subscribed, which log level is wanted, whose task it is: what outlives sessions |
//! | `context` | the trace context of a request, from the client and on to the server |
//! | `call_id` | the id of a call in its result |
//! | [`behind`] | which instances of Sidegate stand behind which; that none serves itself |
//! | [`local`] | tools that no server offers, as the catalogue takes them |
//! | `observed` | what is told of a call to whoever observes calls |
//! | `request`, `route`, `relay` | one request: its parts, where it goes, its way there and back |
//! | `tasks`, `elicitations` | whose tasks are whose, and `tasks/list`; whose URL elicitations are whose |
//! | `level` | levels of log messages |
//! | `template`, `uris` | which URIs a URI template gives; URIs in results |
//!
//! Invariants: names are looked up in a table, never split; a client gets what belongs to its own calls only; a call is
//! sent again only where the server cannot have seen it; no lock is held across an await.
//!
//! Knows nothing of files and processes.

mod absent;
mod asked;
pub mod behind;
mod call;
mod call_id;
pub mod catalogue;
mod client;
mod context;
mod declared;
mod elicitations;
pub mod endpoint;
pub mod exposure;
mod family;
pub mod isolation;
mod ledger;
mod level;
pub mod limits;
pub mod link;
pub mod local;
pub mod member;
pub mod naming;
mod observed;
pub mod offer;
mod outbox;
mod own;
mod pauses;
pub mod registry;
mod relay;
mod request;
mod route;
mod said;
pub mod scope;
mod section;
mod session;
pub mod standing;
mod tasks;
mod template;
pub mod upstream;
mod uris;
