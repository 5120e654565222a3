//! The answers of the meta tools that list, filter and describe.
//!
//! A page ends with the key of its last entry as cursor, and the next one begins behind that key in the catalogue as it
//! is then: servers may come and go between two pages, and what both catalogues have is shown once.

use serde_json::{Value, json};

use super::arguments::{Arguments, CURSOR, LONGEST_FILTER, PATTERN, QUERY, Refused};
use super::entry::{Entry, entries};
use super::rank;
use super::tools::{MetaTool, Subject};
use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::registry::Registry;
use crate::glob::{Glob, InvalidGlob};
use crate::wire::json;

/// How many entries an unknown name is answered with.
const LIKE_IT: usize = 3;

/// A page of what there is, or of what the arguments look for.
///
/// # Errors
///
/// They are wrong.
pub(super) fn list(
    tool: MetaTool,
    arguments: &Arguments<'_>,
    catalogue: &Catalogue,
) -> Result<String, Refused> {
    let limit = arguments.limit(tool.page())?;
    let mut found = entries(catalogue, tool.subject);
    if let Some(pattern) = arguments.filter(PATTERN)? {
        let pattern =
            glob(&pattern).map_err(|error| Refused(format!("{PATTERN} {pattern:?} is wrong: {error}")))?;
        found.retain(|entry| pattern.matches(&entry.key.to_lowercase()));
    }
    if let Some(query) = arguments.filter(QUERY)? {
        if rank::words(&query).is_empty() {
            return Err(Refused(format!("{QUERY} has no words; leave it out, or say what to look for")));
        }
        found = ranked(&query, found);
    }
    let begin = match arguments.string(CURSOR)? {
        None => 0,
        Some(cursor) => match found.iter().position(|entry| entry.key == cursor) {
            Some(last) => last + 1,
            None => {
                let why = "is none of this list (any more); begin again without it";
                return Err(Refused(format!("{CURSOR} {cursor:?} {why}")));
            }
        },
    };
    let end = found.len().min(begin.saturating_add(limit));
    let page: Vec<Value> = found[begin..end].iter().map(Entry::summary).collect();
    let mut values = json!({"total": found.len(), tool.subject.plural(): page});
    if end < found.len()
        && let Some(last) = found[..end].last()
    {
        values["nextCursor"] = last.key.as_ref().into();
    }
    Ok(result(&values.to_string()))
}

/// The whole of one entry, as its server describes it.
///
/// # Errors
///
/// There is none of that name, or URI.
pub(super) fn describe(
    tool: MetaTool,
    arguments: &Arguments<'_>,
    catalogue: &Catalogue,
    registry: &Registry,
) -> Result<String, Refused> {
    let key = arguments.required(tool.subject.key())?;
    let entries = entries(catalogue, tool.subject);
    let entry = entries.iter().find(|entry| entry.key == key);
    let entry = entry.or_else(|| entries.iter().find(|entry| entry.gives(&key)));
    match entry {
        Some(entry) => Ok(result(entry.raw)),
        None => Err(unknown(tool.subject, &key, entries, registry)),
    }
}

/// There is nothing called `key`, but there may be something like it.
pub(super) fn unknown(subject: Subject, key: &str, entries: Vec<Entry<'_>>, registry: &Registry) -> Refused {
    let (noun, plural) = (subject.noun(), subject.plural());
    if subject == Subject::Tools && MetaTool::named(key).is_some() {
        return Refused(format!("{key} is not behind call_tool: call it itself"));
    }
    if key.len() > LONGEST_FILTER {
        return Refused(format!("there is no {noun} of a name with more than {LONGEST_FILTER} characters"));
    }
    let kind = subject.kind();
    if let Some(error) = registry.not_now(kind, key) {
        return Refused(error.message);
    }
    let mut why = format!("there is no {noun} {key:?}");
    if let Some(perhaps) = registry.perhaps(kind, key) {
        why.push_str(&format!("; {perhaps}"));
    }
    let like_it = ranked(key, entries);
    if !like_it.is_empty() {
        let names: Vec<&str> = like_it.iter().take(LIKE_IT).map(|entry| &*entry.key).collect();
        why.push_str(&format!("; there is {}", names.join(", ")));
    }
    why.push_str(&format!("; filter_{plural} finds {plural}"));
    Refused(why)
}

/// Those that have any of the words, the best first.
fn ranked<'c>(query: &str, entries: Vec<Entry<'c>>) -> Vec<Entry<'c>> {
    let documents: Vec<_> = entries.iter().map(Entry::document).collect();
    rank::rank(query, &documents).into_iter().map(|place| entries[place].clone()).collect()
}

/// A pattern for keys in small letters: of the whole key, or of a part where it has nothing but letters.
fn glob(text: &str) -> Result<Glob, InvalidGlob> {
    let text = text.to_lowercase();
    let glob: Glob = text.parse()?;
    if glob.is_literal() { format!("*{text}*").parse() } else { Ok(glob) }
}

/// The `CallToolResult` with these values, a raw JSON object, as JSON text. What they say the text says as well, for
/// clients that do not know of values (2025-11-25, server/tools, "Structured Content").
fn result(values: &str) -> String {
    let text = json::quoted(values);
    format!(r#"{{"content":[{{"type":"text","text":{text}}}],"structuredContent":{values}}}"#)
}
