//! The catalogue of all tools, the sessions of clients, and the relay between them and the servers.
//!
//! Knows nothing of files and processes.
