//! Where servers stand. Whoever looks after the servers writes it down; nothing is routed by it.

use std::collections::BTreeMap;

use crate::mcpserver::ServerName;

/// All servers that are defined.
pub type Standings = BTreeMap<ServerName, Standing>;

/// Where one server stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What may stand for the server in exposed names: its prefix, its family, itself.
    pub prefixes: Vec<String>,
    /// Its state in a word, such as `failed`.
    pub state: &'static str,
    /// Whether it can be called, or will be without anybody doing something about it.
    pub outlook: Outlook,
    /// Why it is so and what to do about it, in a line and without secrets.
    pub why: String,
}

/// Whether a server can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// Now.
    Up,
    /// Soon, perhaps: it is being tried.
    Coming,
    /// Not as things are: something has to be mended.
    Broken,
    /// Not as things are: nobody wants it.
    Resting,
}
