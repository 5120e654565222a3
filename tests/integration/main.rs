//! End-to-end tests: one module a topic.

mod support;
