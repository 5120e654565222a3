//! Which servers are in the catalogue.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tracing::warn;

use super::catalogue::{Catalogue, Member};
use crate::mcpserver::ServerName;

/// Holds what each server brings, and the catalogue made of it. Readers get whole snapshots.
#[derive(Debug)]
pub struct Registry {
    lead: String,
    members: Mutex<BTreeMap<ServerName, Member>>,
    catalogue: watch::Sender<Arc<Catalogue>>,
}

impl Registry {
    /// A registry without servers, whose exposed names begin with `lead`.
    pub fn new(lead: impl Into<String>) -> Arc<Self> {
        let lead = lead.into();
        let empty = Arc::new(Catalogue::build(&lead, std::iter::empty()));
        Arc::new(Self { lead, members: Mutex::default(), catalogue: watch::Sender::new(empty) })
    }

    /// Enters a server, or what has changed of it.
    pub fn publish(&self, server: ServerName, member: Member) {
        self.change(|members| {
            members.insert(server, member);
            true
        });
    }

    /// Takes a server out. One that is not there is fine.
    pub fn withdraw(&self, server: &ServerName) {
        self.change(|members| members.remove(server).is_some());
    }

    /// The catalogue at this moment.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.borrow())
    }

    /// The catalogue as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    /// Makes a new catalogue where `edit` says that something has changed.
    fn change(&self, edit: impl FnOnce(&mut BTreeMap<ServerName, Member>) -> bool) {
        // Built under the lock, so that an older set of members never replaces a newer one.
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if !edit(&mut members) {
            return;
        }
        let catalogue = Arc::new(Catalogue::build(&self.lead, members.iter()));
        let old = self.catalogue.send_replace(Arc::clone(&catalogue));
        drop(members);
        for problem in catalogue.problems().iter().filter(|problem| !old.problems().contains(problem)) {
            warn!("{problem}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregator::catalogue::Tool;
    use crate::aggregator::link::{Limits, Link};

    #[test]
    fn taking_out_what_is_not_there_is_no_change() {
        let registry = Registry::new("x");
        let server: ServerName = "a".parse().unwrap();
        let tools = Arc::from([Tool::parse(r#"{"name":"t"}"#.into()).unwrap()]);
        let link = Link::new(server.clone(), Limits::default());
        registry.publish(server.clone(), Member { prefix: "a".to_owned(), link, tools });
        assert_eq!(registry.catalogue().len(), 1);

        let mut catalogues = registry.subscribe();
        registry.withdraw(&server);
        assert!(catalogues.has_changed().unwrap());
        catalogues.mark_unchanged();
        registry.withdraw(&server);
        assert!(!catalogues.has_changed().unwrap());
        assert!(registry.catalogue().is_empty());
    }
}
