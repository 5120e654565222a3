//! Finds, downloads and verifies pinned agentgateway releases.
//!
//! Knows nothing of processes.
