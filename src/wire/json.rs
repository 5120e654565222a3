//! Finding members of a JSON object and exchanging parts of its text, without building a tree.
//!
//! Everything here works on slices of the original text: what is not named is not looked into, what is not exchanged
//! is not changed.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytestring::ByteString;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The raw texts of the members `keys` of the JSON object `object`, each `None` where the object lacks it.
///
/// A member may be `null`: that is `Some("null")`. The slices point into `object`.
///
/// # Errors
///
/// `object` is no JSON object, or one of `keys` stands in it twice: peers would disagree on which one counts
/// (RFC 8259 section 4), and a relay that looks at one while the server obeys the other is a hole.
pub fn members<'a, const N: usize>(
    object: &'a str,
    keys: [&str; N],
) -> Result<[Option<&'a str>; N], serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let found = deserializer.deserialize_map(MembersVisitor { keys })?;
    deserializer.end()?;
    Ok(found)
}

/// The piece of the JSON object `object` without which it is the same but for the member `key`: the member, and a comma
/// before or after it. `None` where the object lacks it; of one that stands twice, the last.
///
/// # Errors
///
/// `object` is no JSON object.
pub fn member_to_remove<'a>(object: &'a str, key: &str) -> Result<Option<&'a str>, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(object);
    let found = deserializer.deserialize_map(RemovalVisitor { object, key })?;
    deserializer.end()?;
    Ok(found.map(|range| &object[range]))
}

/// Where `part`, a slice of `whole`, stands in it, in bytes.
///
/// A `part` that is no slice of `whole` gives an empty range at the end.
pub fn span(whole: &str, part: &str) -> Range<usize> {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if end <= whole.len() => start..end,
        _ => whole.len()..whole.len(),
    }
}

/// A copy of `text` in which each range of `edits` holds the given text instead.
///
/// Ranges must lie on character boundaries and must not overlap; they may come in any order. An empty range inserts.
pub fn splice<const N: usize>(text: &str, mut edits: [(Range<usize>, &str); N]) -> ByteString {
    splice_all(text, &mut edits)
}

/// As [`splice`], for edits of which it is not known how many there are. They are sorted.
pub fn splice_all(text: &str, edits: &mut [(Range<usize>, &str)]) -> ByteString {
    edits.sort_by_key(|(range, _)| range.start);
    let added: usize = edits.iter().map(|(_, new)| new.len()).sum();
    let mut out = String::with_capacity(text.len() + added);
    let mut position = 0;
    for (range, new) in edits.iter() {
        debug_assert!(range.start >= position, "edits overlap");
        out.push_str(&text[position..range.start]);
        out.push_str(new);
        position = range.end;
    }
    out.push_str(&text[position..]);
    ByteString::from(out)
}

/// The value of a JSON string, borrowed where it has no escapes; `None` when `raw` is no JSON string.
pub fn string(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

/// `text` as a JSON string with its quotes.
pub fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

/// Whether the JSON object `object` has no members.
pub fn is_empty_object(object: &str) -> bool {
    object
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .is_some_and(|inner| inner.trim().is_empty())
}

/// Whether objects and arrays are nested deeper than `limit` in `text`, which need not be JSON.
pub fn is_deeper_than(text: &[u8], limit: usize) -> bool {
    // Nearly everything has fewer brackets than that: counting them is quick.
    if memchr::memchr2_iter(b'[', b'{', text).nth(limit).is_none() {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

/// The raw texts of the elements of a JSON array.
///
/// # Errors
///
/// `array` is no JSON array.
pub fn elements(array: &str) -> Result<Vec<&str>, serde_json::Error> {
    let raw: Vec<&RawValue> = serde_json::from_str(array)?;
    Ok(raw.into_iter().map(RawValue::get).collect())
}

struct MembersVisitor<'k, const N: usize> {
    keys: [&'k str; N],
}

impl<'de, const N: usize> Visitor<'de> for MembersVisitor<'_, N> {
    type Value = [Option<&'de str>; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = [None; N];
        while let Some(position) = map.next_key_seed(KeyPosition(&self.keys))? {
            match position {
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
                Some(position) => {
                    let value = map.next_value::<&RawValue>()?.get();
                    if found[position].replace(value).is_some() {
                        let key = self.keys[position];
                        return Err(serde::de::Error::custom(format_args!("member {key:?} stands twice")));
                    }
                }
            }
        }
        Ok(found)
    }
}

struct RemovalVisitor<'k> {
    object: &'k str,
    key: &'k str,
}

impl<'de> Visitor<'de> for RemovalVisitor<'_> {
    type Value = Option<Range<usize>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut found, mut end_before, mut is_first) = (None, None, false);
        while let Some(key) = map.next_key::<&RawValue>()? {
            let start = span(self.object, key.get()).start;
            if std::mem::take(&mut is_first) {
                // The first member goes with the comma behind it.
                found = found.map(|range: Range<usize>| range.start..start);
            }
            let value = map.next_value::<&RawValue>()?;
            let end = span(self.object, value.get()).end;
            if string(key.get()).is_some_and(|key| key == self.key) {
                found = Some(end_before.unwrap_or(start)..end);
                is_first = end_before.is_none();
            } else {
                end_before = Some(end);
            }
        }
        Ok(found)
    }
}

