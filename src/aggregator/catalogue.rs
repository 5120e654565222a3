//! The catalogue: everything that servers offer, under its exposed name, as one immutable snapshot.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytestring::ByteString;

use super::family::{self, FamilyTool};
use super::link::Link;
use super::naming::{self, Named, NamingProblem, NotShared};
use super::offer::{Kind, List, ListText, Offer, PerKind};
use super::scope::Scope;
use super::template::UriTemplate;
use crate::mcpserver::{Family, ServerName};
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
    /// The servers that it shares its tools with.
    pub family: Option<Family>,
}

/// Where a request for something exposed goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The way to the server.
    pub link: Arc<Link>,
    /// What it is called there.
    pub key: String,
}

/// Where calls of a tool go that several servers share.
#[derive(Debug)]
pub struct SharedTool {
    /// The argument that says which server is meant.
    pub argument: String,
    /// The servers, by what the argument says.
    pub members: BTreeMap<String, Arc<Target>>,
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
    /// Tools that are several servers', by exposed name.
    shared: HashMap<String, SharedTool>,
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
            shared: HashMap::new(),
            templates: Vec::new(),
            renamed: HashMap::new(),
            results: nothing.clone(),
            nothing,
            problems: Vec::new(),
        };
        let (shared, problems) = shared_tools(lead, &catalogue.servers);
        catalogue.problems.extend(problems);
        for kind in Kind::ALL {
            catalogue.add(lead, kind, if kind == Kind::Tool { local } else { &[] }, &shared);
        }
        catalogue.templates.sort_by_key(|entry| std::cmp::Reverse(entry.template.literal_length()));
        catalogue
    }

    fn add(&mut self, lead: &str, kind: Kind, local: &[ByteString], shared: &[FamilyTool]) {
        let named = named(&self.servers, kind, shared);
        let (names, problems) = match kind {
            Kind::Tool | Kind::Prompt => naming::expose(lead, kind, &named),
            Kind::Resource | Kind::Template => naming::expose_uris(kind, &named),
        };
        self.problems.extend(problems);
        let own: Vec<HashMap<&str, String>> = named
            .iter()
            .zip(names)
            .map(|(server, names)| {
                let named = server.keys.iter().copied().zip(names);
                named.filter_map(|(key, name)| Some((key, name?))).collect()
            })
            .collect();
        let mut result = ListText::begin(kind);
        local.iter().for_each(|tool| result.push(tool));
        for ((server, member), mut names) in self.servers.iter().zip(own) {
            for item in member.offer.lists[kind].items.iter() {
                // Each once: of what a server lists twice the first counts.
                let Some(name) = names.remove(item.key.as_str()) else { continue };
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
        for tool in shared.iter().filter(|_| kind == Kind::Tool) {
            let name = naming::of_family(lead, &tool.family, &tool.key);
            result.push(&tool.item.renamed(kind, &name));
            let (argument, members) = (tool.argument.clone(), tool.members.clone());
            self.shared.insert(name, SharedTool { argument, members });
        }
        self.results[kind] = result.end();
    }

    /// Where requests for an exposed key go.
    pub fn target(&self, kind: Kind, key: &str) -> Option<&Arc<Target>> {
        self.targets[kind].get(key)
    }

    /// Where calls of an exposed tool go that several servers share.
    pub fn shared_tool(&self, name: &str) -> Option<&SharedTool> {
        self.shared.get(name)
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
        self.targets[Kind::Tool].len() + self.shared.len()
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

/// The tools that are exposed as those of a family: of what families share, what no server's own tool is called, and
/// no tool of another family.
fn shared_tools(lead: &str, servers: &BTreeMap<ServerName, Member>) -> (Vec<FamilyTool>, Vec<NamingProblem>) {
    let (mut shared, mut problems) = family::shared_tools(servers);
    loop {
        let own = named(servers, Kind::Tool, &shared);
        let (names, _) = naming::expose(lead, Kind::Tool, &own);
        let mut taken: HashSet<String> = names.into_iter().flatten().flatten().collect();
        let mut free = Vec::new();
        let before = shared.len();
        for tool in shared {
            let exposed = naming::of_family(lead, &tool.family, &tool.key);
            if taken.insert(exposed.clone()) {
                free.push(tool);
            } else {
                let (family, key, why) = (tool.family, tool.key, NotShared::Taken(exposed));
                problems.push(NamingProblem::NotShared { family, key, why });
            }
        }
        shared = free;
        // What has been left out has its servers' names now, which may be taken, too.
        if shared.len() == before {
            return (shared, problems);
        }
    }
}

/// What each server has under its own name: what is not of its family.
fn named<'a>(servers: &'a BTreeMap<ServerName, Member>, kind: Kind, shared: &[FamilyTool]) -> Vec<Named<'a>> {
    let of_family: HashSet<(&str, &str)> = shared
        .iter()
        .flat_map(|tool| tool.members.keys().map(|server| (server.as_str(), tool.key.as_str())))
        .collect();
    let named = |(server, member): (&'a ServerName, &'a Member)| {
        let keys = member.offer.lists[kind].items.iter().map(|item| item.key.as_str());
        let is_own = |key: &&str| kind != Kind::Tool || !of_family.contains(&(server.as_str(), *key));
        Named { server, prefix: &member.prefix, keys: keys.filter(is_own).collect() }
    };
    servers.iter().map(named).collect()
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
        (name, Member { prefix: server.to_owned(), link, offer: Arc::new(offer), family: None })
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

    /// A member of a family that lists these tools, by name and description.
    fn relative(server: &str, family: (&str, &str), tools: &[(&str, &str)]) -> (ServerName, Member) {
        let raw: Vec<String> = tools
            .iter()
            .map(|(name, text)| {
                format!(r#"{{"name":"{name}","description":"{text}","inputSchema":{{"type":"object"}}}}"#)
            })
            .collect();
        let raw: Vec<&str> = raw.iter().map(String::as_str).collect();
        let (name, mut member) = member(server, &[(Kind::Tool, &raw)]);
        let (family, argument) = family;
        member.family =
            Some(Family { name: family.parse().unwrap(), instance_arg: argument.parse().unwrap() });
        (name, member)
    }

    fn tool_names(catalogue: &Catalogue) -> Vec<String> {
        let list: serde_json::Value = serde_json::from_str(catalogue.list(&Scope::All, Kind::Tool)).unwrap();
        let tools = list["tools"].as_array().unwrap();
        tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_family_shares_what_is_the_same() {
        let clocks = ("clocks", "zone");
        let catalogue = catalogue([
            relative("a", clocks, &[("now", "x"), ("set", "one"), ("clocks_tick", "")]),
            relative("b", clocks, &[("set", "another"), ("now", "x"), ("only", "")]),
            member("z", &[(Kind::Tool, &[r#"{"name":"now"}"#])]),
        ]);
        let expected = ["x_a_set", "x_b_set", "x_z_now", "x_clocks_now", "x_clocks_tick", "x_clocks_only"];
        assert_eq!(tool_names(&catalogue), expected);
        assert_eq!(catalogue.len(), 6);
        let members = |tool: &str| {
            let tool = catalogue.shared_tool(tool).unwrap();
            tool.members.iter().map(|(name, target)| format!("{name} {}", target.key)).collect::<Vec<_>>()
        };
        assert_eq!(members("x_clocks_now"), ["a now", "b now"]);
        assert_eq!(members("x_clocks_only"), ["b only"]);
        let problems: Vec<String> = catalogue.problems().iter().map(ToString::to_string).collect();
        let differs = r#"tool "set" of family clocks has the names of its servers: its servers describe it differently"#;
        assert_eq!(problems, [differs]);
    }

    #[test]
    fn a_family_that_disagrees_or_is_called_like_a_server_gives_way() {
        let disagreeing =
            catalogue([relative("a", ("f", "x"), &[("t", "")]), relative("b", ("f", "y"), &[("t", "")])]);
        assert_eq!(tool_names(&disagreeing), ["x_a_t", "x_b_t"]);
        assert!(
            matches!(disagreeing.problems(), [NamingProblem::FamilyDisagrees { family }] if family == "f")
        );

        // The family's name is a server's, which has the tool as well; and what the family gives way to is taken, too.
        let taken = catalogue([
            relative("a", ("f", "x"), &[("t", ""), ("u", "")]),
            member("f", &[(Kind::Tool, &[r#"{"name":"t"}"#])]),
            relative("g", ("a", "x"), &[("t", "")]),
        ]);
        assert_eq!(tool_names(&taken), ["x_a_t", "x_f_t", "x_g_t", "x_f_u"]);
        let problems: Vec<String> = taken.problems().iter().map(ToString::to_string).collect();
        let why = |family: &str| {
            let name = format!("x_{family}_t");
            format!(r#"tool "t" of family {family} has the names of its servers: {name:?} is taken"#)
        };
        assert_eq!(problems, [why("f"), why("a")]);
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
