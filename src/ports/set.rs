//! The four ports of one gateway, leased together.

use std::fmt;

use super::lease::{Interface, Lease, LeaseError, lease_any, lease_exact};
use super::port::Port;

/// What a port of a [`PortSet`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Where calls arrive; bound on all interfaces.
    Data,
    /// The administration interface, on 127.0.0.1.
    Admin,
    /// Metrics, on 127.0.0.1.
    Stats,
    /// The readiness probe, on 127.0.0.1.
    Readiness,
}

impl Purpose {
    fn interface(self) -> Interface {
        match self {
            Self::Data => Interface::All,
            Self::Admin | Self::Stats | Self::Readiness => Interface::LoopbackV4,
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Data => "data",
            Self::Admin => "admin",
            Self::Stats => "stats",
            Self::Readiness => "readiness",
        })
    }
}

/// Which ports are wanted; `None` leases any free one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRequest {
    /// See [`Purpose::Data`].
    pub data: Option<Port>,
    /// See [`Purpose::Admin`].
    pub admin: Option<Port>,
    /// See [`Purpose::Stats`].
    pub stats: Option<Port>,
    /// See [`Purpose::Readiness`].
    pub readiness: Option<Port>,
}

impl PortRequest {
    fn wishes(&self) -> [(Purpose, Option<Port>); 4] {
        [
            (Purpose::Data, self.data),
            (Purpose::Admin, self.admin),
            (Purpose::Stats, self.stats),
            (Purpose::Readiness, self.readiness),
        ]
    }

    /// The first port that is asked for twice, and what for.
    fn duplicate(&self) -> Option<PortSetError> {
        let wishes = self.wishes();
        wishes.iter().enumerate().find_map(|(index, (second, port))| {
            let port = (*port)?;
            let (first, _) = wishes.iter().take(index).find(|(_, earlier)| *earlier == Some(port))?;
            Some(PortSetError::Duplicate { port, first: *first, second: *second })
        })
    }
}

/// The leases of one gateway.
#[derive(Debug)]
#[must_use = "dropping a set gives its ports back"]
pub struct PortSet {
    /// Where calls arrive: `[::]`, or 0.0.0.0 where the host has no IPv6.
    pub data: Lease,
    /// The administration interface, on 127.0.0.1.
    pub admin: Lease,
    /// Metrics, on 127.0.0.1.
    pub stats: Lease,
    /// The readiness probe, on 127.0.0.1.
    pub readiness: Lease,
}

impl PortSet {
    /// Leases all four ports, or none.
    ///
    /// # Errors
    ///
    /// Fails when one port cannot be leased, and says which; explicit ports are never replaced by others.
    pub fn lease(request: &PortRequest) -> Result<Self, PortSetError> {
        if let Some(duplicate) = request.duplicate() {
            return Err(duplicate);
        }
        // Explicit ports first, so that none of them is given away to a wish for any port.
        let data = exact(Purpose::Data, request.data)?;
        let admin = exact(Purpose::Admin, request.admin)?;
        let stats = exact(Purpose::Stats, request.stats)?;
        let readiness = exact(Purpose::Readiness, request.readiness)?;
        Ok(Self {
            data: or_any(Purpose::Data, data)?,
            admin: or_any(Purpose::Admin, admin)?,
            stats: or_any(Purpose::Stats, stats)?,
            readiness: or_any(Purpose::Readiness, readiness)?,
        })
    }
}

fn exact(purpose: Purpose, wish: Option<Port>) -> Result<Option<Lease>, PortSetError> {
    let lease = wish.map(|port| lease_exact(purpose.interface(), port)).transpose();
    lease.map_err(|source| PortSetError::Lease { purpose, source })
}

fn or_any(purpose: Purpose, lease: Option<Lease>) -> Result<Lease, PortSetError> {
    lease
        .map_or_else(|| lease_any(purpose.interface()), Ok)
        .map_err(|source| PortSetError::Lease { purpose, source })
}

/// Why the ports of a gateway cannot be leased.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortSetError {
    /// One of the ports is not to be had.
    #[error("the {purpose} port cannot be leased")]
    Lease {
        /// Which one.
        purpose: Purpose,
        /// Why.
        source: LeaseError,
    },
    /// The same port is asked for twice.
    #[error("port {port} is asked for twice, as the {first} and as the {second} port")]
    Duplicate {
        /// The port.
        port: Port,
        /// Its first use.
        first: Purpose,
        /// Its second use.
        second: Purpose,
    },
}

impl PortSetError {
    /// What the user can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Lease { source, .. } => source.hint(),
            Self::Duplicate { .. } => "give each its own port; 0 takes any free one",
        }
    }
}