/// Reads a key as its position among the wanted ones, without allocating.
struct KeyPosition<'k>(&'k [&'k str]);

impl<'de> DeserializeSeed<'de> for KeyPosition<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyPosition<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|wanted| *wanted == key))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_slices_of_the_text() {
        let text = r#"{"a": 1e400, "b":{"a":2},"c":null}"#;
        let [a, b, c, d] = members(text, ["a", "b", "c", "d"]).unwrap();
        assert_eq!((a, b, c, d), (Some("1e400"), Some(r#"{"a":2}"#), Some("null"), None));
        assert_eq!(&text[span(text, b.unwrap())], r#"{"a":2}"#);
    }

    #[test]
    fn an_escaped_key_is_the_same_key() {
        assert_eq!(members(r#"{"\u0061":1}"#, ["a"]).unwrap(), [Some("1")]);
    }

    #[test]
    fn a_wanted_member_that_stands_twice_is_refused() {
        let error = members(r#"{"a":1,"\u0061":2}"#, ["a"]).unwrap_err();
        assert!(error.to_string().contains("\"a\" stands twice"), "{error}");
        assert!(members(r#"{"a":1,"b":2,"b":3}"#, ["a"]).is_ok());
    }

    #[test]
    fn a_member_is_removed_with_its_comma() {
        for (object, without) in [
            (r#"{"a":1}"#, "{}"),
            (r#"{ "a" : 1 , "b":2}"#, r#"{ "b":2}"#),
            (r#"{"b":2, "a":{"a":1} }"#, r#"{"b":2 }"#),
            (r#"{"b":2,"\u0061":"}","c":[3]}"#, r#"{"b":2,"c":[3]}"#),
        ] {
            let piece = member_to_remove(object, "a").unwrap().unwrap();
            assert_eq!(splice(object, [(span(object, piece), "")]), without);
        }
        assert_eq!(member_to_remove(r#"{"b":{"a":1}}"#, "a").unwrap(), None);
    }

    #[test]
    fn depth_is_that_of_objects_and_arrays_only() {
        for (text, depth) in [
            ("7", 0),
            (r#"{"a":[1,[2]],"b":[[3]]}"#, 3),
            (r#"["[[[[","\\\"[[[[",[]]"#, 2),
            (r#"["\\\\",[[]]]"#, 3),
            ("[[[[", 4),
            ("]]]][", 1),
        ] {
            assert!(!is_deeper_than(text.as_bytes(), depth), "{text}");
            assert!(depth == 0 || is_deeper_than(text.as_bytes(), depth - 1), "{text}");
        }
        let flat = format!("[{}[]]", "{},".repeat(1000));
        assert!(is_deeper_than(flat.as_bytes(), 1) && !is_deeper_than(flat.as_bytes(), 2));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "1", "", "{", "{} {}", "null"] {
            assert!(members(text, ["a"]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn strings_are_decoded() {
        assert_eq!(string(r#""plain""#).unwrap(), "plain");
        assert_eq!(string(r#""tools\/call""#).unwrap(), "tools/call");
        assert_eq!(string("7"), None);
    }

    proptest! {
        /// Splicing text is the same as parsing it, changing the member, and printing it.
        #[test]
        fn splice_is_parse_edit_print(
            keys in proptest::collection::btree_map("[a-z]{1,6}", any::<i64>(), 1..8),
            pick in any::<prop::sample::Index>(),
            new in "[\\PC]{0,20}",
        ) {
            let object: serde_json::Map<String, serde_json::Value> =
                keys.iter().map(|(k, v)| (k.clone(), (*v).into())).collect();
            let key = keys.keys().nth(pick.index(keys.len())).unwrap();
            let text = serde_json::to_string_pretty(&object).unwrap();
            let [member] = members(&text, [key.as_str()]).unwrap();
            let spliced = splice(&text, [(span(&text, member.unwrap()), &quoted(&new))]);

            let mut edited = object;
            edited.insert(key.clone(), new.into());
            prop_assert_eq!(&*spliced, serde_json::to_string_pretty(&edited).unwrap());
        }

        #[test]
        fn members_never_panics(text in "\\PC{0,64}") {
            let _ = members(&text, ["a", "jsonrpc"]);
        }
    }
}
