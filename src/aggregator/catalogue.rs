//! The catalogue: everything that servers offer, under its exposed name, as one immutable snapshot.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytestring::ByteString;

use super::family;
use super::link::Link;
use super::member::{Member, SharedTool, Target};
use super::naming::NamingProblem;
use super::offer::{Kind, List, PerKind};
use super::scope::Scope;
use super::section::{Piece, Section};
use crate::mcpserver::ServerName;
use crate::wire::json;

/// Everything at one time. Never changed: a new one takes its place.
#[derive(Debug)]
pub struct Catalogue {
    servers: BTreeMap<ServerName, Arc<Entry>>,
    /// What is exposed of each kind; shared with the catalogue before where nothing of it has changed.
    sections: PerKind<Arc<Section>>,
    nothing: PerKind<ByteString>,
    problems: Vec<NamingProblem>,
}

/// A member as catalogues hold it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) member: Member,
    pieces: PerKind<Arc<Piece>>,
}

impl Entry {
    /// Prepares what a member brings for the catalogues that it will be in. Names begin with `lead`.
    pub(super) fn new(lead: &str, member: Member) -> Self {
        let pieces = PerKind::from_fn(|kind| Arc::new(Piece::new(lead, kind, &member)));
        Self { member, pieces }
    }

    /// Whether something of the member may be exposed as `key`, with names that begin with `lead`: what the other servers
    /// have is not known here.
    pub(super) fn may_give(&self, lead: &str, kind: Kind, key: &str) -> bool {
        let kinds = match kind {
            Kind::Resource | Kind::Template => &[Kind::Resource, Kind::Template][..],
            Kind::Tool => &[Kind::Tool],
            Kind::Prompt => &[Kind::Prompt],
        };
        kinds.iter().any(|kind| self.pieces[*kind].may_give(lead, *kind, key))
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        let nothing = PerKind::from_fn(|kind| List::of(kind, []).result);
        Self {
            servers: BTreeMap::new(),
            sections: PerKind::from_fn(|kind| Arc::new(Section::empty(kind))),
            nothing,
            problems: Vec::new(),
        }
    }
}

impl Catalogue {
    /// The catalogue of `servers` that takes the place of this one; `local` are tools that are listed first, as they are.
    /// Names of servers' tools begin with `lead`, also that which the entries were made with.
    ///
    /// Costs what has changed, and for each kind in which anything has, a little for everything of that kind.
    pub(super) fn successor(
        &self,
        lead: &str,
        local: &Arc<[ByteString]>,
        servers: BTreeMap<ServerName, Arc<Entry>>,
    ) -> Self {
        let none: Arc<[ByteString]> = Arc::default();
        let sections = PerKind::from_fn(|kind| {
            let pieces = servers.values().map(|entry| &entry.pieces[kind]);
            let pieces: Vec<Arc<Piece>> = pieces.filter(|piece| !piece.is_empty()).cloned().collect();
            let local = if kind == Kind::Tool { local } else { &none };
            let old = &self.sections[kind];
            if old.is_made_of(local, &pieces) {
                return Arc::clone(old);
            }
            let of_families = match kind {
                Kind::Tool => {
                    let members = servers.iter().map(|(name, entry)| (name, &entry.member));
                    family::shared_tools(members)
                }
                Kind::Prompt | Kind::Resource | Kind::Template => Default::default(),
            };
            Arc::new(old.successor(lead, kind, local, pieces, of_families))
        });
        let problems = Kind::ALL.iter().flat_map(|kind| sections[*kind].problems.iter().cloned()).collect();
        Self { servers, sections, nothing: self.nothing.clone(), problems }
    }

    /// Where requests for an exposed key go.
    pub fn target(&self, kind: Kind, key: &str) -> Option<&Arc<Target>> {
        self.sections[kind].targets.get(key)
    }

