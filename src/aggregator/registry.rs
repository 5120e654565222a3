//! Which servers are in the catalogue.
//!
//! A change is entered at once, and is in the catalogue when its future is done. Changes that come together are in one
//! catalogue together: whoever finds that nobody makes one makes it for all who wait. So five hundred servers that come at
//! once cost some catalogues, and not five hundred, each longer than the one before.
//!
//! Invariants: catalogues come in the order of changes, none goes back behind another; what one task entered before
//! something else is in no later catalogue than that.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock};

use bytestring::ByteString;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::behind::InstanceId;
use super::catalogue::{Catalogue, Entry};
use super::client::Clients;
use super::limits::Limits;
use super::link::Link;
use super::local::LocalTools;
use super::member::Member;
use super::offer::{Item, Kind};
use super::standing::Standings;
use crate::mcpserver::ServerName;
use crate::sync::lock;
use crate::telemetry::calls::Subject;
use crate::telemetry::metrics::Offered;
use crate::wire::json;
use crate::wire::stream::Dropped;

/// Holds what each server brings, and the catalogue made of it. Readers get whole snapshots.
#[derive(Debug)]
pub struct Registry {
    pub(super) lead: String,
    identity: InstanceId,
    clients: Arc<Clients>,
    pub(super) entered: Mutex<Entered>,
    local: OnceLock<Arc<dyn LocalTools>>,
    catalogue: watch::Sender<Arc<Catalogue>>,
    /// Held by whoever makes a catalogue.
    made: tokio::sync::Mutex<Made>,
    unsent: Dropped,
    standings: watch::Sender<Standings>,
}

/// What is to be in the catalogue.
#[derive(Debug, Default)]
pub(super) struct Entered {
    servers: BTreeMap<ServerName, Arc<Entry>>,
    /// What was taken out of servers whose ways are not retired: they may come again.
    pub(super) lost: BTreeMap<ServerName, Arc<Entry>>,
    local: Arc<[ByteString]>,
    /// Counts changes.
    revision: u64,
}

/// What is in the catalogue.
#[derive(Debug, Default)]
struct Made {
    /// Of [`Entered::revision`].
    revision: u64,
    /// How many catalogues there were.
    catalogues: u64,
}

impl Registry {
    /// A registry without servers, whose exposed names begin with `lead`, of an instance that nobody can tell from others.
    pub fn new(lead: impl Into<String>) -> Arc<Self> {
        Self::of(InstanceId::default(), lead)
    }

