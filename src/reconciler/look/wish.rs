//! The routes that servers need, and what happens once they are in force.
//!
//! A server is dialled only through a route that is in force, and has it until its last session is closed.

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::Fuse;
use tokio::time::Instant;
use tracing::error;

use super::server::Server;
use super::{Look, Progress};
use crate::error::chain;
use crate::reconciler::actor::Actor;
use crate::reconciler::front::Refused;
use crate::reconciler::state::ServerState;
use crate::yaml_applier::{ApplyError, RouteName};

impl Look {
    /// Nobody holds this route any more.
    pub(super) fn free(&mut self, name: &RouteName) {
        if self.held.free(name) {
            self.ending.retain(|(_, children)| !children.is_empty());
            let children = self.shared.bridge.remove(name);
            self.ending.extend(children.map(|children| (name.server().clone(), children)));
        }
    }

    /// Wishes for the routes there have to be.
    pub(super) fn wish(&mut self) -> Fuse<impl Future<Output = Result<Refused, ApplyError>> + Send + use<>> {
        let front = Arc::clone(&self.front);
        let routes = self.held.routes();
        let wish = front.apply(routes.clone());
        self.retry_at = None;
        self.progress.send_if_modified(|progress| {
            let first = *progress == Progress::Begun;
            if first {
                *progress = Progress::Wished;
            }
            first
        });
        async move {
            let mut wish = wish;
            loop {
                match wish.granted().await {
                    // That gateway has ended; the one in its place is to be asked.
                    Err(ApplyError::Stopped) if !front.is_current(&wish) => {
                        wish = front.apply(routes.clone())
                    }
                    settled => return settled,
                }
            }
        }
        .fuse()
    }

    /// The latest wish has been granted, or not.
    pub(super) fn applied(&mut self, outcome: Result<Refused, ApplyError>) {
        match outcome {
            Ok(refused) => {
                self.failures = 0;
                self.go_on(&refused);
            }
            Err(error) => {
                let reason = format!("the gateway's configuration stays as it was: {}", chain(&error));
                error!("{reason}");
                self.wait_to_apply(&reason);
            }
        }
        for (name, done) in std::mem::take(&mut self.ends) {
            if self.is_wanted(&name) {
                // Dropped: somebody else wants it to run.
            } else if self.held.has(&name) {
                self.ends.push((name, done));
            } else {
                self.tell_end(&name, done);
            }
        }
        self.progress.send_if_modified(|progress| {
            let first = *progress != Progress::Done;
            *progress = Progress::Done;
            first
        });
    }

    /// Tells the actors of all servers whose routes are in force now, and who had to wait for that.
    fn go_on(&mut self, refused: &Refused) {
        let status = self.front.status().unwrap_or_default();
        let is_new = std::mem::replace(&mut self.in_force_since, status.changed) != status.changed;
        let reload = Some(status.cause).filter(|cause| is_new && cause.is_known());
        // The start, the first time; what comes later without a reload has no cause that is known.
        let cause = reload.unwrap_or_else(|| std::mem::take(&mut self.options.cause));
        for (name, server) in &mut self.servers {
            let Server::Active(active) = server else { continue };
            if let Some(reason) = refused.get(active.lease.name()) {
                match (&active.actor, active.changed) {
                    (Some(_), true) => self.shared.board.set_stale(name, Some(reason.clone())),
                    _ => {
                        if let Some(actor) = active.actor.take() {
                            self.shared.tracker.spawn(actor.retire());
                        }
                        self.shared.board.set(name, ServerState::Invalid { reason: reason.clone() }, 0);
                    }
                }
                active.tell_waiting(reason);
                continue;
            }
            // Not before: as long as a new way is not taken, what there is is opened again as it was.
            if let Some(target) = &active.way.target
                && (active.changed || active.actor.is_none())
            {
                self.shared.bridge.set(active.lease.name(), target.clone());
            }
            match &active.actor {
                None => {
                    let (definition, approach) = (Arc::clone(&active.definition), active.approach(&cause));
                    let shared = Arc::clone(&self.shared);
                    let actor = Actor::start(definition, approach, self.front.origin(), shared);
                    active.waiting.drain(..).for_each(|settled| actor.nudge(settled));
                    active.actor = Some(actor);
                }
                Some(actor) if active.changed => {
                    self.shared.board.set_stale(name, None);
                    actor.change(Arc::clone(&active.definition), active.approach(&cause));
                }
                Some(_) => {}
            }
            active.changed = false;
        }
    }

    /// Says of the servers that wait for a route why they have none, and when it is tried again.
    fn wait_to_apply(&mut self, reason: &str) {
        self.failures += 1;
        let retry_in = self.shared.retry.wait(self.failures);
        self.retry_at = Some(Instant::now() + retry_in);
        for (name, server) in &mut self.servers {
            if let Server::Active(active) = server
                && active.actor.is_none()
            {
                let (reason, failures) = (reason.to_owned(), self.failures);
                active.tell_waiting(&reason);
                self.shared.board.set(name, ServerState::Failed { reason, failures, retry_in }, 0);
            }
        }
    }
}
