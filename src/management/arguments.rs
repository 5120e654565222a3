//! What a call was given.

use serde_json::{Map, Value};

/// The argument that names a server.
pub(super) const NAME: &str = "name";

/// Arguments of which each is one that the tool has.
#[derive(Debug)]
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    /// Reads the `arguments` of a call, as JSON text, for a tool that has `allowed`.
    ///
    /// # Errors
    ///
    /// What is wrong with them, and what is allowed.
    pub(super) fn parse(text: &str, allowed: &[String]) -> Result<Self, String> {
        let value = serde_json::from_str(text).map_err(|error| format!("arguments: {error}"))?;
        let arguments = match value {
            Value::Null => Map::new(),
            Value::Object(arguments) => arguments,
            _ => return Err("arguments: expected an object".to_owned()),
        };
        let unknown: Vec<&str> =
            arguments.keys().filter(|key| !allowed.contains(key)).map(String::as_str).collect();
        if unknown.is_empty() {
            return Ok(Self(arguments));
        }
        let allowed = match allowed {
            [] => "it has none".to_owned(),
            allowed => format!("allowed are {}", allowed.join(", ")),
        };
        Err(format!("unknown argument {}; {allowed}", unknown.join(", ")))
    }

    /// The server.
    ///
    /// # Errors
    ///
    /// There is none.
    pub(super) fn name(&self) -> Result<&str, String> {
        match self.0.get(NAME) {
            Some(Value::String(name)) => Ok(name),
            Some(_) => Err("name: expected a string".to_owned()),
            None => Err("name is missing: the name of an MCP server".to_owned()),
        }
    }

    /// Everything but the name: keys of the `spec`.
    pub(super) fn spec(&self) -> Value {
        let spec = self.0.iter().filter(|(key, _)| *key != NAME);
        Value::Object(spec.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said() {
        let allowed = ["name".to_owned(), "url".to_owned()];
        let error = |text: &str| match Arguments::parse(text, &allowed) {
            Ok(arguments) => arguments.name().unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error(r#"{"nam":1,"uri":2,"url":3}"#), "unknown argument nam, uri; allowed are name, url");
        assert_eq!(error("7"), "arguments: expected an object");
        assert_eq!(error(r#"{"name":7}"#), "name: expected a string");
        assert_eq!(error("null"), "name is missing: the name of an MCP server");
        assert_eq!(Arguments::parse(r#"{"a":1}"#, &[]).unwrap_err(), "unknown argument a; it has none");
    }

    #[test]
    fn the_rest_is_the_spec() {
        let allowed = ["name".to_owned(), "url".to_owned()];
        let arguments = Arguments::parse(r#"{"name":"a","url":null}"#, &allowed).unwrap();
        assert_eq!(
            (arguments.name().unwrap(), arguments.spec().to_string()),
            ("a", r#"{"url":null}"#.to_owned())
        );
    }
}
