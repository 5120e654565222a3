//! Texts without what looks like a secret. [`Secrets`](crate::telemetry::secrets::Secrets) hides what is known to be one besides.
//!
//! Hidden are, wherever they stand: user and password, and the values of the query, of a URL; what follows `Bearer` and
//! `Basic`; JSON web tokens; the values of names that say that they are secret, in `name=value`, in JSON and in headers.

use std::borrow::Cow;
use std::ops::Range;

/// Stands where a secret was.
pub const HIDDEN: &str = "***";

/// What names of secrets end with, in lower case.
const SECRET_NAMES: [&str; 11] = [
    "key",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "cookie",
    "authorization",
    "credential",
    "credentials",
    "signature",
];

/// What the names of headers with secrets end with: elsewhere a colon separates words too.
const SECRET_HEADERS: [&str; 5] = ["authorization", "cookie", "api-key", "-token", "-secret"];

/// What follows the scheme in a challenge (RFC 6750 section 3, RFC 9728 section 5.1).
const CHALLENGES: [&str; 4] =
    ["resource_metadata=", "error_description=", "error_uri=", "authorization_uri="];

/// `text` with `***` where something looks like a secret.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut hidden = Vec::new();
    suspicious(text, &mut hidden);
    without(text, hidden)
}

/// Where `text` looks like a secret.
pub(crate) fn suspicious(text: &str, hidden: &mut Vec<Range<usize>>) {
    url_parts(text, hidden);
    schemes(text, hidden);
    web_tokens(text, hidden);
    named_values(text, hidden);
}

/// `text` with `***` in the place of each part that is `hidden`; these may overlap.
pub(crate) fn without(text: &str, mut hidden: Vec<Range<usize>>) -> Cow<'_, str> {
    hidden.retain(|range| !range.is_empty() && &text[range.clone()] != HIDDEN);
    if hidden.is_empty() {
        return Cow::Borrowed(text);
    }
    hidden.sort_by_key(|range| (range.start, std::cmp::Reverse(range.end)));
    let mut shown = String::with_capacity(text.len());
    let mut position = 0;
    for range in hidden {
        if range.end <= position {
            continue;
        }
        // One that begins within another, or where it ends, hides what the other has left.
        if position == 0 || range.start > position {
            shown.push_str(&text[position..range.start]);
            shown.push_str(HIDDEN);
        }
        position = range.end;
    }
    shown.push_str(&text[position..]);
    Cow::Owned(shown)
}

/// Where `text` goes on after the first byte from `start` on that `ends` says.
fn end_of(text: &str, start: usize, ends: impl Fn(u8) -> bool) -> usize {
    text.as_bytes()[start..].iter().position(|byte| ends(*byte)).map_or(text.len(), |length| start + length)
}

fn is_space_or_quote(byte: u8) -> bool {
    byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\')
}

fn url_parts(text: &str, hidden: &mut Vec<Range<usize>>) {
    for (at, _) in text.match_indices("://") {
        let start = at + "://".len();
        let end = end_of(text, start, is_space_or_quote);
        let authority_end = start + end_of(&text[start..end], 0, |byte| matches!(byte, b'/' | b'?' | b'#'));
        if let Some(at) = text[start..authority_end].rfind('@') {
            hidden.push(start..start + at);
        }
        let Some(query) = text[start..end].find('?') else { continue };
        let mut part = start + query + 1;
        let query_end = part + end_of(&text[part..end], 0, |byte| byte == b'#');
        while part < query_end {
            let part_end = part + end_of(&text[part..query_end], 0, |byte| byte == b'&');
            match text[part..part_end].find('=') {
                Some(at) => hidden.push(part + at + 1..part_end),
                None => hidden.push(part..part_end),
            }
            part = part_end + 1;
        }
    }
}

fn schemes(text: &str, hidden: &mut Vec<Range<usize>>) {
    for scheme in ["bearer ", "basic "] {
        let bytes = text.as_bytes();
        for start in 0..bytes.len().saturating_sub(scheme.len()) {
            let value = start + scheme.len();
            let begins = start == 0 || !bytes[start - 1].is_ascii_alphanumeric();
            if begins && bytes[start..value].eq_ignore_ascii_case(scheme.as_bytes()) {
                let end = end_of(text, value, |byte| is_space_or_quote(byte) || matches!(byte, b',' | b';'));
                // Words of a sentence, as in "a bearer token is needed", are shorter or have no digits.
                let looks_like_one = |value: &str| {
                    value.len() >= 16 || (value.len() >= 6 && value.bytes().any(|byte| byte.is_ascii_digit()))
                };
                // A challenge says what is wanted, and holds no secret.
                if looks_like_one(&text[value..end]) && !CHALLENGES.contains(&&text[value..end]) {
                    hidden.push(value..end);
                }
            }
        }
    }
}

