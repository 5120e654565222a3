//! Logging for the binary.
