//! The MCPServer resource: its type, the one validator, and the store of definition files.
//!
//! A [`Reader`] turns a file into a [`Definition`] or into [`Invalid`], which holds every mistake of the file with its
//! line and column. [`Reader::scan`] does so for a directory. [`Definitions`] writes: it suspends, creates, updates and
//! deletes, by edits of the text that keep the rest of a file. [`import()`] reads what other clients have in their files; the
//! `.mcp.json` of a project can be read as definitions beside the others.
//!
//! Invariants: a [`Definition`] that exists is valid; one bad file does not hide another; a directory that cannot be
//! read is an error and never an empty set; no secret is in a `Debug`, an error or a mistake.
//!
//! Knows nothing of gateways and nothing of MCP.

mod auth;
mod change;
mod context;
mod definition;
mod definitions;
mod disk;
mod edit;
mod edit_error;
mod entry;
mod expand;
mod import;
mod invalid;
mod known;
mod name;
mod ourselves;
mod overlay;
mod project;
mod reader;
mod redact;
mod resource;
mod schema;
mod secret;
mod spec;
mod store;
mod validator;

pub use auth::{Auth, AuthKind, AuthorizationServer, InvalidIssuer, Issuer, TokenExchange};
pub use change::Change;
pub use definition::{
    ArgumentName, Definition, EnvPattern, Family, InvalidArgumentName, InvalidEnvPattern, InvalidToolPrefix,
    Isolation, Remote, Route, Stdio, ToolPrefix, Transport,
};
pub use definitions::{Definitions, StandsIn, Stored, Suspension, Written};
pub use edit_error::EditError;
pub use entry::{ContentHash, Entry, Scan, Unread};
pub(crate) use expand::literal;
pub use import::{Client, Import, ImportError, Imported, Notes, import};
pub use invalid::Invalid;
pub use known::PUBLIC_VALUES;
pub(crate) use known::parts_of_header;
pub use name::{InvalidServerName, ServerName, log_name};
pub use ourselves::Ourselves;
pub use project::project_file;
pub use reader::Reader;
pub use redact::{HIDDEN, SHORTEST_SECRET, SecretNames};
pub(crate) use redact::{in_url, is_word};
pub use resource::{API_VERSION, KIND};
pub use schema::SCHEMA;
pub use secret::Secret;
pub use store::ScanError;

pub use crate::yaml::{Mistake, Position};

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Definition, Invalid, Reader};
    use crate::environment::Environment;

    /// A reader for `/etc/sidegate` with a few variables.
    pub(super) fn reader() -> Reader {
        let environment = Environment::from_iter([("TZ", "Europe/Berlin"), ("TOKEN", "hunter22")]);
        Reader::new(Path::new("/etc/sidegate"), environment).unwrap()
    }

    fn read(spec: &str) -> Result<Definition, Invalid> {
        let text = format!("apiVersion: sidegate.dev/v1alpha1\nkind: MCPServer\nspec: {{{spec}}}\n");
        reader().read(Path::new("time.yaml"), text.as_bytes())
    }

    /// The definition of a spec in flow style.
    pub(super) fn definition(spec: &str) -> Definition {
        read(spec).unwrap_or_else(|invalid| panic!("{invalid}"))
    }

    /// The mistakes of a spec in flow style, one a line.
    pub(super) fn mistakes(spec: &str) -> String {
        read(spec).unwrap_err().to_string()
    }
}
