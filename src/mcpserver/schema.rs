//! The MCPServer resource as a JSON Schema, for editors.

/// The schema of a definition file (JSON Schema 2020-12). It says less than [`Reader`](super::Reader), which has the last
/// word, and refuses nothing that is right.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::super::{auth, spec};
    use super::*;
    use crate::mcpserver::tests::reader;

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    fn keys(pointer: &str) -> Vec<String> {
        let schema = schema();
        let object = schema.pointer(pointer).unwrap();
        assert_eq!(object["additionalProperties"], false, "{pointer}");
        let mut keys: Vec<String> = object["properties"].as_object().unwrap().keys().cloned().collect();
        keys.sort_unstable();
        keys
    }

    fn sorted(known: &[&str]) -> Vec<String> {
        let mut known: Vec<String> = known.iter().map(|key| (*key).to_owned()).collect();
        known.sort_unstable();
        known
    }

    #[test]
    fn it_has_the_keys_of_the_reader() {
        assert_eq!(keys("/properties/spec"), sorted(spec::KEYS));
        assert_eq!(keys("/properties/spec/properties/family"), sorted(spec::FAMILY_KEYS));
        assert_eq!(keys("/properties/spec/properties/auth"), sorted(auth::KEYS));
        let auth = "/properties/spec/properties/auth/properties";
        assert_eq!(keys(&format!("{auth}/tokenExchange")), sorted(auth::TOKEN_EXCHANGE_KEYS));
        assert_eq!(keys(&format!("{auth}/authorizationServer")), sorted(auth::AUTHORIZATION_SERVER_KEYS));
        let none = |keys: &[&str]| -> Value {
            keys.iter().map(|key| ((*key).to_owned(), json!(false))).collect::<serde_json::Map<_, _>>().into()
        };
        assert_eq!(schema()["properties"]["spec"]["then"]["properties"], none(spec::REMOTE_ONLY));
        assert_eq!(schema()["properties"]["spec"]["else"]["properties"], none(spec::STDIO_ONLY));
    }

    #[test]
    fn it_judges_as_the_reader_does() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let judge = |spec: Value| {
            let document = json!({"apiVersion": "sidegate.dev/v1alpha1", "kind": "MCPServer", "spec": spec});
            // What is JSON is YAML, too.
            let right = reader().read(Path::new("time.yaml"), document.to_string().as_bytes()).is_ok();
            (validator.is_valid(&document), right)
        };
        for right in [
            json!({"type": "stdio", "command": "x", "args": ["a"], "env": {"A": "b"}, "inheritEnv": ["GIT_*", "*"], "cwd": "."}),
            json!({"type": "streamable-http", "url": "http://h/mcp", "headers": {"X-A": "b"}, "timeout": 300, "callTimeout": 0}),
            json!({"type": "sse", "url": "https://h", "auth": {"type": "oauth", "forwardToken": true, "requiredAudiences": ["a"]}}),
            json!({"type": "stdio", "command": "x", "family": {"name": "f", "instanceArg": "i"}, "policies": {"a": {}}, "route": "mcp"}),
        ] {
            assert_eq!(judge(right.clone()), (true, true), "{right}");
        }
        for wrong in [
            json!({}),
            json!({"type": "stdio"}),
            json!({"type": "stdio", "command": "x", "url": "http://h"}),
            json!({"type": "sse", "url": "http://h", "args": []}),
            json!({"type": "stdio", "command": "x", "comand": "y"}),
            json!({"type": "stdio", "command": "x", "args": [8080]}),
            json!({"type": "stdio", "command": "x", "timeout": 0}),
            json!({"type": "stdio", "command": "x", "toolPrefix": "1st"}),
            json!({"type": "stdio", "command": "x", "family": {"name": "f"}}),
            json!({"type": "stdio", "command": "x", "inheritEnv": ["*_KEY"]}),
            json!({"type": "websocket", "url": "http://h"}),
        ] {
            assert_eq!(judge(wrong.clone()), (false, false), "{wrong}");
        }
    }
}
