//! Parser events become a tree, within limits.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use super::mistake::{Collector, Mistake, Position, shown};
use super::node::{Key, Kind, Node, Weight};
use super::scalar::{Resolved, resolve};
use super::value::child_path;

/// The largest text read, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// How deep lists and mappings may stand in each other. Bounds the recursion over a tree, its destructor included.
const MAX_DEPTH: usize = 64;

/// What a document may unfold to, aliases included. A text of [`MAX_BYTES`] without aliases always fits the bytes.
const MAX_WEIGHT: Weight = Weight { nodes: 100_000, bytes: 4 * MAX_BYTES };

/// As [`parse`], for bytes that may not be text.
pub(crate) fn parse_bytes(bytes: &[u8], mistakes: &Collector) -> Option<Node> {
    if bytes.len() > MAX_BYTES {
        mistakes.push(too_large());
        return None;
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => parse(text, mistakes),
        Err(error) => {
            let good = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let last = good.rsplit('\n').next().unwrap_or_default();
            let at = Position { line: good.matches('\n').count() + 1, column: last.chars().count() + 1 };
            mistakes.note(at, "", "not UTF-8 text", "save the file as UTF-8".to_owned());
            None
        }
    }
}

/// Reads the one document of `text`.
///
/// `None` without a mistake is an empty document. After a mistake the tree is only given when it is whole, so that
/// readers of it do not report keys as missing that could not be read.
pub(crate) fn parse(text: &str, mistakes: &Collector) -> Option<Node> {
    if text.len() > MAX_BYTES {
        mistakes.push(too_large());
        return None;
    }
    // A byte order mark is no content; with it, the columns of the first line would be off by one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut composer = Composer::new(mistakes);
    for event in Parser::new_from_str(text) {
        let step = match event {
            Ok((event, span)) => composer.take(event, span),
            Err(error) => {
                let problem = format!("not YAML: {}", error.info());
                mistakes.note(position(*error.marker()), "", problem, None);
                Err(Abandoned)
            }
        };
        if step.is_err() {
            return None;
        }
    }
    composer.root.filter(|root| !root.is_null())
}

fn too_large() -> Mistake {
    Mistake::of_file(format!("larger than {} KiB, which is the most that is read", MAX_BYTES >> 10), None)
}

fn position(marker: Marker) -> Position {
    Position { line: marker.line(), column: marker.col() + 1 }
}

/// The rest of the document is not read; the reason is among the mistakes.
struct Abandoned;

struct Composer<'m> {
    mistakes: &'m Collector,
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    weight: Weight,
    documents: usize,
    root: Option<Node>,
}

/// A collection whose end has not come yet.
struct Open {
    at: Position,
    anchor: usize,
    path: String,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, first: HashMap<String, Position>, key: Pending },
}

/// What the next node in a mapping is.
enum Pending {
    Key,
    ValueOf(Key),
    /// The value of a key that was refused.
    Discarded,
}

