//! What an operator can ask for: start, stop and restart one server.
//!
//! What is asked for is written down before it is done, so that it survives a restart; the loop that looks at definitions
//! does the rest, as if the file had been edited by hand. Every operation returns when the new state is in force.

use std::str::FromStr as _;

use tokio::sync::{mpsc, oneshot, watch};

use super::look::Order;
use super::state::ServerState;
use super::status::Statuses;
use crate::mcpserver::{Definitions, EditError, ServerName};

/// Starts, stops and restarts servers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator {
    definitions: Definitions,
    statuses: watch::Receiver<Statuses>,
    orders: mpsc::UnboundedSender<Order>,
}

/// What an operation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Done {
    /// It runs now, and did not before.
    Started,
    /// It ran before, and does still.
    AlreadyRunning,
    /// Nothing of it is left.
    Stopped,
    /// It did not run before, and is not wanted.
    AlreadyStopped,
    /// It has another session, and another process where it is one.
    Restarted,
}

impl Done {
    /// The result for programs.
    pub fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::AlreadyRunning => "already_running",
            Self::Stopped => "stopped",
            Self::AlreadyStopped => "already_stopped",
            Self::Restarted => "restarted",
        }
    }

    /// The result for people.
    pub fn sentence(self, server: &str) -> String {
        match self {
            Self::Started => format!("Successfully started service '{server}'"),
            Self::AlreadyRunning => format!("Service '{server}' is already running"),
            Self::Stopped => format!("Successfully stopped service '{server}'"),
            Self::AlreadyStopped => format!("Service '{server}' is already stopped"),
            Self::Restarted => format!("Successfully restarted service '{server}'"),
        }
    }
}

/// Why a server is not as it was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// There is no such server.
    #[error("service {0} not found")]
    NotFound(String),
    /// It was wanted, and does not run. Tries go on, unless its definition is at fault.
    #[error("server {server} does not run: {reason}")]
    NotRunning {
        /// The server.
        server: ServerName,
        /// Why not.
        reason: String,
    },
    /// What is wanted could not be written down, so nothing was done.
    #[error("what is wanted of server {server} cannot be kept")]
    NotKept {
        /// The server.
        server: ServerName,
        /// Why not.
        source: EditError,
    },
    /// While it was being stopped, somebody else has started it.
    #[error("server {0} was started again meanwhile")]
    Overruled(ServerName),
    /// The instance is stopping.
    #[error("sidegate is stopping")]
    Stopping,
}

impl Operator {
    pub(super) fn new(
        definitions: Definitions,
        statuses: watch::Receiver<Statuses>,
        orders: mpsc::UnboundedSender<Order>,
    ) -> Self {
        Self { definitions, statuses, orders }
    }

    /// Starts a server, also one that was stopped or does not start by itself. Returns when its tools can be called.
    ///
    /// # Errors
    ///
    /// See [`OperateError`].
    pub async fn start(&self, name: &str) -> Result<Done, OperateError> {
        let (name, state) = self.find(name)?;
        if state.is_up() {
            return Ok(Done::AlreadyRunning);
        }
        self.suspend(&name, false).await?;
        self.bring_up(&name, Order::Start).await?;
        Ok(Done::Started)
    }

    /// Stops a server, for good: its definition says so from now on. Returns when nothing of it is left.
    ///
    /// # Errors
    ///
    /// See [`OperateError`].
    pub async fn stop(&self, name: &str) -> Result<Done, OperateError> {
        let (name, state) = self.find(name)?;
        let rested = state.is_resting();
        if !rested {
            self.suspend(&name, true).await?;
        }
        let (sender, done) = oneshot::channel();
        self.order(Order::Rest(name.clone(), sender))?;
        match done.await {
            // It may have been on its way out still.
            Ok(()) if rested => Ok(Done::AlreadyStopped),
            Ok(()) => Ok(Done::Stopped),
            Err(_) => {
                self.look().await?;
                Err(OperateError::Overruled(name))
            }
        }
    }

    /// Closes a server's session, and ends its process where it is one, and opens another; one that does not run is
    /// started. Returns when its tools can be called.
    ///
    /// # Errors
    ///
    /// See [`OperateError`].
    pub async fn restart(&self, name: &str) -> Result<Done, OperateError> {
        let (name, state) = self.find(name)?;
        if state.is_resting() {
            self.suspend(&name, false).await?;
        }
        self.bring_up(&name, Order::Restart).await?;
        Ok(Done::Restarted)
    }

    /// Looks at the definitions now, and returns when what they say has begun.
    ///
    /// # Errors
    ///
    /// [`OperateError::Stopping`].
    pub async fn look(&self) -> Result<(), OperateError> {
        let (sender, done) = oneshot::channel();
        self.order(Order::Look(sender))?;
        done.await.map_err(|_| OperateError::Stopping)
    }

    fn find(&self, name: &str) -> Result<(ServerName, ServerState), OperateError> {
        let not_found = || OperateError::NotFound(name.to_owned());
        let name = ServerName::from_str(name).map_err(|_| not_found())?;
        let state = self.statuses.borrow().get(&name).map(|status| status.state.clone());
        Ok((name, state.ok_or_else(not_found)?))
    }

    /// Writes down whether a server is wanted.
    async fn suspend(&self, name: &ServerName, suspended: bool) -> Result<(), OperateError> {
        let (definitions, server) = (self.definitions.clone(), name.clone());
        let written = tokio::task::spawn_blocking(move || definitions.suspend(&server, suspended)).await;
        // A blocking task is cut off only by the end of the runtime.
        let written = written.map_err(|_| OperateError::Stopping)?;
        let server = name.clone();
        written.map(drop).map_err(|error| match error {
            // Its file was removed a moment ago.
            EditError::NotFound { name } => OperateError::NotFound(name.to_string()),
            EditError::Invalid(invalid) if !suspended => {
                OperateError::NotRunning { server, reason: invalid.to_string() }
            }
            source => OperateError::NotKept { server, source },
        })
    }

    async fn bring_up(
        &self,
        name: &ServerName,
        order: fn(ServerName, super::actor::Settled) -> Order,
    ) -> Result<(), OperateError> {
        let mut order = order;
        let not_running = |reason| OperateError::NotRunning { server: name.clone(), reason };
        loop {
            let (settled, wait) = oneshot::channel();
            self.order(order(name.clone(), settled))?;
            if let Ok(settled) = wait.await {
                return settled.map_err(not_running);
            }
            // It is not on its way any more: what is known of it says why, as soon as that is written down.
            self.look().await?;
            let state = self.statuses.borrow().get(name).map(|status| status.state.clone());
            match state {
                None => return Err(OperateError::NotFound(name.to_string())),
                // Its definition was taken away and came back: that is another session as well.
                Some(state) if state.is_up() => return Ok(()),
                Some(ServerState::Starting | ServerState::Connecting) => order = Order::Start,
                Some(state) => {
                    let reason = state.reason().map_or_else(|| format!("it is {state}"), str::to_owned);
                    return Err(not_running(reason));
                }
            }
        }
    }

    fn order(&self, order: Order) -> Result<(), OperateError> {
        self.orders.send(order).map_err(|_| OperateError::Stopping)
    }
}
