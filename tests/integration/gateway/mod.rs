//! The embedded gateway and the applier of its file, on real sockets.

mod applying;
mod forwarding;
mod reloading;
mod support;
