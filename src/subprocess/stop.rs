//! How a child is asked to end.

use std::time::Duration;

pub use rustix::process::Signal;

/// One step of a [`StopRecipe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Close the tree's own end of the command's standard input.
    ///
    /// An end that was taken out of the tree is its holder's to close, before the stop.
    CloseStdin,
    /// Send a signal to the command itself, not to its descendants: it may have its own way of ending them.
    Signal(Signal),
    /// Give the command this long to end; the recipe is over as soon as it has.
    Wait(Duration),
}

/// What is tried, in this order, before the whole tree is killed by SIGKILL.
///
/// The kill needs no step: it comes after the last one, and after the end of the command for whatever that left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StopRecipe {
    steps: Vec<Step>,
}

impl StopRecipe {
    /// These steps, then the kill.
    pub fn new(steps: impl Into<Vec<Step>>) -> Self {
        Self { steps: steps.into() }
    }

    /// No steps: the kill at once.
    pub fn kill() -> Self {
        Self { steps: Vec::new() }
    }

    /// SIGTERM, then `grace` to end.
    pub fn terminate(grace: Duration) -> Self {
        Self::new([Step::Signal(Signal::TERM), Step::Wait(grace)])
    }

    /// Standard input closed, `grace` to end, SIGTERM, `grace` again: what the MCP specification (2025-11-25, Lifecycle,
    /// Shutdown, stdio) asks of a client.
    pub fn stdio(grace: Duration) -> Self {
        Self::new([Step::CloseStdin, Step::Wait(grace), Step::Signal(Signal::TERM), Step::Wait(grace)])
    }

    /// The steps before the kill.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}
