//! Definitions as JSON values: what tools send, what an update merges, what a new file is written from.

use serde_json::{Map, Value, json};

use super::{ServerName, spec};
use crate::yaml::emit;

/// The version of the resource that is written.
pub const API_VERSION: &str = "sidegate.dev/v1alpha1";

/// The kind of the resource.
pub const KIND: &str = "MCPServer";

/// The keys of the resource itself, in the order in which they are written.
const ENVELOPE: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// The whole resource `name`, of which `value` is either all or the `spec`.
///
/// What is missing in the envelope is added; what is wrong stays, for the validator.
pub(super) fn complete(name: &ServerName, value: &Value) -> Value {
    let mut resource = if is_resource(value) { value.clone() } else { json!({"spec": value}) };
    if let Value::Object(fields) = &mut resource {
        fields.entry("apiVersion").or_insert_with(|| API_VERSION.into());
        fields.entry("kind").or_insert_with(|| KIND.into());
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if metadata.is_null() {
            *metadata = json!({});
        }
        if let Value::Object(metadata) = metadata {
            metadata.entry("name").or_insert_with(|| name.as_str().into());
        }
    }
    resource
}

/// Whether a value, or a patch, is of the whole resource and not of its `spec`.
fn is_resource(value: &Value) -> bool {
    ENVELOPE.iter().any(|key| value.get(key).is_some())
}

/// A patch of the whole resource.
pub(super) fn complete_patch(patch: &Value) -> Value {
    if is_resource(patch) || !patch.is_object() { patch.clone() } else { json!({"spec": patch}) }
}

/// RFC 7396: objects are merged, `null` removes, everything else takes the place of what was there.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.shift_remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

/// The text of a new file: the keys that are set, in the order in which the documentation has them.
pub(super) fn render(resource: &Value) -> String {
    let mut text = String::new();
    for (key, value) in ordered(resource, &ENVELOPE) {
        match value {
            Value::Object(spec) if key == "spec" && !spec.is_empty() => {
                text.push_str("spec:\n");
                for (key, value) in ordered(value, spec::KEYS) {
                    emit::entry(&mut text, key, value, 2);
                }
            }
            value => emit::entry(&mut text, key, value, 0),
        }
    }
    text
}

/// The entries that are not null, those in `order` first.
fn ordered<'v>(value: &'v Value, order: &[&str]) -> Vec<(&'v str, &'v Value)> {
    let entries = value.as_object().into_iter().flatten();
    let mut entries: Vec<_> =
        entries.filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value)).collect();
    entries.sort_by_key(|(key, _)| order.iter().position(|known| known == key).unwrap_or(order.len()));
    entries
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[rstest]
    #[case(json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"}))]
    #[case(json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"}))]
    #[case(json!({"a":"b"}), json!({"a":null}), json!({}))]
    #[case(json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"}))]
    #[case(json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"}))]
    #[case(json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]}))]
    #[case(json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}}))]
    #[case(json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]}))]
    #[case(json!(["a","b"]), json!(["c","d"]), json!(["c","d"]))]
    #[case(json!({"a":"b"}), json!(["c"]), json!(["c"]))]
    #[case(json!({"a":"foo"}), json!(null), json!(null))]
    #[case(json!({"a":"foo"}), json!("bar"), json!("bar"))]
    #[case(json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1}))]
    #[case(json!([1,2]), json!({"a":"b","c":null}), json!({"a":"b"}))]
    #[case(json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}}))]
    fn patches_merge(#[case] mut target: Value, #[case] patch: Value, #[case] expected: Value) {
        merge(&mut target, &patch);
        assert_eq!(target, expected);
    }

    #[test]
    fn a_file_has_the_order_of_the_documentation() {
        let spec = json!({
            "timeout": 5, "env": {"TZ": "${TZ:-UTC}", "PORT": "8080"}, "args": ["mcp-server-time", "--local-timezone=Europe/Berlin"],
            "type": "stdio", "command": "uvx", "description": "What time is it?", "suspended": null,
            "family": {"name": "clocks", "instanceArg": "zone"}, "policies": {"timeout": {"requestTimeout": "5s"}},
        });
        insta::assert_snapshot!(render(&complete(&"time".parse().unwrap(), &spec)));
    }

    #[rstest]
    #[case(json!({"type": "stdio"}), json!({"spec": {"type": "stdio"}, "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}}))]
    #[case(json!({"metadata": {"labels": {}}, "spec": 1}), json!({"metadata": {"labels": {}, "name": "a"}, "spec": 1, "apiVersion": API_VERSION, "kind": KIND}))]
    #[case(json!({"kind": "Other", "metadata": 1}), json!({"kind": "Other", "metadata": 1, "apiVersion": API_VERSION}))]
    #[case(json!(5), json!({"spec": 5, "apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "a"}}))]
    fn resources_are_completed(#[case] value: Value, #[case] expected: Value) {
        assert_eq!(complete(&"a".parse().unwrap(), &value), expected);
    }
}
