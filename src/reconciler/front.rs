//! The gateway that takes the calls now, and how another one takes its place.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::wire::client::Origin;
use crate::yaml_applier::{Applier, ApplyError, InForce, Revision, RouteName, RoutePlan, Status};

/// The routes of all servers.
pub type Routes = BTreeMap<RouteName, RoutePlan>;

/// One gateway, as far as routes and calls are concerned.
#[derive(Clone)]
pub struct FrontGateway {
    /// Keeps its file.
    pub applier: Applier,
    /// Where it is called.
    pub origin: Arc<Origin>,
    /// Whether it is agentgateway, with policies and backends of its own.
    pub agentgateway: bool,
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

/// A wish for routes, made of one gateway.
pub(super) struct Wish {
    applier: Applier,
    /// Stands for the gateway.
    origin: Arc<Origin>,
    revision: Revision,
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

    /// Where the file of the gateway in front stands.
    pub fn status(&self) -> Status {
        self.lock().gateway.applier.status().borrow().clone()
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
            let revision = gateway.applier.apply(Routes::clone(&routes));
            gateway.applier.in_force(revision).await?;
            let mut state = self.lock();
            if Arc::ptr_eq(&routes, &state.routes) {
                let old = std::mem::replace(&mut state.gateway, gateway);
                state.latest = Some(revision);
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
        state.latest = Some(gateway.applier.apply(Routes::clone(&state.routes)));
        state.gateway = gateway;
        self.origin.send_replace(Arc::clone(&state.gateway.origin));
        self.replaced.send_modify(|count| *count += 1);
    }

    pub(super) fn is_agentgateway(&self) -> bool {
        self.lock().gateway.agentgateway
    }

    pub(super) fn replaced(&self) -> watch::Receiver<u64> {
        self.replaced.subscribe()
    }

    /// Wishes for these routes.
    pub(super) fn apply(&self, routes: Routes) -> Wish {
        let mut state = self.lock();
        let applier = state.gateway.applier.clone();
        let revision = match &state.latest {
            // What was wished for and is in force need not be judged and written again.
            Some(revision) if *state.routes == routes && applier.status().borrow().failure.is_none() => {
                *revision
            }
            _ => applier.apply(routes.clone()),
        };
        state.latest = Some(revision);
        state.routes = Arc::new(routes);
        Wish { applier, origin: Arc::clone(&state.gateway.origin), revision }
    }

    /// Whether the gateway that the wish was made of is still in front.
    pub(super) fn is_current(&self, wish: &Wish) -> bool {
        Arc::ptr_eq(&self.lock().gateway.origin, &wish.origin)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wish {
    /// Waits until the wish, or a later one, is in force or has failed.
    pub(super) async fn in_force(&self) -> Result<InForce, ApplyError> {
        self.applier.in_force(self.revision).await
    }

    pub(super) fn status(&self) -> watch::Receiver<Status> {
        self.applier.status()
    }
}
