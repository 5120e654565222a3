//! One leased port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, getsockname, socket_with, sockopt};

use super::claim::Claim;
use super::holder::{Holder, describe_holder};
use super::port::Port;

/// How often [`lease_any`] asks the kernel for a port before it gives up. Only a port that another lease claims on another
/// interface costs a try, so a second try is already rare.
const ATTEMPTS: usize = 32;

/// Where a leased port is reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Interface {
    /// 127.0.0.1.
    LoopbackV4,
    /// ::1.
    LoopbackV6,
    /// Every address of the host: `[::]` for both families, or 0.0.0.0 where the host has no IPv6.
    All,
}

impl Interface {
    fn address(self, ipv6: bool) -> IpAddr {
        match self {
            Self::LoopbackV4 => Ipv4Addr::LOCALHOST.into(),
            Self::LoopbackV6 => Ipv6Addr::LOCALHOST.into(),
            Self::All if ipv6 => Ipv6Addr::UNSPECIFIED.into(),
            Self::All => Ipv4Addr::UNSPECIFIED.into(),
        }
    }
}

/// A port that is ours as long as this value lives. See the module documentation for what that means.
#[derive(Debug)]
#[must_use = "dropping a lease gives the port back"]
pub struct Lease {
    address: SocketAddr,
    port: Port,
    socket: OwnedFd,
    _claim: Claim,
}

impl Lease {
    /// The leased port.
    pub fn port(&self) -> Port {
        self.port
    }

    /// The address that is held. For [`Interface::All`] it is `[::]` or 0.0.0.0, to which nobody can connect everywhere:
    /// clients dial a loopback address with [`Lease::port`].
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl AsFd for Lease {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Why a port cannot be leased.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// Somebody else listens on the port, or leased it.
    #[error("{address} is taken by {}", Holder::describe(.holder.as_ref()))]
    Taken {
        /// What was asked for.
        address: SocketAddr,
        /// Who holds it, where `/proc` may be read that far.
        holder: Option<Holder>,
    },
    /// This user may not bind the port: by default, ports below 1024 are for root.
    #[error("binding {address} is not permitted")]
    NotPermitted {
        /// What was asked for.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel offered only ports that other leases claim.
    #[error("none of {ATTEMPTS} ports offered for {ip} was free")]
    Exhausted {
        /// The address a port was wanted on.
        ip: IpAddr,
    },
    /// Anything else: no ports left, no descriptors left, no such address.
    #[error("binding {address} failed")]
    Io {
        /// What was asked for; port 0 is "any".
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl LeaseError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "stop that process, or choose another port; 0 takes any free one",
            Self::NotPermitted { .. } => "choose a port above 1023, or 0 for any free one",
            Self::Exhausted { .. } | Self::Io { .. } => "see `ss -tanp` for what uses ports here",
        }
    }
}

/// Whether this host has IPv6 at all: whether a server that binds `[::]` gets anywhere.
pub fn ipv6_available() -> bool {
    bound(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0), false).is_ok()
}

/// Leases a port of the kernel's choice.
///
/// # Errors
///
/// Fails when the host has no port, descriptor or such interface left.
pub fn lease_any(interface: Interface) -> Result<Lease, LeaseError> {
    any_on(interface.address(ipv6_available()))
}

/// Leases this very port.
///
/// Connections in TIME_WAIT hold no port: they are what a predecessor on an explicit port leaves for a minute.
///
/// # Errors
///
/// Fails when the port is listened on or leased, naming the holder where `/proc` shows it. Finding the holder reads all of
/// `/proc/*/fd`, some milliseconds on a busy host.
pub fn lease_exact(interface: Interface, port: Port) -> Result<Lease, LeaseError> {
    exact_on(interface.address(ipv6_available()), port)
}

pub(super) fn any_on(ip: IpAddr) -> Result<Lease, LeaseError> {
    let wanted = SocketAddr::new(ip, 0);
    let failed = |source: io::Error| LeaseError::Io { address: wanted, source };
    for _ in 0..ATTEMPTS {
        let socket = bound(wanted, false).map_err(|errno| failed(errno.into()))?;
        let address =
            getsockname(&socket).and_then(SocketAddr::try_from).map_err(|errno| failed(errno.into()))?;
        let port = Port::new(address.port()).ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))?;
        if let Some(claim) = Claim::take(port).map_err(failed)? {
            return Lease::open_to_our_server(socket, address, port, claim).map_err(failed);
        }
    }
    Err(LeaseError::Exhausted { ip })
}

pub(super) fn exact_on(ip: IpAddr, port: Port) -> Result<Lease, LeaseError> {
    let address = SocketAddr::new(ip, port.get());
    let failed = |source: io::Error| LeaseError::Io { address, source };
    let taken = || LeaseError::Taken { address, holder: describe_holder(address) };

    // The claim comes first: it alone keeps out another lease where TIME_WAIT forces the second kind of bind.
    let claim = Claim::take(port).map_err(failed)?.ok_or_else(taken)?;
    let socket = match bound(address, false) {
        Err(Errno::ADDRINUSE) => bound(address, true),
        first => first,
    };
    match socket {
        Ok(socket) => Lease::open_to_our_server(socket, address, port, claim).map_err(failed),
        Err(Errno::ADDRINUSE) => Err(taken()),
        Err(errno @ (Errno::ACCESS | Errno::PERM)) => {
            Err(LeaseError::NotPermitted { address, source: errno.into() })
        }
        Err(errno) => Err(failed(errno.into())),
    }
}

impl Lease {
    /// Completes a lease: from here on a server that sets `SO_REUSEADDR` can listen beside the socket.
    fn open_to_our_server(
        socket: OwnedFd,
        address: SocketAddr,
        port: Port,
        claim: Claim,
    ) -> io::Result<Self> {
        sockopt::set_socket_reuseaddr(&socket, true)?;
        Ok(Self { address, port, socket, _claim: claim })
    }
}

/// A TCP socket bound to `address`, for both families where that is `[::]`.
fn bound(address: SocketAddr, reuse: bool) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    if address.is_ipv6() {
        // Not left to the host's net.ipv6.bindv6only: a `[::]` lease must hold the IPv4 side too.
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    sockopt::set_socket_reuseaddr(&socket, reuse)?;
    bind(&socket, &address)?;
    Ok(socket)
}
