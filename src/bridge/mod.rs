//! Serves what the gateway cannot dial, stdio servers first, as streamable HTTP on a Unix socket.
//!
//! Knows nothing of gateways and of exposed names.
