//! What a meta tool is called with.
//!
//! Arguments that are wrong are told as the tool's result, so that the model reads what to mend (2025-11-25, server/tools,
//! "Error Handling").

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::json;
use serde_json::value::RawValue;

use crate::wire::json;

pub(super) const NAME: &str = "name";
pub(super) const URI: &str = "uri";
pub(super) const ARGUMENTS: &str = "arguments";
pub(super) const QUERY: &str = "query";
pub(super) const PATTERN: &str = "pattern";
pub(super) const LIMIT: &str = "limit";
pub(super) const CURSOR: &str = "cursor";

/// Entries that may be asked for at once.
pub(super) const LARGEST_PAGE: usize = 500;

/// How long a query or a pattern may be, in bytes: it is held against everything in the catalogue.
pub(super) const LONGEST_FILTER: usize = 500;

/// A call that cannot be made as it is; why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) String);

impl Refused {
    /// The `CallToolResult`, as JSON text.
    pub(super) fn result(&self) -> String {
        json!({"content": [{"type": "text", "text": self.0}], "isError": true}).to_string()
    }
}

/// The arguments of a call, each as it was written.
#[derive(Debug)]
pub(super) struct Arguments<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Arguments<'a> {
    /// Reads `raw`, the arguments of the tool `tool`, of which it has `known`.
    ///
    /// # Errors
    ///
    /// It is no object, or has others.
    pub(super) fn parse(raw: Option<&'a str>, tool: &str, known: &[&str]) -> Result<Self, Refused> {
        let raw = raw.filter(|raw| *raw != "null").unwrap_or("{}");
        let mut arguments: BTreeMap<String, &'a RawValue> = serde_json::from_str(raw)
            .map_err(|_| Refused(format!("the arguments of {tool} must be an object")))?;
        if let Some(unknown) = arguments.keys().find(|name| !known.contains(&name.as_str())) {
            let known = known.join(", ");
            return Err(Refused(format!("unknown argument {unknown}; {tool} takes {known}")));
        }
        arguments.retain(|_, value| value.get() != "null");
        Ok(Self(arguments))
    }

    /// An argument that is a string, where it is there.
    pub(super) fn string(&self, name: &str) -> Result<Option<Cow<'a, str>>, Refused> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        json::string(raw)
            .map(Some)
            .ok_or_else(|| Refused(format!("{name} must be a string, not {}", shown(raw))))
    }

    /// A string that must be there.
    pub(super) fn required(&self, name: &str) -> Result<Cow<'a, str>, Refused> {
        self.string(name)?.ok_or_else(|| Refused(format!("{name} is missing")))
    }

    /// What entries are looked for by, where it is there.
    pub(super) fn filter(&self, name: &str) -> Result<Option<Cow<'a, str>>, Refused> {
        match self.string(name)? {
            Some(text) if text.len() > LONGEST_FILTER => {
                Err(Refused(format!("{name} must not have more than {LONGEST_FILTER} characters")))
            }
            text => Ok(text),
        }
    }

    /// How many entries a page may have; `usual` where nothing is said.
    pub(super) fn limit(&self, usual: usize) -> Result<usize, Refused> {
        let Some(raw) = self.raw(LIMIT) else { return Ok(usual) };
        let limit = raw.parse().ok().filter(|limit| (1..=LARGEST_PAGE).contains(limit));
        let why = || format!("{LIMIT} must be a whole number from 1 to {LARGEST_PAGE}, not {}", shown(raw));
        limit.ok_or_else(|| Refused(why()))
    }

    /// An argument that is an object, raw, where it is there.
    pub(super) fn object(&self, name: &str) -> Result<Option<&'a str>, Refused> {
        match self.raw(name) {
            Some(raw) if !raw.starts_with('{') => {
                Err(Refused(format!("{name} must be an object, not {}", shown(raw))))
            }
            raw => Ok(raw),
        }
    }

    /// An argument as it was written.
    pub(super) fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|raw| raw.get())
    }
}

/// The beginning of a value, for messages.
fn shown(raw: &str) -> String {
    const LONGEST: usize = 60;
    match raw.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &raw[..end]),
        None => raw.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("[]", "the arguments of t must be an object")]
    #[case(r#"{"nmae":"x"}"#, "unknown argument nmae; t takes name, arguments, limit, query")]
    #[case("{}", "name is missing")]
    #[case(r#"{"name":null}"#, "name is missing")]
    #[case(r#"{"name":7}"#, "name must be a string, not 7")]
    #[case(r#"{"name":"a","arguments":"{}"}"#, r#"arguments must be an object, not "{}""#)]
    #[case(r#"{"name":"a","limit":0}"#, "limit must be a whole number from 1 to 500, not 0")]
    #[case(r#"{"name":"a","limit":1.5}"#, "limit must be a whole number from 1 to 500, not 1.5")]
    fn what_is_wrong_is_said(#[case] raw: &str, #[case] why: &str) {
        let read = Arguments::parse(Some(raw), "t", &[NAME, ARGUMENTS, LIMIT, QUERY]).and_then(|arguments| {
            arguments.required(NAME)?;
            arguments.object(ARGUMENTS)?;
            arguments.limit(5)
        });
        assert_eq!(read.unwrap_err(), Refused(why.to_owned()));
    }

    #[test]
    fn what_is_not_there_is_what_is_usual() {
        for raw in [None, Some("null"), Some("{}"), Some(r#"{"limit":null,"query":null}"#)] {
            let arguments = Arguments::parse(raw, "t", &[LIMIT, QUERY]).unwrap();
            assert_eq!((arguments.limit(5), arguments.filter(QUERY)), (Ok(5), Ok(None)));
        }
        let long = format!(r#"{{"query":"{}"}}"#, "x".repeat(LONGEST_FILTER + 1));
        let arguments = Arguments::parse(Some(&long), "t", &[QUERY]).unwrap();
        assert!(arguments.filter(QUERY).unwrap_err().0.contains("not have more than 500"));
    }
}
