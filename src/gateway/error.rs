//! Why the gateway cannot serve.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::config::ConfigError;

/// One of the four listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Surface {
    /// Calls.
    Data,
    /// `/config_dump`.
    Admin,
    /// `/metrics`.
    Stats,
    /// `/healthz/ready`.
    Readiness,
}

impl fmt::Display for Surface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Admin => "admin",
            Self::Stats => "stats",
            Self::Readiness => "readiness",
        })
    }
}

/// The gateway could not start. Once it serves, nothing but the shutdown ends it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The file cannot be read; the source names it.
    #[error("cannot read the gateway configuration")]
    Read(#[source] io::Error),
    /// The file is not one that this gateway serves.
    #[error("cannot serve {}", file.display())]
    Config {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        source: ConfigError,
    },
    /// A port cannot be had. Fatal also for the data port, where agentgateway stays up without one.
    #[error("cannot listen on the {surface} port {address}")]
    Bind {
        /// Which listener.
        surface: Surface,
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
}
