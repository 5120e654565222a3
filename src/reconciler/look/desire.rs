//! What each file asks for, compared with what there is.
//!
//! Invariants: servers that have not changed are not touched; a file that has become wrong leaves what runs alone, unless the
//! operator wants it to rest; what is not known of a project's servers changes none of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tracing::warn;

use super::Look;
use super::server::{Active, Server};
use crate::mcpserver::{Definition, Scan, ServerName, Transport};
use crate::reconciler::actor::Shared;
use crate::reconciler::route::{self, Reach, Way};
use crate::reconciler::state::ServerState;

impl Look {
    /// Compares what is with what is desired, and begins what is to be done.
    pub(super) async fn begin(&mut self, scan: Scan) {
        let mut seen = BTreeSet::new();
        let mut nameless = Vec::new();
        let project = self.options.reader.project_file().map(Path::to_owned);
        if let Some(unread) = &scan.unread {
            let mistakes = unread.invalid.to_string();
            // What it defines is not known, so what runs goes on.
            for name in self.of_project.clone() {
                if scan.entries.iter().all(|entry| entry.name.as_ref() != Some(&name)) {
                    self.hold(&name, &mistakes, unread.intents.get(&name).copied());
                    seen.insert(name);
                }
            }
            nameless.push(self.shown(&mistakes));
        } else {
            self.of_project.clear();
        }
        let definitions = scan.entries.iter().filter_map(|entry| entry.outcome.as_ref().ok());
        let to_ask = definitions.filter(|definition| self.wants_reach(definition)).cloned().collect();
        let reaches = Reach::of_all(to_ask).await;
        for entry in scan.entries {
            let Some(name) = entry.name else {
                if let Err(invalid) = &entry.outcome {
                    nameless.push(self.shown(&invalid.to_string()));
                }
                continue;
            };
            // Two files of one name have one entry each; both are wrong for the same reason.
            if !seen.insert(name.clone()) {
                continue;
            }
            if project.as_ref() == Some(&entry.path) {
                self.of_project.insert(name.clone());
            }
            match entry.outcome {
                Ok(definition) => {
                    self.shared.board.names(&definition);
                    let reach = reaches.get(&name).copied();
                    self.desire(&name, definition, reach).await;
                }
                Err(invalid) => self.hold(&name, &invalid.to_string(), entry.intent),
            }
        }
        self.problems.send_if_modified(|problems| {
            // Said once, as long as it is so.
            nameless
                .iter()
                .filter(|problem| !problems.files.contains(problem))
                .for_each(|new| warn!("{new}"));
            let new = problems.files != nameless;
            problems.files = nameless;
            new
        });
        let gone: Vec<ServerName> =
            self.servers.keys().filter(|name| !seen.contains(*name)).cloned().collect();
        for name in gone {
            self.retire(&name);
            self.servers.remove(&name);
            self.started.remove(&name);
            self.shared.board.remove(&name);
        }
    }

    /// Whether a server with this definition is to run.
    fn is_wanted_by(&self, definition: &Definition) -> bool {
        !definition.suspended && (definition.auto_start || self.started.contains(&definition.name))
    }

    /// The definition that is known of a server.
    fn known(&self, name: &ServerName) -> Option<&Arc<Definition>> {
        match self.servers.get(name)? {
            Server::Active(active) => Some(&active.definition),
            Server::Resting(definition) => definition.as_ref(),
        }
    }

    /// Whether [`desire`](Self::desire) has to know who reaches the server.
    fn wants_reach(&self, definition: &Definition) -> bool {
        match self.servers.get(&definition.name) {
            // Not asked again: whoever answers where by now, the way that there is works.
            Some(Server::Active(active)) => definition.change_from(&active.definition).connection,
            Some(Server::Resting(_)) | None => self.is_wanted_by(definition),
        }
    }

