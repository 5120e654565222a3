//! What a gateway's file is rendered from: plain values that are valid once they exist.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;
use std::sync::Arc;

use http::uri::{Authority, PathAndQuery};
use serde_json::{Map, Value};
use url::Url;

use super::generation::SpawnNonce;
use super::key::KeyDigest;
use super::route_name::RouteName;

/// Everything that one file says.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What stays the same for the life of the child.
    pub settings: Arc<GatewaySettings>,
    /// The digest of the key that every call must carry.
    pub key: KeyDigest,
    /// The process that is to read the file.
    pub nonce: SpawnNonce,
    /// The servers, by name.
    pub routes: BTreeMap<RouteName, RoutePlan>,
}

/// What stays the same for the life of a gateway child; the gateway reads its `config:` block only at start.
#[derive(Clone, Debug)]
pub struct GatewaySettings {
    /// Where it listens.
    pub ports: GatewayPorts,
    /// Whether the host has IPv6. Without, agentgateway 1.2.1 leaves its data port dead unless it is told.
    pub ipv6: bool,
    /// What it logs.
    pub log_level: LogLevel,
    /// Where it exports spans of its own. When set, its rewritten `traceparent` is the one that servers see.
    pub spans: Option<SpanExport>,
    /// agentgateway's `frontendPolicies`, passed through.
    pub frontend_policies: Map<String, Value>,
}

/// The four ports of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayPorts {
    /// Calls to servers. agentgateway binds it on all interfaces, the embedded gateway on 127.0.0.1.
    pub data: NonZeroU16,
    /// `/config_dump`, on 127.0.0.1.
    pub admin: NonZeroU16,
    /// `/metrics`, on 127.0.0.1.
    pub stats: NonZeroU16,
    /// `/healthz/ready`, on 127.0.0.1.
    pub readiness: NonZeroU16,
}

/// The gateway's log filter, such as `info` or `info,hyper=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogLevel {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for LogLevel {
    type Err = InvalidLogLevel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-:=,.".contains(&byte);
        if !text.is_empty() && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidLogLevel(text.to_owned()))
        }
    }
}

/// A text that is no log filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a log level: use error, warn, info, debug or trace, or targets such as info,hyper=debug"
)]
pub struct InvalidLogLevel(String);

/// The gateway's own export of spans, OTLP.
#[derive(Clone, Debug)]
pub struct SpanExport {
    /// The collector.
    pub endpoint: Url,
    /// How it is spoken to.
    pub protocol: OtlpProtocol,
}

/// The two transports of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP with protobuf bodies.
    Http,
}

/// One server's route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePlan {
    /// agentgateway route policies of the operator; ours win on conflict.
    pub policies: Map<String, Value>,
    /// Where calls go.
    pub backend: RouteBackend,
}

/// Where the calls of a route go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteBackend {
    /// A plain HTTP route: the protocol passes byte for byte.
    Http(HttpBackend),
    /// As `Http`, to the bridge inside sidegate, which serves each route at a path of its own:
    /// [`RouteName::bridge_path`].
    Bridge(BridgeDial),
    /// agentgateway's own MCP backend.
    Mcp {
        /// The server.
        target: McpTarget,
        /// The proxy on the way to it.
        tunnel: Option<DialHost>,
    },
}

/// A server that the gateway dials itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpBackend {
    /// What is dialled.
    pub dial: Dial,
    /// The path, with query, that replaces the one of the call.
    pub path_and_query: PathAndQuery,
    /// The `Host` the upstream sees.
    pub authority: Authority,
    /// The proxy on the way to it, which agentgateway does not take from the environment. It is asked to CONNECT where
    /// TLS is spoken, and else for the whole URL.
    pub tunnel: Option<DialHost>,
}

/// How an upstream is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// HTTP over TCP.
    Plain(DialHost),
    /// HTTP over TLS over TCP.
    Tls(DialHost),
}

/// Where the bridge listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeDial {
    /// The absolute path of a Unix socket; text, because the file is.
    Unix(String),
    /// A port on 127.0.0.1, where the socket's path would be too long. The bridge's own key is a header of the call, put
    /// there by the caller and passed on untouched, because the gateway's admin port shows this file to every local user.
    Loopback(NonZeroU16),
}

/// A host and port that a gateway can dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialHost {
    host: Box<str>,
    port: NonZeroU16,
}

impl DialHost {
    /// Refuses what agentgateway 1.2.1 cannot dial: IPv6 literals (one rejects the whole file) and names that are not
    /// plain ASCII (which fail every call). Such a server is reached through the bridge.
    pub fn new(host: &str, port: NonZeroU16) -> Result<Self, InvalidDialHost> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !host.is_empty() && host.bytes().all(allowed) {
            Ok(Self { host: host.into(), port })
        } else {
            Err(InvalidDialHost(host.to_owned()))
        }
    }
}

impl fmt::Display for DialHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A host that a gateway cannot dial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither an IPv4 address nor an ASCII host name")]
pub struct InvalidDialHost(String);

/// The single target of agentgateway's own MCP backend; with one, its names are not prefixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum McpTarget {
    /// A child of the gateway, one a session, with exactly this environment.
    Stdio {
        /// The executable.
        command: String,
        /// Its arguments.
        args: Vec<String>,
        /// Its whole environment.
        env: BTreeMap<String, String>,
    },
    /// A streamable HTTP server. agentgateway loses a query string, and reads an empty path as `/mcp`.
    StreamableHttp(Url),
    /// A legacy SSE server. agentgateway loses a query string, and reads an empty path as `/sse`.
    Sse(Url),
}
