//! End-to-end tests: one module a topic.

// Always so here, but Clippy's allowances for tests look for the attribute.
#[cfg(test)]
mod support;
mod subprocess;
mod gateway;
mod resolver;
