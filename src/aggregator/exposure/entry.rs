//! What the catalogue lists, as the meta tools show it.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::{Map, Value};

use super::rank::Document;
use super::tools::Subject;
use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::offer::Kind;
use crate::aggregator::scope::Scope;
use crate::aggregator::template::UriTemplate;
use crate::wire::json;

/// The most of a description that a list shows, in characters.
const LONGEST_SUMMARY: usize = 200;

/// Something in the catalogue, under its exposed key.
#[derive(Clone, Debug)]
pub(super) struct Entry<'c> {
    kind: Kind,
    pub(super) key: Cow<'c, str>,
    /// The whole of it, raw.
    pub(super) raw: &'c str,
}

/// Everything in the catalogue that `subject` means, in its order, each key once.
pub(super) fn entries(catalogue: &Catalogue, subject: Subject) -> Vec<Entry<'_>> {
    let mut known = HashSet::new();
    let mut entries = Vec::new();
    for kind in subject.kinds() {
        let list = json::members(catalogue.list(&Scope::All, *kind), [kind.member()]);
        let [Some(list)] = list.unwrap_or_default() else { continue };
        let listed = json::elements(list).unwrap_or_default().into_iter();
        entries.extend(listed.filter_map(|raw| Entry::parse(*kind, raw)).filter(|entry| {
            // A template may be spelled like a resource.
            known.insert(entry.key.clone())
        }));
    }
    entries
}

impl<'c> Entry<'c> {
    fn parse(kind: Kind, raw: &'c str) -> Option<Self> {
        let [key] = json::members(raw, [kind.key()]).ok()?;
        Some(Self { kind, key: json::string(key?)?, raw })
    }

    /// Whether it is, or gives, what is called `key`.
    pub(super) fn gives(&self, key: &str) -> bool {
        self.kind == Kind::Template && UriTemplate::parse(&self.key).matches(key, false)
    }

    /// Members that are strings. What stands twice, or is something else, is as if it were not there.
    fn strings<const N: usize>(&self, names: [&str; N]) -> [Option<Cow<'c, str>>; N] {
        let raw = json::members(self.raw, names).unwrap_or([None; N]);
        raw.map(|raw| json::string(raw?))
    }

    /// The words that it is described with.
    pub(super) fn document(&self) -> Document {
        let [name, title, description] = self.strings(["name", "title", "description"]);
        // Of resources both say something.
        let name = match name {
            Some(name) if name != self.key => format!("{} {name}", self.key),
            _ => self.key.to_string(),
        };
        Document::new(&name, &title.unwrap_or_default(), &description.unwrap_or_default())
    }

    /// What a list shows of it.
    pub(super) fn summary(&self) -> Value {
        let [name, title, mime_type, description] =
            self.strings(["name", "title", "mimeType", "description"]);
        let description = description.as_deref().map(summary).filter(|text| !text.is_empty());
        let shown = [
            ("name", name.filter(|_| self.kind.key() != "name")),
            ("title", title),
            ("mimeType", mime_type),
            ("description", description),
        ];
        let mut entry = Map::new();
        entry.insert(self.kind.key().to_owned(), self.key.as_ref().into());
        for (name, value) in shown {
            entry.extend(value.map(|value| (name.to_owned(), value.into())));
        }
        Value::Object(entry)
    }
}

/// The first line of a description.
fn summary(text: &str) -> Cow<'_, str> {
    let line = text.trim().lines().next().unwrap_or_default().trim_end();
    match line.char_indices().nth(LONGEST_SUMMARY) {
        Some((end, _)) => format!("{}…", line[..end].trim_end()).into(),
        None => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_shows_what_tells_one_from_another() {
        let entry = |kind, raw| Entry::parse(kind, raw).unwrap();
        let tool = entry(
            Kind::Tool,
            r#"{"name":"x_a_t","inputSchema":{},"description":"\n One line. \nMore.","title":7,"mimeType":"m"}"#,
        );
        assert_eq!(tool.summary(), json!({"name": "x_a_t", "mimeType": "m", "description": "One line."}));
        let template = entry(
            Kind::Template,
            r#"{"uriTemplate":"s://{id}","name":"one","title":"One","description":""}"#,
        );
        assert_eq!(template.summary(), json!({"uriTemplate": "s://{id}", "name": "one", "title": "One"}));
        assert!(template.gives("s://7") && !template.gives("t://7"));
        let twice = entry(Kind::Prompt, r#"{"name":"p","title":"a","title":"b"}"#);
        assert_eq!(twice.summary(), json!({"name": "p"}));
    }

    #[test]
    fn long_lines_are_cut_between_characters() {
        let line = summary(&"é".repeat(LONGEST_SUMMARY)).into_owned();
        assert_eq!(line.chars().count(), LONGEST_SUMMARY);
        let line = summary(&"é".repeat(LONGEST_SUMMARY + 1)).into_owned();
        assert_eq!((line.chars().count(), line.chars().last()), (LONGEST_SUMMARY + 1, Some('…')));
    }
}
