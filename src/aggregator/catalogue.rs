//! The catalogue: everything that servers offer, under its exposed name, as one immutable snapshot.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytestring::ByteString;

use super::link::Link;
use super::naming::{self, Named, NamingProblem};
use super::offer::{Kind, List, ListText, Offer, PerKind};
use super::scope::Scope;
use super::template::UriTemplate;
use crate::mcpserver::ServerName;
use crate::wire::json;

/// What one server brings into the catalogue.
#[derive(Clone, Debug)]
pub struct Member {
    /// What stands for the server in exposed names.
    pub prefix: String,
    /// The way to the server.
    pub link: Arc<Link>,
    /// What it offers.
    pub offer: Arc<Offer>,
}

/// Where a request for something exposed goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The way to the server.
    pub link: Arc<Link>,
    /// What it is called there.
    pub key: String,
}

/// A template under its exposed form.
#[derive(Debug)]
struct TemplateTarget {
    template: UriTemplate,
    /// What stands before the server's own URIs: `<server>+`, or nothing.
    lead: String,
    link: Arc<Link>,
}

/// Everything at one time. Never changed: a new one takes its place.
#[derive(Debug)]
pub struct Catalogue {
    servers: BTreeMap<ServerName, Member>,
    /// Exposed keys of each kind.
    targets: PerKind<HashMap<String, Arc<Target>>>,
    /// The most literal first; of equals the first server's.
    templates: Vec<TemplateTarget>,
    /// Exposed URIs, of resources and templates, by server and own URI, where the two differ.
    renamed: HashMap<ServerName, HashMap<String, String>>,
    results: PerKind<ByteString>,
    nothing: PerKind<ByteString>,
    problems: Vec<NamingProblem>,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self::build("x", &[], [].into_iter())
    }
}

