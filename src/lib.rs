//! Sidegate gives a person a single MCP endpoint over all of their MCP servers. Servers are defined in files; Sidegate
//! follows the files, looks after one gateway process (agentgateway, or the gateway that is built in), tells it how each
//! server is reached, and offers the tools of all servers under one address. Calls cross the gateway. An
//! [`Instance`] is one running Sidegate; the binary is a command line around it. [`Instance::builder`] is the way in for
//! programs and tests that want one inside.
//!
//! # The house
//!
//! Parts depend on those further down only, and never call up: what must go up goes as a message or a watched value.
//!
//! | module | owns | knows nothing of |
//! | --- | --- | --- |
//! | [`instance`] | wiring: start order, stop order, the library's front door | details of any part |
//! | [`management`] | Sidegate's own tools: looking at servers and definitions, and changing them | sessions |
//! | [`admin`] | the control socket, what an instance says of itself, and the page for a browser | what the operations do |
//! | [`reconciler`] | following the definitions; one actor a server; what users see of it | the wire format |
//! | [`aggregator`] | the catalogue of tools, exposed names, clients' sessions, the relay | files and processes |
//! | [`bridge`] | what the gateway cannot dial: stdio servers, one child a session, legacy SSE servers, and others | gateways, exposed names |
//! | [`yaml_applier`] | the gateway's file: rendering, atomic writes, proof that it is in force | definitions, processes |
//! | [`gateway`] | the embedded gateway: a reverse proxy for the files that `yaml_applier` renders | MCP |
//! | [`binary_resolver`] | finding, downloading and verifying agentgateway releases | how a gateway is run |
//! | [`telemetry`] | what is told of calls to whoever observes them; metrics; trace contexts; logging, for the binary | how calls are carried |
//! | [`subprocess`] | every child process: its guard, its output, its restarts | gateways, MCP |
//! | [`ports`] | leases of TCP ports | why a port is wanted |
//! | [`wire`] | MCP on the wire: JSON-RPC envelopes, streamable HTTP both ways, stdio framing | servers' names |
//! | [`config`] | `config.yaml`, environment and flags as one set of settings, each with its origin | what settings do |
//! | [`mcpserver`] | the MCPServer resource: type, validator, the store of files and its edits | gateways, MCP |
//! | [`example_server`] | a small MCP server to try things with | everything above |
//! | `http1` | HTTP/1.1 connections that are driven by whoever holds them | who is dialled |
//! | `own_wakes` | polling tasks again that wake themselves | what they do |
//! | [`outbound`] | the proxies that the environment names | who dials |
//! | [`environment`] | a snapshot of environment variables | |
//! | [`jsonc`] | JSON with comments: where strings and comments end | what it says |
//! | [`glob`] | patterns for names | whose names they are |
//! | `tls` | TLS as a client, by the certificates of the system | who is dialled |
//! | `yaml` | YAML with the place of every value, and edits that leave the rest as it is | what the values mean |
//! | [`redact`] | texts without what looks like a secret | what is known to be one |
//! | `similar` | which word was probably meant | what it is the name of |
//! | `stamp` | telling that a file has changed without reading it | which file it is |
//! | [`error`] | errors as text | |
//! | `sync` | locks | |
//!
//! # The life of a tool call
//!
//! 1. A call arrives in [`wire::server`], which checks `Host` and `Origin`, finds the session and parses the message once,
//!    into a [`Message`](wire::message::Message) that keeps its text.
//! 2. [`aggregator::endpoint`] looks the tool's name up in the [`aggregator::catalogue`]: a table from exposed names to a
//!    server's [`Link`](aggregator::link::Link) and the tool's own name there.
//! 3. The relay exchanges the id, the name and the progress token in the text, and copies every other byte.
//! 4. [`wire::client`] posts it to the gateway's data port, on the route of that server, with this run's
//!    [`GatewayKey`](yaml_applier::GatewayKey).
//! 5. The gateway sends it on: to a remote server, or over a Unix socket to the [`bridge`], which writes it to the stdin of
//!    the session's child. The embedded gateway would add nothing there, so that the bridge is asked within the process
//!    ([`wire::client::Local`]).
//! 6. Progress and the answer come back the same way; the client's own id and token are put in, and
//!    [`wire::server`] answers with JSON or an event stream.
//!
//! # The life of a definition
//!
//! [`reconciler`] notices a change and has [`mcpserver`] read the directory. What differs from what runs becomes a set of
//! routes; [`yaml_applier`] renders and writes them and waits until the gateway answers their generation. Only then does
//! the server's actor open a session, list its tools and put them into the [`aggregator::registry`], which publishes a new
//! catalogue; clients get one `list_changed`.
//!
//! The library prints nothing and installs no signal handlers: the binary does. Only [`subprocess::guard_main`], which runs
//! as a process of its own, handles signals. Linux only.

pub mod admin;
pub mod aggregator;
pub mod binary_resolver;
pub mod bridge;
pub mod config;
pub mod environment;
pub mod error;
pub mod example_server;
pub mod gateway;
pub mod glob;
mod http1;
pub mod instance;
pub mod jsonc;
pub mod management;
pub mod mcpserver;
pub mod outbound;
mod own_wakes;
pub mod ports;
pub mod reconciler;
pub mod redact;
mod similar;
mod stamp;
pub mod subprocess;
mod sync;
pub mod telemetry;
mod tls;
pub mod wire;
pub mod yaml_applier;

mod yaml;

pub use instance::{Instance, Server};

/// What the guide shows is compiled.
#[cfg(doctest)]
#[doc = include_str!("../docs/guides/testing.md")]
pub struct TestingGuide;
