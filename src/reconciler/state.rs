//! Where a server stands.

use std::fmt;
use std::time::Duration;

use crate::telemetry::secrets::Secrets;

/// Where a server stands.
///
/// | state | means | next |
/// | --- | --- | --- |
/// | `Starting`, `Connecting` | a session is being opened (stdio, remote) | `Running`, `Connected`, `Failed` |
/// | `Running`, `Connected` | its tools can be called | `Starting`, `Connecting` when the session is lost |
/// | `Degraded` | its tools can be called, but are not the latest | `Running`, `Connected` when they are listed |
/// | `Failed` | no session; tries go on | `Running`, `Connected` |
/// | `AuthRequired` | the same, because the server wants credentials | `Running`, `Connected` |
/// | `Stopped`, `Disconnected` | the operator does not want it, or it is not started by itself | `Starting`, `Connecting` |
/// | `Invalid` | its file, or its route, is wrong | `Starting`, `Connecting` when it was mended |
/// | `Unsupported` | it asks for what this instance cannot do | `Starting`, `Connecting` when it was changed |
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServerState {
    /// A stdio server is being started.
    Starting,
    /// A remote server is being connected.
    Connecting,
    /// A stdio server that can be called.
    Running,
    /// A remote server that can be called.
    Connected,
    /// A stdio server that is not wanted now.
    Stopped,
    /// A remote server that is not wanted now.
    Disconnected,
    /// There is no session, and why.
    Failed {
        /// What went wrong last.
        reason: String,
        /// How many tries in a row have failed.
        failures: u32,
        /// How long until the next one, from when the state began.
        retry_in: Duration,
    },
    /// As `Failed`, because the server wants to know who asks.
    AuthRequired {
        /// What it said.
        reason: String,
        /// How many tries in a row have failed.
        failures: u32,
        /// How long until the next one, from when the state began.
        retry_in: Duration,
    },
    /// It can be called, but something is wrong with it.
    Degraded {
        /// What it is.
        reason: String,
    },
    /// The definition cannot be used, and why.
    Invalid {
        /// All that is wrong.
        reason: String,
    },
    /// The definition asks for what is not to be had here.
    Unsupported {
        /// What it is.
        reason: String,
    },
}

impl ServerState {
    /// The names of all states.
    pub const NAMES: [&'static str; 11] = [
        "starting",
        "connecting",
        "running",
        "connected",
        "degraded",
        "failed",
        "auth_required",
        "stopped",
        "disconnected",
        "invalid",
        "unsupported",
    ];

    /// The state's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Connecting => "connecting",
            Self::Running => "running",
            Self::Connected => "connected",
            Self::Stopped => "stopped",
            Self::Disconnected => "disconnected",
            Self::Failed { .. } => "failed",
            Self::AuthRequired { .. } => "auth_required",
            Self::Degraded { .. } => "degraded",
            Self::Invalid { .. } => "invalid",
            Self::Unsupported { .. } => "unsupported",
        }
    }

    /// Why it is so, where that is not the usual.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Failed { reason, .. }
            | Self::AuthRequired { reason, .. }
            | Self::Degraded { reason }
            | Self::Invalid { reason }
            | Self::Unsupported { reason } => Some(reason),
            Self::Starting
            | Self::Connecting
            | Self::Running
            | Self::Connected
            | Self::Stopped
            | Self::Disconnected => None,
        }
    }

    /// The state, whose reason holds nothing that may be secret.
    pub(super) fn without(mut self, secrets: &Secrets) -> Self {
        match &mut self {
            Self::Failed { reason, .. }
            | Self::AuthRequired { reason, .. }
            | Self::Degraded { reason }
            | Self::Invalid { reason }
            | Self::Unsupported { reason } => *reason = secrets.redact(reason).into_owned(),
            Self::Starting
            | Self::Connecting
            | Self::Running
            | Self::Connected
            | Self::Stopped
            | Self::Disconnected => {}
        }
        self
    }

    /// How many tries in a row have failed, and how long after the state began the next one follows.
    pub fn next_try(&self) -> Option<(u32, Duration)> {
        match self {
            Self::Failed { failures, retry_in, .. } | Self::AuthRequired { failures, retry_in, .. } => {
                Some((*failures, *retry_in))
            }
            _ => None,
        }
    }

    /// Whether its tools can be called.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Running | Self::Connected | Self::Degraded { .. })
    }

    /// Whether nobody wants it now.
    pub fn is_resting(&self) -> bool {
        matches!(self, Self::Stopped | Self::Disconnected)
    }

    /// Whether something is known of the server: it is not on its way for the first time.
    pub fn is_settled(&self) -> bool {
        !matches!(self, Self::Starting | Self::Connecting)
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_in_the_list_of_names() {
        let (reason, failures, retry_in) = (String::new(), 1, Duration::ZERO);
        let all = [
            ServerState::Starting,
            ServerState::Connecting,
            ServerState::Running,
            ServerState::Connected,
            ServerState::Degraded { reason: reason.clone() },
            ServerState::Failed { reason: reason.clone(), failures, retry_in },
            ServerState::AuthRequired { reason: reason.clone(), failures, retry_in },
            ServerState::Stopped,
            ServerState::Disconnected,
            ServerState::Invalid { reason: reason.clone() },
            ServerState::Unsupported { reason },
        ];
        assert_eq!(all.map(|state| state.name()), ServerState::NAMES);
    }
}
