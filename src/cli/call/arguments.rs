//! `NAME=VALUE` as what a tool asks for.

use std::str::FromStr;

use serde_json::{Map, Value};
use sidegate::wire::schema::Wanted;

use super::super::tools::name;
use super::super::words::similar;
use super::super::{Exit, Failure};

/// One `NAME=VALUE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Argument {
    name: String,
    value: String,
}

impl FromStr for Argument {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => {
                Ok(Self { name: name.to_owned(), value: value.to_owned() })
            }
            _ => Err("write NAME=VALUE"),
        }
    }
}

/// The arguments of a call of `tool`, each of the type that its `inputSchema` names.
pub(super) fn typed(arguments: &[Argument], tool: &Value) -> Result<Map<String, Value>, Failure> {
    let schema = &tool["inputSchema"];
    let none = Map::new();
    let properties = schema["properties"].as_object().unwrap_or(&none);
    let mut values = Map::new();
    for Argument { name, value } in arguments {
        let property = match properties.get(name) {
            Some(property) => property,
            None if takes_others(schema) => &Value::Null,
            None => return Err(unknown(name, properties)),
        };
        let value = Wanted::of(property, schema).read(value).map_err(|why| {
            Failure::text(Exit::Usage, format!("--arg {name}: {why}"))
                .hint(format!("see `sidegate tools {}`", self::name(tool)))
        })?;
        if values.insert(name.clone(), value).is_some() {
            let hint = format!("write a list as JSON: --arg {name}='[1, 2]'");
            return Err(Failure::text(Exit::Usage, format!("--arg {name}: given twice")).hint(hint));
        }
    }
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<String> = required
        .filter(|name| !values.contains_key(*name))
        .map(|name| format!("{name} ({})", Wanted::of(&schema["properties"][name], schema).describe()))
        .collect();
    if missing.is_empty() {
        return Ok(values);
    }
    let failure = Failure::text(Exit::Usage, format!("{} needs {}", name(tool), missing.join(", ")));
    Err(failure.hint("give each with --arg NAME=VALUE"))
}

/// Whether the tool says that it takes what it does not name.
fn takes_others(schema: &Value) -> bool {
    let others = &schema["additionalProperties"];
    others.is_object() || *others == true || schema["patternProperties"].is_object()
}

fn unknown(name: &str, properties: &Map<String, Value>) -> Failure {
    let failure = Failure::text(Exit::Usage, format!("--arg {name}: the tool has no such argument"));
    let known = properties.keys().map(String::as_str);
    match similar(name, known.clone()) {
        Some(similar) => failure.hint(format!("did you mean {similar:?}?")),
        None if properties.is_empty() => failure.hint("it takes no arguments"),
        None => failure.hint(format!(
            "it takes {}; to pass something else, use --json",
            known.collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_checked_against_the_tool() {
        let tool = json!({"name": "t", "inputSchema": {
            "properties": {"zone": {"type": "string"}, "count": {"type": "integer"}},
            "required": ["zone"],
        }});
        let typed = |arguments: &[&str]| {
            let arguments: Vec<Argument> = arguments.iter().map(|text| text.parse().unwrap()).collect();
            typed(&arguments, &tool).map_err(|failure| (failure.message, failure.hint.unwrap_or_default()))
        };
        assert_eq!(
            Value::Object(typed(&["zone=a=b", "count=2"]).unwrap()),
            json!({"zone": "a=b", "count": 2})
        );
        for (arguments, message, hint) in [
            (&["zon=x"][..], "--arg zon: the tool has no such argument", "did you mean \"zone\"?"),
            (&["zone=x", "zone=y"], "--arg zone: given twice", "write a list as JSON: --arg zone='[1, 2]'"),
            (&["zone=x", "count=y"], "--arg count: \"y\" where integer is wanted", "see `sidegate tools t`"),
            (&["count=1"], "t needs zone (string)", "give each with --arg NAME=VALUE"),
        ] {
            assert_eq!(typed(arguments), Err((message.to_owned(), hint.to_owned())));
        }
        assert!("zone".parse::<Argument>().is_err() && "=x".parse::<Argument>().is_err());
    }
}
