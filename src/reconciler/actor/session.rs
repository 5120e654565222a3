//! Opening and closing one session with a server.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, debug, field, info_span, warn};

use crate::aggregator::limits::Limits;
use crate::aggregator::link::Link;
use crate::aggregator::offer::Offer;
use crate::aggregator::upstream::{ConnectError, Dialer, Upstream};
use crate::bridge::Bridge;
use crate::reconciler::held::RouteLease;
use crate::telemetry::{Cause, LIFECYCLE};
use crate::wire::client::Origin;
use crate::yaml_applier::RouteName;

/// How soon after it was told so a list is read anew.
const LIST_AGAIN: Duration = Duration::from_millis(5);

/// How long the end of a session that was given up is waited for. A process that has to be killed takes twice two seconds.
const GIVE_UP: Duration = Duration::from_secs(10);

/// A session that is open, and what the server offers in it.
pub(super) struct Opened {
    pub(super) upstream: Arc<Upstream>,
    pub(super) offer: Arc<Offer>,
    /// Its route stays while it lives.
    pub(super) lease: Arc<RouteLease>,
    /// The gateway that it was opened through.
    pub(super) origin: Arc<Origin>,
}

/// A session that is being opened. Dropped, it is given up, and what has been begun for it ends soon.
pub(super) struct Opening {
    /// On the heap, as is all that an actor does seldom: it would otherwise be part of what every actor holds all the time.
    session: BoxFuture<'static, Result<Opened, ConnectError>>,
    given_up: CancellationToken,
    /// Where it leads to, where it starts a process of ours.
    route_to_child: Option<RouteName>,
}

impl Opening {
    /// Begins when nothing is left of the sessions of this server that were given up before `initialize` was answered: a command
    /// can hold what there is only one of.
    pub(super) fn begin(
        bridge: Arc<Bridge>,
        link: Arc<Link>,
        dialer: Dialer,
        lease: Arc<RouteLease>,
        origin: Arc<Origin>,
        cause: Cause,
    ) -> Self {
        let span = info_span!(
            target: LIFECYCLE,
            "sidegate.connect",
            "sidegate.server" = %link.server(),
            "sidegate.connect.outcome" = field::Empty,
            "otel.status_code" = field::Empty,
            "otel.status_description" = field::Empty,
        );
        cause.adopt(&span);
        let mut told = Told { span: span.clone(), outcome: GIVEN_UP };
        let route_to_child = dialer.config.local.is_some().then(|| lease.name().clone());
        let given_up = CancellationToken::new();
        let token = given_up.clone();
        let session = async move {
            bridge.given_up(lease.name()).await;
            let opened = open(link, dialer, lease, origin, token).await;
            told.ends(&opened);
            opened
        };
        Self { session: session.instrument(span).boxed(), given_up, route_to_child }
    }

    /// Gives the session up; returns when no process of it is left that is ours, or takes too long to end.
    pub(super) async fn give_up(self, bridge: &Bridge) {
        let Some(route) = self.route_to_child else { return };
        // `initialize` may be on its way still, and is refused then.
        let Some(refusal) = bridge.refuse(&route) else { return };
        self.given_up.cancel();
        let ending = async {
            if let Ok(opened) = self.session.await {
                close(opened.upstream, opened.lease, Duration::ZERO).await;
            }
            refusal.enforced().await;
        };
        if tokio::time::timeout(GIVE_UP, ending).await.is_err() {
            warn!(server = %route.server(), "a session that was being opened does not end");
        }
    }
}

impl Future for Opening {
    type Output = Result<Opened, ConnectError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.session.poll_unpin(cx)
    }
}

/// The outcome of a try to connect whose end nobody wanted to wait for.
const GIVEN_UP: &str = "given_up";

/// Tells the span of a try to connect how it ended, also where nobody wanted it any more.
struct Told {
    span: Span,
    outcome: &'static str,
}

impl Told {
    fn ends<T>(&mut self, opened: &Result<T, ConnectError>) {
        self.outcome = match opened {
            Ok(_) => "open",
            Err(ConnectError::GivenUp) => GIVEN_UP,
            Err(error) => {
                self.span.record("otel.status_code", "ERROR");
                self.span.record("otel.status_description", field::display(error));
                "failed"
            }
        };
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.span.record("sidegate.connect.outcome", self.outcome);
    }
}

/// Opens a session and lists what the server offers in it; until `given_up`, when the session is closed in order.
async fn open(
    link: Arc<Link>,
    dialer: Dialer,
    lease: Arc<RouteLease>,
    origin: Arc<Origin>,
    given_up: CancellationToken,
) -> Result<Opened, ConnectError> {
    let initialize = info_span!(target: LIFECYCLE, "sidegate.connect.initialize");
    let upstream = link.connect(dialer, &given_up).instrument(initialize).await?;
    let list = info_span!(target: LIFECYCLE, "sidegate.connect.list");
    let offer = given_up.run_until_cancelled(upstream.offer(link.limits()).instrument(list)).await;
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
pub(super) async fn close(upstream: Arc<Upstream>, lease: Arc<RouteLease>, patience: Duration) {
    let server = upstream.server();
    if tokio::time::timeout(patience, upstream.calls_done()).await.is_err() {
        debug!(%server, ?patience, "calls are cut");
    }
    if let Err(error) = upstream.close().await {
        debug!(%server, %error, "the session could not be closed in order");
    }
    drop(lease);
}
