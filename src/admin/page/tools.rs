//! Tools as the page knows them: what the catalogue lists, found, paged, and one of them taken apart.

use serde_json::Value;

use super::paging::Paged;
use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::offer::Kind;
use crate::aggregator::scope::Scope;
use crate::wire::json;

/// How many tools are on a page.
const A_PAGE: usize = 50;

/// Where a tool comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// One server.
    Server(String),
    /// The servers of a family; an argument says which.
    Family(Vec<String>),
    /// Sidegate itself.
    Ours,
}

impl Home {
    fn of(tool: &str, catalogue: &Catalogue) -> Self {
        if let Some(target) = catalogue.target(Kind::Tool, tool) {
            return Self::Server(target.link.server().to_string());
        }
        match catalogue.shared_tool(tool) {
            Some(shared) => {
                let servers = shared.members.values().map(|target| target.link.server().to_string());
                Self::Family(servers.collect())
            }
            None => Self::Ours,
        }
    }

    fn is_of(&self, server: &str) -> bool {
        match self {
            Self::Server(name) => name == server,
            Self::Family(names) => names.iter().any(|name| name == server),
            Self::Ours => false,
        }
    }
}

/// A tool in a list.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) title: Option<String>,
    pub(super) description: String,
    pub(super) home: Home,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wish<'a> {
    /// Words that all stand in name, title or description, in any case.
    pub(super) words: &'a str,
    /// The server that has it.
    pub(super) server: &'a str,
    /// Counted from 1.
    pub(super) page: usize,
}

/// The tools that are looked for.
pub(super) fn find(catalogue: &Catalogue, wish: Wish<'_>) -> Paged<Entry> {
    let words: Vec<String> = wish.words.split_whitespace().map(str::to_lowercase).collect();
    let found = listed(catalogue).filter_map(|raw| {
        let entry = entry(raw, catalogue)?;
        let is_of_server = wish.server.is_empty() || entry.home.is_of(wish.server);
        (is_of_server && has_all(&entry, &words)).then_some(entry)
    });
    Paged::of(found.collect(), A_PAGE, wish.page)
}

fn has_all(entry: &Entry, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let title = entry.title.as_deref().unwrap_or_default();
    let text = format!("{}\n{title}\n{}", entry.name, entry.description).to_lowercase();
    words.iter().all(|word| text.contains(word))
}

/// The raw texts of all tools.
fn listed(catalogue: &Catalogue) -> impl Iterator<Item = &str> {
    // The catalogue writes the list itself; that it cannot be read is not to be expected, and shows as no tools.
    let tools = json::members(catalogue.list(&Scope::All, Kind::Tool), ["tools"]);
    let tools = tools.ok().and_then(|[tools]| json::elements(tools?).ok());
    tools.into_iter().flatten()
}

fn entry(raw: &str, catalogue: &Catalogue) -> Option<Entry> {
    let [name, title, description, annotations] =
        match json::members(raw, ["name", "title", "description", "annotations"]) {
            Ok(members) => members,
            // Something other than the name stands twice: it is there all the same, and can be called.
            Err(_) => [json::members(raw, ["name"]).ok()?[0], None, None, None],
        };
    let text = |raw: Option<&str>| raw.and_then(json::string).map(std::borrow::Cow::into_owned);
    let name = text(name)?;
    let hint = || json::members(annotations?, ["title"]).ok().and_then(|[title]| text(title));
    Some(Entry {
        title: text(title).or_else(hint),
        description: text(description).unwrap_or_default(),
        home: Home::of(&name, catalogue),
        name,
    })
}

/// One tool, with all that it says of itself.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    pub(super) entry: Entry,
    pub(super) input: Value,
    pub(super) output: Option<Value>,
    /// What it says of what it does, in words: only reads, may destroy, and so on.
    pub(super) hints: Vec<&'static str>,
}

/// The tool `name`.
pub(super) fn one(catalogue: &Catalogue, name: &str) -> Option<Tool> {
    let raw = listed(catalogue).find(|raw| {
        let found = json::members(raw, ["name"]).ok().and_then(|[found]| json::string(found?));
        found.is_some_and(|found| found == name)
    })?;
    let entry = entry(raw, catalogue)?;
    let mut whole: Value = serde_json::from_str(raw).ok()?;
    let hints = hints(&whole["annotations"]);
    let output = Some(whole["outputSchema"].take()).filter(|schema| !schema.is_null());
    Some(Tool { entry, input: whole["inputSchema"].take(), output, hints })
}

/// What a tool says of itself; servers are not bound by it (2025-11-25, schema, "ToolAnnotations").
fn hints(annotations: &Value) -> Vec<&'static str> {
    let hint = |key: &str| annotations[key].as_bool();
    let mut words = Vec::new();
    match hint("readOnlyHint") {
        Some(true) => words.push("only reads"),
        _ if hint("destructiveHint") == Some(true) => words.push("may destroy"),
        Some(false) if hint("destructiveHint") == Some(false) => words.push("only adds"),
        _ => {}
    }
    if hint("idempotentHint") == Some(true) {
        words.push("twice is the same as once");
    }
    if hint("openWorldHint") == Some(true) {
        words.push("reaches beyond this machine");
    }
    words
}
