//! Tools that no server offers: those of this program itself.

use std::fmt::Debug;

use bytestring::ByteString;
use futures_util::future::BoxFuture;

/// Serves tools of its own, which stand in the catalogue beside those of all servers, under their own names.
pub trait LocalTools: Debug + Send + Sync {
    /// Their entries in `tools/list`: JSON objects with a `name`. They stay the same.
    fn tools(&self) -> Vec<ByteString>;

    /// Calls the tool `name` with `arguments`, a JSON text; gives the `CallToolResult` as JSON text. `None`: there is no such
    /// tool.
    fn call<'a>(&'a self, name: &str, arguments: &'a str) -> Option<BoxFuture<'a, ByteString>>;
}
