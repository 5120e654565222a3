//! Typed access to a tree that notes mistakes and goes on.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::rc::Rc;
use std::str::FromStr;

use serde_json::{Map, Number};

use super::mistake::{Collector, Position, joined, shown};
use super::node::{Kind, Node};
use super::scalar::Resolved;
use crate::similar::nearest;

/// A node with its path. Each accessor returns `None` after noting what is wrong.
#[derive(Clone)]
pub(crate) struct Value<'a> {
    node: &'a Node,
    /// Where the key of this value is, for what is wrong with having the key at all.
    key_at: Position,
    path: Option<Rc<Step<'a>>>,
    mistakes: &'a Collector,
}

/// The last step of a path. Paths become text only in a mistake: as texts, those of all values of a deep tree would be
/// many times the size of the file.
struct Step<'a> {
    parent: Option<Rc<Step<'a>>>,
    last: Last<'a>,
}

enum Last<'a> {
    Key(&'a str),
    Index(usize),
}

fn render(path: Option<&Step<'_>>) -> String {
    let Some(Step { parent, last }) = path else { return String::new() };
    let parent = render(parent.as_deref());
    match last {
        Last::Key(key) => child_path(&parent, key),
        Last::Index(index) => format!("{parent}[{index}]"),
    }
}

impl<'a> Value<'a> {
    /// The document.
    pub(crate) fn root(node: &'a Node, mistakes: &'a Collector) -> Self {
        Self { node, key_at: node.at, path: None, mistakes }
    }

    /// Where the value begins.
    pub(crate) fn position(&self) -> Position {
        self.node.at
    }

    /// Notes that the value is wrong.
    pub(crate) fn wrong(&self, problem: impl Into<String>, advice: impl Into<Option<String>>) {
        self.note(self.node.at, problem, advice);
    }

    /// Notes that the key should not be here.
    pub(crate) fn misplaced(&self, problem: impl Into<String>, advice: impl Into<Option<String>>) {
        self.note(self.key_at, problem, advice);
    }

    fn note(&self, at: Position, problem: impl Into<String>, advice: impl Into<Option<String>>) {
        self.mistakes.note_with(at, || render(self.path.as_deref()), problem, advice);
    }

    fn child(&self, last: Last<'a>, node: &'a Node, key_at: Position) -> Self {
        let path = Some(Rc::new(Step { parent: self.path.clone(), last }));
        Self { node, key_at, path, mistakes: self.mistakes }
    }

    fn expected(&self, expected: &str, advice: impl Into<Option<String>>) {
        self.wrong(format!("expected {expected}, found {}", self.node.what()), advice);
    }

