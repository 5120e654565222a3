//! `config.yaml` as a JSON Schema, for editors.

/// The schema of `config.yaml` (JSON Schema 2020-12). It says less than [`Settings::load`](super::Settings::load), which
/// has the last word, and refuses nothing that is right.
pub const SCHEMA: &str = include_str!("schema.json");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use serde_json::Value;

    use super::super::keys::{ALL, OUTSIDE_THE_FILE};
    use super::super::{Exposure, GatewayMode, LogLevel, ManagementTools, OtlpProtocol, Overrides, Settings};
    use super::*;
    use crate::environment::Environment;

    fn schema() -> Value {
        serde_json::from_str(SCHEMA).unwrap()
    }

    /// Every key of the schema that holds a value, by its path.
    fn leaves(schema: &Value, path: &str, into: &mut BTreeMap<String, Value>) {
        for (name, property) in schema["properties"].as_object().unwrap() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            if property["properties"].is_object() {
                assert_eq!(property["additionalProperties"], false, "{path}");
                leaves(property, &path, into);
            } else {
                into.insert(path, property.clone());
            }
        }
    }

    #[test]
    fn it_has_the_keys_and_the_defaults_of_the_settings() {
        let mut leaves_found = BTreeMap::new();
        leaves(&schema(), "", &mut leaves_found);
        let mut known: Vec<&str> =
            ALL.iter().filter(|key| !OUTSIDE_THE_FILE.contains(key)).map(|key| key.path).collect();
        known.sort_unstable();
        assert_eq!(leaves_found.keys().map(String::as_str).collect::<Vec<_>>(), known);

        let environment = Environment::from_iter([("HOME", "/h")]);
        let settings =
            Settings::load(Path::new("/nonexistent"), &environment, &Overrides::default()).unwrap();
        for described in settings.describe().iter().filter(|described| known.contains(&described.key)) {
            let property = &leaves_found[described.key];
            let default = property.get("default").unwrap_or(&schema()["$defs"]["port"]["default"]).clone();
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            assert_eq!(default, described.value, "{}", described.key);
        }
    }

    #[test]
    fn it_has_the_words_of_the_settings() {
        fn check<T>(pointer: &str, words: &[(&str, T)]) {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            assert_eq!(schema().pointer(pointer).unwrap(), &serde_json::json!(words), "{pointer}");
        }
        check("/properties/gateway/properties/mode/enum", GatewayMode::ALL);
        check("/properties/gateway/properties/logLevel/enum", LogLevel::ALL);
        check("/properties/aggregator/properties/exposure/enum", Exposure::ALL);
        check("/properties/aggregator/properties/managementTools/enum", ManagementTools::ALL);
        check("/properties/telemetry/properties/protocol/enum", OtlpProtocol::ALL);
    }

    #[test]
    fn it_judges_as_the_settings_do() {
        let validator = jsonschema::validator_for(&schema()).unwrap();
        let environment = Environment::from_iter([("HOME", "/h")]);
        let directory = tempfile::tempdir().unwrap();
        let judge = |json: &str| {
            // What is JSON is YAML, too.
            std::fs::write(directory.path().join("config.yaml"), json).unwrap();
            let right = Settings::load(directory.path(), &environment, &Overrides::default()).is_ok();
            (validator.is_valid(&serde_json::from_str(json).unwrap()), right)
        };
        for right in [
            r#"{}"#,
            r#"{"listen": "127.0.0.1:0", "gateway": {"ports": {"data": 7}, "frontendPolicies": {"a": 1}}, "drain": "1h30m"}"#,
            r#"{"aggregator": {"maxBody": 4096, "sessionIdle": "90m", "allowedHosts": ["h"]}, "redact": ["*X*"]}"#,
            r#"{"aggregator": {"maxBody": "1GB"}, "gateway": {"version": "v1.3.0-rc.1"}, "telemetry": {"gatewaySpans": true}}"#,
        ] {
            assert_eq!(judge(right), (true, true), "{right}");
        }
        for wrong in [
            r#"{"lisen": "127.0.0.1:0"}"#,
            r#"{"listen": 8090}"#,
            r#"{"gateway": {"mode": "envoy"}}"#,
            r#"{"gateway": {"ports": {"data": 70000}}}"#,
            r#"{"gateway": {"version": "latest"}}"#,
            r#"{"aggregator": {"maxSessions": 0}}"#,
            r#"{"drain": 10}"#,
            r#"{"drain": "10 s"}"#,
            r#"{"redact": "x"}"#,
        ] {
            assert_eq!(judge(wrong), (false, false), "{wrong}");
        }
    }
}
