//! Values as YAML that people like to read.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::scalar::{Resolved, resolve};

/// A line may become this long before a collection is written over several.
const WIDTH: usize = 100;

/// Words that are no text to readers of YAML 1.1, which other tools still are.
const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];

/// A value on one line, in flow style.
pub(crate) fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Object(map) => {
            let entries: Vec<_> =
                map.iter().map(|(key, value)| format!("{}: {}", scalar(key), flow(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
        other => other.to_string(),
    }
}

/// The entries of a mapping, one a line, `indent` spaces deep. What does not fit a line goes over several.
pub(crate) fn block(map: &Map<String, Value>, indent: usize) -> String {
    let mut text = String::new();
    for (key, value) in map {
        entry(&mut text, key, value, indent);
    }
    text
}

/// One entry of a mapping, its line end included.
pub(crate) fn entry(into: &mut String, key: &str, value: &Value, indent: usize) {
    let key = scalar(key);
    let line = format!("{:indent$}{key}: {}", "", flow(value));
    let nested = match value {
        Value::Array(items) if !items.is_empty() && line.chars().count() > WIDTH => list(items, indent + 2),
        Value::Object(map) if !map.is_empty() && line.chars().count() > WIDTH => block(map, indent + 2),
        _ => {
            into.push_str(&line);
            into.push('\n');
            return;
        }
    };
    // Writing to a String cannot fail.
    let _ = write!(into, "{:indent$}{key}:\n{nested}", "");
}

fn list(items: &[Value], indent: usize) -> String {
    items.iter().map(|item| format!("{:indent$}- {}\n", "", flow(item))).collect()
}

/// Text as a scalar: plain where nobody can take it for something else, in blocks and in flow, else in double quotes.
pub(crate) fn scalar(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { quoted(text) }
}

fn is_plain(text: &str) -> bool {
    // Numbers, dates and times are plain in one version of YAML and something else in another.
    let number_like = text.trim_start_matches(['-', '+', '.']).starts_with(|c: char| c.is_ascii_digit());
    let begins_well = match text.as_bytes() {
        [first, ..] if first.is_ascii_alphabetic() || matches!(first, b'/' | b'_' | b'.') => true,
        [b'-', b'-', third, ..] => third.is_ascii_alphabetic(),
        [b'-', second, ..] => second.is_ascii_alphabetic(),
        _ => false,
    };
    let bytes = text.as_bytes();
    let simple = |(index, byte): (usize, &u8)| match byte {
        b':' => bytes.get(index + 1).is_some_and(|next| next.is_ascii_alphanumeric() || *next == b'/'),
        b' ' => bytes.get(index + 1).is_some_and(|next| next.is_ascii_alphanumeric()),
        b'-' | b'_' | b'.' | b'/' | b'@' | b'+' | b'=' | b'%' | b'~' => true,
        byte => byte.is_ascii_alphanumeric(),
    };
    begins_well
        && !number_like
        && text != "..."
        && text.len() <= WIDTH
        && bytes.iter().enumerate().all(simple)
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
        && resolve(text) == Resolved::Text
}

/// In double quotes, YAML 1.2.2 section 7.3.1.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            // What JSON and YAML both read, and what editors would not show.
            c if c.is_control()
                || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    use super::super::Value as Read;
    use super::super::compose::parse;
    use super::super::mistake::Collector;
    use super::*;

    fn read(text: &str) -> Value {
        let mistakes = Collector::default();
        let tree = parse(text, &mistakes);
        let value = tree.and_then(|tree| Read::root(&tree, &mistakes).json());
        assert!(mistakes.is_empty(), "{text:?}: {mistakes:?}");
        value.unwrap()
    }

    #[rstest]
    #[case("uvx", "uvx")]
    #[case("mcp-server-time", "mcp-server-time")]
    #[case("--port", "--port")]
    #[case("-y", "-y")]
    #[case("http://127.0.0.1:9000/mcp", "http://127.0.0.1:9000/mcp")]
    #[case("a b", "a b")]
    #[case("@scope/package", r#""@scope/package""#)]
    #[case("a: b", r#""a: b""#)]
    #[case("a:", r#""a:""#)]
    #[case("a #b", r#""a #b""#)]
    #[case("", r#""""#)]
    #[case("-", r#""-""#)]
    #[case("---", r#""---""#)]
    #[case("30", r#""30""#)]
    #[case("-1x", r#""-1x""#)]
    #[case("12:30", r#""12:30""#)]
    #[case("No", r#""No""#)]
    #[case("null", r#""null""#)]
    #[case(".inf", r#"".inf""#)]
    #[case("...", r#""...""#)]
    #[case("${TZ:-UTC}", r#""${TZ:-UTC}""#)]
    #[case("a\nb", r#""a\nb""#)]
    #[case("\u{feff}\u{85}", r#""\ufeff\u0085""#)]
    fn texts_are_plain_where_that_is_clear(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(scalar(text), expected);
    }

    #[test]
    fn long_collections_go_over_several_lines() {
        let value = json!({"args": ["x".repeat(60), "y".repeat(60)], "env": {"A": "1", "B": {"C": "z".repeat(99)}}, "e": [], "n": null});
        let Value::Object(map) = &value else { panic!("no map") };
        let text = block(map, 2);
        insta::assert_snapshot!(text);
        assert_eq!(read(&text), value);
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|float: f64| Value::from(float)),
            any::<String>().prop_map(Value::from),
            "[-a-z0-9.:/# ,{}\\[\\]'\"&*!|>%@`~=_+$]{0,8}".prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(3, 20, 5, |inner| {
            let key = prop_oneof!["[a-z0-9 :?-]{1,6}", any::<String>()];
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((key, inner), 0..5)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_again(value in any_value()) {
            // A document of nothing is no document.
            prop_assume!(!value.is_null());
            prop_assert_eq!(&read(&flow(&value)), &value);
            if let Value::Object(map) = &value && !map.is_empty() {
                prop_assert_eq!(&read(&block(map, 0)), &value);
                let spec = json!({"spec": value});
                prop_assert_eq!(&read(&format!("spec:\n{}", block(map, 2))), &spec);
            }
        }
    }
}
