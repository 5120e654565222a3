//! One entry put into somebody else's JSON file, which may have comments and last commas; every other byte stays.
//!
//! Invariants: what comes out is what went in, but for the entry, or it is refused; no comment is lost.

use serde_json::{Map, Value};
use sidegate::jsonc::{comment_length, plain, string_length};

use super::edit::{Edit, Refusal};

/// Sets `text[section][name]` to `entry`. An empty text is an empty object.
pub(super) fn set(text: &str, section: &str, name: &str, entry: &Value) -> Result<Edit, Refusal> {
    // A byte order mark stays where it is.
    let (mark, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    let text = if plain(text).trim().is_empty() && text.trim().is_empty() { "{}\n" } else { text };
    let old: Value = parse(text)?;
    if !old.is_object() {
        return Err(Refusal::NoObject("the file".to_owned()));
    }
    let root = Object::read(text, start_of(text, 0)).ok_or(Refusal::Layout)?;
    let style = Style::of(text, &root);
    let new = match root.find(section)? {
        None => {
            let value = Value::Object(Map::from_iter([(name.to_owned(), entry.clone())]));
            root.with(text, section, &value, &style)
        }
        Some(_) if !old[section].is_object() => return Err(Refusal::NoObject(format!("{section:?}"))),
        Some(member) => {
            let servers = Object::read(text, member.value.start).ok_or(Refusal::Layout)?;
            match servers.find(name)? {
                Some(_) if old[section][name] == *entry => return Ok(Edit::Unchanged),
                Some(known) => {
                    if plain(&text[known.value.clone()]) != text[known.value.clone()] {
                        return Err(Refusal::Comments);
                    }
                    let indent = indent_at(text, known.key.start);
                    let value = style.print(entry, indent);
                    format!("{}{value}{}", &text[..known.value.start], &text[known.value.end..])
                }
                None => servers.with(text, name, entry, &style),
            }
        }
    };
    // Whatever the edit thinks: what comes out is the same with only this entry changed.
    let mut expected = old;
    expected[section][name] = entry.clone();
    if parse(&new)? != expected {
        return Err(Refusal::Layout);
    }
    Ok(Edit::Changed(format!("{mark}{new}")))
}

fn parse(text: &str) -> Result<Value, Refusal> {
    serde_json::from_str(&plain(text))
        .map_err(|error| Refusal::Syntax { format: "JSON", why: error.to_string() })
}

type Range = std::ops::Range<usize>;

struct Member {
    /// The key with its quotes.
    key: Range,
    name: String,
    value: Range,
}

/// An object of a text that is JSON but for comments and last commas.
struct Object {
    /// Of its opening brace.
    start: usize,
    /// Of its closing brace.
    end: usize,
    members: Vec<Member>,
    /// Whether a comma follows the last member.
    last_comma: bool,
}

impl Object {
    fn read(text: &str, start: usize) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.get(start) != Some(&b'{') {
            return None;
        }
        let (mut members, mut last_comma) = (Vec::new(), false);
        let mut at = start_of(text, start + 1);
        loop {
            match bytes.get(at)? {
                b'}' => return Some(Self { start, end: at, members, last_comma }),
                b',' => {
                    last_comma = true;
                    at = start_of(text, at + 1);
                }
                b'"' => {
                    last_comma = false;
                    let key = at..at + string_length(&text[at..]);
                    let colon = start_of(text, key.end);
                    if bytes.get(colon) != Some(&b':') {
                        return None;
                    }
                    let value = start_of(text, colon + 1);
                    let value = value..end_of_value(text, value)?;
                    at = start_of(text, value.end);
                    let name = serde_json::from_str(text.get(key.clone())?).ok()?;
                    members.push(Member { key, name, value });
                }
                _ => return None,
            }
        }
    }

    fn find(&self, name: &str) -> Result<Option<&Member>, Refusal> {
        let mut found = self.members.iter().filter(|member| member.name == name);
        match (found.next(), found.next()) {
            (member, None) => Ok(member),
            _ => Err(Refusal::Twice(format!("{name:?}"))),
        }
    }

    /// The text with one member more, behind the last one and what is said of it.
    fn with(&self, text: &str, name: &str, value: &Value, style: &Style) -> String {
        let outer = indent_at(text, self.start);
        let indent = match self.members.first() {
            Some(member) if starts_line(text, member.key.start) => {
                indent_at(text, member.key.start).to_owned()
            }
            _ => format!("{outer}{}", style.unit),
        };
        let newline = style.newline;
        let name = Value::from(name);
        let added = format!("{newline}{indent}{name}: {}{newline}{outer}", style.print(value, &indent));
        let tail = text[..self.end].trim_end().len();
        match self.members.last() {
            Some(last) if !self.last_comma => {
                let between = &text[last.value.end..tail.max(last.value.end)];
                format!("{},{between}{added}{}", &text[..last.value.end], &text[self.end..])
            }
            _ => format!("{}{added}{}", &text[..tail], &text[self.end..]),
        }
    }
}

/// How the text is laid out.
struct Style {
    unit: String,
    newline: &'static str,
}

impl Style {
    fn of(text: &str, root: &Object) -> Self {
        let first = root.members.first().filter(|member| starts_line(text, member.key.start));
        let unit = first.map(|member| indent_at(text, member.key.start)).filter(|indent| !indent.is_empty());
        let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self { unit: unit.unwrap_or("  ").to_owned(), newline }
    }

