//! The mark by which leases know each other.
//!
//! A port that has connections in TIME_WAIT can only be bound with `SO_REUSEADDR`, and bound like that it could be shared
//! with another lease. So each lease also binds an abstract Unix socket named after the port number: exclusive among all
//! users, in the same network namespace as the port itself, and gone with the process. Its entry in `/proc/net/unix` also
//! tells who holds a port that is leased and not yet listened on, which `/proc/net/tcp` does not show.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

use super::Port;

/// The exclusive right, among leases, to a port number.
#[derive(Debug)]
pub(super) struct Claim {
    /// Bound, never listening; dropping it gives the claim back.
    _socket: OwnedFd,
}

impl Claim {
    /// Claims `port`; `None` when another lease has it.
    pub(super) fn take(port: Port) -> io::Result<Option<Self>> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        match bind(&socket, &SocketAddrUnix::new_abstract_name(name(port).as_bytes())?) {
            Ok(()) => Ok(Some(Self { _socket: socket })),
            Err(Errno::ADDRINUSE) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// The abstract name of the claim, without the leading NUL.
pub(super) fn name(port: Port) -> String {
    format!("sidegate-port-{port}")
}
