//! agentgateway, fetched while the embedded gateway runs.

use std::sync::Arc;

use tracing::warn;

use super::gateway_child::Program;
use super::gateways::Gateways;
use crate::binary_resolver::{Progress, Resolver, Version};
use crate::error::chain;

/// Fetches agentgateway and lets it take the embedded gateway's place.
pub(super) async fn fetch_and_swap(
    resolver: Resolver,
    version: Version,
    gateways: Arc<Gateways>,
    progress: Arc<dyn Progress>,
) {
    let swapped = match resolver.fetch(version, &*progress).await {
        Ok(verified) => {
            let swap = gateways.swap(Some(Program::Agentgateway(verified)), "fetched meanwhile");
            swap.await.map(drop).map_err(|error| chain(&error))
        }
        Err(error) => Err(chain(&error)),
    };
    if let Err(error) = swapped {
        warn!("the embedded gateway stays: agentgateway {version} cannot take its place: {error}");
    }
}
