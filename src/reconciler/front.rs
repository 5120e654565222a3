//! The gateway that takes the calls now, and how another one takes its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tracing::warn;

use crate::error::chain;
use crate::wire::client::Origin;
use crate::yaml_applier::{Applier, ApplyError, Revision, RouteName, RoutePlan, Status};

/// The routes of all servers.
pub type Routes = BTreeMap<RouteName, RoutePlan>;

/// Routes that a gateway does not take, with its own words.
pub(super) type Refused = Arc<BTreeMap<RouteName, String>>;

/// One gateway, as far as routes and calls are concerned.
#[derive(Clone)]
pub struct FrontGateway {
    /// Where it is called.
    pub origin: Arc<Origin>,
    /// Who gives it its routes.
    pub routing: Routing,
}

/// Who gives a gateway its routes.
#[derive(Clone)]
pub enum Routing {
    /// We do, in a file.
    Ours {
        /// Keeps the file.
        applier: Applier,
        /// Whether it is agentgateway, with policies and backends of its own.
        agentgateway: bool,
    },
    /// Somebody else does: the gateway runs elsewhere, and has a route for each server, or will have one.
    Theirs,
}

/// What kind of gateway a way leads through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GatewayKind {
    Agentgateway,
    Embedded,
    External,
}

impl FrontGateway {
    fn kind(&self) -> GatewayKind {
        match self.routing {
            Routing::Ours { agentgateway: true, .. } => GatewayKind::Agentgateway,
            Routing::Ours { agentgateway: false, .. } => GatewayKind::Embedded,
            Routing::Theirs => GatewayKind::External,
        }
    }

    fn applier(&self) -> Option<&Applier> {
        match &self.routing {
            Routing::Ours { applier, .. } => Some(applier),
            Routing::Theirs => None,
        }
    }
}

/// The place where the gateway in use can be changed.
///
/// Invariant: a gateway is in front only while the latest wish for routes was in force on it when it came there.
pub struct Front {
    state: Mutex<State>,
    origin: watch::Sender<Arc<Origin>>,
    /// Counts replacements, for whoever has to look again.
    replaced: watch::Sender<u64>,
}

struct State {
    gateway: FrontGateway,
    routes: Arc<Routes>,
    /// The latest wish that was made of it.
    latest: Option<Revision>,
}

/// A wish for routes.
pub(super) enum Wish {
    /// Made of one gateway.
    Made {
        applier: Applier,
        /// Stands for the gateway.
        origin: Arc<Origin>,
        revision: Revision,
    },
    /// Nobody here can wish anything of the gateway.
    Vain,
}

impl Front {
    /// The first gateway in front.
    pub fn new(gateway: FrontGateway) -> Arc<Self> {
        let origin = watch::Sender::new(Arc::clone(&gateway.origin));
        let state = Mutex::new(State { gateway, routes: Arc::default(), latest: None });
        Arc::new(Self { state, origin, replaced: watch::Sender::new(0) })
    }

    /// Where calls go, as it changes.
    pub fn origin(&self) -> watch::Receiver<Arc<Origin>> {
        self.origin.subscribe()
    }

    /// Where the file of the gateway in front stands; `None` where it has none of ours.
    pub fn status(&self) -> Option<Status> {
        Some(self.lock().gateway.applier()?.status().borrow().clone())
    }

    /// The routes that are wished for.
    pub fn routes(&self) -> Routes {
        Routes::clone(&self.lock().routes)
    }

