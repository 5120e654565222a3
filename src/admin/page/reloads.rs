//! The last changes of the gateway's configuration, as far as they were seen.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::SystemTime;

use crate::error::chain;
use crate::sync::lock;
use crate::telemetry::secrets::Secrets;
use crate::yaml_applier;

/// How many are remembered.
const MOST: usize = 50;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reload {
    pub(super) at: SystemTime,
    /// The generation that came into force, or why none did.
    pub(super) outcome: Result<String, String>,
}

/// Remembers changes.
#[derive(Debug, Default)]
pub struct Reloads {
    seen: Mutex<VecDeque<Reload>>,
    secrets: Secrets,
}

impl Reloads {
    /// Remembers none yet; what is remembered has none of `secrets`.
    pub fn new(secrets: Secrets) -> Self {
        Self { seen: Mutex::default(), secrets }
    }

    /// Takes note of where the gateway's file stands, if that is news.
    pub fn see(&self, status: &yaml_applier::Status) {
        let Some(at) = status.changed else { return };
        let outcome = match (&status.failure, &status.in_force) {
            (Some((_, error)), _) => Err(self.secrets.redact(&chain(error)).into_owned()),
            (None, Some(now)) => Ok(now.generation.to_string()),
            (None, None) => return,
        };
        let mut seen = lock(&self.seen);
        if seen.back().is_some_and(|last| last.at == at) {
            return;
        }
        if seen.len() == MOST {
            seen.pop_front();
        }
        seen.push_back(Reload { at, outcome });
    }

    /// What was seen, the newest first.
    pub(super) fn newest_first(&self) -> Vec<Reload> {
        lock(&self.seen).iter().rev().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::yaml_applier::{ApplyError, Revision};

    #[test]
    fn each_change_is_remembered_once_and_not_for_ever() {
        let reloads = Reloads::default();
        let status = |second: u64| yaml_applier::Status {
            failure: Some((Revision::default(), ApplyError::Superseded)),
            changed: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(second)),
            ..yaml_applier::Status::default()
        };
        reloads.see(&yaml_applier::Status::default());
        assert!(reloads.newest_first().is_empty());
        for second in [1, 1, 2] {
            reloads.see(&status(second));
        }
        let seen = reloads.newest_first();
        assert_eq!(seen.len(), 2);
        assert!(seen[0].at > seen[1].at && seen[0].outcome.is_err());
        (3..200).for_each(|second| reloads.see(&status(second)));
        assert_eq!(reloads.newest_first().len(), MOST);
    }
}
