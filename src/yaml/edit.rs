//! Edits of a text that leave everything else in it as it is: comments, layout, line ends.
//!
//! An edit makes one or two proposals of a new text, parses each, and takes the first that reads as the old value with
//! the one thing changed. So a file that is laid out in a way that nobody thought of is refused, never spoilt.

use std::ops::Range;

use serde_json::{Map, Value};

use super::compose::parse;
use super::emit::{flow, scalar};
use super::mistake::Collector;
use super::spans::{Form, Spot, spots};
use super::value::Value as Read;

/// No edit of the text is known to do what was asked, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoEdit;

/// The text with the entry `path` set to `value`. The mapping that the last key belongs to must be there.
///
/// A value that is there is replaced where it fills no more than a line; else the entry becomes the first of its mapping.
pub(crate) fn set(text: &str, path: &[&str], value: &Value) -> Result<String, NoEdit> {
    edit(text, path, Some(value))
}

/// The text without the entry `path`.
pub(crate) fn remove(text: &str, path: &[&str]) -> Result<String, NoEdit> {
    edit(text, path, None)
}

fn edit(text: &str, path: &[&str], value: Option<&Value>) -> Result<String, NoEdit> {
    let (mark, body) = match text.strip_prefix('\u{feff}') {
        Some(body) => ("\u{feff}", body),
        None => ("", text),
    };
    let mut expected = meaning(body).ok_or(NoEdit)?;
    change(&mut expected, path, value).ok_or(NoEdit)?;
    let root = spots(body).ok_or(NoEdit)?;
    let proposals = proposals(body, &root, path, value).ok_or(NoEdit)?;
    for (range, replacement) in proposals {
        let (Some(before), Some(after)) = (body.get(..range.start), body.get(range.end..)) else { continue };
        let proposal = format!("{before}{replacement}{after}");
        if meaning(&proposal).as_ref() == Some(&expected) {
            return Ok(format!("{mark}{proposal}"));
        }
    }
    Err(NoEdit)
}

/// What the text says; nothing where anything is wrong with it.
fn meaning(text: &str) -> Option<Value> {
    let mistakes = Collector::default();
    let tree = parse(text, &mistakes)?;
    let value = Read::root(&tree, &mistakes).json()?;
    mistakes.is_empty().then_some(value)
}

/// Makes the change to the value itself. The parents must be there, and what is removed as well.
fn change(of: &mut Value, path: &[&str], value: Option<&Value>) -> Option<()> {
    let (last, parents) = path.split_last()?;
    let parent: &mut Map<String, Value> =
        parents.iter().try_fold(of, |of, key| of.get_mut(*key))?.as_object_mut()?;
    match value {
        Some(value) => drop(parent.insert((*last).to_owned(), value.clone())),
        None => drop(parent.shift_remove(*last)?),
    }
    Some(())
}

type Proposal = (Range<usize>, String);

fn proposals(body: &str, root: &Spot, path: &[&str], value: Option<&Value>) -> Option<Vec<Proposal>> {
    let (last, parents) = path.split_last()?;
    let mut owner: Option<&Spot> = None;
    let mut map = root;
    for key in parents {
        let (key, value) = map.entry(key, body)?;
        (owner, map) = (Some(key), value);
    }
    match (map.entry(last, body), value) {
        (Some((key, old)), Some(value)) => Some(replacement(body, key, old, value).into_iter().collect()),
        (None, Some(value)) => insertions(body, owner, map, last, value),
        (Some((key, old)), None) => Some(removal(body, key, old).into_iter().collect()),
        (None, None) => None,
    }
}

