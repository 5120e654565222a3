//! Renders a set of definitions as agentgateway configuration, writes it atomically and proves that it is in force.
//!
//! Knows nothing of MCP sessions.
