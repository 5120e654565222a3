//! A generic supervisor for one tree of child processes, and the guard that ends it.
//!
//! Knows nothing of agentgateway.
