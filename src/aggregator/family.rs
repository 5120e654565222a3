//! Tools that the servers of a family share: one tool for all of them, with an argument that says which one is meant.
//!
//! Servers of a family that do not agree, and tools that differ, keep their own names; what is said of that is a
//! [`NamingProblem`]. The same input always gives the same tools.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytestring::ByteString;
use serde_json::Value;

use super::member::{Member, Target};
use super::naming::{NamingProblem, NotShared};
use super::offer::{Item, Kind};
use crate::mcpserver::ServerName;
use crate::wire::json;

/// A tool of a family.
#[derive(Clone, Debug)]
pub(super) struct FamilyTool {
    pub(super) family: String,
    /// What it is called at its servers.
    pub(super) key: ByteString,
    /// The argument that says which server is meant.
    pub(super) argument: String,
    /// The servers that have it, by name.
    pub(super) members: BTreeMap<String, Arc<Target>>,
    /// As the first server describes it, with the argument; still with its own name.
    pub(super) item: Item,
}

/// The tools that families share, by family and tool.
pub(super) fn shared_tools<'a>(
    servers: impl Iterator<Item = (&'a ServerName, &'a Member)>,
) -> (Vec<FamilyTool>, Vec<NamingProblem>) {
    let mut families: BTreeMap<&str, Vec<(&ServerName, &Member, &str)>> = BTreeMap::new();
    for (server, member) in servers {
        if let Some(family) = &member.family {
            let known = families.entry(family.name.as_str()).or_default();
            known.push((server, member, family.instance_arg.as_str()));
        }
    }
    let (mut shared, mut problems) = (Vec::new(), Vec::new());
    for (family, members) in families {
        let argument = members.first().map_or("", |(_, _, argument)| argument);
        if members.iter().any(|(_, _, other)| *other != argument) {
            problems.push(NamingProblem::FamilyDisagrees { family: family.to_owned() });
            continue;
        }
        // By tool, the servers that have it, in the order in which the first of them lists it.
        let mut tools: Vec<(&str, Vec<Having<'_>>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for (server, member, _) in &members {
            for item in member.offer.lists[Kind::Tool].items.iter() {
                match places.entry(&item.key) {
                    Entry::Vacant(place) => {
                        place.insert(tools.len());
                        tools.push((&item.key, vec![(server, member, item)]));
                    }
                    // One that a server lists twice counts once: servers come one after the other.
                    Entry::Occupied(place) => match tools.get_mut(*place.get()) {
                        Some((_, having)) if having.last().is_none_or(|(last, _, _)| last != server) => {
                            having.push((server, member, item));
                        }
                        _ => {}
                    },
                }
            }
        }
        for (key, having) in tools {
            match share(family, argument, &having) {
                Ok(tool) => shared.push(tool),
                Err(why) => {
                    let (family, key) = (family.to_owned(), key.to_owned());
                    problems.push(NamingProblem::NotShared { family, key, why });
                }
            }
        }
    }
    (shared, problems)
}

/// A server that has a tool, and how it describes it.
type Having<'a> = (&'a ServerName, &'a Member, &'a Item);