impl Catalogue {
    /// The catalogue of `members`, sorted by server name, after the tools `local`, which are listed as they are. Names of
    /// servers' tools begin with `lead`.
    pub fn build<'a>(
        lead: &str,
        local: &[ByteString],
        members: impl Iterator<Item = (&'a ServerName, &'a Member)>,
    ) -> Self {
        let nothing = PerKind::from_fn(|kind| List::of(kind, []).result);
        let mut catalogue = Self {
            servers: members.map(|(name, member)| (name.clone(), member.clone())).collect(),
            targets: PerKind::default(),
            templates: Vec::new(),
            renamed: HashMap::new(),
            results: nothing.clone(),
            nothing,
            problems: Vec::new(),
        };
        for kind in Kind::ALL {
            catalogue.add(lead, kind, if kind == Kind::Tool { local } else { &[] });
        }
        catalogue.templates.sort_by_key(|entry| std::cmp::Reverse(entry.template.literal_length()));
        catalogue
    }

    fn add(&mut self, lead: &str, kind: Kind, local: &[ByteString]) {
        let named: Vec<Named<'_>> = self
            .servers
            .iter()
            .map(|(server, member)| Named {
                server,
                prefix: &member.prefix,
                keys: member.offer.lists[kind].items.iter().map(|item| item.key.as_str()).collect(),
            })
            .collect();
        let (names, problems) = match kind {
            Kind::Tool | Kind::Prompt => naming::expose(lead, kind, &named),
            Kind::Resource | Kind::Template => naming::expose_uris(kind, &named),
        };
        self.problems.extend(problems);
        let mut result = ListText::begin(kind);
        local.iter().for_each(|tool| result.push(tool));
        for ((server, member), names) in self.servers.iter().zip(names) {
            for (item, name) in member.offer.lists[kind].items.iter().zip(names) {
                let Some(name) = name else { continue };
                result.push(&item.renamed(kind, &name));
                let link = &member.link;
                if kind == Kind::Template {
                    self.templates.push(TemplateTarget {
                        template: UriTemplate::parse(&item.key),
                        lead: name.strip_suffix(item.key.as_str()).unwrap_or_default().to_owned(),
                        link: Arc::clone(link),
                    });
                }
                if matches!(kind, Kind::Resource | Kind::Template) && name != item.key {
                    let renamed = self.renamed.entry(server.clone()).or_default();
                    renamed.insert(item.key.clone(), name.clone());
                }
                let target = Target { link: Arc::clone(link), key: item.key.clone() };
                self.targets[kind].insert(name, Arc::new(target));
            }
        }
        self.results[kind] = result.end();
    }

    /// Where requests for an exposed key go.
    pub fn target(&self, kind: Kind, key: &str) -> Option<&Arc<Target>> {
        self.targets[kind].get(key)
    }

    /// Where reading an exposed URI goes, and what it is called there.
    ///
    /// A URI that is listed, else one that a listed template gives, else any at all where only one server has
    /// resources: tools return links to resources that are not listed.
    pub fn resource<'u>(&self, uri: &'u str) -> Option<(&Arc<Link>, Cow<'u, str>)> {
        if let Some(target) = self.target(Kind::Resource, uri) {
            return Some((&target.link, Cow::Owned(target.key.clone())));
        }
        for leniently in [false, true] {
            for entry in &self.templates {
                if let Some(own) = uri.strip_prefix(entry.lead.as_str())
                    && entry.template.matches(own, leniently)
                {
                    return Some((&entry.link, Cow::Borrowed(own)));
                }
            }
        }
        let mut servers = self.servers.values().filter(|member| member.offer.has("resources"));
        match (servers.next(), servers.next()) {
            (Some(only), None) => Some((&only.link, Cow::Borrowed(uri))),
            _ => None,
        }
    }

    /// Whether any URI of a server is exposed under another one.
    pub fn has_renamed(&self, server: &ServerName) -> bool {
        // Usually nobody's is, and this costs nothing.
        self.renamed.contains_key(server)
    }

    /// The exposed form of a server's own URI, where it differs.
    pub fn exposed_uri(&self, server: &ServerName, own: &str) -> Option<String> {
        if let Some(exposed) = self.renamed.get(server).and_then(|renamed| renamed.get(own)) {
            return Some(exposed.clone());
        }
        if self.target(Kind::Resource, own).is_some_and(|target| target.link.server() == server) {
            return None;
        }
        let mut templates = self.templates.iter().filter(|entry| entry.link.server() == server);
        let entry = templates.find(|entry| entry.template.matches(own, false))?;
        (!entry.lead.is_empty()).then(|| format!("{}{own}", entry.lead))
    }

    /// One server.
    pub fn server(&self, name: &ServerName) -> Option<&Member> {
        self.servers.get(name)
    }

    /// All servers, by name.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerName, &Member)> {
        self.servers.iter()
    }

    /// The `result` that lists one kind, as JSON text.
    pub fn list(&self, scope: &Scope, kind: Kind) -> &ByteString {
        match scope {
            Scope::All => &self.results[kind],
            Scope::Server(server) => {
                let member = self.servers.get(server);
                member.map_or(&self.nothing[kind], |member| &member.offer.lists[kind].result)
            }
        }
    }

    /// The instructions of all servers, each under its name as heading, as a raw JSON string.
    pub fn instructions(&self) -> Option<String> {
        let mut text = String::new();
        for (server, member) in &self.servers {
            let Some(own) = member.offer.instructions.as_deref().and_then(json::string) else { continue };
            if own.trim().is_empty() {
                continue;
            }
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str("# ");
            text.push_str(server.as_str());
            text.push_str("\n\n");
            text.push_str(own.trim_end());
        }
        (!text.is_empty()).then(|| json::quoted(&text))
    }

    /// How many tools there are.
    pub fn len(&self) -> usize {
        self.targets[Kind::Tool].len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a user should know of the names.
    pub fn problems(&self) -> &[NamingProblem] {
        &self.problems
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregator::link::Limits;
    use crate::aggregator::offer::Item;

    fn member(server: &str, lists: &[(Kind, &[&str])]) -> (ServerName, Member) {
        let name: ServerName = server.parse().unwrap();
        let link = Link::new(name.clone(), Limits::default(), Arc::default());
        let capabilities = r#"{"capabilities":{"tools":{},"prompts":{},"resources":{}}}"#;
        let mut offer = Offer::parse(&capabilities.into()).unwrap();
        for (kind, raw) in lists {
            let items = raw.iter().map(|raw| Item::parse(*kind, (*raw).into()).unwrap());
            offer.lists[*kind] = List::of(*kind, items.collect::<Vec<_>>());
        }
        (name, Member { prefix: server.to_owned(), link, offer: Arc::new(offer) })
    }

    fn catalogue(members: impl IntoIterator<Item = (ServerName, Member)>) -> Catalogue {
        let members: BTreeMap<_, _> = members.into_iter().collect();
        Catalogue::build("x", &[], members.iter())
    }

    #[test]
    fn tools_are_listed_as_their_servers_describe_them() {
        let odd = r#"{ "x-vendor":1e400, "name" : "a\u0062" ,"inputSchema":{"name":"inner"},"é":null}"#;
        let tools: &[(Kind, &[&str])] = &[(Kind::Tool, &[odd])];
        let catalogue = catalogue([
            member("one", tools),
            member("two", &[(Kind::Tool, &[r#"{"name":"ab"}"#]), (Kind::Prompt, &[r#"{"name":"ab"}"#])]),
        ]);
        let expected = concat!(
            r#"{"tools":[{ "x-vendor":1e400, "name" : "x_one_ab" ,"inputSchema":{"name":"inner"},"é":null},"#,
            r#"{"name":"x_two_ab"}]}"#
        );
        assert_eq!(&**catalogue.list(&Scope::All, Kind::Tool), expected);
        assert_eq!(&**catalogue.list(&Scope::All, Kind::Prompt), r#"{"prompts":[{"name":"x_two_ab"}]}"#);
        assert_eq!(catalogue.target(Kind::Tool, "x_one_ab").unwrap().key, "ab");
        assert!(catalogue.target(Kind::Tool, "ab").is_none());
        assert!(catalogue.target(Kind::Prompt, "x_one_ab").is_none());
        assert_eq!(catalogue.len(), 2);
        let one = Scope::Server("one".parse().unwrap());
        assert_eq!(&**catalogue.list(&one, Kind::Tool), &format!(r#"{{"tools":[{odd}]}}"#));
    }

    #[test]
    fn nothing_is_an_empty_list() {
        let catalogue = catalogue([]);
        assert_eq!(&**catalogue.list(&Scope::All, Kind::Tool), r#"{"tools":[]}"#);
        let gone = Scope::Server("a".parse().unwrap());
        assert_eq!(&**catalogue.list(&gone, Kind::Template), r#"{"resourceTemplates":[]}"#);
        assert!(catalogue.is_empty() && catalogue.instructions().is_none());
    }

    #[test]
    fn a_uri_leads_to_the_server_that_has_it() {
        let lists: &[(Kind, &[&str])] = &[
            (Kind::Resource, &[r#"{"uri":"t://1"}"#, r#"{"uri":"t://2"}"#]),
            (Kind::Template, &[r#"{"uriTemplate":"t://item/{id}"}"#, r#"{"uriTemplate":"t://{any}"}"#]),
        ];
        let catalogue = catalogue([member("a", lists), member("b", &lists[..1]), member("c", lists)]);
        let whose = |uri: &str| catalogue.resource(uri).map(|(link, own)| format!("{} {own}", link.server()));
        assert_eq!(whose("t://1").unwrap(), "a t://1");
        assert_eq!(whose("b+t://1").unwrap(), "b t://1");
        assert_eq!(whose("t://item/7").unwrap(), "a t://item/7");
        assert_eq!(whose("c+t://item/7").unwrap(), "c t://item/7");
        assert_eq!(whose("t://7").unwrap(), "a t://7");
        assert_eq!(whose("u://7"), None);
        let exposed = |server: &str, own: &str| catalogue.exposed_uri(&server.parse().unwrap(), own);
        assert_eq!(exposed("a", "t://1"), None);
        assert_eq!(exposed("b", "t://2").unwrap(), "b+t://2");
        assert_eq!(exposed("c", "t://item/7").unwrap(), "c+t://item/7");
        assert_eq!(exposed("b", "t://item/7"), None);
        assert!(!catalogue.has_renamed(&"a".parse().unwrap()));
        assert!(catalogue.has_renamed(&"c".parse().unwrap()));
        assert_eq!(catalogue.problems().len(), 6);
    }

    #[test]
    fn where_one_server_has_resources_it_is_asked_for_any() {
        let catalogue = catalogue([member("a", &[])]);
        assert_eq!(catalogue.resource("any://thing").unwrap().1, "any://thing");
    }

    #[test]
    fn instructions_stand_under_their_servers_names() {
        let mut members = [member("a", &[]), member("b", &[]), member("c", &[])];
        for (member, text) in members.iter_mut().zip([r#""One\n""#, r#"" ""#, r#""Three \"x\"""#]) {
            Arc::make_mut(&mut member.1.offer).instructions = Some(text.into());
        }
        let expected = r##""# a\n\nOne\n\n# c\n\nThree \"x\"""##;
        assert_eq!(catalogue(members).instructions().unwrap(), expected);
    }
}
