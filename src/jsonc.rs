//! JSON as people write it: with comments, and with commas behind the last entry.
//!
//! Owns where strings and comments end. Knows nothing of what a text means: no text is an error here.

/// The text as JSON. What is taken out becomes spaces, so that lines and columns stay; a byte order mark goes.
pub fn plain(text: &str) -> String {
    // A byte order mark is no content.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    without_last_commas(&without_comments(text))
}

fn without_comments(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let end = if next == '"' {
            let end = string_length(rest);
            plain.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        } else {
            match comment_length(rest) {
                0 => {
                    plain.push(next);
                    rest = &rest[next.len_utf8()..];
                    continue;
                }
                length => length,
            }
        };
        plain.extend(rest[..end].chars().map(|c| if matches!(c, '\n' | '\r') { c } else { ' ' }));
        rest = &rest[end..];
    }
    plain
}

fn without_last_commas(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let end = if next == '"' { string_length(rest) } else { next.len_utf8() };
        let last = next == ',' && rest[1..].trim_start().starts_with(['}', ']']);
        plain.push_str(if last { " " } else { &rest[..end] });
        rest = &rest[end..];
    }
    plain
}

/// The length of the comment that the text begins with, without the end of its line; 0 where there is none. One that does
/// not end takes the rest.
pub fn comment_length(text: &str) -> usize {
    if text.starts_with("//") {
        text.find(['\n', '\r']).unwrap_or(text.len())
    } else if let Some(inside) = text.strip_prefix("/*") {
        inside.find("*/").map_or(text.len(), |end| end + "/**/".len())
    } else {
        0
    }
}

/// The length of the string that the text begins with, its quotes included. One that does not end takes the rest.
pub fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("{} // c", "{}     ")]
    #[case("{/* a\n*/}", "{    \n  }")]
    #[case(r#"{"a": "// no \" /* no", }"#, r#"{"a": "// no \" /* no"  }"#)]
    #[case("[1, // c\n]", "[1      \n]")]
    #[case("[\",]\",]", "[\",]\" ]")]
    #[case("\u{feff}{}", "{}")]
    #[case("/* open", "       ")]
    #[case("\"open", "\"open")]
    #[case("{\"é\": 1} // é", "{\"é\": 1}     ")]
    fn what_json_does_not_have_goes(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(plain(text), expected);
    }

    proptest! {
        #[test]
        fn nothing_panics_and_lines_stay(text in "[\"\\\\/*,{}\\[\\]a\né ]{0,40}") {
            let plain = plain(&text);
            prop_assert_eq!(plain.chars().count(), text.chars().count());
            prop_assert_eq!(plain.lines().count(), text.lines().count());
        }

        #[test]
        fn json_stays_as_it_is(text in any::<String>()) {
            let json = serde_json::json!({"a": [text, 1], "b": text}).to_string();
            prop_assert_eq!(plain(&json), json);
        }
    }
}