    /// A registry without servers of an instance that recognises itself as `identity`; exposed names begin with `lead`.
    pub fn of(identity: InstanceId, lead: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            lead: lead.into(),
            identity,
            clients: Arc::default(),
            entered: Mutex::default(),
            local: OnceLock::new(),
            catalogue: watch::Sender::default(),
            made: tokio::sync::Mutex::default(),
            unsent: Dropped::default(),
            standings: watch::Sender::default(),
        })
    }

    /// Offers tools of our own as well, from now on. Only the first call counts.
    pub async fn offer_local(&self, tools: Arc<dyn LocalTools>) {
        let listed = tools.tools().into();
        let revision = self.enter(|entered| {
            let first = self.local.set(tools).is_ok();
            if first {
                entered.local = listed;
            }
            first
        });
        self.settled(revision).await;
    }

    /// The tools of our own.
    pub(super) fn local(&self) -> Option<&Arc<dyn LocalTools>> {
        self.local.get()
    }

    /// A way to a server for all clients, without a session yet.
    pub fn link(&self, server: ServerName, limits: Limits) -> Arc<Link> {
        Link::new(server, limits, Arc::clone(&self.clients), self.unsent.clone(), self.identity.clone())
    }

    /// Who we are.
    pub(super) fn identity(&self) -> &InstanceId {
        &self.identity
    }

    /// How many answers servers did not take, since the start.
    pub fn unsent(&self) -> u64 {
        self.unsent.total()
    }

    /// Where all servers stand. Kept by whoever looks after them.
    pub fn standings(&self) -> watch::Sender<Standings> {
        self.standings.clone()
    }

    /// Everyone who is connected.
    pub(super) fn clients(&self) -> &Arc<Clients> {
        &self.clients
    }

    /// Enters a server, or what has changed of it, at once; the future is done when the catalogue has it. One whose link is
    /// retired stays out: it may be another's turn already.
    #[must_use = "nobody else may put it into the catalogue"]
    pub fn publish(&self, member: Member) -> impl Future<Output = ()> + Send + use<'_> {
        let server = member.link.server().clone();
        let link = Arc::clone(&member.link);
        let entry = Arc::new(Entry::new(&self.lead, member));
        let revision = self.enter(|entered| {
            let enters = !link.is_retired();
            if enters {
                entered.lost.remove(&server);
                entered.servers.insert(server, entry);
            }
            enters
        });
        self.settled(revision)
    }

    /// Takes out what was entered with `link`, at once; the future is done when the catalogue has it no more. What is not
    /// there is fine.
    #[must_use = "nobody else may take it out of the catalogue"]
    pub fn withdraw(&self, link: &Arc<Link>) -> impl Future<Output = ()> + Send + use<'_> {
        let is_of_link = |entry: &Arc<Entry>| Arc::ptr_eq(&entry.member.link, link);
        let revision = self.enter(|entered| {
            let server = link.server();
            if link.is_retired() && entered.lost.get(server).is_some_and(is_of_link) {
                entered.lost.remove(server);
            }
            match entered.servers.entry(server.clone()) {
                Place::Occupied(entry) if is_of_link(entry.get()) => {
                    let entry = entry.remove();
                    if !link.is_retired() {
                        entered.lost.insert(server.clone(), entry);
                    }
                    true
                }
                _ => false,
            }
        });
        self.settled(revision)
    }

    /// Returns when the catalogue has all that has been entered by now.
    pub async fn caught_up(&self) {
        let revision = lock(&self.entered).revision;
        self.settled(revision).await;
    }

    /// The catalogue at this moment.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.borrow())
    }

    /// The catalogue as it changes.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Catalogue>> {
        self.catalogue.subscribe()
    }

    /// Changes what is to be in the catalogue; `edit` says whether it has. Gives the revision that has it, and all that was
    /// entered before.
    fn enter(&self, edit: impl FnOnce(&mut Entered) -> bool) -> u64 {
        let mut entered = lock(&self.entered);
        if edit(&mut entered) {
            entered.revision += 1;
        }
        entered.revision
    }

    /// Waits until the catalogue has a revision, or a later one; makes it where nobody does.
    async fn settled(&self, revision: u64) {
        // Whoever is ready now may have something for the same catalogue.
        tokio::task::yield_now().await;
        let mut made = self.made.lock().await;
        if made.revision < revision {
            self.make(&mut made);
        }
    }

    fn make(&self, made: &mut Made) {
        let entered = lock(&self.entered);
        let (servers, local, revision) =
            (entered.servers.clone(), Arc::clone(&entered.local), entered.revision);
        drop(entered);
        let old = self.catalogue();
        let catalogue = Arc::new(old.successor(&self.lead, &local, servers));
        self.catalogue.send_replace(Arc::clone(&catalogue));
        let changes = revision - made.revision;
        *made = Made { revision, catalogues: made.catalogues + 1 };
        debug!(number = made.catalogues, changes, tools = catalogue.len(), "another catalogue");
        let known: HashSet<_> = old.problems().iter().collect();
        for problem in catalogue.problems().iter().filter(|problem| !known.contains(problem)) {
            warn!("{problem}");
        }
    }
}

impl Offered for Registry {
    /// Whether it is exposed, or a tool of our own; for those who see one server alone, whether that has it.
    fn is_offered(&self, server: Option<&ServerName>, subject: &Subject) -> bool {
        let (kind, name) = match subject {
            Subject::Tool(name) => (Kind::Tool, name),
            Subject::Prompt(name) => (Kind::Prompt, name),
            Subject::Resource(_) => return false,
        };
        let Some(server) = server else {
            let tools = Arc::clone(&lock(&self.entered).local);
            return kind == Kind::Tool && tools.iter().any(|tool| is_called(tool, name));
        };
        let catalogue = self.catalogue();
        let is_own = |item: &Item| item.key == **name;
        catalogue.target(kind, name).is_some_and(|target| target.link.server() == server)
            || (kind == Kind::Tool && catalogue.shared_tool(name).is_some())
            || catalogue
                .server(server)
                .is_some_and(|member| member.offer.lists[kind].items.iter().any(is_own))
    }
}

