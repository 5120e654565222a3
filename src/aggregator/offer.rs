//! What one server offers: its lists, its capabilities and what it says of itself.
//!
//! Everything keeps the server's own bytes. Knows nothing of exposed names.

use std::borrow::Cow;
use std::ops::{Index, IndexMut, Range};
use std::sync::Arc;

use bytestring::ByteString;

use super::behind::Behind;
use crate::wire::json;

/// The kinds of things that servers list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Listed by `tools/list`.
    Tool,
    /// Listed by `prompts/list`.
    Prompt,
    /// Listed by `resources/list`.
    Resource,
    /// Listed by `resources/templates/list`.
    Template,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Tool, Self::Prompt, Self::Resource, Self::Template];

    /// The method that lists them.
    pub fn method(self) -> &'static str {
        match self {
            Self::Tool => "tools/list",
            Self::Prompt => "prompts/list",
            Self::Resource => "resources/list",
            Self::Template => "resources/templates/list",
        }
    }

    /// The kind that a method lists.
    pub fn listed_by(method: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.method() == method)
    }

    /// The member of the result that holds them.
    pub fn member(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource => "resources",
            Self::Template => "resourceTemplates",
        }
    }

    /// The member that tells one from another.
    pub fn key(self) -> &'static str {
        match self {
            Self::Tool | Self::Prompt => "name",
            Self::Resource => "uri",
            Self::Template => "uriTemplate",
        }
    }

    /// The capability of servers that have them.
    pub fn capability(self) -> &'static str {
        match self {
            Self::Tool => "tools",
            Self::Prompt => "prompts",
            Self::Resource | Self::Template => "resources",
        }
    }

    /// What one is called in messages.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Template => "resource template",
        }
    }
}

/// One value for each [`Kind`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PerKind<T>([T; 4]);

impl<T> PerKind<T> {
    /// The value of each kind.
    pub fn from_fn(mut value: impl FnMut(Kind) -> T) -> Self {
        Self(Kind::ALL.map(&mut value))
    }
}

impl<T> Index<Kind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: Kind) -> &T {
        &self.0[kind as usize]
    }
}

impl<T> IndexMut<Kind> for PerKind<T> {
    fn index_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[kind as usize]
    }
}

/// A tool, a prompt, a resource or a template, as its server describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is called at the server; see [`Kind::key`].
    pub key: ByteString,
    /// The raw JSON object.
    raw: ByteString,
    /// Where the key stands in it, raw.
    key_at: Range<usize>,
}

impl Item {
    /// Reads one element of a list.
    ///
    /// # Errors
    ///
    /// It is no object with the [key](Kind::key) of its kind.
    pub fn parse(kind: Kind, raw: ByteString) -> Result<Self, InvalidItem> {
        let invalid = |why: String| InvalidItem { kind: kind.noun(), why };
        let [key] = json::members(&raw, [kind.key()]).map_err(|error| invalid(error.to_string()))?;
        let missing = || invalid(format!("it has no {}", kind.key()));
        let quoted = key.ok_or_else(missing)?;
        let key = match json::string(quoted).ok_or_else(missing)? {
            Cow::Borrowed(key) => raw.slice_ref(key),
            Cow::Owned(key) => key.into(),
        };
        let key_at = json::span(&raw, quoted);
        Ok(Self { key, key_at, raw })
    }

    /// The raw JSON object.
    pub fn raw(&self) -> &ByteString {
        &self.raw
    }

    /// What stands before and after the raw key. Neither is copied.
    fn around_key(&self) -> (&str, &str) {
        (&self.raw[..self.key_at.start], &self.raw[self.key_at.end..])
    }
}

/// An element of a list that is not what the list is of.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server lists something that is no {kind}: {why}")]
pub struct InvalidItem {
    kind: &'static str,
    why: String,
}

/// All of one kind that a server offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List {
    /// In the server's own order.
    pub items: Arc<[Item]>,
    /// The `result` of a list request, as JSON text: the server's own where it came on one page.
    pub result: ByteString,
}

impl List {
    /// A list of these.
    pub fn of(kind: Kind, items: impl Into<Arc<[Item]>>) -> Self {
        let items = items.into();
        let mut result = ListText::begin(kind);
        items.iter().for_each(|item| result.push(item.raw()));
        Self { result: result.end(), items }
    }
}

/// A list that is being written.
pub(super) struct ListText {
    text: String,
    is_empty: bool,
}

