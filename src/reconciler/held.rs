//! Which routes are in use, and by whom.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::front::Routes;
use super::route::Way;
use crate::bridge::RemoteTarget;
use crate::mcpserver::ServerName;
use crate::yaml_applier::{RouteName, RoutePlan};

/// The routes that the gateway has to have: those that somebody holds.
///
/// A server whose way changes has two for a while: sessions that were opened through the old one need it until they are
/// closed, and the new ones must not be sent there.
#[derive(Debug)]
pub(super) struct HeldRoutes {
    routes: BTreeMap<RouteName, Held>,
    freed: mpsc::UnboundedSender<RouteName>,
}

#[derive(Debug)]
struct Held {
    /// `None`: the gateway has its routes from somebody else.
    plan: Option<RoutePlan>,
    passed_to: Option<Arc<RemoteTarget>>,
    lease: Weak<RouteLease>,
}

/// A route stays as long as a lease of it is held.
#[derive(Debug)]
pub(super) struct RouteLease {
    name: RouteName,
    freed: mpsc::UnboundedSender<RouteName>,
}

impl HeldRoutes {
    /// None yet. The receiver hears of every lease that has ended; [`free`](Self::free) is to be called then.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<RouteName>) {
        let (freed, receiver) = mpsc::unbounded_channel();
        (Self { routes: BTreeMap::new(), freed }, receiver)
    }

    /// A lease of a route of `server` that is this way: the one there is, or another one.
    pub(super) fn lease(&mut self, server: &ServerName, way: &Way) -> Arc<RouteLease> {
        let mut number = 0;
        loop {
            let name = RouteName::new(server.clone(), number);
            match self.routes.get(&name).map(|held| (held.lease.upgrade(), held.is(way))) {
                Some((Some(lease), true)) => return lease,
                Some((Some(_), false)) => number += 1,
                Some((None, _)) | None => {
                    let lease = Arc::new(RouteLease { name: name.clone(), freed: self.freed.clone() });
                    let (plan, passed_to) = (way.route.clone(), way.passed_to().cloned());
                    let held = Held { plan, passed_to, lease: Arc::downgrade(&lease) };
                    self.routes.insert(name, held);
                    return lease;
                }
            }
        }
    }

    /// Drops a route that nobody holds any more. Whether it was dropped: it may have been leased again meanwhile.
    pub(super) fn free(&mut self, name: &RouteName) -> bool {
        let unused = self.routes.get(name).is_some_and(|held| held.lease.strong_count() == 0);
        unused && self.routes.remove(name).is_some()
    }

    /// Whether any route of `server` is held.
    pub(super) fn has(&self, server: &ServerName) -> bool {
        let mut names = self.routes.range(RouteName::new(server.clone(), 0)..);
        names.next().is_some_and(|(name, _)| name.server() == server)
    }

    /// All that are ours to give to the gateway.
    pub(super) fn routes(&self) -> Routes {
        self.routes.iter().filter_map(|(name, held)| Some((name.clone(), held.plan.clone()?))).collect()
    }
}

impl Held {
    fn is(&self, way: &Way) -> bool {
        self.plan == way.route && self.passed_to.as_ref() == way.passed_to()
    }
}

impl RouteLease {
    /// Which route it is.
    pub(super) fn name(&self) -> &RouteName {
        &self.name
    }
}

impl Drop for RouteLease {
    fn drop(&mut self) {
        // Nobody listens any more when everything ends.
        let _ = self.freed.send(self.name.clone());
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use serde_json::{Map, json};

    use super::*;
    use crate::bridge::{StdioTarget, Target};
    use crate::yaml_applier::{BridgeDial, RouteBackend};

    /// Routes that differ in their policies.
    fn way(policy: &str) -> Way {
        let backend = RouteBackend::Bridge(BridgeDial::Unix("/b.sock".to_owned()));
        let policies = Map::from_iter([(policy.to_owned(), json!({}))]);
        Way { route: Some(RoutePlan { policies, backend }), target: None, headers: Vec::new() }
    }

    fn to(target: Target) -> Way {
        Way { target: Some(target), ..way("a") }
    }

    fn child(command: &str) -> Way {
        let (args, env, cwd) = (Vec::new(), Vec::new(), "/".into());
        to(Target::Stdio(Arc::new(StdioTarget { command: command.into(), args, env, cwd })))
    }

    fn passed_through(url: &str) -> Way {
        let headers = HeaderMap::new();
        to(Target::Http(Arc::new(RemoteTarget { url: url.parse().unwrap(), headers })))
    }

    fn names(held: &HeldRoutes) -> Vec<String> {
        held.routes().keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_changed_way_is_a_route_beside_the_old_one_while_that_is_held() {
        let (mut held, mut freed) = HeldRoutes::new();
        let server: ServerName = "a".parse().unwrap();
        let old = held.lease(&server, &way("old"));
        let same = held.lease(&server, &way("old"));
        assert!(Arc::ptr_eq(&old, &same));
        let new = held.lease(&server, &way("new"));
        assert_eq!((names(&held), new.name().to_string().as_str()), (vec!["a".into(), "a.1".into()], "a.1"));

        drop((old, same));
        let name = freed.try_recv().unwrap();
        assert!(held.free(&name) && held.has(&server));
        assert_eq!(names(&held), ["a.1"]);
        // The number is free again.
        assert_eq!(held.lease(&server, &way("newer")).name().to_string(), "a");
    }

    #[test]
    fn a_route_of_somebody_else_is_held_and_not_given_to_the_gateway() {
        let (mut held, _freed) = HeldRoutes::new();
        let server: ServerName = "a".parse().unwrap();
        let theirs = Way { route: None, target: None, headers: Vec::new() };
        let lease = held.lease(&server, &theirs);
        assert!(Arc::ptr_eq(&lease, &held.lease(&server, &theirs)));
        assert!(held.has(&server));
        assert_eq!((lease.name().to_string().as_str(), names(&held)), ("a", vec![]));
    }

    /// Whom else would its sessions end with?
    #[test]
    fn a_server_that_requests_are_passed_through_to_has_a_route_of_its_own() {
        let (mut held, _freed) = HeldRoutes::new();
        let server: ServerName = "a".parse().unwrap();
        let mut number = |way: &Way| {
            let lease = held.lease(&server, way);
            let name = lease.name().to_string();
            (lease, name)
        };
        let (_child, name) = number(&child("x"));
        assert_eq!(name, "a");
        assert_eq!(number(&child("y")).1, "a", "the bridge knows which session is with which child");
        let (_one, name) = number(&passed_through("http://[::1]:1/mcp"));
        assert_eq!(name, "a.1");
        assert_eq!(number(&passed_through("http://[::1]:1/mcp")).1, "a.1");
        assert_eq!(number(&passed_through("http://[::1]:2/mcp")).1, "a.2");
        assert_eq!(number(&child("x")).1, "a");
    }

    #[test]
    fn what_is_leased_again_in_time_is_not_dropped() {
        let (mut held, mut freed) = HeldRoutes::new();
        let server: ServerName = "a".parse().unwrap();
        drop(held.lease(&server, &way("old")));
        let again = held.lease(&server, &way("new"));
        assert_eq!(again.name().to_string(), "a");
        assert!(!held.free(&freed.try_recv().unwrap()));
        assert_eq!(names(&held), ["a"]);
        drop(again);
        assert!(held.free(&freed.try_recv().unwrap()));
        assert!(!held.has(&server) && !held.has(&"b".parse().unwrap()));
    }
}