fn share(family: &str, argument: &str, having: &[Having<'_>]) -> Result<FamilyTool, NotShared> {
    let Some(((_, _, first), others)) = having.split_first() else { return Err(NotShared::Schema) };
    let described = described(first);
    if others.iter().any(|(_, _, other)| self::described(other) != described) {
        return Err(NotShared::Differs);
    }
    let names: Vec<&str> = having.iter().map(|(server, _, _)| server.as_str()).collect();
    let raw = with_argument(first.raw(), family, argument, &names)?;
    let members = having.iter().map(|(server, member, item)| {
        let target = Target { link: Arc::clone(&member.link), key: item.key.clone() };
        (server.to_string(), Arc::new(target))
    });
    Ok(FamilyTool {
        family: family.to_owned(),
        key: first.key.clone(),
        argument: argument.to_owned(),
        members: members.collect(),
        item: Item::parse(Kind::Tool, raw).map_err(|_| NotShared::Schema)?,
    })
}

/// What has to be the same for a tool to be the same: what it says of itself, in whatever spelling.
fn described(item: &Item) -> [Option<Value>; 5] {
    let keys = ["description", "inputSchema", "outputSchema", "annotations", "execution"];
    let members = json::members(item.raw(), keys).unwrap_or_default();
    members.map(|raw| raw.and_then(|raw| serde_json::from_str(raw).ok()))
}

/// A tool with one more required argument.
fn with_argument(
    raw: &ByteString,
    family: &str,
    argument: &str,
    names: &[&str],
) -> Result<ByteString, NotShared> {
    let [schema] = json::members(raw, ["inputSchema"]).map_err(|_| NotShared::Schema)?;
    let schema = schema.ok_or(NotShared::Schema)?;
    let [properties, required] =
        json::members(schema, ["properties", "required"]).map_err(|_| NotShared::Schema)?;
    if let Some(properties) = properties {
        let [own] = json::members(properties, [argument]).map_err(|_| NotShared::Schema)?;
        if own.is_some() {
            return Err(NotShared::HasArgument(argument.to_owned()));
        }
    }
    let name = json::quoted(argument);
    let names: Vec<String> = names.iter().map(|name| json::quoted(name)).collect();
    let description = json::quoted(&format!("Which of the servers of {family} is meant"));
    let property =
        format!(r#"{name}:{{"type":"string","enum":[{}],"description":{description}}}"#, names.join(","));
    // What the schema has not yet comes in front of what it has.
    let mut front = String::new();
    let mut edits = Vec::new();
    let mut insert = |into: Option<&str>, key: &str, open: char, close: char, new: String| match into {
        Some(part) if part.starts_with(open) => {
            let at = json::span(raw, part).start + 1;
            let is_empty = part.trim_start_matches(open).trim_start().starts_with(close);
            edits.push((at..at, if is_empty { new } else { format!("{new},") }));
            Ok(())
        }
        Some(_) => Err(NotShared::Schema),
        None => {
            front.push_str(&format!(r#""{key}":{open}{new}{close},"#));
            Ok(())
        }
    };
    insert(properties, "properties", '{', '}', property)?;
    insert(required, "required", '[', ']', name)?;
    if !front.is_empty() {
        if json::is_empty_object(schema) {
            front.pop();
        }
        let at = json::span(raw, schema).start + 1;
        edits.push((at..at, front));
    }
    let mut edits: Vec<_> = edits.iter().map(|(range, new)| (range.clone(), new.as_str())).collect();
    Ok(json::splice_all(raw, &mut edits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(raw: &str) -> Result<String, NotShared> {
        with_argument(&raw.into(), "clocks", "zone", &["a", "b"]).map(|raw| raw.to_string())
    }

    #[test]
    fn the_argument_is_added_and_the_rest_stays() {
        let zone = r#""zone":{"type":"string","enum":["a","b"],"description":"Which of the servers of clocks is meant"}"#;
        for (raw, expected) in [
            (
                r#"{"name":"t","inputSchema":{ "properties":{ "x":1.50},"required":["x"], "type":"object"}}"#,
                format!(
                    r#"{{"name":"t","inputSchema":{{ "properties":{{{zone}, "x":1.50}},"required":["zone","x"], "type":"object"}}}}"#
                ),
            ),
            (
                r#"{"name":"t","inputSchema":{"type":"object","properties":{ },"required":[]}}"#,
                format!(
                    r#"{{"name":"t","inputSchema":{{"type":"object","properties":{{{zone} }},"required":["zone"]}}}}"#
                ),
            ),
            (
                r#"{"name":"t","inputSchema":{}}"#,
                format!(r#"{{"name":"t","inputSchema":{{"properties":{{{zone}}},"required":["zone"]}}}}"#),
            ),
            (
                r#"{"name":"t","inputSchema":{"type":"object"}}"#,
                format!(
                    r#"{{"name":"t","inputSchema":{{"properties":{{{zone}}},"required":["zone"],"type":"object"}}}}"#
                ),
            ),
        ] {
            assert_eq!(with(raw).unwrap(), expected);
        }
        let taken = NotShared::HasArgument("zone".to_owned());
        assert_eq!(with(r#"{"name":"t","inputSchema":{"properties":{"zone":{}}}}"#), Err(taken));
        for raw in
            [r#"{"name":"t"}"#, r#"{"name":"t","inputSchema":true}"#, r#"{"inputSchema":{"required":{}}}"#]
        {
            assert_eq!(with(raw), Err(NotShared::Schema), "{raw}");
        }
    }
}
