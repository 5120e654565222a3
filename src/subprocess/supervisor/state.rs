//! What a supervisor shows.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::tree::{Ending, SpawnError};
use crate::error::chain;

/// An error of the caller's own code.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a supervised child stands.
#[derive(Clone, Debug)]
pub enum State {
    /// Not started yet.
    Idle,
    /// Being started: `pid` is known from the spawn on.
    Starting {
        /// The process that is being waited for.
        pid: Option<u32>,
    },
    /// Running, and its probe has said so.
    Ready(Running),
    /// Being ended, for this reason.
    Draining {
        /// The process that is being ended.
        pid: u32,
        /// Why.
        reason: Arc<str>,
    },
    /// Waiting for the next try.
    Backoff {
        /// Why the last one ended.
        failure: Arc<Failure>,
        /// How many in a row have failed.
        failures: u32,
        /// When the next one is.
        retry_at: Instant,
    },
    /// Given up, by the [`RestartPolicy`](super::RestartPolicy); only a command changes that.
    Failed(Arc<Failure>),
    /// Ended because it was told to.
    Stopped,
}

impl State {
    /// The state's name, as users see it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Starting { .. } => "starting",
            Self::Ready(_) => "ready",
            Self::Draining { .. } => "draining",
            Self::Backoff { .. } => "backoff",
            Self::Failed(_) => "failed",
            Self::Stopped => "stopped",
        }
    }

    /// The process that exists in this state.
    pub fn pid(&self) -> Option<u32> {
        match self {
            Self::Starting { pid } => *pid,
            Self::Ready(running) => Some(running.pid),
            Self::Draining { pid, .. } => Some(*pid),
            Self::Idle | Self::Backoff { .. } | Self::Failed(_) | Self::Stopped => None,
        }
    }
}

/// A child that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The command's process id.
    pub pid: u32,
    /// The number of this start: 1 for the first, and never the same again.
    pub start: u64,
    /// When it became ready.
    pub since: Instant,
}

/// Why there is no use in waiting for a child to be ready.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NeverReady {
    /// The supervisor has given up.
    #[error("failed for good")]
    Failed(#[source] Arc<Failure>),
    /// The child was stopped.
    #[error("was stopped")]
    Stopped,
}

/// Why a child is not running. What is in `source` is not in the text; [`Failure::report`] has it all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The caller could not say what to run.
    #[error("could not be prepared")]
    Prepare(#[source] BoxError),
    /// It did not start.
    #[error("could not be started")]
    Spawn(#[source] SpawnError),
    /// It ended before it was ready.
    #[error("{ending} before it was ready{}", last(tail))]
    EarlyExit {
        /// How it ended.
        ending: Ending,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// It was not ready in time.
    #[error("was not ready after {limit:?}{}", last(tail))]
    NotReady {
        /// The time it had.
        limit: Duration,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// Its probe said that it never will be ready.
    #[error("is not usable{}", last(tail))]
    Probe {
        /// What the probe said.
        source: BoxError,
        /// Its last lines.
        tail: Vec<String>,
    },
    /// It ended while it was ready.
    #[error("{ending} after {uptime:.1?}{}", last(tail))]
    Exit {
        /// How it ended.
        ending: Ending,
        /// For how long it was ready.
        uptime: Duration,
        /// Its last lines.
        tail: Vec<String>,
    },
}

impl Failure {
    /// The failure and all its causes, in one line.
    pub fn report(&self) -> String {
        chain(self)
    }

    /// The last lines that the child printed.
    pub fn tail(&self) -> &[String] {
        match self {
            Self::Prepare(_) | Self::Spawn(_) => &[],
            Self::EarlyExit { tail, .. }
            | Self::NotReady { tail, .. }
            | Self::Probe { tail, .. }
            | Self::Exit { tail, .. } => tail,
        }
    }

    /// How the child ended, when it ended by itself.
    pub fn ending(&self) -> Option<Ending> {
        match self {
            Self::EarlyExit { ending, .. } | Self::Exit { ending, .. } => Some(*ending),
            Self::Prepare(_) | Self::Spawn(_) | Self::NotReady { .. } | Self::Probe { .. } => None,
        }
    }
}

/// The last line of a tail, as the end of a message.
fn last(tail: &[String]) -> impl fmt::Display {
    tail.last().map(|line| format!("; its last line: {line}")).unwrap_or_default()
}
