//! The embedded gateway: a small reverse proxy for the configuration subset that this project renders.
//!
//! Knows nothing of MCP and of the aggregator.
