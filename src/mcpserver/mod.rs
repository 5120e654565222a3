//! The MCPServer resource: its type, the one validator, and the store of definition files.
//!
//! Knows nothing of gateways and nothing of MCP.

mod name;

pub use name::{InvalidServerName, ServerName};