impl ListText {
    pub(super) fn begin(kind: Kind) -> Self {
        Self { text: format!(r#"{{"{}":["#, kind.member()), is_empty: true }
    }

    pub(super) fn push(&mut self, raw: &str) {
        if !self.is_empty {
            self.text.push(',');
        }
        self.is_empty = false;
        self.text.push_str(raw);
    }

    /// Adds an item under another key; every other byte of it stays.
    pub(super) fn push_as(&mut self, item: &Item, key: &str) {
        if *key == *item.key {
            return self.push(item.raw());
        }
        let (before, after) = item.around_key();
        self.push(before);
        self.text.push_str(&json::quoted(key));
        self.text.push_str(after);
    }

    pub(super) fn end(mut self) -> ByteString {
        self.text.push_str("]}");
        self.text.into()
    }
}

/// What a server offers, as it said at `initialize` and lists now.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The raw `capabilities`.
    pub capabilities: ByteString,
    /// The raw `serverInfo`.
    pub server_info: Option<ByteString>,
    /// The raw `instructions`, a JSON string.
    pub instructions: Option<ByteString>,
    /// What it lists.
    pub lists: PerKind<List>,
    /// The instances of Sidegate whose things these are.
    pub(super) behind: Behind,
}

impl Offer {
    /// What a server says of itself in the result of `initialize`; it lists nothing yet.
    ///
    /// # Errors
    ///
    /// The result is no object, or has a member twice.
    pub fn parse(result: &ByteString) -> Result<Self, serde_json::Error> {
        let [capabilities, server_info, instructions] =
            json::members(result, ["capabilities", "serverInfo", "instructions"])?;
        let capabilities = capabilities.filter(|raw| *raw != "null");
        if let Some(capabilities) = capabilities {
            json::members(capabilities, [])?;
        }
        let own = |raw: Option<&str>| raw.filter(|raw| *raw != "null").map(|raw| result.slice_ref(raw));
        Ok(Self {
            capabilities: own(capabilities).unwrap_or_else(|| ByteString::from_static("{}")),
            server_info: own(server_info),
            instructions: own(instructions).filter(|raw| json::string(raw).is_some()),
            lists: PerKind::from_fn(|kind| List::of(kind, [])),
            behind: Behind::default(),
        })
    }

    /// An offer of nothing but tools, which are raw JSON objects.
    ///
    /// # Errors
    ///
    /// One of them is no tool.
    pub fn of_tools(tools: &[&str]) -> Result<Self, InvalidItem> {
        let items: Result<Vec<Item>, _> =
            tools.iter().map(|raw| Item::parse(Kind::Tool, (*raw).into())).collect();
        let mut lists = PerKind::from_fn(|kind| List::of(kind, []));
        lists[Kind::Tool] = List::of(Kind::Tool, items?);
        let capabilities = ByteString::from_static(r#"{"tools":{}}"#);
        Ok(Self { capabilities, server_info: None, instructions: None, lists, behind: Behind::default() })
    }

    /// Whether the server has declared a capability.
    pub fn has(&self, capability: &str) -> bool {
        self.capability(capability).is_some()
    }

    /// What a capability was declared with, raw.
    pub fn capability(&self, capability: &str) -> Option<&str> {
        let [declared] = json::members(&self.capabilities, [capability]).ok()?;
        declared.filter(|raw| *raw != "null" && *raw != "false")
    }

    /// The capabilities with `listChanged` for each kind that the server has: we notice changes that it does not
    /// tell, as when it comes back with other tools.
    pub(super) fn capabilities_for_clients(&self) -> ByteString {
        let mut text = self.capabilities.clone();
        for capability in ["tools", "prompts", "resources"] {
            let Ok([Some(declared)]) = json::members(&text, [capability]) else { continue };
            let Ok([flag]) = json::members(declared, ["listChanged"]) else { continue };
            let whole = json::span(&text, declared);
            let edit = match flag {
                Some(flag) => (json::span(&text, flag), "true"),
                None if json::is_empty_object(declared) => (whole, r#"{"listChanged":true}"#),
                None => (whole.start + 1..whole.start + 1, r#""listChanged":true,"#),
            };
            text = json::splice(&text, [edit]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_what_the_list_is_of_is_refused() {
        for raw in ["7", "{}", r#"{"name":7}"#, r#"{"name":"a","name":"b"}"#] {
            assert!(Item::parse(Kind::Tool, raw.into()).is_err(), "{raw}");
        }
        let error = Item::parse(Kind::Resource, r#"{"name":"a"}"#.into()).unwrap_err();
        assert_eq!(error.to_string(), "the server lists something that is no resource: it has no uri");
    }

    #[test]
    fn declared_lists_can_change() {
        for (declared, expected) in [
            (r#"{"tools":{}}"#, r#"{"tools":{"listChanged":true}}"#),
            (
                r#"{"x":1,"tools":{"listChanged":false},"prompts":{ "a":1}}"#,
                r#"{"x":1,"tools":{"listChanged":true},"prompts":{"listChanged":true, "a":1}}"#,
            ),
            (
                r#"{"resources":{"subscribe":true}, "logging":{}}"#,
                r#"{"resources":{"listChanged":true,"subscribe":true}, "logging":{}}"#,
            ),
            ("{}", "{}"),
        ] {
            let result = format!(r#"{{"capabilities":{declared}}}"#);
            let offer = Offer::parse(&result.into()).unwrap();
            assert_eq!(&*offer.capabilities_for_clients(), expected);
        }
    }

    #[test]
    fn what_a_server_says_of_itself_is_kept_as_it_is() {
        let result = r#"{"capabilities":{"logging":{},"tasks":null},"instructions":"é\n","serverInfo":{"name":"a", "x":1e400}}"#;
        let offer = Offer::parse(&result.into()).unwrap();
        assert!(offer.has("logging") && !offer.has("tasks") && !offer.has("tools"));
        assert_eq!(offer.server_info.as_deref(), Some(r#"{"name":"a", "x":1e400}"#));
        assert_eq!(offer.instructions.as_deref(), Some(r#""é\n""#));
        assert!(Offer::parse(&r#"{"capabilities":7}"#.into()).is_err());
    }
}
