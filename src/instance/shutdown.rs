//! The order of stop: no new calls, those in flight get their time, clients' sessions end, servers' sessions end and with them
//! the children, then the bridge, the gateway, and the runtime directory. Each step waits for the one before it, so that
//! nothing loses what it still needs.

use std::time::Duration;

use tracing::{debug, info, warn};

use super::Instance;
use crate::telemetry::export::FLUSH;

/// How long the last export of metrics may take.
const LAST_METRICS: Duration = Duration::from_secs(3);

/// How a shutdown went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownReport {
    /// Calls that were cut because they took longer than the drain time.
    pub calls_cut: usize,
}

impl Instance {
    /// Ends everything in order; returns when nothing is left.
    pub async fn shutdown(self) -> ShutdownReport {
        self.stopping.cancel();
        self.swapping.cancel();
        self.client.close().await;
        let endpoint = self.aggregate.endpoint();
        let calls = endpoint.calls_in_flight();
        if calls > 0 {
            let seconds = self.settings.drain.value.as_secs_f32();
            info!(calls, "waiting up to {seconds:.1} s for calls in flight");
        }
        let calls_cut = match tokio::time::timeout(self.settings.drain.value, endpoint.idle()).await {
            Ok(()) => 0,
            Err(_) => endpoint.calls_in_flight(),
        };
        self.aggregate.close_sessions().await;
        debug!("clients' sessions are closed");
        self.reconciler.shutdown().await;
        debug!("servers' sessions are closed");
        self.bridge.shutdown().await;
        debug!("stdio servers have ended");
        self.gateways.stop().await;
        debug!("the gateway has ended");
        if !self.metrics.shutdown(LAST_METRICS).await {
            warn!("the last metrics were not exported within {} s", LAST_METRICS.as_secs());
        }
        drop(self.stop);
        self.tracker.close();
        self.tracker.wait().await;
        if let Err(error) = self.runtime_dir.clear() {
            warn!(%error, "the runtime directory could not be cleared");
        }
        if let Some(telemetry) = &self.telemetry
            && !telemetry.shutdown(FLUSH).await
        {
            warn!("not all that was to be exported could be sent in time");
        }
        ShutdownReport { calls_cut }
    }
}