    /// Where calls of an exposed tool go that several servers share.
    pub fn shared_tool(&self, name: &str) -> Option<&SharedTool> {
        self.sections[Kind::Tool].shared.get(name)
    }

    /// Where reading an exposed URI goes that is listed, or that a listed template gives, and what it is called there.
    pub(super) fn listed_resource<'u>(&self, uri: &'u str) -> Option<(&Arc<Link>, Cow<'u, str>)> {
        if let Some(target) = self.target(Kind::Resource, uri) {
            return Some((&target.link, Cow::Owned(target.key.to_string())));
        }
        for leniently in [false, true] {
            for entry in &self.sections[Kind::Template].templates {
                if let Some(own) = uri.strip_prefix(entry.lead.as_str())
                    && entry.template.matches(own, leniently)
                {
                    return Some((&entry.link, Cow::Borrowed(own)));
                }
            }
        }
        None
    }

    /// Where reading any other URI goes: to the only server that has resources. Tools return links to resources that are not
    /// listed.
    pub(super) fn any_resource<'u>(&self, uri: &'u str) -> Option<(&Arc<Link>, Cow<'u, str>)> {
        let mut servers =
            self.servers.values().map(|entry| &entry.member).filter(|member| member.offer.has("resources"));
        match (servers.next(), servers.next()) {
            (Some(only), None) => Some((&only.link, Cow::Borrowed(uri))),
            _ => None,
        }
    }

    /// Whether any URI of a server is exposed under another one.
    pub fn has_renamed(&self, server: &ServerName) -> bool {
        // Usually nobody's is, and this costs nothing.
        [Kind::Resource, Kind::Template].iter().any(|kind| self.sections[*kind].renamed.contains_key(server))
    }

    /// The exposed form of a server's own URI, where it differs.
    pub fn exposed_uri(&self, server: &ServerName, own: &str) -> Option<String> {
        for kind in [Kind::Resource, Kind::Template] {
            let renamed = self.sections[kind].renamed.get(server);
            if let Some(exposed) = renamed.and_then(|renamed| renamed.get(own)) {
                return Some(exposed.to_string());
            }
        }
        if self.target(Kind::Resource, own).is_some_and(|target| target.link.server() == server) {
            return None;
        }
        let templates = &self.sections[Kind::Template].templates;
        let mut templates = templates.iter().filter(|entry| entry.link.server() == server);
        let entry = templates.find(|entry| entry.template.matches(own, false))?;
        (!entry.lead.is_empty()).then(|| format!("{}{own}", entry.lead))
    }

    /// One server.
    pub fn server(&self, name: &ServerName) -> Option<&Member> {
        self.servers.get(name).map(|entry| &entry.member)
    }

    /// All servers, by name.
    pub fn servers(&self) -> impl Iterator<Item = (&ServerName, &Member)> {
        self.servers.iter().map(|(name, entry)| (name, &entry.member))
    }

    /// The `result` that lists one kind, as JSON text.
    pub fn list(&self, scope: &Scope, kind: Kind) -> &ByteString {
        match scope {
            Scope::All => &self.sections[kind].result,
            Scope::Server(server) => {
                let member = self.server(server);
                member.map_or(&self.nothing[kind], |member| &member.offer.lists[kind].result)
            }
        }
    }

    /// The instructions of all servers, each under its name as heading, as a raw JSON string.
    pub fn instructions(&self) -> Option<String> {
        let mut text = String::new();
        for (server, member) in self.servers() {
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
        let tools = &self.sections[Kind::Tool];
        tools.targets.len() + tools.shared.len()
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
    use proptest::prelude::*;

    use super::*;
    use crate::aggregator::limits::Limits;
    use crate::aggregator::offer::{Item, Offer};
    use crate::mcpserver::Family;

    fn member(server: &str, lists: &[(Kind, &[&str])]) -> (ServerName, Member) {
        let raw = |texts: &[&str]| texts.iter().map(|text| ByteString::from(*text)).collect();
        let lists: Vec<(Kind, Vec<ByteString>)> =
            lists.iter().map(|(kind, texts)| (*kind, raw(texts))).collect();
        member_of(server, &lists)
    }

    fn member_of(server: &str, lists: &[(Kind, Vec<ByteString>)]) -> (ServerName, Member) {
        let name: ServerName = server.parse().unwrap();
        let link = Link::new(
            name.clone(),
            Limits::default(),
            Arc::default(),
            Default::default(),
            Default::default(),
        );
        let capabilities = r#"{"capabilities":{"tools":{},"prompts":{},"resources":{}}}"#;
        let mut offer = Offer::parse(&capabilities.into()).unwrap();
        for (kind, raw) in lists {
            let items = raw.iter().map(|raw| Item::parse(*kind, raw.clone()).unwrap());
            offer.lists[*kind] = List::of(*kind, items.collect::<Vec<_>>());
        }
        (name, Member { prefix: server.to_owned(), link, offer: Arc::new(offer), family: None })
    }

    fn catalogue(members: impl IntoIterator<Item = (ServerName, Member)>) -> Catalogue {
        let entry = |(name, member)| (name, Arc::new(Entry::new("x", member)));
        Catalogue::default().successor("x", &Arc::default(), members.into_iter().map(entry).collect())
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
        let whose = |uri: &str| {
            let (link, own) = catalogue.listed_resource(uri).or_else(|| catalogue.any_resource(uri))?;
            Some(format!("{} {own}", link.server()))
        };
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever has come, changed and gone: a catalogue is the one that is made of what there is at once.
        #[test]
        fn history_leaves_no_trace(
            changes in proptest::collection::vec(
                (
                    "[ab]{1,2}",
                    proptest::option::weighted(
                        0.8,
                        (
                            "[ab]{1,2}(_[ab])?",
                            proptest::option::of(("[ab]", "[xy]")),
                            proptest::collection::vec("[ab]_?[ab]?", 0..4),
                            proptest::collection::vec("[ab]:[ab]", 0..3),
                        ),
                    ),
                ),
                1..12,
            )
        ) {
            let (mut servers, mut latest) = (BTreeMap::new(), Catalogue::default());
            for (server, change) in changes {
                let name: ServerName = server.parse().unwrap();
                if let Some((prefix, family, tools, uris)) = change {
                    let tools: Vec<String> = tools
                        .iter()
                        .map(|tool| format!(r#"{{"name":"{tool}","inputSchema":{{"type":"object"}}}}"#))
                        .collect();
                    let uris: Vec<String> = uris.iter().map(|uri| format!(r#"{{"uri":"{uri}"}}"#)).collect();
                    let raw = |texts: &[String]| texts.iter().map(|text| text.clone().into()).collect::<Vec<_>>();
                    let (_, mut member) = member_of(&server, &[(Kind::Tool, raw(&tools)), (Kind::Resource, raw(&uris))]);
                    member.prefix = prefix;
                    member.family = family.map(|(name, argument)| Family {
                        name: name.parse().unwrap(),
                        instance_arg: argument.parse().unwrap(),
                    });
                    servers.insert(name, Arc::new(Entry::new("x", member)));
                } else {
                    servers.remove(&name);
                }
                latest = latest.successor("x", &Arc::default(), servers.clone());
                let anew = Catalogue::default().successor("x", &Arc::default(), servers.clone());
                for kind in Kind::ALL {
                    prop_assert_eq!(latest.list(&Scope::All, kind), anew.list(&Scope::All, kind));
                }
                prop_assert_eq!(latest.problems(), anew.problems());
                prop_assert_eq!(latest.len(), anew.len());
            }
        }
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
        assert!(catalogue.listed_resource("any://thing").is_none());
        assert_eq!(catalogue.any_resource("any://thing").unwrap().1, "any://thing");
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
