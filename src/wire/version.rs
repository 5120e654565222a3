//! Protocol versions, and which era of the protocol a request belongs to.

use std::fmt;
use std::str::FromStr;

/// A version of MCP in which a session is opened by `initialize`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProtocolVersion {
    /// 2024-11-05: spoken with servers only, of which many stdio ones know nothing newer.
    V2024_11_05,
    /// 2025-03-26: the first with streamable HTTP; the only one with batches.
    V2025_03_26,
    /// 2025-06-18: adds the `MCP-Protocol-Version` header, drops batches.
    V2025_06_18,
    /// 2025-11-25.
    V2025_11_25,
}

impl ProtocolVersion {
    /// Every version, oldest first.
    pub const ALL: [Self; 4] = [Self::V2024_11_05, Self::V2025_03_26, Self::V2025_06_18, Self::V2025_11_25];

    /// The oldest version with streamable HTTP, and so the oldest that clients can speak with us.
    pub const OLDEST_FOR_CLIENTS: Self = Self::V2025_03_26;

    /// The newest version, offered to servers and to clients that ask for one that is not known.
    pub const LATEST: Self = Self::V2025_11_25;

    /// As it is written on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V2024_11_05 => "2024-11-05",
            Self::V2025_03_26 => "2025-03-26",
            Self::V2025_06_18 => "2025-06-18",
            Self::V2025_11_25 => "2025-11-25",
        }
    }

    /// What a server answers to a client that asks for `requested`: the same version where it is known, else the
    /// newest one (2025-11-25, basic/lifecycle, "Version Negotiation").
    pub fn negotiate(requested: &str) -> Self {
        requested.parse().ok().filter(|version| *version >= Self::OLDEST_FOR_CLIENTS).unwrap_or(Self::LATEST)
    }

    /// Whether a POST may carry an array of messages.
    pub fn has_batches(self) -> bool {
        self == Self::V2025_03_26
    }
}

impl FromStr for ProtocolVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|version| version.as_str() == text);
        known.ok_or_else(|| UnknownVersion(text.to_owned()))
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A protocol version that is not spoken here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "protocol version {0:?} is not supported; supported are 2024-11-05 (servers only), 2025-03-26, 2025-06-18 and 2025-11-25"
)]
pub struct UnknownVersion(String);

/// How a request relates to others, chosen for each request by itself, as one endpoint may serve several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Era {
    /// A session is opened by `initialize` and named by `Mcp-Session-Id`; the version is the session's, and the header
    /// may repeat it.
    Session {
        /// What `MCP-Protocol-Version` said; `None` where it is missing, as before 2025-06-18.
        version: Option<ProtocolVersion>,
    },
}

impl Era {
    /// The era of a request with this `MCP-Protocol-Version` header value.
    ///
    /// # Errors
    ///
    /// The version is not spoken here; the request is answered with 400 (2025-11-25, basic/transports, "Protocol
    /// Version Header").
    pub fn of(header: Option<&str>) -> Result<Self, UnknownVersion> {
        Ok(Self::Session { version: header.map(str::parse).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_versions_are_kept_and_others_get_the_newest() {
        for version in &ProtocolVersion::ALL[1..] {
            assert_eq!(ProtocolVersion::negotiate(version.as_str()), *version);
        }
        assert_eq!(ProtocolVersion::negotiate("2024-11-05"), ProtocolVersion::LATEST);
        assert_eq!(ProtocolVersion::negotiate(""), ProtocolVersion::LATEST);
    }

    #[test]
    fn a_header_with_an_unknown_version_is_an_error() {
        assert_eq!(Era::of(None), Ok(Era::Session { version: None }));
        let latest = Era::Session { version: Some(ProtocolVersion::LATEST) };
        assert_eq!(Era::of(Some("2025-11-25")), Ok(latest));
        assert!(Era::of(Some("2026-07-28")).is_err());
    }
}
