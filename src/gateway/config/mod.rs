//! The configuration: parsed, checked, and in the form that calls are served from.

mod file;
mod lower;
mod rule;
mod time;

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use rustls::pki_types::ServerName as TlsName;

/// A configuration that this gateway can serve.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is read once, at start.
    pub settings: Settings,
    pub(super) routes: Vec<RouteConfig>,
    file: file::File,
}

/// What is read once, at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The data port on 127.0.0.1.
    pub data: NonZeroU16,
    /// Where `/config_dump` is.
    pub admin: SocketAddr,
    /// Where `/metrics` is.
    pub stats: SocketAddr,
    /// Where `/healthz/ready` is.
    pub readiness: SocketAddr,
    /// The log filter. This gateway does not apply it; whoever runs the process does.
    pub log_level: Option<String>,
    /// How long an idle connection to a backend is kept.
    pub pool_idle_timeout: Duration,
    /// How long a connection to a backend may take, TLS and proxy included.
    pub connect_timeout: Duration,
}

/// A configuration that this gateway does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key or variant of agentgateway's that this gateway has no code for.
    #[error("{place}: the embedded gateway does not support {what:?}")]
    Unsupported {
        /// Line and column, or the path of the value.
        place: String,
        /// The key, or what is asked for.
        what: String,
    },
    /// Not the YAML of such a configuration.
    #[error("{reason}")]
    Syntax {
        /// What is wrong, with line and column.
        reason: String,
    },
    /// A value that says nothing sensible.
    #[error("{path}: {reason}")]
    Invalid {
        /// The path of the value.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Config {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let expanded = lower::expand(text)?;
        let options = serde_saphyr::options! { with_snippet: false };
        let file: file::File =
            serde_saphyr::from_str_with_options(&expanded, options).map_err(|error| lower::syntax(&error))?;
        lower::lower(file)
    }

    /// The file as JSON, for `/config_dump`. Holds the key's digest, never a key.
    pub(super) fn dump(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec_pretty(&self.file)
    }
}

/// One route.
#[derive(Clone, Debug)]
pub(super) struct RouteConfig {
    pub(super) name: String,
    pub(super) paths: Vec<PathRule>,
    pub(super) key: Option<KeyRule>,
    pub(super) action: Action,
    pub(super) response: HeaderEdit,
}

#[derive(Clone, Debug)]
pub(super) enum PathRule {
    Exact(String),
    /// At segment boundaries: `/a` is `/a` and `/a/…`, not `/ab`. Without a slash at its end.
    Prefix(String),
}

/// `sha256.encode(request.headers["<header>"]) == "<digest>"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRule {
    pub(super) header: HeaderName,
    pub(super) digest: [u8; 32],
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Answer { status: StatusCode, body: Bytes },
    Forward(Box<Forward>),
}

#[derive(Clone, Debug)]
pub(super) struct Forward {
    /// The path, with query; the whole URL where a proxy is to read from it where the request goes.
    pub(super) uri: Uri,
    pub(super) host: HeaderValue,
    pub(super) request: HeaderEdit,
    /// Header to set, header whose value it gets; an absent one removes it.
    pub(super) copy: Vec<(HeaderName, HeaderName)>,
    /// Headers to remove once they have been copied from.
    pub(super) remove: Vec<HeaderName>,
    pub(super) backend: BackendId,
}

#[derive(Clone, Debug, Default)]
pub(super) struct HeaderEdit {
    pub(super) set: Vec<(HeaderName, HeaderValue)>,
    pub(super) add: Vec<(HeaderName, HeaderValue)>,
    pub(super) remove: Vec<HeaderName>,
}

/// What is dialled. Equal ones share connections, also across reloads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BackendId {
    pub(super) address: Address,
    pub(super) tunnel: Option<HostPort>,
    pub(super) tls: Option<TlsId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Address {
    Tcp(HostPort),
    Unix(PathBuf),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct HostPort {
    pub(super) host: String,
    pub(super) port: NonZeroU16,
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TlsId {
    pub(super) name: TlsName<'static>,
    pub(super) trust: Trust,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// The system's roots.
    System,
    /// The PEM certificates of this file, instead.
    File(PathBuf),
    /// Whoever answers.
    Anyone,
}

#[cfg(test)]
mod tests;
