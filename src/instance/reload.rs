//! Takes settings over while the instance runs.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use url::Url;

use super::StartError;
use super::background_fetch::fetch_and_swap;
use super::choice::{Choice, Network, choose};
use super::gateways::{Gateways, Variable};
use crate::binary_resolver::Progress;
use crate::config::{GatewaySettings, Settings};
use crate::environment::Environment;
use crate::error::chain;
use crate::yaml_applier::SpanExport;

/// Swaps the gateway when its settings change. The other settings are those of the start.
pub(super) struct Reloading {
    pub(super) gateways: Arc<Gateways>,
    pub(super) environment: Environment,
    pub(super) helper: Option<PathBuf>,
    pub(super) network: Network,
    pub(super) progress: Arc<dyn Progress>,
    /// Where the gateway runs, if elsewhere.
    pub(super) upstream_url: Option<Url>,
    /// What the gateway in front was chosen by.
    pub(super) settings: GatewaySettings,
    /// Where agentgateway exports spans of its own; as at start.
    pub(super) spans: Option<SpanExport>,
    /// Ends the fetch that was begun at start.
    pub(super) background_fetch: CancellationToken,
}

impl Reloading {
    /// Takes over each of the settings that come.
    pub(super) async fn run(mut self, mut requests: mpsc::Receiver<Settings>) {
        while let Some(settings) = requests.recv().await {
            if settings.upstream_url.value != self.upstream_url {
                warn!("upstreamUrl counts from the next start; until then the gateway stays where it is");
                continue;
            }
            if self.upstream_url.is_some() || !differ(&settings.gateway, &self.settings) {
                info!("the gateway's settings have not changed");
                continue;
            }
            match self.take_over(&settings).await {
                Ok(()) => self.settings = settings.gateway,
                Err(error) => warn!("the gateway goes on as it was: {}", chain(&error)),
            }
        }
    }

    async fn take_over(&self, settings: &Settings) -> Result<(), StartError> {
        self.background_fetch.cancel();
        let chosen =
            choose(settings, &self.environment, self.helper.as_deref(), self.network, &*self.progress)
                .await?;
        let Choice { program, reason, fetch } = chosen;
        self.gateways.set_variable(Variable::new(&settings.gateway, self.spans.clone())?);
        let swapped = self.gateways.swap(Some(program), &reason).await;
        if swapped.is_err() {
            self.gateways.set_variable(Variable::new(&self.settings, self.spans.clone())?);
        }
        swapped?;
        if let Some((resolver, version)) = fetch {
            fetch_and_swap(resolver, version, Arc::clone(&self.gateways), Arc::clone(&self.progress)).await;
        }
        Ok(())
    }
}

/// Whether the values differ, wherever they come from.
fn differ(new: &GatewaySettings, old: &GatewaySettings) -> bool {
    let GatewaySettings { mode, version, binary, mirror, ports, frontend_policies, log_level } = new;
    mode.value != old.mode.value
        || version.value != old.version.value
        || binary.value != old.binary.value
        || mirror.value != old.mirror.value
        || ports.data.value != old.ports.data.value
        || ports.admin.value != old.ports.admin.value
        || ports.stats.value != old.ports.stats.value
        || ports.readiness.value != old.ports.readiness.value
        || frontend_policies.value != old.frontend_policies.value
        || log_level.value != old.log_level.value
}