    /// Text. Numbers, `true` and `false` must be quoted to be text.
    pub(crate) fn text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, resolved: Resolved::Text } => Some(text),
            Kind::Scalar { resolved, .. } if *resolved != Resolved::Null => {
                self.expected("text", "put it in quotes".to_owned());
                None
            }
            _ => {
                self.expected("text", None);
                None
            }
        }
    }

    /// Text that is not empty.
    pub(crate) fn filled(&self) -> Option<&'a str> {
        let text = self.text()?;
        if text.is_empty() {
            self.wrong("empty", "write a value or remove the key".to_owned());
            return None;
        }
        Some(text)
    }

    /// Text that is one of a type's values. The type's error says what is wrong; it must not repeat secrets.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        self.text()?.parse().map_err(|error: T::Err| self.wrong(error.to_string(), None)).ok()
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&self) -> Option<bool> {
        match &self.node.kind {
            Kind::Scalar { resolved: Resolved::Bool(value), .. } => Some(*value),
            _ => {
                self.expected("true or false", "write true or false, without quotes".to_owned());
                None
            }
        }
    }

    /// A whole number in `range`; `unit` completes the advice, as in "write a whole number of seconds from 1 to 300".
    pub(crate) fn integer(&self, range: RangeInclusive<u64>, unit: &str) -> Option<u64> {
        let advice = || {
            let bounds = match (*range.start(), *range.end()) {
                (0, u64::MAX) => String::new(),
                (start, u64::MAX) => format!(", at least {start}"),
                (start, end) => format!(" from {start} to {end}"),
            };
            format!("write a whole number{unit}{bounds}")
        };
        match &self.node.kind {
            Kind::Scalar { resolved: Resolved::Integer(integer), text } => {
                let fitting = u64::try_from(*integer).ok().filter(|integer| range.contains(integer));
                if fitting.is_none() {
                    self.wrong(format!("{} is out of range", cut(text)), advice());
                }
                fitting
            }
            _ => {
                self.expected("a whole number", advice());
                None
            }
        }
    }

    /// The number as written, if the value is one. Notes nothing.
    pub(crate) fn number(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Scalar { text, resolved: Resolved::Integer(_) | Resolved::Float(_) } => Some(cut(text)),
            _ => None,
        }
    }

    /// One of a few words.
    pub(crate) fn one_of<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text()?;
        let found = choices.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        if found.is_none() {
            let words = || choices.iter().map(|(word, _)| *word);
            let advice = match nearest(text, words()) {
                Some(word) => format!("did you mean {word:?}?"),
                None => format!("write {}", joined(words(), "or")),
            };
            self.wrong(format!("unknown value {}", shown(text)), advice);
        }
        found
    }

    /// The items of a list.
    pub(crate) fn list(&self) -> Option<Vec<Value<'a>>> {
        let Kind::List(items) = &self.node.kind else {
            let scalar = matches!(self.node.kind, Kind::Scalar { .. });
            self.expected("a list", scalar.then(|| "write it in brackets, [a, b]".to_owned()));
            return None;
        };
        let item = |(index, node): (usize, &'a Node)| self.child(Last::Index(index), node, node.at);
        Some(items.iter().enumerate().map(item).collect())
    }

    /// A list of texts that are not empty.
    pub(crate) fn texts(&self) -> Option<Vec<&'a str>> {
        self.list()?.iter().map(Value::filled).collect::<Vec<_>>().into_iter().collect()
    }

    /// The entries of a mapping whose keys are the user's.
    pub(crate) fn entries(&self) -> Option<Vec<(&'a str, Value<'a>)>> {
        let Kind::Map(entries) = &self.node.kind else {
            self.expected("a mapping", "write \"key: value\" lines below it".to_owned());
            return None;
        };
        let entry = |(key, node): &'a (super::node::Key, Node)| {
            (key.text.as_str(), self.child(Last::Key(&key.text), node, key.at))
        };
        Some(entries.iter().map(entry).collect())
    }

    /// The entries of a mapping whose keys are ours; others are noted.
    pub(crate) fn fields(&self, allowed: &'static [&'static str]) -> Option<Fields<'a>> {
        let entries = self.entries()?;
        let mut meant = Vec::new();
        for (key, value) in &entries {
            if !allowed.contains(key) {
                let guess = nearest(key, allowed.iter().copied());
                let advice = match guess {
                    Some(word) => format!("did you mean {word:?}?"),
                    None => format!("allowed here: {}", allowed.join(", ")),
                };
                value.misplaced("unknown key", advice);
                meant.extend(guess);
            }
        }
        Some(Fields { entries, meant, owner: self.clone() })
    }

    /// The value as JSON, for what is passed through.
    pub(crate) fn json(&self) -> Option<serde_json::Value> {
        Some(match &self.node.kind {
            Kind::Scalar { text, resolved } => match resolved {
                Resolved::Null => serde_json::Value::Null,
                Resolved::Bool(value) => (*value).into(),
                Resolved::Text => text.as_str().into(),
                Resolved::Integer(integer) => match Number::from_i128(*integer) {
                    Some(number) => number.into(),
                    None => return self.no_json_number(),
                },
                Resolved::Float(float) => match Number::from_f64(*float) {
                    Some(number) => number.into(),
                    None => return self.no_json_number(),
                },
            },
            Kind::List(_) => {
                let items: Vec<_> = self.list()?.iter().map(Value::json).collect();
                serde_json::Value::Array(items.into_iter().collect::<Option<_>>()?)
            }
            Kind::Map(_) => serde_json::Value::Object(self.json_map()?),
        })
    }

    /// A mapping as JSON.
    pub(crate) fn json_map(&self) -> Option<Map<String, serde_json::Value>> {
        let entries: Vec<_> =
            self.entries()?.into_iter().map(|(key, value)| Some((key.to_owned(), value.json()?))).collect();
        entries.into_iter().collect()
    }

    fn no_json_number(&self) -> Option<serde_json::Value> {
        self.wrong("a number that JSON cannot hold", "put it in quotes if it is text".to_owned());
        None
    }
}

/// The entries of a mapping whose keys are known.
pub(crate) struct Fields<'a> {
    entries: Vec<(&'a str, Value<'a>)>,
    /// Keys that unknown ones were taken for: they are not missing as well.
    meant: Vec<&'static str>,
    owner: Value<'a>,
}

