//! What a client is told at `initialize`: what it can ask for, who answers, and how that is best used.

use bytestring::ByteString;

use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::registry::Registry;
use crate::aggregator::scope::Scope;
use crate::aggregator::{exposure, tasks};
use crate::config::Exposure;
use crate::wire::rpc::RpcError;

/// What clients of all servers are promised, besides tools.
const CAPABILITIES: &str = concat!(
    r#""prompts":{"listChanged":true},"#,
    r#""resources":{"subscribe":true,"listChanged":true},"logging":{},"completions":{}"#,
);

/// What a client is told at `initialize`, but for the version: the members of the result.
///
/// # Errors
///
/// The server is not connected any more.
pub(super) fn introduce(
    scope: &Scope,
    exposure: Exposure,
    catalogue: &Catalogue,
    registry: &Registry,
) -> Result<String, RpcError> {
    let (capabilities, info, instructions) = match scope {
        // Always all of them: servers come and go while the session lasts.
        Scope::All => {
            let info = format!(
                r#"{{"name":"sidegate","title":"Sidegate","version":"{}"}}"#,
                env!("CARGO_PKG_VERSION")
            );
            let has_tasks = catalogue.servers().any(|(_, member)| member.offer.has("tasks"));
            let tasks = if has_tasks { format!(",{}", tasks::CAPABILITY) } else { String::new() };
            let (tools, instructions) = match exposure {
                Exposure::Direct => (r#""tools":{"listChanged":true}"#, catalogue.instructions()),
                Exposure::Meta => (r#""tools":{}"#, Some(exposure::instructions(catalogue))),
            };
            (
                format!("{{{tools},{CAPABILITIES}{tasks}}}").into(),
                info.into(),
                instructions.map(ByteString::from),
            )
        }
        Scope::Server(server) => {
            let offer = &catalogue.server(server).ok_or_else(|| registry.not_connected(server))?.offer;
            let info = offer.server_info.clone();
            let unnamed = || format!(r#"{{"name":"{server}","version":""}}"#).into();
            (offer.capabilities_for_clients(), info.unwrap_or_else(unnamed), offer.instructions.clone())
        }
    };
    let mut text = format!(r#""capabilities":{capabilities},"serverInfo":{info}"#);
    if let Some(instructions) = instructions {
        text.push_str(r#","instructions":"#);
        text.push_str(&instructions);
    }
    Ok(text)
}
