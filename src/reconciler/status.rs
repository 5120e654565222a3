//! What users see of each server.

use std::collections::BTreeMap;
use std::time::SystemTime;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::state::ServerState;
use super::told;
use crate::aggregator::standing::Standings;
use crate::mcpserver::{Definition, ServerName};
use crate::telemetry::secrets::Secrets;

/// One server as users see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStatus {
    /// Where it stands.
    pub state: ServerState,
    /// Since when.
    pub since: SystemTime,
    /// How many tools it has in the catalogue.
    pub tools: usize,
    /// Why the version that runs is not the one in the file: all that is wrong with the file.
    pub stale: Option<String>,
    /// When a server without a session is tried again.
    pub next_try: Option<SystemTime>,
    /// What went wrong last, which may be long mended.
    pub last_error: Option<LastError>,
}

/// What went wrong with a server, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastError {
    /// When.
    pub at: SystemTime,
    /// What.
    pub reason: String,
}

/// All servers at one time.
pub type Statuses = BTreeMap<ServerName, ServerStatus>;

/// Where states are written down, without what may be secret. Every change is logged.
#[derive(Debug)]
pub(super) struct Board {
    statuses: watch::Sender<Statuses>,
    /// The same for clients. Changed while `statuses` is held, so that the two say the same.
    standings: watch::Sender<Standings>,
    secrets: Secrets,
}

impl Board {
    pub(super) fn new(secrets: Secrets, standings: watch::Sender<Standings>) -> Self {
        Self { statuses: watch::Sender::new(Statuses::new()), standings, secrets }
    }

