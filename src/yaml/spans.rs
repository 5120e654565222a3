//! Where in a text each node stands, for edits of the text.

use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use super::Position;

/// A node and the bytes that it is written with. Aliases are not followed.
#[derive(Debug)]
pub(super) struct Spot {
    /// From its first byte, that of its tag or anchor included, to the one after its last; of a block collection only
    /// the beginning is exact.
    pub(super) range: Range<usize>,
    pub(super) form: Form,
}

#[derive(Debug)]
pub(super) enum Form {
    /// Its text where it is plain, to compare with the bytes of the range.
    Plain(String),
    Quoted {
        double: bool,
    },
    Alias,
    /// A literal or folded scalar.
    BlockText,
    /// Entries of a mapping; `flow` is in braces.
    Map {
        flow: bool,
        entries: Vec<(Spot, Spot)>,
    },
    List {
        flow: bool,
    },
}

impl Spot {
    /// The entry of a mapping.
    pub(super) fn entry(&self, key: &str, text: &str) -> Option<&(Spot, Spot)> {
        let Form::Map { entries, .. } = &self.form else { return None };
        entries.iter().find(|(spot, _)| match &spot.form {
            Form::Plain(plain) => plain == key,
            Form::Quoted { .. } => {
                // Escapes are not resolved: a key that needs them is none that is edited.
                let quoted = text.get(spot.range.clone()).unwrap_or_default();
                quoted.get(1..quoted.len().saturating_sub(1)) == Some(key)
            }
            _ => false,
        })
    }
}

/// Where the key at the end of `path` stands. `None` where there is none, or `text` is no YAML.
pub(crate) fn place_of(text: &str, path: &[&str]) -> Option<Position> {
    let root = spots(text)?;
    let (mut spot, mut start) = (&root, root.range.start);
    for key in path {
        let (key, value) = spot.entry(key, text)?;
        (spot, start) = (value, key.range.start);
    }
    let before = text.get(..start)?;
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Some(Position {
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    })
}

/// A collection whose end has not come yet.
struct Open {
    start: usize,
    list: bool,
    items: Vec<Spot>,
}

/// The spots of the first document of `text`, which must be one that can be parsed, and have no byte order mark.
pub(super) fn spots(text: &str) -> Option<Spot> {
    let offsets = Offsets::of(text);
    let mut open: Vec<Open> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        let (start, end) = (offsets.byte(span.start), offsets.byte(span.end));
        let form = match event {
            Event::Scalar(plain, ScalarStyle::Plain, ..) => Form::Plain(plain.into_owned()),
            Event::Scalar(_, ScalarStyle::SingleQuoted, ..) => Form::Quoted { double: false },
            Event::Scalar(_, ScalarStyle::DoubleQuoted, ..) => Form::Quoted { double: true },
            Event::Scalar(_, ScalarStyle::Literal | ScalarStyle::Folded, ..) => Form::BlockText,
            Event::Alias(_) => Form::Alias,
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                let list = matches!(event, Event::SequenceStart(..));
                open.push(Open { start, list, items: Vec::new() });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Open { start, list, items } = open.pop()?;
                // The span of a bracket goes on to the next token, so only its beginning is of use. Behind a last comma
                // it is the comma's, and where the collection ends is not known.
                let bracket = offsets.byte(span.start);
                let close = text.get(bracket..).and_then(|rest| rest.chars().next());
                let flow = matches!(close, Some(']' | '}' | ','));
                let end = if flow { bracket + 1 } else { end };
                let form =
                    if list { Form::List { flow } } else { Form::Map { flow, entries: pairs(items)? } };
                let spot = Spot { range: start..end, form };
                match open.last_mut() {
                    Some(parent) => parent.items.push(spot),
                    None => return Some(spot),
                }
                continue;
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => continue,
        };
        let spot = Spot { range: start..end, form };
        match open.last_mut() {
            Some(parent) => parent.items.push(spot),
            None => return Some(spot),
        }
    }
    None
}

fn pairs(items: Vec<Spot>) -> Option<Vec<(Spot, Spot)>> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let Some(key) = items.next() {
        pairs.push((key, items.next()?));
    }
    Some(pairs)
}

/// The parser counts characters, strings are cut at bytes.
struct Offsets {
    bytes: Vec<usize>,
    end: usize,
}

impl Offsets {
    fn of(text: &str) -> Self {
        Self { bytes: text.char_indices().map(|(byte, _)| byte).collect(), end: text.len() }
    }

    fn byte(&self, marker: Marker) -> usize {
        self.bytes.get(marker.index()).copied().unwrap_or(self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The nodes with their text, one a line.
    fn shown(text: &str) -> String {
        fn walk(spot: &Spot, text: &str, depth: usize, into: &mut String) {
            let written = &text[spot.range.clone()];
            let (kind, children): (&str, &[(Spot, Spot)]) = match &spot.form {
                Form::Plain(plain) if plain == written => ("plain", &[]),
                Form::Plain(_) => ("plain, of several parts", &[]),
                Form::Quoted { .. } => ("quoted", &[]),
                Form::Alias => ("alias", &[]),
                Form::BlockText => ("block text", &[]),
                Form::Map { flow, entries } => (if *flow { "flow map" } else { "block map" }, entries),
                Form::List { flow } => (if *flow { "flow list" } else { "block list" }, &[]),
            };
            let block = kind.starts_with("block");
            let written = if block { String::new() } else { format!(" {written:?}") };
            into.push_str(&format!("{}{kind}{written}\n", "  ".repeat(depth)));
            for (key, value) in children {
                walk(key, text, depth + 1, into);
                walk(value, text, depth + 2, into);
            }
        }
        let mut shown = String::new();
        walk(&spots(text).unwrap(), text, 0, &mut shown);
        shown
    }

    #[test]
    fn every_node_has_its_bytes() {
        let texts = [
            "é: 'ü'\r\nspec:\r\n  a: true # c\r\n  b: \"x\"\r\n  c: [1, {d: e}]\r\n  f: {g: h}\r\n",
            "spec: &a !!map {x: &b !!bool true, y: *b}",
            "spec: &a\n  x: &b !!bool true\n  y: *b\n  z: |\n    text\n  e:\n  m: a\n   b\n  l:\n  - x\n",
            "{\"spec\":{\"suspended\":false}}",
            "spec:\n\n  {\n    a: b,\n  }\n",
        ];
        let report: String = texts.iter().map(|text| format!("{text:?}\n{}\n", shown(text))).collect();
        insta::assert_snapshot!(report);
    }
}