    fn print(&self, value: &Value, indent: &str) -> String {
        match value {
            Value::Object(members) if !members.is_empty() => {
                let inner = format!("{indent}{}", self.unit);
                let lines = members.iter().map(|(name, value)| {
                    format!("{inner}{}: {}", Value::from(name.as_str()), self.print(value, &inner))
                });
                let lines = lines.collect::<Vec<_>>().join(&format!(",{}", self.newline));
                format!("{{{newline}{lines}{newline}{indent}}}", newline = self.newline)
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| self.print(item, indent)).collect();
                format!("[{}]", items.join(", "))
            }
            other => other.to_string(),
        }
    }
}

/// The blanks that the line of a position begins with.
fn indent_at(text: &str, position: usize) -> &str {
    let line = &text[text[..position].rfind('\n').map_or(0, |newline| newline + 1)..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

fn starts_line(text: &str, position: usize) -> bool {
    text[..position].trim_end_matches([' ', '\t']).ends_with('\n')
}

/// The next byte from a position on that is neither blank nor of a comment.
fn start_of(text: &str, mut at: usize) -> usize {
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let blanks = rest.len() - rest.trim_start().len();
        match comment_length(&rest[blanks..]) {
            0 => return at + blanks,
            length => at += blanks + length,
        }
    }
}

fn end_of_value(text: &str, start: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(start)? {
        b'"' => Some(start + string_length(&text[start..])),
        b'{' | b'[' => {
            let (mut depth, mut at) = (0_usize, start);
            loop {
                match bytes.get(at)? {
                    b'"' => {
                        at = start_of(text, at + string_length(&text[at..]));
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' if depth == 1 => return Some(at + 1),
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                // What is neither blank nor a comment may be any character.
                at = start_of(text, at + text.get(at..)?.chars().next()?.len_utf8());
            }
        }
        _ => {
            let rest = text.get(start..)?;
            let end = rest.find([',', '}', ']', '/', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
            (end > 0).then_some(start + end)
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn entry() -> Value {
        json!({"type": "http", "url": "http://h"})
    }

    fn edited(text: &str) -> Result<Edit, Refusal> {
        set(text, "mcpServers", "sidegate", &entry())
    }

    #[test]
    fn awkward_files_are_right_or_refused() {
        let texts = [
            "",
            " \n",
            "{}",
            "{\n}\n",
            "// only words\n{}\n",
            "{\"a\":1}",
            "{\n    \"a\": 1 // one\n    // the end\n}\n",
            "{\n  \"a\": 1, // last\n}\n",
            "{\n\t\"mcpServers\": {\n\t\t\"x\": {\"command\": \"y\"} /* z */\n\t}\n}\n",
            "{\r\n  \"mcpServers\": {\r\n    \"x\": {}\r\n  },\r\n  \"b\": [1, 2]\r\n}\r\n",
            "{\"mcpServers\": {}}",
            "{\"mcpServers\": {\n    \"sidegate\": {\"url\": \"old\"}, \"y\": {}\n  }}",
            "{\"mcpServers\": {\"sidegate\": {\"url\": \"old\" /* why */}}}",
            "{\"mcpServers\": {\"sidegate\": {\"url\": \"http://h\", \"type\": \"http\"}}}",
            "\u{feff}{\"a\": \"}\\\"{ // no /* no\"}",
            "{\"a\": {\"mcpServers\": {}}}",
            "{\"mcpServers\": []}",
            "{\"mcpServers\": {}, \"mcpServers\": {}}",
            "{\"mcp\\u0053ervers\": {\"é\": {}}}",
            "[]",
            "{\"a\": }",
            "{",
            "/* open",
        ];
        let shown = |text: &str| text.replace('\r', "\\r").replace('\t', "\\t").replace('\u{feff}', "BOM");
        let report: Vec<String> = texts
            .iter()
            .map(|text| {
                let became = match edited(text) {
                    Ok(Edit::Unchanged) => "unchanged".to_owned(),
                    Ok(Edit::Changed(new)) => {
                        assert_eq!(edited(&new), Ok(Edit::Unchanged), "{text}");
                        shown(&new)
                    }
                    Err(refusal) => format!("refused: {refusal}"),
                };
                format!("{}\n=>\n{became}\n", shown(text))
            })
            .collect();
        insta::assert_snapshot!(report.join("----\n"));
    }

    #[rstest]
    #[case("// c\n")]
    #[case("/* c */")]
    fn comments_stay(#[case] comment: &str) {
        let text = format!(
            "{comment}{{{comment}\"a\"{comment}:{comment}1{comment},{comment}\"mcpServers\":{comment}{{{comment}}}{comment}}}{comment}"
        );
        let Ok(Edit::Changed(new)) = edited(&text) else { unreachable!("{text}") };
        assert_eq!(new.matches(comment).count(), 10, "{new}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_edited_or_refused(text in "[{}\\[\\]\":,/*a1 \n\\\\é]{0,30}") {
            if let Ok(Edit::Changed(new)) = edited(&text) {
                proptest::prop_assert_eq!(edited(&new), Ok(Edit::Unchanged));
            }
        }

        #[test]
        fn any_object_gets_the_entry(keys in proptest::collection::vec("[a-z\"\\\\/é]{0,4}", 0..4), pretty: bool) {
            let object: Map<String, Value> = keys.iter().map(|key| (key.clone(), json!({key.clone(): [key, 1]}))).collect();
            let value = Value::Object(object);
            let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
            let Ok(Edit::Changed(new)) = edited(&text) else { unreachable!("{text}") };
            let mut expected = value;
            expected["mcpServers"]["sidegate"] = entry();
            proptest::prop_assert_eq!(serde_json::from_str::<Value>(&new).unwrap(), expected);
        }
    }
}
