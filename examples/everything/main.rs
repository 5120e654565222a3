//! The reference MCP server that tests stand on: one of everything in the protocol.
//!
//! ```text
//! everything [--tools N]                        over stdin and stdout
//! everything --http 127.0.0.1:0 [--tools N]     streamable HTTP; one line on stdout: {"url": "http://127.0.0.1:PORT/mcp"}
//! ```
//!
//! Tools, resources and prompts named `test_…` or `test://…` have the names and contents that the official MCP
//! conformance suite asks for; the others serve Sidegate's own tests. The served process is meant to be watched and
//! killed from outside, so it has no configuration beyond its arguments.

mod elicitation;
mod http;
mod prompts;
mod resources;
mod server;
mod state;
mod tools;

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use clap::Parser;
use rmcp::ServiceExt;

use crate::server::Everything;
use crate::state::Shared;

#[derive(Debug, Parser)]
struct Arguments {
    /// Serve streamable HTTP on this address instead of stdio.
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// Add this many tools called `extra_1`, `extra_2`, …
    #[arg(long, value_name = "N", default_value_t = 0)]
    tools: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let shared = Arc::new(Shared::new(arguments.tools));
    match arguments.http {
        Some(address) => http::serve(address, shared).await?,
        None => {
            Everything::new(shared).serve(rmcp::transport::stdio()).await?.waiting().await?;
        }
    }
    Ok(())
}
