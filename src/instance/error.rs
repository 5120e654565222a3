//! Why an instance does not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::runtime_dir::RuntimeDirError;
use super::token::TokenError;
use crate::binary_resolver::ResolveError;
use crate::ports::{Holder, PortSetError};
use crate::subprocess::Failure;

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
    /// What this version does not have.
    #[error("{0} is not supported by this version of sidegate")]
    Unsupported(&'static str),
    /// What should not happen.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// Whether the settings are what is wrong.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Unsupported(_) | Self::Token(_) | Self::FrontendPolicies { .. })
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
            Self::Token(_) => Some("write a token of at least 16 characters into it, readable by you only"),
            Self::FrontendPolicies { .. } => Some(
                "wait for agentgateway with --gateway agentgateway, or leave gateway.frontendPolicies out",
            ),
            Self::ConfigDir { .. } => Some("give another directory with --config-dir"),
            _ => None,
        }
    }
}
