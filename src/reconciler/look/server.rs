//! One server as the loop knows it.

use std::sync::Arc;

use crate::mcpserver::{Definition, ServerName};
use crate::reconciler::actor::{Actor, Approach, Settled};
use crate::reconciler::held::{HeldRoutes, RouteLease};
use crate::reconciler::route::Way;
use crate::telemetry::Cause;

/// One server as the loop knows it.
#[derive(Debug)]
pub(super) enum Server {
    /// Not dialled: not wanted, invalid, unsupported.
    Resting(Option<Arc<Definition>>),
    /// Wanted.
    Active(Box<Active>),
}

#[derive(Debug)]
pub(super) struct Active {
    pub(super) definition: Arc<Definition>,
    pub(super) way: Way,
    pub(super) lease: Arc<RouteLease>,
    /// Its own from when its route is in force.
    pub(super) actor: Option<Actor>,
    /// The actor is to hear of the definition when its route is in force.
    pub(super) changed: bool,
    /// Who wants to hear how its start went.
    pub(super) waiting: Vec<Settled>,
}

impl Active {
    /// Takes over a definition that is wanted and can be dialled.
    pub(super) fn take_over(
        &mut self,
        name: &ServerName,
        definition: Arc<Definition>,
        way: Way,
        held: &mut HeldRoutes,
    ) {
        let change = definition.change_from(&self.definition);
        let same_route = way.route == self.way.route;
        self.definition = definition;
        if change.connection || !same_route {
            self.lease = held.lease(name, &way);
            self.way = way;
            self.changed = true;
        } else if !change.is_nothing()
            && let Some(actor) = &self.actor
        {
            actor.update(Arc::clone(&self.definition));
        }
    }

    pub(super) fn approach(&self, cause: &Cause) -> Approach {
        Approach {
            headers: self.way.headers.iter().cloned().collect(),
            is_child: self.way.is_child(),
            lease: Arc::clone(&self.lease),
            cause: cause.clone(),
        }
    }

    pub(super) fn tell_waiting(&mut self, reason: &str) {
        for settled in self.waiting.drain(..) {
            // Whoever asked may have lost interest.
            let _ = settled.send(Err(reason.to_owned()));
        }
    }
}
