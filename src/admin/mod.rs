//! Administration of a running instance by its owner: the control socket, and what is said through it.
//!
//! Knows nothing of what the operations do: they come in as a handler.

pub mod control;
pub mod status;