    /// A file that is right. `reach` is asked for where it is not known.
    async fn desire(&mut self, name: &ServerName, definition: Arc<Definition>, reach: Option<Reach>) {
        let wanted = self.is_wanted_by(&definition);
        let active = matches!(self.servers.get(name), Some(Server::Active(_)));
        let same = self.known(name).is_some_and(|known| **known == *definition);
        if same && active == wanted && !self.everything_anew {
            // Also where the file was wrong in between. What waits for its route is judged with that.
            if !matches!(self.servers.get(name), Some(Server::Active(active)) if active.changed) {
                self.shared.board.set_stale(name, None);
            }
            return;
        }
        if !wanted {
            return self.rest(name, definition);
        }
        let reach = match (self.servers.get(name), reach) {
            (Some(Server::Active(active)), _) if !self.wants_reach(&definition) => active.way.reach(),
            (_, Some(reach)) => reach,
            (_, None) => Reach::of(&definition).await,
        };
        let gateway = self.front.kind();
        match route::way(&definition, &self.options.surroundings, gateway, reach) {
            Ok(way) => match self.servers.get_mut(name) {
                Some(Server::Active(active)) => {
                    active.take_over(name, definition, way, &mut self.held);
                    self.shared.board.set_stale(name, None);
                }
                Some(Server::Resting(_)) | None => self.activate(name, definition, way),
            },
            // The same that could not be dialled before: nothing new is to be said.
            Err(_) if same && !active && known_state_is_unsupported(&self.shared, name) => {}
            Err(reason) => {
                self.retire(name);
                self.shared.board.set(name, ServerState::Unsupported { reason }, 0);
                self.servers.insert(name.clone(), Server::Resting(Some(definition)));
            }
        }
    }

    /// A server that is not wanted.
    fn rest(&mut self, name: &ServerName, definition: Arc<Definition>) {
        self.retire(name);
        let stdio = matches!(definition.transport, Transport::Stdio(_));
        let state = if stdio { ServerState::Stopped } else { ServerState::Disconnected };
        self.shared.board.set(name, state, 0);
        self.shared.board.set_stale(name, None);
        if definition.suspended {
            self.started.remove(name);
        }
        self.servers.insert(name.clone(), Server::Resting(Some(definition)));
    }

    /// A server that has no session yet.
    fn activate(&mut self, name: &ServerName, definition: Arc<Definition>, way: Way) {
        let stdio = matches!(definition.transport, Transport::Stdio(_));
        let board = &self.shared.board;
        board.set(name, if stdio { ServerState::Starting } else { ServerState::Connecting }, 0);
        board.set_stale(name, None);
        let lease = self.held.lease(name, &way);
        let active = Active { definition, way, lease, actor: None, changed: false, waiting: Vec::new() };
        self.servers.insert(name.clone(), Server::Active(Box::new(active)));
    }

    /// A file that is wrong: what runs goes on, unless the operator wants it to rest.
    fn hold(&mut self, name: &ServerName, mistakes: &str, intent: Option<bool>) {
        match self.servers.get(name) {
            Some(Server::Active(active)) if intent == Some(true) => {
                self.rest(name, Arc::clone(&active.definition));
                self.started.remove(name);
                self.shared.board.set_stale(name, Some(mistakes.to_owned()));
            }
            Some(Server::Resting(Some(_))) if intent == Some(true) => {
                self.shared.board.set_stale(name, Some(mistakes.to_owned()));
            }
            Some(Server::Active(_)) => self.shared.board.set_stale(name, Some(mistakes.to_owned())),
            Some(Server::Resting(_)) | None => {
                self.servers.insert(name.clone(), Server::Resting(None));
                self.shared.board.set(name, ServerState::Invalid { reason: mistakes.to_owned() }, 0);
            }
        }
    }

    /// Begins to close the sessions of a server, if it has some. Its tools are out of the catalogue at once.
    fn retire(&mut self, name: &ServerName) {
        if matches!(self.servers.get(name), Some(Server::Active(_)))
            && let Some(Server::Active(active)) = self.servers.remove(name)
            && let Some(actor) = active.actor
        {
            self.shared.tracker.spawn(actor.retire());
        }
    }

    /// Wants a server that does not start by itself.
    pub(super) async fn want(&mut self, name: &ServerName) {
        if let Some(Server::Resting(Some(definition))) = self.servers.get(name)
            && !definition.auto_start
            && !definition.suspended
        {
            let definition = Arc::clone(definition);
            self.started.insert(name.clone());
            self.desire(name, definition, None).await;
        }
    }
}

fn known_state_is_unsupported(shared: &Shared, name: &ServerName) -> bool {
    let statuses = shared.board.subscribe();
    let statuses = statuses.borrow();
    statuses.get(name).is_some_and(|status| matches!(status.state, ServerState::Unsupported { .. }))
}