    /// Lets `gateway`, whose process runs, take the calls as soon as the latest wish is in force there. Gives the
    /// gateway that was in front: its requests are to be waited for, then it can end.
    ///
    /// # Errors
    ///
    /// The routes do not come into force; everything stays as it was.
    pub async fn take_over(&self, gateway: FrontGateway) -> Result<FrontGateway, ApplyError> {
        let mut routes = Arc::clone(&self.lock().routes);
        loop {
            let latest = match gateway.applier() {
                Some(applier) => {
                    let revision = applier.apply(Routes::clone(&routes));
                    applier.in_force(revision).await?;
                    Some(revision)
                }
                None => None,
            };
            let mut state = self.lock();
            if Arc::ptr_eq(&routes, &state.routes) {
                let old = std::mem::replace(&mut state.gateway, gateway);
                state.latest = latest;
                self.origin.send_replace(Arc::clone(&state.gateway.origin));
                self.replaced.send_modify(|count| *count += 1);
                return Ok(old);
            }
            // Something was wished for meanwhile: the old gateway has it, the new one must have it first.
            routes = Arc::clone(&state.routes);
        }
    }

    /// Puts `gateway` in front at once, with all that is wished for: for when the one in front does not run.
    pub fn replace(&self, gateway: FrontGateway) {
        let mut state = self.lock();
        state.latest = gateway.applier().map(|applier| applier.apply(Routes::clone(&state.routes)));
        state.gateway = gateway;
        self.origin.send_replace(Arc::clone(&state.gateway.origin));
        self.replaced.send_modify(|count| *count += 1);
    }

    /// Tells where the file of the gateway in front stands, now and whenever that changes; `None` where it has none of ours,
    /// or has ended. For ever.
    pub async fn follow(&self, tell: impl Fn(Option<&Status>)) {
        let mut replaced = self.replaced();
        loop {
            let status = self.lock().gateway.applier().map(Applier::status);
            let following = async {
                let Some(mut status) = status else { return tell(None) };
                loop {
                    tell(Some(&*status.borrow_and_update()));
                    if status.changed().await.is_err() {
                        return tell(None);
                    }
                }
            };
            tokio::select! {
                () = async { following.await; std::future::pending().await } => {}
                // The sender is ours: it cannot have gone.
                _ = replaced.changed() => {}
            }
        }
    }

    pub(super) fn kind(&self) -> GatewayKind {
        self.lock().gateway.kind()
    }

    pub(super) fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Wishes for these routes.
    pub(super) fn apply(&self, routes: Routes) -> Wish {
        let mut state = self.lock();
        let Some(applier) = state.gateway.applier().cloned() else {
            state.routes = Arc::new(routes);
            return Wish::Vain;
        };
        let revision = match &state.latest {
            // What was wished for and is in force need not be judged and written again.
            Some(revision) if *state.routes == routes && applier.status().borrow().failure.is_none() => {
                *revision
            }
            _ => applier.apply(routes.clone()),
        };
        state.latest = Some(revision);
        state.routes = Arc::new(routes);
        Wish::Made { applier, origin: Arc::clone(&state.gateway.origin), revision }
    }

    /// Whether the gateway that the wish was made of is still in front.
    pub(super) fn is_current(&self, wish: &Wish) -> bool {
        match wish {
            Wish::Made { origin, .. } => Arc::ptr_eq(&self.lock().gateway.origin, origin),
            Wish::Vain => true,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wish {
    /// Waits for a generation with the wish, or a later one, however long the gateway needs; gives the routes that were
    /// left out, with the gateway's own words.
    pub(super) async fn granted(&self) -> Result<Refused, ApplyError> {
        let Self::Made { applier, revision, .. } = self else { return Ok(Arc::default()) };
        let mut status = applier.status();
        loop {
            // Before the question: what happens between its answer and the next wait must wake us.
            status.mark_unchanged();
            match applier.in_force(*revision).await {
                // The gateway's process is being replaced: its successor gets the same wish.
                Err(error @ (ApplyError::NotInForce { .. } | ApplyError::Superseded)) => {
                    warn!("{}", chain(&error));
                    if status.changed().await.is_err() {
                        return Err(ApplyError::Stopped);
                    }
                }
                settled => return settled.map(|in_force| in_force.refused),
            }
        }
    }
}
