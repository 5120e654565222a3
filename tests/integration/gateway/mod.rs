//! The embedded gateway and the applier of its file, on real sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are tests")]

mod applying;
mod forwarding;
mod reloading;
mod support;
