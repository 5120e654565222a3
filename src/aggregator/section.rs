//! What is exposed of one kind of things.
//!
//! Made of what each server brings of that kind, and made anew only where any of that is another. Most of it is shared
//! with whatever it is made of: keys and entries are slices of what the servers have answered, names are made once for each
//! server. Knows nothing of how it is looked up.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytestring::ByteString;

use super::family::FamilyTool;
use super::link::Link;
use super::member::{Member, SharedTool, Target};
use super::naming::{self, Candidate, Named, NamingProblem, NotShared};
use super::offer::{Item, Kind, List, ListText};
use super::template::UriTemplate;
use crate::mcpserver::{Family, ServerName};

/// What one server brings of one kind.
#[derive(Debug)]
pub(super) struct Piece {
    link: Arc<Link>,
    /// Of tools: whom it shares them with.
    family: Option<Family>,
    items: Arc<[Item]>,
    /// What each may be called.
    candidates: Vec<Candidate>,
    prefix: String,
}

impl Piece {
    pub(super) fn new(lead: &str, kind: Kind, member: &Member) -> Self {
        let items = Arc::clone(&member.offer.lists[kind].items);
        Self {
            candidates: naming::candidates(lead, kind, &member.prefix, items.iter().map(|item| &item.key)),
            link: Arc::clone(&member.link),
            family: member.family.clone().filter(|_| kind == Kind::Tool),
            prefix: member.prefix.clone(),
            items,
        }
    }

    /// Whether nothing changes where it comes or goes. The servers of a family have to agree, also those without tools.
    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty() && self.family.is_none()
    }

    /// Whether something of it may be exposed as `key`.
    pub(super) fn may_give(&self, lead: &str, kind: Kind, key: &str) -> bool {
        let own = match kind {
            Kind::Tool | Kind::Prompt => key,
            Kind::Resource | Kind::Template => key
                .strip_prefix(self.server().as_str())
                .and_then(|rest| rest.strip_prefix('+'))
                .unwrap_or(key),
        };
        let is_shared = |item: &Item| {
            let family = self.family.as_ref();
            family.is_some_and(|family| naming::of_family(lead, family.name.as_str(), &item.key) == key)
        };
        let gives = |item: &Item| kind == Kind::Template && UriTemplate::parse(&item.key).matches(own, false);
        self.candidates.iter().any(|candidate| candidate.may_be_called(own))
            || self.items.iter().any(|item| is_shared(item) || gives(item))
    }

    fn server(&self) -> &ServerName {
        self.link.server()
    }

    /// Whether the other one gives the same names to the same things, at the same server.
    fn is_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.items, &other.items)
            && Arc::ptr_eq(&self.link, &other.link)
            && self.prefix == other.prefix
            && self.family == other.family
    }
}

/// A template under its exposed form.
#[derive(Debug)]
pub(super) struct TemplateTarget {
    pub(super) template: UriTemplate,
    /// What stands before the server's own URIs: `<server>+`, or nothing.
    pub(super) lead: String,
    pub(super) link: Arc<Link>,
}

/// Everything of one kind.
#[derive(Debug)]
pub(super) struct Section {
    local: Arc<[ByteString]>,
    /// By server.
    pieces: Vec<Arc<Piece>>,
    /// Exposed keys.
    pub(super) targets: HashMap<Arc<str>, Arc<Target>>,
    /// Tools that are several servers', by exposed name.
    pub(super) shared: HashMap<String, SharedTool>,
    /// The most literal first; of equals the first server's.
    pub(super) templates: Vec<TemplateTarget>,
    /// Exposed URIs, of resources or templates, by server and own URI, where the two differ.
    pub(super) renamed: HashMap<ServerName, HashMap<ByteString, Arc<str>>>,
    /// The `result` that lists it.
    pub(super) result: ByteString,
    /// What a user should know of its names.
    pub(super) problems: Vec<NamingProblem>,
}

impl Section {
    /// Nothing of a kind.
    pub(super) fn empty(kind: Kind) -> Self {
        Self {
            local: Arc::default(),
            pieces: Vec::new(),
            targets: HashMap::new(),
            shared: HashMap::new(),
            templates: Vec::new(),
            renamed: HashMap::new(),
            result: List::of(kind, []).result,
            problems: Vec::new(),
        }
    }

    /// Whether what is made of these is the same as this.
    pub(super) fn is_made_of(&self, local: &Arc<[ByteString]>, pieces: &[Arc<Piece>]) -> bool {
        *self.local == **local
            && self.pieces.len() == pieces.len()
            && self.pieces.iter().zip(pieces).all(|(old, new)| Arc::ptr_eq(old, new) || old.is_as(new))
    }