fn replacement(body: &str, key: &Spot, old: &Spot, value: &Value) -> Option<Proposal> {
    let written = body.get(old.range.clone())?;
    let mut range = old.range.clone();
    let whole = match &old.form {
        Form::Plain(text) if text.is_empty() => {
            // A key without a value: it goes behind the colon.
            let behind = body.get(key.range.end..)?;
            let colon = behind.find(|c| c != ' ' && c != '\t')?;
            let end = key.range.end + colon + 1;
            return behind[colon..].starts_with(':').then(|| (end..end, format!(" {}", flow(value))));
        }
        Form::Plain(text) => {
            // What is in front is a tag or an anchor.
            range.start = range.end.saturating_sub(text.len());
            written.ends_with(text)
        }
        Form::Quoted { .. } => true,
        Form::Alias => written.starts_with('*') && !written.contains(char::is_whitespace),
        Form::Map { flow, .. } | Form::List { flow } => *flow,
        Form::BlockText => false,
    };
    (whole && !written.contains(['\n', '\r'])).then(|| (range, flow(value)))
}

fn insertions(
    body: &str,
    owner: Option<&Spot>,
    map: &Spot,
    key: &str,
    value: &Value,
) -> Option<Vec<Proposal>> {
    let Form::Map { flow: in_braces, entries } = &map.form else { return None };
    let (first, _) = entries.first()?;
    let start = first.range.start;
    let line = line_start(body, start);
    let before = body.get(line..start)?;
    let at = |at: usize, text: String| (at..at, text);
    if *in_braces {
        // A file that is JSON stays JSON.
        let key = match first.form {
            Form::Quoted { double: true } => Value::from(key).to_string(),
            _ => scalar(key),
        };
        let entry = format!("{key}: {}", flow(value));
        let alone = before.bytes().all(|b| matches!(b, b' ' | b'\t'));
        let separator = if alone { format!("{}{before}", eol_before(body, line)) } else { " ".to_owned() };
        let brace = map.range.start + body.get(map.range.clone())?.find('{')? + 1;
        return Some(vec![at(start, format!("{entry},{separator}")), at(brace, format!("{entry}, "))]);
    }
    // Anything but spaces belongs to the key: an anchor, a tag, the question mark of an explicit key.
    if !before.bytes().all(|b| b == b' ') {
        return None;
    }
    let entry = format!("{}: {}", scalar(key), flow(value));
    let mut proposals = Vec::new();
    // Right below the owner, so that a comment above the first key stays with that key.
    if let Some(owner) = owner
        && let Some((end, eol)) = line_end(body, owner.range.end)
        && let Some(between) = body.get(end..line)
        && between
            .split(['\n', '\r'])
            .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        proposals.push(at(end, format!("{before}{entry}{eol}")));
    }
    proposals.push(at(start, format!("{entry}{}{before}", eol_before(body, line))));
    Some(proposals)
}

/// The line that an entry is alone on.
fn removal(body: &str, key: &Spot, old: &Spot) -> Option<Proposal> {
    let line = line_start(body, key.range.start);
    let end = line_end(body, key.range.end).map_or(body.len(), |(end, _)| end);
    let before = body.get(line..key.range.start)?;
    // A block collection, a text of several lines: all of it would have to go.
    if matches!(&old.form, Form::BlockText | Form::Map { flow: false, .. } | Form::List { flow: false }) {
        return None;
    }
    let empty = matches!(&old.form, Form::Plain(text) if text.is_empty());
    let last = if empty { key.range.end } else { old.range.end };
    let behind = body.get(last..end)?.trim_start_matches([' ', '\t', ':']);
    let alone = before.bytes().all(|b| b == b' ') && (behind.trim().is_empty() || behind.starts_with('#'));
    alone.then(|| (line..end, String::new()))
}

fn line_start(body: &str, at: usize) -> usize {
    body[..at].rfind(['\n', '\r']).map_or(0, |end| end + 1)
}

/// Where the line of `at` ends, and with what. `None` on the last line, when it has no end.
fn line_end(body: &str, at: usize) -> Option<(usize, &str)> {
    let end = at + body[at..].find(['\n', '\r'])?;
    let eol = if body[end..].starts_with("\r\n") { "\r\n" } else { &body[end..=end] };
    Some((end + eol.len(), eol))
}

