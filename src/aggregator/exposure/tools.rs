//! The meta tools: their names, and how they describe themselves.
//!
//! Their names have one underscore. Those of all other tools have two or more (`x_<server>_<tool>`, `core_…_…`), so that
//! none can be called like one of these.

use bytestring::ByteString;
use serde_json::{Map, Value, json};

use super::arguments::{self, Arguments, Refused};
use crate::aggregator::offer::{Kind, ListText};
use crate::aggregator::request::ClientRequest;

/// What a meta tool is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Tools,
    Resources,
    Prompts,
}

/// What a meta tool does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Shows all of them.
    List,
    /// Shows those that some words mean, or a pattern.
    Filter,
    /// Shows everything of one.
    Describe,
    /// Calls, reads or gets one.
    Use,
}

/// One of the meta tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::aggregator) struct MetaTool {
    pub(super) action: Action,
    pub(super) subject: Subject,
}

/// The list of tools that a client sees who sees the meta tools.
pub(in crate::aggregator) fn meta_tools() -> ByteString {
    let mut list = ListText::begin(Kind::Tool);
    MetaTool::all().for_each(|tool| list.push(&tool.describe().to_string()));
    list.end()
}

impl Subject {
    const ALL: [Self; 3] = [Self::Tools, Self::Resources, Self::Prompts];

    /// The kinds of things in the catalogue that it means.
    pub(super) fn kinds(self) -> &'static [Kind] {
        match self {
            Self::Tools => &[Kind::Tool],
            Self::Resources => &[Kind::Resource, Kind::Template],
            Self::Prompts => &[Kind::Prompt],
        }
    }

    /// What one of them is asked for as.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Tools => Kind::Tool,
            Self::Resources => Kind::Resource,
            Self::Prompts => Kind::Prompt,
        }
    }

    /// What several are called.
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::Prompts => "prompts",
        }
    }

    /// What one is called.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Tools => "tool",
            Self::Resources => "resource",
            Self::Prompts => "prompt",
        }
    }

    /// The argument that says which one is meant.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => arguments::NAME,
            Self::Resources => arguments::URI,
        }
    }

    fn about_key(self) -> &'static str {
        match self {
            Self::Tools => "The tool's name, as list_tools and filter_tools show it",
            Self::Resources => "The resource's URI, as list_resources shows it, or one that a template gives",
            Self::Prompts => "The prompt's name, as list_prompts and filter_prompts show it",
        }
    }

    /// What is said of each in a list; the first is the key.
    fn shown(self) -> &'static [&'static str] {
        match self {
            Self::Tools | Self::Prompts => &["name", "title", "description"],
            Self::Resources => &["uri", "uriTemplate", "name", "title", "mimeType", "description"],
        }
    }
}

impl MetaTool {
    /// Whether it shows something, and uses nothing.
    pub(in crate::aggregator) fn only_looks(self) -> bool {
        self.action != Action::Use
    }

    const ACTIONS: [Action; 4] = [Action::List, Action::Filter, Action::Describe, Action::Use];

