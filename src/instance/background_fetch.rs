//! agentgateway, fetched while the embedded gateway runs.

use std::sync::Arc;

use tracing::warn;

use super::gateway_child::Program;
use super::gateways::Gateways;
use crate::binary_resolver::{Progress, Resolver, Version};
use crate::error::chain;

/// Fetches agentgateway and lets it take the embedded gateway's place. Why it could not is the embedded one's reason then.
pub(super) async fn fetch_and_swap(
    resolver: Resolver,
    version: Version,
    gateways: Arc<Gateways>,
    progress: Arc<dyn Progress>,
) {
    let reason = match resolver.fetch(version, &*progress).await {
        Ok(verified) => {
            let swap = gateways.swap(Some(Program::Agentgateway(verified)), "fetched meanwhile");
            let Err(error) = swap.await else { return };
            format!("as agentgateway {version} was fetched and cannot take its place: {}", chain(&error))
        }
        Err(error) => format!(
            "as agentgateway {version} could not be fetched: {}; \
             `sidegate gateway fetch` fetches it for the next start",
            chain(&error)
        ),
    };
    warn!("the embedded gateway stays, {reason}");
    gateways.embedded_stays(&reason).await;
}