/// The end of the line before the one that starts at `line`.
fn eol_before(body: &str, line: usize) -> &str {
    let before = &body[..line];
    match before.strip_suffix('\n') {
        Some(rest) if rest.ends_with('\r') => "\r\n",
        None if before.ends_with('\r') => "\r",
        Some(_) => "\n",
        // The first line: what the file has elsewhere.
        None => line_end(body, line).map_or("\n", |(_, eol)| eol),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case::replaced("a: {b: 1}\n", &["a", "b"], json!(2), "a: {b: 2}\n")]
    #[case::text("a:\n  b: x # c\n", &["a", "b"], json!("y: z"), "a:\n  b: \"y: z\" # c\n")]
    #[case::quoted("a:\n  b: 'x'\n", &["a", "b"], json!(true), "a:\n  b: true\n")]
    #[case::list("a: [1, 2] # c\nb: 1\n", &["a"], json!(["x", 3]), "a: [x, 3] # c\nb: 1\n")]
    #[case::inserted("a: # c\n  # d\n  b: x\n", &["a", "e"], json!({"f": "g"}), "a: # c\n  e: {f: g}\n  # d\n  b: x\n")]
    #[case::top("# c\nb: x\n", &["e"], json!(1), "# c\ne: 1\nb: x\n")]
    #[case::only_line("b: x", &["e"], json!(1), "e: 1\nb: x")]
    #[case::nothing("a:\n  b:   # c\n  d: e\n", &["a", "b"], json!(1), "a:\n  b: 1   # c\n  d: e\n")]
    #[case::json(r#"{"a":{"b":1}}"#, &["a", "c"], json!("x"), r#"{"a":{"c": x, "b":1}}"#)]
    fn entries_are_set(
        #[case] text: &str,
        #[case] path: &[&str],
        #[case] value: Value,
        #[case] expected: &str,
    ) {
        assert_eq!(set(text, path, &value).as_deref(), Ok(expected));
    }

    #[rstest]
    #[case::no_parent("a: 1\n", &["b", "c"])]
    #[case::no_map("a: 1\n", &["a", "c"])]
    #[case::alias("x: &x {b: 1}\na: *x\n", &["a", "c"])]
    #[case::block_list("a:\n  - 1\n", &["a"])]
    #[case::literal("a: |\n  x\n", &["a"])]
    #[case::lines("a: [1,\n  2]\n", &["a"])]
    #[case::shared("a: &x 1\nb: *x\n", &["a"])]
    #[case::broken("a: [\n", &["a"])]
    #[case::two_documents("a: 1\n---\na: 1\n", &["a"])]
    fn what_is_not_sure_is_refused(#[case] text: &str, #[case] path: &[&str]) {
        assert_eq!(set(text, path, &json!(5)), Err(NoEdit));
    }

    #[rstest]
    #[case("a:\n  b: x # c\n  d: y\n", &["a", "b"], Ok("a:\n  d: y\n"))]
    #[case("a:\n  b:\n  d: y", &["a", "d"], Ok("a:\n  b:\n"))]
    #[case("a:\r\n  b: # c\r\n  d: y\r\n", &["a", "b"], Ok("a:\r\n  d: y\r\n"))]
    #[case::the_only_one("a:\n  b: x\n", &["a", "b"], Err(NoEdit))]
    #[case::in_braces("a: {b: x, c: y}\n", &["a", "b"], Err(NoEdit))]
    #[case::several_lines("a:\n  b:\n    c: x\n  d: y\n", &["a", "b"], Err(NoEdit))]
    #[case::absent("a: 1\n", &["b"], Err(NoEdit))]
    #[case::anchored("a:\n  b: &x 1\n  c: *x\n", &["a", "b"], Err(NoEdit))]
    fn entries_are_removed(
        #[case] text: &str,
        #[case] path: &[&str],
        #[case] expected: Result<&str, NoEdit>,
    ) {
        assert_eq!(remove(text, path).as_deref(), expected.as_ref().copied());
    }
}
