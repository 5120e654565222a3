//! Watches the definitions and drives each server from what is desired to what is.
//!
//! Knows nothing of the wire format.