    /// What takes the place of this.
    pub(super) fn successor(
        &self,
        lead: &str,
        kind: Kind,
        local: &Arc<[ByteString]>,
        pieces: Vec<Arc<Piece>>,
        of_families: (Vec<FamilyTool>, Vec<NamingProblem>),
    ) -> Self {
        let (shared, problems) = of_families;
        let mut new = Self { local: Arc::clone(local), problems, ..Self::empty(kind) };
        let shared = new.without_taken(lead, &pieces, shared);
        new.add(lead, kind, &pieces, shared);
        new.templates.sort_by_key(|entry| std::cmp::Reverse(entry.template.literal_length()));
        new.pieces = pieces;
        if new.result == self.result {
            // Whoever keeps the list that it was told of last keeps this one.
            new.result = self.result.clone();
        }
        new
    }

    /// The tools that are exposed as those of a family: of what families share, what no server's own tool is called, and no
    /// tool of another family.
    fn without_taken(
        &mut self,
        lead: &str,
        pieces: &[Arc<Piece>],
        mut shared: Vec<FamilyTool>,
    ) -> Vec<FamilyTool> {
        while !shared.is_empty() {
            let (names, _) = naming::expose(lead, Kind::Tool, &named(pieces, &shared));
            let own: HashSet<&str> = names.iter().flatten().flatten().map(|name| &**name).collect();
            let mut of_families = HashSet::new();
            let before = shared.len();
            shared.retain(|tool| {
                let exposed = naming::of_family(lead, &tool.family, &tool.key);
                let is_free = !own.contains(exposed.as_str()) && of_families.insert(exposed.clone());
                if !is_free {
                    let (family, key) = (tool.family.clone(), tool.key.to_string());
                    let why = NotShared::Taken(exposed);
                    self.problems.push(NamingProblem::NotShared { family, key, why });
                }
                is_free
            });
            // What has been left out has its servers' names now, which may be taken, too.
            if shared.len() == before {
                break;
            }
        }
        shared
    }

    fn add(&mut self, lead: &str, kind: Kind, pieces: &[Arc<Piece>], shared: Vec<FamilyTool>) {
        let named = named(pieces, &shared);
        let (names, problems) = naming::expose(lead, kind, &named);
        self.problems.extend(problems);
        self.targets.reserve(names.iter().map(Vec::len).sum());
        let mut result = ListText::begin(kind);
        self.local.iter().for_each(|tool| result.push(tool));
        for ((piece, Named { candidates, .. }), names) in pieces.iter().zip(named).zip(names) {
            for (candidate, name) in candidates.into_iter().zip(names) {
                // Each once: of what a server lists twice the first counts.
                let (Some(name), Some(item)) = (name, piece.items.get(candidate.at)) else { continue };
                result.push_as(item, &name);
                if kind == Kind::Template {
                    self.templates.push(TemplateTarget {
                        template: UriTemplate::parse(&item.key),
                        lead: name.strip_suffix(&*item.key).unwrap_or_default().to_owned(),
                        link: Arc::clone(&piece.link),
                    });
                }
                if matches!(kind, Kind::Resource | Kind::Template) && *name != *item.key {
                    let renamed = self.renamed.entry(piece.server().clone()).or_default();
                    renamed.insert(item.key.clone(), Arc::clone(&name));
                }
                let target = Target { link: Arc::clone(&piece.link), key: item.key.clone() };
                self.targets.insert(name, Arc::new(target));
            }
        }
        for tool in shared {
            let name = naming::of_family(lead, &tool.family, &tool.key);
            result.push_as(&tool.item, &name);
            self.shared.insert(name, SharedTool { argument: tool.argument, members: tool.members });
        }
        self.result = result.end();
    }
}

/// What each server has under its own name: what is not of its family.
fn named<'a>(pieces: &'a [Arc<Piece>], shared: &[FamilyTool]) -> Vec<Named<'a>> {
    let of_family: HashSet<(&str, &str)> = shared
        .iter()
        .flat_map(|tool| tool.members.keys().map(|server| (server.as_str(), &*tool.key)))
        .collect();
    let named = |piece: &'a Arc<Piece>| {
        let server = piece.server();
        let is_own = |candidate: &&Candidate| {
            of_family.is_empty() || !of_family.contains(&(server.as_str(), &*candidate.key))
        };
        Named { server, candidates: piece.candidates.iter().filter(is_own).collect() }
    };
    pieces.iter().map(named).collect()
}
