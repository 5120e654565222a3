//! Administration of a running instance: the control socket of its owner, what is said through it, and the page for a
//! browser.
//!
//! The control socket knows nothing of what the operations do: they come in as a handler.

pub mod calls;
pub mod control;
pub mod page;
pub mod status;
