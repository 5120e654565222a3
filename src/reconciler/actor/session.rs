//! Opening and closing one session with a server.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use crate::aggregator::link::{Limits, Link};
use crate::aggregator::offer::Offer;
use crate::aggregator::upstream::{ConnectError, Dialer, Upstream};
use crate::reconciler::held::RouteLease;
use crate::wire::client::Origin;

/// How soon after it was told so a list is read anew.
const LIST_AGAIN: Duration = Duration::from_millis(5);

/// A session that is open, and what the server offers in it.
pub(super) struct Opened {
    pub(super) upstream: Arc<Upstream>,
    pub(super) offer: Arc<Offer>,
    /// Its route stays while it lives.
    pub(super) lease: Option<Arc<RouteLease>>,
    /// The gateway that it was opened through.
    pub(super) origin: Arc<Origin>,
}

/// Opens a session and lists what the server offers in it.
pub(super) async fn open(
    link: Arc<Link>,
    dialer: Dialer,
    lease: Option<Arc<RouteLease>>,
    origin: Arc<Origin>,
) -> Result<Opened, ConnectError> {
    let upstream = Upstream::connect(&link, dialer).await?;
    match upstream.offer(link.limits()).await {
        Ok(offer) => Ok(Opened { upstream, offer: Arc::new(offer), lease, origin }),
        Err(error) => {
            if let Err(error) = upstream.close().await {
                debug!(%error, "the session could not be closed in order");
            }
            Err(error)
        }
    }
}

/// Lists again what a server says has changed. One that says so all the time is not asked all the time.
pub(super) async fn list_again(
    upstream: Arc<Upstream>,
    offer: Arc<Offer>,
    limits: Limits,
) -> Result<Arc<Offer>, ConnectError> {
    sleep(LIST_AGAIN).await;
    upstream.changed_offer(&offer, limits).await.map(Arc::new)
}

/// Lets calls in flight end, and closes a session; then its route can go.
pub(super) async fn close(upstream: Arc<Upstream>, lease: Option<Arc<RouteLease>>, patience: Duration) {
    let server = upstream.server();
    if tokio::time::timeout(patience, upstream.calls_done()).await.is_err() {
        debug!(%server, ?patience, "calls are cut");
    }
    if let Err(error) = upstream.close().await {
        debug!(%server, %error, "the session could not be closed in order");
    }
    drop(lease);
}
