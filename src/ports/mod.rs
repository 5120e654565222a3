//! Port leases.
//!
//! Knows nothing of why a port is wanted.
