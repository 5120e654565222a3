//! The built-in MCP server behind `sidegate example-server`.
//!
//! Owns a handful of small tools that need no network, no files and no set-up, so that a fresh installation has
//! something to aggregate. The tools only compute: none reads the environment or keeps state between calls, which is
//! why every tool is annotated as read-only and closed-world.
//!
//! Mistakes in a caller's arguments, in their shape too, are tool errors (`isError`, SEP-1303): a model reads the
//! reason and tries again. Only a tool that does not exist is a JSON-RPC error.
//!
//! Knows nothing of definitions, gateways or the aggregator: it is an ordinary stdio server.

mod arithmetic;
mod clock;
mod text;
mod tools;

#[cfg(test)]
mod tests;

use rmcp::ServiceExt;
use rmcp::service::ServerInitializeError;

use self::tools::ExampleServer;

/// Why the example server ended other than by its client closing the connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The client's first messages were not an MCP handshake.
    #[error("failed to open the MCP session")]
    Initialize(#[source] Box<ServerInitializeError>),
    /// The task that serves the session panicked or was aborted.
    #[error("the session's task ended abnormally")]
    Session(#[source] tokio::task::JoinError),
}

/// Serves the example tools over stdin and stdout until the client closes stdin.
///
/// A client that goes away before it has said anything is no error: there was nothing to serve.
///
/// # Errors
///
/// [`Error::Initialize`] when the handshake fails, [`Error::Session`] when the session's task does.
pub async fn serve_stdio() -> Result<(), Error> {
    let session = match ExampleServer::new().serve(rmcp::transport::stdio()).await {
        Ok(session) => session,
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(Error::Initialize(Box::new(error))),
    };
    session.waiting().await.map_err(Error::Session)?;
    Ok(())
}
