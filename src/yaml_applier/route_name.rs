//! The names of routes.

use std::fmt;

use http::uri::PathAndQuery;

use super::ROUTE_PREFIX;
use crate::mcpserver::ServerName;

/// The name of a server's route: `time`, and `time.1`, `time.2` … while sessions that were opened through an earlier route
/// of the server still need that one. No server name holds a dot, so no two servers' routes are called the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteName {
    server: ServerName,
    number: u32,
}

impl RouteName {
    /// The route of `server` with this number; 0 is the one that is called like the server.
    pub fn new(server: ServerName, number: u32) -> Self {
        Self { server, number }
    }

    /// Whose route it is.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The path at which the gateway serves it.
    pub fn path(&self) -> PathAndQuery {
        // A server name, a dot and digits need no escaping in a path.
        format!("{ROUTE_PREFIX}{self}").parse().unwrap_or_else(|_| PathAndQuery::from_static("/"))
    }

    /// The path at which the bridge serves what it leads to, where it leads there.
    pub fn bridge_path(&self) -> PathAndQuery {
        // As above.
        format!("/{self}").parse().unwrap_or_else(|_| PathAndQuery::from_static("/"))
    }
}

impl From<ServerName> for RouteName {
    fn from(server: ServerName) -> Self {
        Self::new(server, 0)
    }
}

impl fmt::Display for RouteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => self.server.fmt(f),
            number => write!(f, "{}.{number}", self.server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_called_like_its_server() {
        let server: ServerName = "time".parse().unwrap();
        let names = [0, 1, 12].map(|number| RouteName::new(server.clone(), number));
        assert_eq!(names.each_ref().map(ToString::to_string), ["time", "time.1", "time.12"]);
        let paths = names.each_ref().map(|name| name.path().to_string());
        assert_eq!(paths, ["/mcp/time", "/mcp/time.1", "/mcp/time.12"]);
        assert_eq!(names.map(|name| name.bridge_path().to_string()), ["/time", "/time.1", "/time.12"]);
    }
}
