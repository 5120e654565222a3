//! Which servers are in the catalogue.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;
use tracing::warn;

use super::catalogue::{Catalogue, Member};
use super::client::Clients;
use super::link::{Limits, Link};
use super::local::LocalTools;
use crate::mcpserver::ServerName;

/// Holds what each server brings, and the catalogue made of it. Readers get whole snapshots.
#[derive(Debug)]
pub struct Registry {
    lead: String,
    clients: Arc<Clients>,
    members: Mutex<BTreeMap<ServerName, Member>>,
    local: OnceLock<Arc<dyn LocalTools>>,
    catalogue: watch::Sender<Arc<Catalogue>>,
}

impl Registry {
    /// A registry without servers, whose exposed names begin with `lead`.
    pub fn new(lead: impl Into<String>) -> Arc<Self> {
        let lead = lead.into();
        let empty = Arc::new(Catalogue::build(&lead, &[], std::iter::empty()));
        Arc::new(Self {
            lead,
            clients: Arc::default(),
            members: Mutex::default(),
            local: OnceLock::new(),
            catalogue: watch::Sender::new(empty),
        })
    }

    /// Offers tools of our own as well, from now on. Only the first call counts.
    pub fn offer_local(&self, tools: Arc<dyn LocalTools>) {
        self.change(|_| self.local.set(tools).is_ok());
    }

    /// The tools of our own.
    pub(super) fn local(&self) -> Option<&Arc<dyn LocalTools>> {
        self.local.get()
    }

    /// A way to a server for all clients, without a session yet.
    pub fn link(&self, server: ServerName, limits: Limits) -> Arc<Link> {
        Link::new(server, limits, Arc::clone(&self.clients))
    }

    /// Everyone who is connected.
    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Enters a server, or what has changed of it. One whose link is retired stays out: it may be another's turn already.
    pub fn publish(&self, member: Member) {
        self.change(|members| {
            let enters = !member.link.is_retired();
            if enters {
                members.insert(member.link.server().clone(), member);
            }
            enters
        });
    }

    /// Takes out what was entered with `link`. What is not there is fine.
    pub fn withdraw(&self, link: &Arc<Link>) {
        self.change(|members| match members.entry(link.server().clone()) {
            Entry::Occupied(member) if Arc::ptr_eq(&member.get().link, link) => {
                member.remove();
                true
            }
            _ => false,
        });
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
        let local = self.local.get().map(|local| local.tools()).unwrap_or_default();
        let catalogue = Arc::new(Catalogue::build(&self.lead, &local, members.iter()));
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
    use crate::aggregator::offer::Offer;

    #[test]
    fn taking_out_what_is_not_there_is_no_change() {
        let registry = Registry::new("x");
        let link = publish(&registry);
        assert_eq!(registry.catalogue().len(), 1);

        let mut catalogues = registry.subscribe();
        registry.withdraw(&link);
        assert!(catalogues.has_changed().unwrap());
        catalogues.mark_unchanged();
        registry.withdraw(&link);
        assert!(!catalogues.has_changed().unwrap());
        assert!(registry.catalogue().is_empty());
    }

    #[test]
    fn a_predecessor_that_is_late_changes_nothing() {
        let registry = Registry::new("x");
        let old = publish(&registry);
        old.retire();
        registry.withdraw(&old);
        publish(&registry);
        let catalogues = registry.subscribe();
        registry.publish(member(Arc::clone(&old)));
        registry.withdraw(&old);
        assert!(!catalogues.has_changed().unwrap());
        assert_eq!(registry.catalogue().len(), 1);
    }

    fn publish(registry: &Registry) -> Arc<Link> {
        let link = registry.link("a".parse().unwrap(), Limits::default());
        registry.publish(member(Arc::clone(&link)));
        link
    }

    fn member(link: Arc<Link>) -> Member {
        let offer = Arc::new(Offer::of_tools(&[r#"{"name":"t"}"#]).unwrap());
        Member { prefix: "a".to_owned(), link, offer, family: None }
    }
}
