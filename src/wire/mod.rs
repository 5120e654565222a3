//! MCP on the wire: JSON-RPC envelopes, streamable HTTP as server and as client, and stdio framing.
//!
//! Knows nothing of the names of servers.
