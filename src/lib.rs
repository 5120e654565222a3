//! Sidegate gives a person a single MCP endpoint over all of their MCP servers.

pub mod aggregator;
pub mod binary_resolver;
pub mod bridge;
pub mod config;
pub mod environment;
mod error;
pub mod example_server;
pub mod gateway;
pub mod instance;
pub mod mcpserver;
pub mod ports;
pub mod reconciler;
pub mod subprocess;
pub mod telemetry;
pub mod wire;
pub mod yaml_applier;

mod yaml;