/// Whether an entry of `tools/list` has this name.
fn is_called(tool: &str, name: &str) -> bool {
    let found = json::members(tool, ["name"]).ok().and_then(|[found]| json::string(found?));
    found.is_some_and(|found| found == name)
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;
    use crate::aggregator::offer::{Kind, Offer};
    use crate::aggregator::scope::Scope;

    #[tokio::test]
    async fn taking_out_what_is_not_there_is_no_change() {
        let registry = Registry::new("x");
        let link = publish(&registry).await;
        assert_eq!(registry.catalogue().len(), 1);

        let mut catalogues = registry.subscribe();
        registry.withdraw(&link).await;
        assert!(catalogues.has_changed().unwrap());
        catalogues.mark_unchanged();
        registry.withdraw(&link).await;
        assert!(!catalogues.has_changed().unwrap());
        assert!(registry.catalogue().is_empty());
    }

    #[tokio::test]
    async fn a_predecessor_that_is_late_changes_nothing() {
        let registry = Registry::new("x");
        let old = publish(&registry).await;
        old.retire();
        registry.withdraw(&old).await;
        publish(&registry).await;
        let catalogues = registry.subscribe();
        registry.publish(member(Arc::clone(&old))).await;
        registry.withdraw(&old).await;
        assert!(!catalogues.has_changed().unwrap());
        assert_eq!(registry.catalogue().len(), 1);
    }

    #[tokio::test]
    async fn what_comes_together_is_in_one_catalogue() {
        const SERVERS: usize = 500;
        let registry = Registry::new("x");
        let links: Vec<Arc<Link>> = (0..SERVERS)
            .map(|number| registry.link(format!("s{number}").parse().unwrap(), Limits::default()))
            .collect();
        join_all(links.iter().map(|link| registry.publish(member(Arc::clone(link))))).await;
        assert_eq!(registry.catalogue().len(), SERVERS);
        assert_eq!(registry.made.lock().await.catalogues, 1);

        // Those who come while one is made wait for the next, and for no other.
        let making = registry.made.lock().await;
        let withdrawing = join_all(links.iter().map(|link| registry.withdraw(link)));
        let (others, ()) = tokio::join!(withdrawing, async {
            tokio::task::yield_now().await;
            drop(making);
        });
        assert_eq!(others.len(), SERVERS);
        assert!(registry.catalogue().is_empty());
        assert_eq!(registry.made.lock().await.catalogues, 2);
    }

    #[tokio::test]
    async fn a_change_is_in_the_catalogue_when_it_is_done_even_if_another_was_given_up() {
        let registry = Registry::new("x");
        let link = publish(&registry).await;
        drop(registry.withdraw(&link));
        assert_eq!(registry.catalogue().len(), 1);
        // Nothing to take out any more; what was entered before is waited for all the same.
        registry.withdraw(&link).await;
        assert!(registry.catalogue().is_empty());
    }

    #[tokio::test]
    async fn a_list_that_is_the_same_is_the_same_text() {
        let registry = Registry::new("x");
        publish(&registry).await;
        let before = registry.catalogue();
        publish(&registry).await;
        let after = registry.catalogue();
        for kind in Kind::ALL {
            let text = |catalogue: &Catalogue| catalogue.list(&Scope::All, kind).as_ptr();
            assert_eq!(text(&before), text(&after), "{kind:?}");
        }
    }

    async fn publish(registry: &Registry) -> Arc<Link> {
        let link = registry.link("a".parse().unwrap(), Limits::default());
        registry.publish(member(Arc::clone(&link))).await;
        link
    }

    fn member(link: Arc<Link>) -> Member {
        let offer = Arc::new(Offer::of_tools(&[r#"{"name":"t"}"#]).unwrap());
        Member { prefix: "a".to_owned(), link, offer, family: None }
    }
}
