//! End-to-end tests: one module a topic.

// Always so here, but Clippy's allowances for tests look for the attribute.
#[cfg(test)]
mod absent;
#[cfg(test)]
mod activation;
#[cfg(test)]
mod aggregate;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod behind_bridge;
#[cfg(test)]
mod broken_peers;
#[cfg(test)]
mod changes;
#[cfg(test)]
mod circles;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod clients;
#[cfg(test)]
mod collectors;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod connect;
#[cfg(test)]
mod control;
#[cfg(test)]
mod cuts;
#[cfg(test)]
mod definitions_cli;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod exposure;
#[cfg(test)]
mod external;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod first_steps;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod house;
#[cfg(test)]
mod isolation;
#[cfg(test)]
mod library;
#[cfg(test)]
mod logging;
#[cfg(test)]
mod management;
#[cfg(test)]
mod mcp_route;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod operate;
#[cfg(test)]
mod page;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod project;
#[cfg(test)]
mod protocol;
#[cfg(test)]
mod proxies;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod reloads;
#[cfg(test)]
mod resolver;
#[cfg(test)]
mod run;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod security;
#[cfg(test)]
mod shutdown;
#[cfg(test)]
mod single;
#[cfg(test)]
mod soak;
#[cfg(test)]
mod stdio;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod subprocess;
#[cfg(test)]
mod support;
#[cfg(test)]
mod surroundings;
#[cfg(test)]
mod swap;
#[cfg(test)]
mod tracing;
#[cfg(test)]
mod variables;
#[cfg(test)]
mod waiting;
#[cfg(test)]
mod watching;