impl<'a> Fields<'a> {
    /// The value of `key`. A key without a value is as good as absent, as the Kubernetes API server has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Value<'a>> {
        self.entries
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .filter(|v| !v.node.is_null())
    }

    /// The value of `key`, which must be there.
    pub(crate) fn need(&self, key: &str, advice: impl Into<String>) -> Option<&Value<'a>> {
        let value = self.get(key);
        if value.is_none() && !self.meant.contains(&key) {
            let owner = &self.owner;
            let path = child_path(&render(owner.path.as_deref()), key);
            owner.mistakes.note(owner.key_at, &path, "missing", advice.into());
        }
        value
    }

    /// Notes what is wrong with the mapping as a whole.
    pub(crate) fn wrong(&self, problem: impl Into<String>, advice: impl Into<Option<String>>) {
        self.owner.misplaced(problem, advice);
    }
}

/// `parent.key`, or `parent["odd key"]`.
pub(super) fn child_path(parent: &str, key: &str) -> String {
    let simple = !key.is_empty()
        && key.len() <= 64
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/'));
    match (simple, parent.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{parent}.{key}"),
        (false, _) => format!("{parent}[{}]", shown(key)),
    }
}

fn cut(text: &str) -> &str {
    text.get(..40).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::yaml::compose::parse;

    fn read<T>(text: &str, read: impl FnOnce(Value<'_>) -> Option<T>) -> Result<T, Vec<String>> {
        let mistakes = Collector::default();
        let tree = parse(text, &mistakes).unwrap();
        match read(Value::root(&tree, &mistakes)) {
            Some(value) if mistakes.is_empty() => Ok(value),
            _ => Err(mistakes.into_sorted().iter().map(ToString::to_string).collect()),
        }
    }

    #[rstest]
    #[case("commnd", Some("command"))]
    #[case("Command", Some("command"))]
    #[case("inherit_env", Some("inheritEnv"))]
    #[case("ulr", Some("url"))]
    #[case("image", None)]
    #[case("x", None)]
    #[case("", None)]
    fn keys_are_guessed(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest(text, ["command", "args", "inheritEnv", "url"].into_iter()), expected);
    }

    #[rstest]
    #[case("", "a", "a")]
    #[case("a", "b", "a.b")]
    #[case("a", "b.c", r#"a["b.c"]"#)]
    #[case("", "", r#"[""]"#)]
    fn paths_are_unambiguous(#[case] parent: &str, #[case] key: &str, #[case] expected: &str) {
        assert_eq!(child_path(parent, key), expected);
    }

    #[test]
    fn json_keeps_values_and_order() {
        let json = read("{b: [1, -2, 1.5, 'x', true, ~], a: {\"1\": 18446744073709551615}}", |v| v.json());
        assert_eq!(
            json.unwrap().to_string(),
            r#"{"b":[1,-2,1.5,"x",true,null],"a":{"1":18446744073709551615}}"#
        );
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_mistakes() {
        let report = read("[.nan, 99999999999999999999, 1]", |v| v.json()).unwrap_err();
        assert_eq!(report.len(), 2, "{report:?}");
        assert!(report[1].starts_with("1:8: [1]: a number that JSON cannot hold"), "{report:?}");
    }

    #[test]
    fn paths_of_deep_trees_cost_nothing() {
        // 60 keys of 1 KB around 60 000 items that are all mistakes.
        let key = "k".repeat(1000);
        let text =
            format!("{}[{}]{}", format!("{{\"{key}\": ").repeat(60), ".nan,".repeat(60_000), "}".repeat(60));
        let report = read(&text, |value| value.json()).unwrap_err();
        assert_eq!(report.len(), Collector::MOST + 1);
    }

    #[rstest]
    #[case("30", Ok(30))]
    #[case("0", Err("1:1: 0 is out of range; write a whole number of seconds from 1 to 300".into()))]
    #[case("-1", Err("1:1: -1 is out of range; write a whole number of seconds from 1 to 300".into()))]
    #[case("3.5", Err("1:1: expected a whole number, found a number; write a whole number of seconds from 1 to 300".into()))]
    #[case("'30'", Err("1:1: expected a whole number, found text; write a whole number of seconds from 1 to 300".into()))]
    fn integers(#[case] text: &str, #[case] expected: Result<u64, String>) {
        assert_eq!(read(text, |v| v.integer(1..=300, " of seconds")).map_err(|e| e.join("\n")), expected);
    }
}
