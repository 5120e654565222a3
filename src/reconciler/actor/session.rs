//! Opening and closing one session with a server.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::aggregator::link::{Limits, Link};
use crate::aggregator::offer::Offer;
use crate::aggregator::upstream::{ConnectError, Dialer, Upstream};
use crate::bridge::Bridge;
use crate::mcpserver::ServerName;
use crate::reconciler::held::RouteLease;
use crate::wire::client::Origin;

/// How soon after it was told so a list is read anew.
const LIST_AGAIN: Duration = Duration::from_millis(5);

/// How long the end of a session that was given up is waited for. A process that has to be killed takes twice two seconds.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A session that is open, and what the server offers in it.
pub(super) struct Opened {
    pub(super) upstream: Arc<Upstream>,
    pub(super) offer: Arc<Offer>,
    /// Its route stays while it lives.
    pub(super) lease: Option<Arc<RouteLease>>,
    /// The gateway that it was opened through.
    pub(super) origin: Arc<Origin>,
}

/// A session that is being opened. Dropped, it is given up, and what has been begun for it ends soon.
pub(super) struct Opening {
    /// On the heap, as is all that an actor does seldom: it would otherwise be part of what every actor holds all the time.
    session: BoxFuture<'static, Result<Opened, ConnectError>>,
    given_up: CancellationToken,
}

impl Opening {
    /// Begins when nothing is left of the sessions of this server that were given up before: a command can hold what there is
    /// only one of.
    pub(super) fn begin(
        bridge: Arc<Bridge>,
        link: Arc<Link>,
        dialer: Dialer,
        lease: Option<Arc<RouteLease>>,
        origin: Arc<Origin>,
    ) -> Self {
        let given_up = CancellationToken::new();
        let token = given_up.clone();
        let session = async move {
            bridge.given_up(link.server()).await;
            open(link, dialer, lease, origin, token).await
        };
        Self { session: session.boxed(), given_up }
    }

    /// Gives the session up; returns when no process of it is left that is ours, or takes too long to end.
    pub(super) async fn give_up(self, bridge: &Bridge, server: &ServerName) {
        // `initialize` may be on its way still, and is refused then.
        let Some(refusal) = bridge.refuse(server) else { return };
        self.given_up.cancel();
        let ending = async {
            if let Ok(opened) = self.session.await {
                close(opened.upstream, opened.lease, Duration::ZERO).await;
            }
            refusal.enforced().await;
        };
        if tokio::time::timeout(GIVE_UP, ending).await.is_err() {
            warn!(%server, "a session that was being opened does not end");
        }
    }
}

impl Future for Opening {
    type Output = Result<Opened, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.session.poll_unpin(cx)
    }
}

/// Opens a session and lists what the server offers in it; until `given_up`, when the session is closed in order.
async fn open(
    link: Arc<Link>,
    dialer: Dialer,
    lease: Option<Arc<RouteLease>>,
    origin: Arc<Origin>,
    given_up: CancellationToken,
) -> Result<Opened, ConnectError> {
    let upstream = Upstream::connect(&link, dialer).await?;
    let offer = given_up.run_until_cancelled(upstream.offer(link.limits())).await;
    match offer.unwrap_or(Err(ConnectError::GivenUp)) {
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
