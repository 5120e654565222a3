//! Port leases: TCP ports that stay ours from the moment they are chosen until the value is dropped.
//!
//! A [`Lease`] is a socket that is bound and never listens. It is bound *without* `SO_REUSEADDR`, and the option is set
//! on it afterwards. The kernel lets a socket share a port only when both sockets have the option and neither listens,
//! which gives three properties at once:
//!
//! - whoever binds without the option (another lease, a stranger) gets `EADDRINUSE`;
//! - a server that sets the option, started by us, binds and listens beside the lease;
//! - the lease ends with the process, whatever ends it: there is no file to clean up.
//!
//! What a lease cannot do: a stranger that sets `SO_REUSEADDR` can listen on the port before our server does. Who leases a
//! port for a server has to prove that it is that server which answers.
//!
//! Invariants:
//! - Two live leases on this host (network namespace), of any user, never have the same port number.
//! - A port that was asked for is leased or the call fails; it is never replaced by another.
//! - No socket of a lease is inherited by a child.
//!
//! Knows nothing of why a port is wanted.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "port leases rest on how Linux treats SO_REUSEADDR; other systems need their own implementation"
);

mod claim;
mod holder;
mod lease;
mod port;
mod set;
#[cfg(test)]
mod tests;

pub use holder::{Holder, describe_holder};
pub use lease::{Interface, Lease, LeaseError, ipv6_available, lease_any, lease_exact};
pub use port::{InvalidPort, Port};
pub use set::{PortRequest, PortSet, PortSetError, Purpose};
