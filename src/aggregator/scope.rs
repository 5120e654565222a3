//! Whose things a client sees: those of all servers, or of one.

use crate::mcpserver::ServerName;

/// The path of the aggregate of all servers.
pub const ALL_PATH: &str = "/mcp";

/// Whose things a client sees; its session's path says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Those of all servers, under exposed names.
    All,
    /// Those of one server, under its own names.
    Server(ServerName),
}

impl Scope {
    /// The scope of a path: `/mcp`, or `/mcp/<server>`.
    pub fn of_path(path: &str) -> Option<Self> {
        match path.strip_prefix(ALL_PATH)? {
            "" => Some(Self::All),
            rest => rest.strip_prefix('/')?.parse().ok().map(Self::Server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_all_servers_or_one() {
        assert_eq!(Scope::of_path("/mcp"), Some(Scope::All));
        assert_eq!(Scope::of_path("/mcp/a-1"), Some(Scope::Server("a-1".parse().unwrap())));
        for path in ["/", "/mcp/", "/mcp/a/", "/mcp/a/b", "/mcpa", "/mcp/A", "/mcp/%61", ""] {
            assert_eq!(Scope::of_path(path), None, "{path}");
        }
    }
}