/// RFC 7519: three parts in base64url, of which the first begins as `{"` does.
fn web_tokens(text: &str, hidden: &mut Vec<Range<usize>>) {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    for (start, _) in text.match_indices("eyJ") {
        let end = end_of(text, start, |byte| !in_token(byte));
        if text[start..end].split('.').count() >= 2 && end - start >= 16 {
            hidden.push(start..end);
        }
    }
}

fn named_values(text: &str, hidden: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    for separator in memchr::memchr2_iter(b'=', b':', bytes) {
        // `"name":`, or `\"name\":` where it stands in a JSON string.
        let mut name_end = separator;
        while name_end > 0 && matches!(bytes[name_end - 1], b'"' | b'\'' | b'\\') {
            name_end -= 1;
        }
        let is_quoted = name_end < separator;
        let name_start =
            bytes[..name_end].iter().rposition(|byte| !is_name(*byte)).map_or(0, |before| before + 1);
        let name = text[name_start..name_end].to_ascii_lowercase();
        let ends_with = |names: &[&str]| names.iter().any(|end| name.ends_with(end));
        let is_secret = match bytes[separator] {
            b'=' => ends_with(&SECRET_NAMES),
            _ if is_quoted => ends_with(&SECRET_NAMES),
            _ => ends_with(&SECRET_HEADERS),
        };
        if !is_secret {
            continue;
        }
        let mut start = separator + 1;
        while start < bytes.len() && matches!(bytes[start], b' ' | b'"' | b'\'' | b'\\' | b'[') {
            start += 1;
        }
        // A value in quotes ends with them; one of several parts, with its line.
        let in_quotes = text[separator + 1..start].contains(['"', '\'']);
        let whole_line = in_quotes || name.ends_with("cookie") || name.ends_with("authorization");
        let ends = |byte: u8| match byte {
            b'"' | b'\'' | b'\\' | b'\n' | b'\r' | b'}' | b']' => true,
            b',' | b';' | b'&' | b' ' | b'\t' | b')' => !whole_line,
            _ => false,
        };
        let end = end_of(text, start, ends);
        hidden.push(start..end);
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://u:hunter22@h/p", "http://***@h/p")]
    #[case("see https://h/p?a=x&token=y#f, then", "see https://h/p?a=***&token=***, then")]
    #[case("https://h/p?secret", "https://h/p?***")]
    #[case("Authorization: Bearer abc def", "Authorization: ***")]
    #[case("sent bearer abc123def456, got 401", "sent bearer ***, got 401")]
    #[case("a bearer token is needed", "a bearer token is needed")]
    #[case(
        r#"wants Bearer resource_metadata="https://h/m""#,
        r#"wants Bearer resource_metadata="https://h/m""#
    )]
    #[case("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_ end", "jwt *** end")]
    #[case("API_KEY=abc OTHER=x", "API_KEY=*** OTHER=x")]
    #[case(r#"{"password":"pa ss","n":1}"#, r#"{"password":"***","n":1}"#)]
    #[case(r#"got "{\"apiKey\": \"abc\"}""#, r#"got "{\"apiKey\": \"***\"}""#)]
    #[case("cookie: a=b; c=d", "cookie: ***")]
    #[case("x-api-key: abc", "x-api-key: ***")]
    #[case("unknown key: name", "unknown key: name")]
    #[case("tokenFile=/run/x", "tokenFile=/run/x")]
    #[case("Ümläute=ok", "Ümläute=ok")]
    #[case("token=é x", "token=*** x")]
    #[case("token=***", "token=***")]
    #[case("", "")]
    fn what_may_be_secret_is_hidden(#[case] text: &str, #[case] shown: &str) {
        assert_eq!(redact(text), shown);
    }

    proptest::proptest! {
        #[test]
        fn a_secret_is_hidden_after_any_text(text in "([a-z]|://|\\?|=|&|@|token|\"|eyJ|\\.|é| |Bearer |:){0,24}") {
            let text = format!("{text} token=hunter22 Bearer hunter2222 {text}");
            let shown = redact(&text);
            proptest::prop_assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