    /// Writes down by which names clients may ask for a server.
    pub(super) fn names(&self, definition: &Definition) {
        let (server, prefixes) = (&definition.name, told::prefixes(definition));
        self.standings.send_if_modified(|standings| {
            let standing = standings.entry(server.clone()).or_insert_with(|| told::new(server));
            let is_new = standing.prefixes != prefixes;
            standing.prefixes = prefixes;
            is_new
        });
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Statuses> {
        self.statuses.subscribe()
    }

    /// Writes down where a server stands.
    pub(super) fn set(&self, server: &ServerName, state: ServerState, tools: usize) {
        self.set_while(server, state, tools, || true);
    }

    /// Writes down where a server stands, unless it is not for the caller to say any more.
    pub(super) fn set_while(
        &self,
        server: &ServerName,
        state: ServerState,
        tools: usize,
        may: impl FnOnce() -> bool,
    ) {
        let state = state.without(&self.secrets);
        self.statuses.send_if_modified(|statuses| {
            if !may() {
                return false;
            }
            let status = statuses.entry(server.clone());
            let mut changed = false;
            let status = status.or_insert_with(|| {
                changed = true;
                ServerStatus {
                    state: state.clone(),
                    since: SystemTime::now(),
                    tools,
                    stale: None,
                    next_try: None,
                    last_error: None,
                }
            });
            if changed || status.state != state {
                let again = !changed
                    && status.state.name() == state.name()
                    && status.state.reason() == state.reason();
                if again {
                    debug!(%server, ?state, "as before");
                } else {
                    log(server, &state, tools);
                    status.since = SystemTime::now();
                }
                status.next_try = None;
                changed = true;
            }
            if changed && let (Some(reason), Some((_, retry_in))) = (state.reason(), state.next_try()) {
                let now = SystemTime::now();
                status.next_try = Some(now + retry_in);
                status.last_error = Some(LastError { at: now, reason: reason.to_owned() });
            }
            if changed {
                self.standings.send_modify(|standings| {
                    let standing = standings.entry(server.clone()).or_insert_with(|| told::new(server));
                    told::tell(standing, server, &state);
                });
            }
            changed |= status.tools != tools;
            (status.state, status.tools) = (state, tools);
            changed
        });
    }

    /// Writes down why the file of a running server does not count, or that it does again.
    pub(super) fn set_stale(&self, server: &ServerName, stale: Option<String>) {
        let stale = stale.map(|why| self.secrets.redact(&why).into_owned());
        self.statuses.send_if_modified(|statuses| match statuses.get_mut(server) {
            Some(status) if status.stale != stale => {
                if let Some(why) = &stale {
                    warn!(%server, "the last good definition stays in use, as the file is wrong now:\n{why}");
                }
                status.stale = stale;
                true
            }
            _ => false,
        });
    }

    /// Forgets a server.
    pub(super) fn remove(&self, server: &ServerName) {
        self.statuses.send_if_modified(|statuses| {
            let known = statuses.remove(server).is_some();
            self.standings.send_if_modified(|standings| standings.remove(server).is_some());
            if known {
                info!(%server, "removed");
            }
            known
        });
    }
}

/// The target of warnings about states of servers.
pub const STATES: &str = "sidegate::reconciler::status";

fn log(server: &ServerName, state: &ServerState, tools: usize) {
    match state {
        ServerState::Failed { reason, failures, retry_in }
        | ServerState::AuthRequired { reason, failures, retry_in } => {
            let seconds = retry_in.as_secs_f32();
            warn!(target: STATES, %server, %state, failures, "{reason}; next try in {seconds:.1} s");
        }
        ServerState::Degraded { reason }
        | ServerState::Invalid { reason }
        | ServerState::Unsupported { reason } => {
            warn!(target: STATES, %server, %state, "{reason}");
        }
        ServerState::Running | ServerState::Connected => info!(%server, tools, "{state}"),
        _ => info!(%server, "{state}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_change_of_state_begins_a_new_time() {
        let board = Board::new(Secrets::default(), watch::Sender::default());
        let server: ServerName = "a".parse().unwrap();
        let receiver = board.subscribe();
        board.set(&server, ServerState::Running, 1);
        let first = receiver.borrow()[&server].clone();
        board.set(&server, ServerState::Running, 2);
        let second = receiver.borrow()[&server].clone();
        assert_eq!((first.since, second.tools), (second.since, 2));
        board.set(&server, ServerState::Starting, 0);
        assert_eq!(receiver.borrow()[&server].state, ServerState::Starting);
    }

    #[test]
    fn an_error_is_remembered_and_a_next_try_is_not() {
        let board = Board::new(Secrets::default(), watch::Sender::default());
        let server: ServerName = "a".parse().unwrap();
        let failed = |failures| ServerState::Failed {
            reason: "refused".to_owned(),
            failures,
            retry_in: Duration::from_secs(20),
        };
        board.set(&server, failed(1), 0);
        let first = board.subscribe().borrow()[&server].clone();
        assert_eq!(first.next_try, first.last_error.map(|error| error.at + Duration::from_secs(20)));
        // The same failure again begins no new state, and there is a later try all the same.
        board.set(&server, failed(2), 0);
        let second = board.subscribe().borrow()[&server].clone();
        assert_eq!(first.since, second.since);
        assert!(second.next_try > first.next_try);

        board.set(&server, ServerState::Running, 1);
        let running = board.subscribe().borrow()[&server].clone();
        assert_eq!(running.next_try, None);
        assert_eq!(running.last_error.unwrap().reason, "refused");
    }

    #[test]
    fn nobody_is_woken_where_nothing_changed() {
        let board = Board::new(Secrets::default(), watch::Sender::default());
        let server: ServerName = "a".parse().unwrap();
        board.set(&server, ServerState::Running, 1);
        let mut receiver = board.subscribe();
        receiver.mark_unchanged();
        board.set(&server, ServerState::Running, 1);
        board.set_stale(&server, None);
        board.remove(&"b".parse().unwrap());
        assert!(!receiver.has_changed().unwrap());
        board.set_stale(&server, Some("wrong".to_owned()));
        assert!(receiver.has_changed().unwrap());
    }
}
