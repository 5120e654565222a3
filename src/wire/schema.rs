//! What a property of a tool's `inputSchema` takes, as far as somebody needs to know who reads it from a text.

use serde_json::Value;

/// References are followed this far: they may lead in a circle.
const DEEPEST: usize = 8;

/// Schemas that are looked at for one property: alternatives may refer to the same ones again and again.
const MOST_VISITED: usize = 1000;

/// The types and the values that a property takes. Neither: nobody says, so anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    types: Vec<String>,
    values: Vec<Value>,
}

impl Wanted {
    /// What `property` of the schema `root` takes. Alternatives (`anyOf`, `oneOf`) are taken together.
    pub fn of(property: &Value, root: &Value) -> Self {
        let mut wanted = Self::default();
        let mut visits = MOST_VISITED;
        wanted.collect(property, root, DEEPEST, &mut visits);
        wanted
    }

    fn collect(&mut self, property: &Value, root: &Value, deep: usize, visits: &mut usize) {
        if deep == 0 || *visits == 0 {
            return;
        }
        *visits -= 1;
        let reference = property["$ref"].as_str().and_then(|path| root.pointer(path.strip_prefix('#')?));
        if let Some(target) = reference {
            self.collect(target, root, deep - 1, visits);
        }
        for key in ["anyOf", "oneOf"] {
            for alternative in property[key].as_array().into_iter().flatten() {
                self.collect(alternative, root, deep - 1, visits);
            }
        }
        let values = property["enum"].as_array().into_iter().flatten().chain(property.get("const"));
        let before = self.values.len();
        self.values.extend(values.filter(|value| !value.is_null()).cloned());
        if self.values.len() > before {
            return;
        }
        let types = match &property["type"] {
            Value::Array(several) => several.as_slice(),
            one => std::slice::from_ref(one),
        };
        for kind in types.iter().filter_map(Value::as_str) {
            if !self.types.iter().any(|known| known == kind) {
                self.types.push(kind.to_owned());
            }
        }
    }

    /// The values that it takes, where they are listed.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Whether it takes values of the type `kind`, besides those that are listed.
    pub fn takes(&self, kind: &str) -> bool {
        self.types.iter().any(|known| known == kind)
    }

    /// In a word or a few: `integer`, `sha256|sha512`.
    pub fn describe(&self) -> String {
        // That something may be null is clear where it may be left out.
        let types = self.types.iter().filter(|kind| *kind != "null").cloned();
        let words: Vec<String> = self.values.iter().map(spelled).chain(types).collect();
        if words.is_empty() { "json".to_owned() } else { words.join("|") }
    }

    /// `text` as one of the types, the strictest first; a text is what is left.
    ///
    /// # Errors
    ///
    /// It is none of them: why.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        if let Some(value) = self.values.iter().find(|value| spelled(value) == text) {
            return Ok(value.clone());
        }
        let json = serde_json::from_str::<Value>(text);
        match json {
            Ok(value) if self.types.iter().any(|kind| fits(kind, &value)) => Ok(value),
            _ if self.types.iter().any(|kind| kind == "string") => Ok(text.into()),
            // Nobody says what is wanted.
            json if self.types.is_empty() && self.values.is_empty() => {
                Ok(json.unwrap_or_else(|_| text.into()))
            }
            Err(error) if self.types.iter().any(|kind| matches!(kind.as_str(), "object" | "array")) => {
                Err(format!("not JSON: {error}; {} is wanted", self.describe()))
            }
            _ => Err(format!("{text:?} where {} is wanted", self.describe())),
        }
    }
}

/// A value as people write it: a string without its quotes, anything else as JSON.
pub fn spelled(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn fits(kind: &str, value: &Value) -> bool {
    match kind {
        "integer" => value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|n| n.fract() == 0.0),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "array" => value.is_array(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    fn wanted(property: &Value) -> Wanted {
        let root = json!({"$defs": {
            "hash": {"type": "string", "enum": ["sha256", "sha512"]},
            "circle": {"$ref": "#/$defs/circle"},
        }});
        Wanted::of(property, &root)
    }

    /// As many ways lead through this schema as there are atoms in a house.
    #[test]
    fn a_schema_cannot_keep_us_for_ever() {
        let many = vec![json!({"$ref": "#/$defs/many"}); 1000];
        let root = json!({"$defs": {"many": {"anyOf": many, "type": "string"}}});
        let wanted = Wanted::of(&json!({"$ref": "#/$defs/many"}), &root);
        assert!(wanted.takes("string"));
    }

    #[rstest]
    #[case(json!({"type": "string"}), "007", json!("007"))]
    #[case(json!({"type": "string"}), "", json!(""))]
    #[case(json!({"type": "string"}), "true", json!("true"))]
    #[case(json!({"type": "integer"}), "-7", json!(-7))]
    #[case(json!({"type": "number"}), "1.5", json!(1.5))]
    #[case(json!({"type": "boolean"}), "true", json!(true))]
    #[case(json!({"type": "array"}), "[1, 2]", json!([1, 2]))]
    #[case(json!({"type": "object"}), r#"{"a": 1}"#, json!({"a": 1}))]
    #[case(json!({"type": ["string", "null"]}), "null", json!(null))]
    #[case(json!({"type": ["string", "null"]}), "a", json!("a"))]
    #[case(json!({"type": ["integer", "string"]}), "7", json!(7))]
    #[case(json!({"enum": ["a", 1]}), "1", json!(1))]
    #[case(json!({"anyOf": [{"$ref": "#/$defs/hash"}, {"type": "null"}]}), "sha256", json!("sha256"))]
    #[case(json!({"oneOf": [{"const": "a"}, {"const": 2}]}), "2", json!(2))]
    #[case(json!({"$ref": "#/$defs/circle"}), "7", json!(7))]
    #[case(json!({}), "plain", json!("plain"))]
    fn values_are_read_by_type(#[case] property: Value, #[case] text: &str, #[case] expected: Value) {
        assert_eq!(wanted(&property).read(text), Ok(expected));
    }

    #[rstest]
    #[case(json!({"type": "integer"}), "1.5", "\"1.5\" where integer is wanted")]
    #[case(json!({"type": "boolean"}), "yes", "\"yes\" where boolean is wanted")]
    #[case(json!({"type": ["integer", "null"]}), "x", "\"x\" where integer is wanted")]
    #[case(json!({"enum": ["a", "b"]}), "c", "\"c\" where a|b is wanted")]
    #[case(json!({"anyOf": [{"$ref": "#/$defs/hash"}, {"type": "null"}]}), "md5", "\"md5\" where sha256|sha512 is wanted")]
    fn values_of_another_type_are_refused(
        #[case] property: Value,
        #[case] text: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(wanted(&property).read(text), Err(expected.to_owned()));
    }

    #[rstest]
    #[case(json!({"type": ["integer", "null"]}), "integer")]
    #[case(json!({"$ref": "#/$defs/hash"}), "sha256|sha512")]
    #[case(json!({}), "json")]
    fn descriptions(#[case] property: Value, #[case] expected: &str) {
        assert_eq!(wanted(&property).describe(), expected);
    }
}