impl<'m> Composer<'m> {
    fn new(mistakes: &'m Collector) -> Self {
        Self {
            mistakes,
            open: Vec::new(),
            anchors: HashMap::new(),
            weight: Weight::default(),
            documents: 0,
            root: None,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Abandoned> {
        let at = position(span.start);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let advice = "put each into a file of its own".to_owned();
                    self.mistakes.note(at, "", "a second document in the same file", advice);
                    return Err(Abandoned);
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(Weight { nodes: 1, bytes: text.len() }, at)?;
                let resolved = self.resolved(&text, style, tag.as_deref(), at);
                let node = Node { at, kind: Kind::Scalar { text: text.into_owned(), resolved } };
                self.finish(node, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.check_collection_tag(tag.as_deref(), "seq", at);
                self.begin(at, anchor, Items::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check_collection_tag(tag.as_deref(), "map", at);
                let items = Items::Map { entries: Vec::new(), first: HashMap::new(), key: Pending::Key };
                self.begin(at, anchor, items)
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { at, anchor, items, .. }) => {
                    let kind = match items {
                        Items::List(items) => Kind::List(items),
                        Items::Map { entries, .. } => Kind::Map(entries),
                    };
                    self.finish(Node { at, kind }, anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    self.charge(node.weight(), at)?;
                    self.check_depth(node.depth(), at)?;
                    self.attach(node, at)
                }
                None => {
                    self.mistakes.note(at, &self.path(), "an alias inside of what it stands for", None);
                    Err(Abandoned)
                }
            },
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    /// The path of the node that comes next.
    fn path(&self) -> String {
        match self.open.last() {
            None => String::new(),
            Some(Open { path, items: Items::List(items), .. }) => format!("{path}[{}]", items.len()),
            Some(Open { path, items: Items::Map { key: Pending::ValueOf(key), .. }, .. }) => {
                child_path(path, &key.text)
            }
            Some(Open { path, .. }) => path.clone(),
        }
    }

    fn begin(&mut self, at: Position, anchor: usize, items: Items) -> Result<(), Abandoned> {
        self.charge(Weight { nodes: 1, bytes: 0 }, at)?;
        self.check_depth(1, at)?;
        let path = self.path();
        self.open.push(Open { at, anchor, path, items });
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Abandoned> {
        let at = node.at;
        // The parser counts anchors from 1; 0 is none.
        if anchor != 0 {
            self.charge(node.weight(), at)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.attach(node, at)
    }

    /// Puts a finished node where it belongs. `at` is where it stands, which for an alias is not where it was written.
    fn attach(&mut self, node: Node, at: Position) -> Result<(), Abandoned> {
        let Some(Open { path, items, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match items {
            Items::List(items) => items.push(node),
            Items::Map { entries, first, key } => {
                *key = match std::mem::replace(key, Pending::Key) {
                    Pending::ValueOf(key) => {
                        entries.push((key, node));
                        Pending::Key
                    }
                    Pending::Discarded => Pending::Key,
                    Pending::Key => match node.kind {
                        Kind::Scalar { text, resolved } if resolved != Resolved::Null => {
                            if let Some(earlier) = first.get(&text) {
                                let problem = format!("duplicate key, given before on line {}", earlier.line);
                                self.mistakes.note(
                                    at,
                                    &child_path(path, &text),
                                    problem,
                                    "keep one".to_owned(),
                                );
                                Pending::Discarded
                            } else {
                                first.insert(text.clone(), at);
                                Pending::ValueOf(Key { at, text })
                            }
                        }
                        _ => {
                            let problem = format!("expected a key, found {}", node.what());
                            self.mistakes.note(at, path, problem, "write \"key: value\"".to_owned());
                            Pending::Discarded
                        }
                    },
                };
            }
        }
        Ok(())
    }

    fn check_depth(&self, more: usize, at: Position) -> Result<(), Abandoned> {
        if self.open.len() + more <= MAX_DEPTH {
            return Ok(());
        }
        self.mistakes.note(at, "", format!("nested more than {MAX_DEPTH} levels deep"), None);
        Err(Abandoned)
    }

    fn charge(&mut self, weight: Weight, at: Position) -> Result<(), Abandoned> {
        self.weight.add(weight);
        if self.weight.nodes <= MAX_WEIGHT.nodes && self.weight.bytes <= MAX_WEIGHT.bytes {
            return Ok(());
        }
        let problem = format!(
            "unfolds to more than {} values or {} MiB of text",
            MAX_WEIGHT.nodes,
            MAX_WEIGHT.bytes >> 20
        );
        self.mistakes.note(at, "", problem, "use fewer aliases and shorter lists".to_owned());
        Err(Abandoned)
    }

    fn resolved(&self, text: &str, style: ScalarStyle, tag: Option<&Tag>, at: Position) -> Resolved {
        let plain = resolve(text);
        let Some(tag) = tag else {
            return if style == ScalarStyle::Plain { plain } else { Resolved::Text };
        };
        // "!" alone makes a scalar text, YAML 1.2.2 section 6.9.1.
        let name = match (tag.is_yaml_core_schema(), tag.handle.as_str(), tag.suffix.as_str()) {
            (true, _, name) => name,
            (false, "", "!") | (false, "!", "") => "str",
            _ => "",
        };
        match (name, plain) {
            ("str", _) => Resolved::Text,
            ("null", Resolved::Null)
            | ("bool", Resolved::Bool(_))
            | ("int", Resolved::Integer(_))
            | ("float", Resolved::Float(_)) => plain,
            #[expect(clippy::cast_precision_loss, reason = "`!!float 3` asks for it")]
            ("float", Resolved::Integer(integer)) => Resolved::Float(integer as f64),
            ("null" | "bool" | "int" | "float", _) => {
                self.mistakes.note(at, &self.path(), format!("not a value of the tag !!{name}"), None);
                Resolved::Text
            }
            _ => {
                self.unknown_tag(tag, at);
                Resolved::Text
            }
        }
    }

    fn check_collection_tag(&self, tag: Option<&Tag>, expected: &str, at: Position) {
        if let Some(tag) = tag
            && !(tag.is_yaml_core_schema() && tag.suffix == expected)
        {
            self.unknown_tag(tag, at);
        }
    }

    fn unknown_tag(&self, tag: &Tag, at: Position) {
        let problem = format!("unknown tag {}", shown(&format!("{}{}", tag.handle, tag.suffix)));
        self.mistakes.note(at, &self.path(), problem, "remove it".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::yaml::Value;

    fn mistakes_of(text: &str) -> Vec<String> {
        let mistakes = Collector::default();
        parse_bytes(text.as_bytes(), &mistakes);
        mistakes.into_sorted().iter().map(ToString::to_string).collect()
    }

    #[rstest]
    #[case::nothing("")]
    #[case::comment("# nothing yet\n")]
    #[case::null("~")]
    #[case::marker("---\n")]
    #[case::bom("\u{feff}")]
    fn empty_documents_are_no_mistake(#[case] text: &str) {
        let mistakes = Collector::default();
        assert!(parse(text, &mistakes).is_none());
        assert!(mistakes.is_empty());
    }

    #[test]
    fn mistakes_of_form() {
        let report: String = [
            "a: 1\nb: 2\na: 3\n",
            "spec:\n  env: {A: x, A: y}\n",
            "a: [1, 2\n",
            "a: b: c\n",
            "\tkey: value\n",
            "a: 1\n---\nb: 2\n",
            "? [1]\n: x\n",
            ": x\n",
            "a: !secret x\n",
            "a: !!int x\n",
            "a: !!map [1]\n",
            "a: &x [*x]\n",
            "a: *nowhere\n",
            "a: \"open\n",
            "%YAML 9.9\n---\na: 1\n",
            "a: 1\n\u{0}",
        ]
        .iter()
        .map(|text| format!("{text:?}\n  {}\n", mistakes_of(text).join("\n  ")))
        .collect();
        insta::assert_snapshot!(report);
    }

    #[test]
    fn bytes_that_are_no_text_have_a_place() {
        let mistakes = Collector::default();
        assert!(parse_bytes(b"a: 1\nb\xc3\xa9: \xff", &mistakes).is_none());
        assert_eq!(mistakes.into_sorted()[0].to_string(), "2:5: not UTF-8 text; save the file as UTF-8");
    }

    #[test]
    fn a_byte_order_mark_moves_no_column() {
        assert_eq!(mistakes_of("\u{feff}a: 1\na: 2"), mistakes_of("a: 1\na: 2"));
        assert_eq!(mistakes_of("\u{feff}: x"), mistakes_of(": x"));
    }

    #[test]
    fn large_texts_are_refused() {
        let report = mistakes_of(&"a".repeat(10 << 20));
        assert_eq!(report, ["larger than 1024 KiB, which is the most that is read"]);
    }

    /// Nine lists of nine aliases each: 9^9 nodes unfolded.
    fn laughs() -> String {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}", level - 1);
            text += &format!("a{level}: &a{level} [{}]\n", [alias.as_str(); 9].join(", "));
        }
        text
    }

    /// Lists in lists in lists, each flight ending with an alias of the one before.
    fn stairs() -> String {
        let flight = |level: usize, end: &str| {
            format!("a{level}: &a{level} {}{end}{}\n", "[".repeat(60), "]".repeat(60))
        };
        flight(0, "x") + &flight(1, "*a0")
    }

    #[rstest]
    #[case::aliases(laughs(), "unfolds to more than")]
    #[case::deep_aliases(stairs(), "nested more than")]
    #[case::long_alias(format!("a: &a {}\nb: [{}]", "x".repeat(500_000), "*a,".repeat(1000)), "unfolds to more than")]
    #[case::many_nodes(format!("[{}]", "[],".repeat(300_000)), "unfolds to more than")]
    #[case::deep_flow("[".repeat(1_000_000), "recursion limit exceeded")]
    #[case::deep_block("- ".repeat(500_000), "nested more than")]
    #[case::deep_flow_map("{a: ".repeat(250_000), "recursion limit exceeded")]
    #[case::closed_flow(format!("{}{}", "[".repeat(100), "]".repeat(100)), "nested more than")]
    #[case::deep_keys("? ".repeat(500_000), "nested more than")]
    fn bombs_are_bounded(#[case] text: String, #[case] problem: &str) {
        let start = Instant::now();
        let report = mistakes_of(&text);
        assert!(report.len() == 1 && report[0].contains(problem), "{report:?}");
        // Not a measurement: the unbounded reading of these would take minutes or end in an abort.
        assert!(start.elapsed() < Duration::from_secs(60));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            parse_bytes(&bytes, &Collector::default());
        }

        #[test]
        fn no_yaml_like_text_panics(text in "([-?:,\\[\\]{}&*!|>'\"%@`#~ \n\tab01.<=é\u{feff}\u{85}]|---|\\.\\.\\.|!!|: |- |\r\n){0,120}") {
            let mistakes = Collector::default();
            if let Some(tree) = parse(&text, &mistakes) {
                prop_assert!(!tree.is_null() && tree.depth() <= MAX_DEPTH);
                Value::root(&tree, &mistakes).json();
            }
        }
    }
}