    /// All of them, in the order in which they are listed.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let of = |subject| Self::ACTIONS.into_iter().map(move |action| Self { action, subject });
        Subject::ALL.into_iter().flat_map(of)
    }

    /// The one of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::all().find(|tool| tool.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match (self.action, self.subject) {
            (Action::List, Subject::Tools) => "list_tools",
            (Action::List, Subject::Resources) => "list_resources",
            (Action::List, Subject::Prompts) => "list_prompts",
            (Action::Filter, Subject::Tools) => "filter_tools",
            (Action::Filter, Subject::Resources) => "filter_resources",
            (Action::Filter, Subject::Prompts) => "filter_prompts",
            (Action::Describe, Subject::Tools) => "describe_tool",
            (Action::Describe, Subject::Resources) => "describe_resource",
            (Action::Describe, Subject::Prompts) => "describe_prompt",
            (Action::Use, Subject::Tools) => "call_tool",
            (Action::Use, Subject::Resources) => "get_resource",
            (Action::Use, Subject::Prompts) => "get_prompt",
        }
    }

    /// The names of its arguments.
    pub(super) fn arguments(self) -> &'static [&'static str] {
        match (self.action, self.subject) {
            (Action::List, _) => &[arguments::LIMIT, arguments::CURSOR],
            (Action::Filter, _) => {
                &[arguments::QUERY, arguments::PATTERN, arguments::LIMIT, arguments::CURSOR]
            }
            (Action::Describe | Action::Use, Subject::Resources) => &[arguments::URI],
            (Action::Describe, _) => &[arguments::NAME],
            (Action::Use, _) => &[arguments::NAME, arguments::ARGUMENTS],
        }
    }

    /// How many entries a page has where nobody says.
    pub(super) fn page(self) -> usize {
        if self.action == Action::Filter { 20 } else { 100 }
    }

    /// What it was called with.
    ///
    /// # Errors
    ///
    /// It has no such argument.
    pub(super) fn read<'a>(self, request: &ClientRequest<'a>) -> Result<Arguments<'a>, Refused> {
        Arguments::parse(request.arguments, self.name(), self.arguments())
    }

    fn title_and_description(self) -> (&'static str, &'static str) {
        match (self.action, self.subject) {
            (Action::List, Subject::Tools) => {
                ("List tools", "Lists all tools of all servers, by name, each with one line.")
            }
            (Action::List, Subject::Resources) => (
                "List resources",
                "Lists all resources and resource templates of all servers, by URI, each with one line.",
            ),
            (Action::List, Subject::Prompts) => {
                ("List prompts", "Lists all prompts of all servers, by name, each with one line.")
            }
            (Action::Filter, Subject::Tools) => (
                "Find tools",
                "Finds tools by words for what they do, the best first, or by a pattern for their names, or both.",
            ),
            (Action::Filter, Subject::Resources) => (
                "Find resources",
                "Finds resources and resource templates by words, the best first, or by a pattern for their URIs, or both.",
            ),
            (Action::Filter, Subject::Prompts) => (
                "Find prompts",
                "Finds prompts by words for what they are about, the best first, or by a pattern for their names, or both.",
            ),
            (Action::Describe, Subject::Tools) => (
                "Describe a tool",
                "Shows everything that is known of one tool, its inputSchema above all. Read it before the tool is called for the first time.",
            ),
            (Action::Describe, Subject::Resources) => (
                "Describe a resource",
                "Shows everything that is known of one resource, but not its content.",
            ),
            (Action::Describe, Subject::Prompts) => (
                "Describe a prompt",
                "Shows everything that is known of one prompt, its arguments above all.",
            ),
            (Action::Use, Subject::Tools) => (
                "Call a tool",
                "Calls a tool by its name, with arguments that its inputSchema allows. The result is the tool's own.",
            ),
            (Action::Use, Subject::Resources) => ("Read a resource", "Reads a resource by its URI."),
            (Action::Use, Subject::Prompts) => {
                ("Get a prompt", "Gets the messages of a prompt by its name, filled in with arguments.")
            }
        }
    }

    fn about(self, argument: &str) -> Value {
        let subject = self.subject;
        match argument {
            arguments::QUERY => json!({
                "type": "string",
                "description": format!("Words; {} that have any of them in name, title or description, the best first", subject.plural()),
            }),
            arguments::PATTERN => json!({
                "type": "string",
                "description": format!(
                    "A pattern for the whole {}: * stands for any text, ? for one character, [a-c] for one of some. Without any of these: what has it somewhere",
                    if subject == Subject::Resources { "URI" } else { "name" },
                ),
            }),
            arguments::LIMIT => json!({
                "type": "integer",
                "minimum": 1,
                "maximum": arguments::LARGEST_PAGE,
                "default": self.page(),
                "description": "How many at most",
            }),
            arguments::CURSOR => json!({
                "type": "string",
                "description": "The nextCursor of the page before; everything else as there",
            }),
            arguments::ARGUMENTS if subject == Subject::Prompts => json!({
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "The prompt's arguments, as describe_prompt shows them",
            }),
            arguments::ARGUMENTS => json!({
                "type": "object",
                "description": "The tool's arguments, as its inputSchema in describe_tool wants them",
            }),
            _ => json!({"type": "string", "description": subject.about_key()}),
        }
    }

    fn input_schema(self) -> Value {
        let properties: Map<String, Value> =
            self.arguments().iter().map(|name| ((*name).to_owned(), self.about(name))).collect();
        let mut schema = json!({"type": "object", "properties": properties, "additionalProperties": false});
        if matches!(self.action, Action::Describe | Action::Use) {
            schema["required"] = json!([self.subject.key()]);
        }
        schema
    }

    /// The schema of the values that it gives; those that use something give what that gives.
    fn output_schema(self) -> Option<Value> {
        let string = json!({"type": "string"});
        match self.action {
            Action::List | Action::Filter => {
                let shown = self.subject.shown();
                let entry: Map<String, Value> =
                    shown.iter().map(|name| ((*name).to_owned(), string.clone())).collect();
                let mut entry = json!({"type": "object", "properties": entry});
                if self.subject != Subject::Resources {
                    entry["required"] = json!([self.subject.key()]);
                }
                Some(json!({
                    "type": "object",
                    "properties": {
                        "total": {"type": "integer", "description": "How many there are on all pages"},
                        self.subject.plural(): {"type": "array", "items": entry},
                        "nextCursor": {"type": "string", "description": "There are more"},
                    },
                    "required": ["total", self.subject.plural()],
                }))
            }
            Action::Describe if self.subject == Subject::Resources => Some(json!({
                "type": "object",
                "properties": {"uri": string, "uriTemplate": string},
            })),
            Action::Describe => {
                Some(json!({"type": "object", "properties": {"name": string}, "required": ["name"]}))
            }
            Action::Use => None,
        }
    }

    /// Its entry in `tools/list`.
    fn describe(self) -> Value {
        let (title, description) = self.title_and_description();
        let mut entry = json!({
            "name": self.name(),
            "title": title,
            "description": description,
            "inputSchema": self.input_schema(),
        });
        if let Some(schema) = self.output_schema() {
            entry["outputSchema"] = schema;
        }
        entry["annotations"] = match (self.action, self.subject) {
            // It may be any.
            (Action::Use, Subject::Tools) => {
                json!({"readOnlyHint": false, "destructiveHint": true, "idempotentHint": false, "openWorldHint": true})
            }
            (action, _) => json!({"readOnlyHint": true, "openWorldHint": action == Action::Use}),
        };
        if (self.action, self.subject) == (Action::Use, Subject::Tools) {
            // A task where the tool has them (2025-11-25, basic/utilities/tasks, "Tool-Level Negotiation"); the tool's
            // server refuses where it has not.
            entry["execution"] = json!({"taskSupport": "optional"});
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_be_those_of_other_tools() {
        let names: Vec<&str> = MetaTool::all().map(MetaTool::name).collect();
        assert_eq!(names.len(), 12);
        for name in names {
            assert_eq!(name.matches('_').count(), 1, "{name}");
            assert_eq!(MetaTool::named(name).map(MetaTool::name), Some(name));
        }
        assert_eq!(MetaTool::named("x_a_call_tool"), None);
    }

    #[test]
    fn schemas_are_schemas_and_name_what_is_read() {
        for tool in MetaTool::all() {
            let entry = tool.describe();
            for schema in ["inputSchema", "outputSchema"] {
                if let Some(schema) = entry.get(schema) {
                    jsonschema::draft202012::meta::validate(schema).unwrap();
                }
            }
            let properties = entry["inputSchema"]["properties"].as_object().unwrap();
            assert_eq!(properties.keys().collect::<Vec<_>>(), tool.arguments(), "{tool:?}");
        }
    }

    /// What every model pays for.
    #[test]
    fn the_list_is_short() {
        let list = meta_tools();
        assert!(list.len() < 10_000, "{}", list.len());
        insta::assert_snapshot!(
            serde_json::to_string_pretty(&serde_json::from_str::<Value>(&list).unwrap()).unwrap()
        );
    }
}
