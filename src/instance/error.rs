//! Why an instance does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::runtime_dir::RuntimeDirError;
use super::token::TokenError;
use crate::binary_resolver::ResolveError;
use crate::config::ConfigError;
use crate::mcpserver::{EditError, ImportError, InvalidServerName, ServerName};
use crate::ports::{Holder, PortSetError};
use crate::subprocess::Failure;
use crate::telemetry::export::ExportError;
use crate::telemetry::metrics::MetricsError;

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The listen address is not to be had.
    #[error("cannot listen on {address}{}", holder.as_ref().map(|holder| format!(": it is taken by {holder}")).unwrap_or_default())]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Who has it.
        holder: Option<Holder>,
        /// Why.
        source: io::Error,
    },
    /// The configuration directory cannot be used.
    #[error("the configuration directory {} cannot be used", .path.display())]
    ConfigDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The runtime directory cannot be used.
    #[error(transparent)]
    RuntimeDir(#[from] RuntimeDirError),
    /// The gateway's ports are not to be had.
    #[error(transparent)]
    Ports(#[from] PortSetError),
    /// A directory cannot be made.
    #[error("the directory {} cannot be made", .path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The bridge's socket cannot be bound.
    #[error("the socket {} cannot be bound", .path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is no agentgateway to run.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// The token that clients must send is not to be had.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The gateway did not start.
    #[error("the gateway {}", .0.report())]
    Gateway(Arc<Failure>),
    /// Servers of other instances have started it, one the other.
    #[error(
        "{deepest} instances of Sidegate stand around this one: each is started by a server of the one before (SIDEGATE_VIA)"
    )]
    Nested {
        /// How many may.
        deepest: usize,
    },
    /// The gateway is not ours to replace.
    #[error("the gateway runs elsewhere (upstreamUrl): whoever looks after it can restart it")]
    Elsewhere,
    /// The gateway is called over TLS, and the system trusts nobody.
    #[error("the gateway at {url} cannot be trusted")]
    Trust {
        /// Where it is.
        url: Url,
        /// Why.
        source: io::Error,
    },
    /// Policies that only agentgateway has.
    #[error(
        "gateway.frontendPolicies are agentgateway's, and this instance would run the embedded gateway, {reason}"
    )]
    FrontendPolicies {
        /// Why it would.
        reason: String,
    },
    /// The settings contradict each other.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// A server from code has no name that a server can have.
    #[error("{name:?} is no name for a server")]
    ServerName {
        /// The name.
        name: String,
        /// Why.
        source: InvalidServerName,
    },
    /// A server from code would be no definition, or there are two of its name.
    #[error("the server {:?} cannot be defined", .name.as_str())]
    Server {
        /// Its name.
        name: ServerName,
        /// Why.
        source: EditError,
    },
    /// A file of servers cannot be used.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A server of a file cannot be taken over.
    #[error("{}: the server {name:?} cannot be taken over: {reason}", .path.display())]
    NotImported {
        /// The file.
        path: PathBuf,
        /// Its name there.
        name: String,
        /// Why.
        reason: String,
    },
    /// Servers from code, and a directory of definitions.
    #[error("servers from code and the definitions of {} cannot be served by one instance", .path.display())]
    TwoSources {
        /// The configuration directory.
        path: PathBuf,
    },
    /// A path that cannot stand in a definition.
    #[error("the path {} is not UTF-8", .path.display())]
    NotUnicode {
        /// The path.
        path: PathBuf,
    },
    /// Servers that were waited for did not come.
    #[error(
        "not all servers are ready{}: {}",
        .limit.map(|limit| format!(" after {limit:?}")).unwrap_or_default(),
        .servers.join("; ")
    )]
    NotConnected {
        /// Where each of them stands, and why.
        servers: Vec<String>,
        /// The time they had, where that is over.
        limit: Option<Duration>,
    },
    /// What measures the instance cannot be set up.
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// Nothing can be exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// What should not happen.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// Whether the settings are what is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Export(_) | Self::Token(_) | Self::FrontendPolicies { .. })
    }

    /// Whether the gateway is what is missing.
    pub fn is_gateway(&self) -> bool {
        matches!(self, Self::Resolve(_) | Self::Gateway(_) | Self::Ports(_) | Self::Trust { .. })
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Listen { holder: Some(_), .. } => {
                Some("stop that process, or choose another address with --listen; port 0 takes any free one")
            }
            Self::Listen { .. } => Some("choose another address with --listen; port 0 takes any free one"),
            Self::RuntimeDir(error) => Some(error.hint()),
            Self::Ports(error) => Some(error.hint()),
            Self::Resolve(error) => error.hint(),
            Self::Token(error) => Some(error.hint()),
            Self::FrontendPolicies { .. } => Some(
                "wait for agentgateway with --gateway agentgateway, or leave gateway.frontendPolicies out",
            ),
            Self::ConfigDir { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                Some("give another directory with --config-dir, or move away what is there in its place")
            }
            Self::ConfigDir { .. } => Some("give another directory with --config-dir"),
            Self::Nested { .. } => Some("remove the server whose command starts another instance"),
            Self::Gateway(failure) => match &**failure {
                Failure::Spawn(_) => Some("is SIDEGATE_HELPER, where it is set, this version of sidegate?"),
                _ => Some(
                    "`sidegate doctor` looks for the reason; --gateway embedded does without agentgateway",
                ),
            },
            _ => None,
        }
    }
}
