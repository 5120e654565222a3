//! The identity of a server.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The name of an MCPServer: a DNS-1123 label (RFC 1123 section 2.1, as Kubernetes reads it).
///
/// One to 63 characters of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit. A value that exists is
/// valid, so a name can stand in a path, a URL or a header without escaping. Cheap to clone: every call carries some.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerName(Arc<str>);

impl ServerName {
    /// The longest name allowed, in characters.
    pub const MAX_LENGTH: usize = 63;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServerName {
    type Err = InvalidServerName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let edge = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        let bytes = text.as_bytes();
        let valid = bytes.len() <= Self::MAX_LENGTH
            && edge(bytes.first())
            && edge(bytes.last())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
        if valid { Ok(Self(text.into())) } else { Err(InvalidServerName(text.to_owned())) }
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The name of the log of the server that is called `server`: its own, but for one that is called like the log of the
/// gateway.
pub fn log_name(server: &str) -> &str {
    match server {
        // No server can be called so.
        "gateway" => "gateway.server",
        name => name,
    }
}

/// A text that is no server name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a server name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
)]
pub struct InvalidServerName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_names() {
        for text in ["a", "0", "time", "a-b", "x1", &"a".repeat(63)] {
            assert_eq!(text.parse::<ServerName>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn no_server_shares_its_log_with_the_gateway() {
        assert_eq!([log_name("time"), log_name("gateway")], ["time", "gateway.server"]);
        assert!("gateway.server".parse::<ServerName>().is_err());
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "é", &"a".repeat(64)] {
            assert!(text.parse::<ServerName>().is_err(), "{text:?}");
        }
    }
}
