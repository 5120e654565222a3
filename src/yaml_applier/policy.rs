//! How an operator's route policies and ours become one.
//!
//! Ours win, and an operator's policy can narrow who may call a route but never widen it: agentgateway admits a call when any
//! rule of a list holds, so an operator's rules are joined to the key rule instead of standing beside it.

use serde_json::{Map, Value};

use super::cel;

/// A policy of an operator that cannot be joined with ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// The value has another shape than the one that can be joined.
    #[error("policies.{path}: expected {expected}")]
    Shape {
        /// Where, below `policies`.
        path: String,
        /// What stands there when it is right.
        expected: &'static str,
    },
    /// A rule that would not stay within the parentheses that join it with ours.
    #[error(
        "policies.authorization.rules: {rule:?} does not close each bracket and quote that it opens, and no other, \
         so it cannot be joined with the rule that keeps strangers out"
    )]
    NotEnclosed {
        /// The rule.
        rule: String,
    },
}

fn shape(path: impl Into<String>, expected: &'static str) -> PolicyError {
    PolicyError::Shape { path: path.into(), expected }
}

/// Joins `theirs` into `ours`; the order is ours first, then theirs by name.
///
/// A value is replaced in its place, never removed: removal would disturb the order.
pub(super) fn join(
    mut ours: Map<String, Value>,
    theirs: &Map<String, Value>,
) -> Result<Map<String, Value>, PolicyError> {
    let mut names: Vec<_> = theirs.iter().filter(|(_, value)| !value.is_null()).collect();
    names.sort_by(|a, b| a.0.cmp(b.0));
    for (name, value) in names {
        let own = ours.get(name).cloned();
        let joined = match name.as_str() {
            "authorization" => join_authorization(own, value)?,
            "requestHeaderModifier" | "responseHeaderModifier" => join_headers(name, own, value, &[])?,
            "transformations" => join_transformations(own, value)?,
            // Ours is empty: it says only that TLS is spoken.
            "backendTLS" => value.clone(),
            _ => own.unwrap_or_else(|| value.clone()),
        };
        ours.insert(name.clone(), joined);
    }
    Ok(ours)
}

/// `ours && (theirs[0] || theirs[1] || …)`.
fn join_authorization(ours: Option<Value>, theirs: &Value) -> Result<Value, PolicyError> {
    const EXPECTED: &str = "a list of CEL expressions";
    let rules = |value: &Value| -> Result<Vec<String>, PolicyError> {
        let list = value
            .get("rules")
            .and_then(Value::as_array)
            .ok_or_else(|| shape("authorization.rules", EXPECTED))?;
        list.iter()
            .map(|rule| {
                rule.as_str().map(str::to_owned).ok_or_else(|| shape("authorization.rules", EXPECTED))
            })
            .collect()
    };
    let theirs_alone = rules(theirs)?;
    if let Some(rule) = theirs_alone.iter().find(|rule| !cel::is_enclosed(rule)) {
        return Err(PolicyError::NotEnclosed { rule: rule.clone() });
    }
    let (ours, theirs) = (ours.as_ref().map(rules).transpose()?.unwrap_or_default(), theirs_alone);
    let any =
        |rules: &[String]| rules.iter().map(|rule| format!("({rule})")).collect::<Vec<_>>().join(" || ");
    let rule = match (ours.as_slice(), theirs.as_slice()) {
        ([], _) | (_, []) => any(&[ours, theirs].concat()),
        ([key], theirs) => format!("{key} && ({})", any(theirs)),
        (ours, theirs) => format!("({}) && ({})", any(ours), any(theirs)),
    };
    Ok(serde_json::json!({ "rules": [rule] }))
}

/// Joins `{set, add, remove}`: an operator's entry for a header that is ours is left out.
fn join_headers(
    path: &str,
    ours: Option<Value>,
    theirs: &Value,
    taken: &[&str],
) -> Result<Value, PolicyError> {
    let theirs = theirs.as_object().ok_or_else(|| shape(path, "a mapping"))?;
    let reserved = |header: &str| {
        header.get(..11).is_some_and(|start| start.eq_ignore_ascii_case("x-sidegate-"))
            || taken.iter().any(|name| header.eq_ignore_ascii_case(name))
    };
    let mut joined = match ours {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for (action, value) in theirs {
        match (value, joined.get_mut(action)) {
            (Value::Null, _) => {}
            (Value::Object(theirs), own) => {
                let theirs = theirs
                    .iter()
                    .filter(|(header, _)| !reserved(header))
                    .map(|(k, v)| (k.clone(), v.clone()));
                match own.and_then(Value::as_object_mut) {
                    Some(own) => own.extend(theirs),
                    None => drop(joined.insert(action.clone(), Value::Object(theirs.collect()))),
                }
            }
            (Value::Array(theirs), own) => {
                let theirs = theirs
                    .iter()
                    .filter(|header| header.as_str().is_none_or(|name| !reserved(name)))
                    .cloned();
                match own.and_then(Value::as_array_mut) {
                    Some(own) => own.extend(theirs),
                    None => drop(joined.insert(action.clone(), Value::Array(theirs.collect()))),
                }
            }
            // `body` of a transformation; anything else is for the gateway's own validation to name.
            (other, _) => drop(joined.insert(action.clone(), other.clone())),
        }
    }
    Ok(Value::Object(joined))
}

fn join_transformations(ours: Option<Value>, theirs: &Value) -> Result<Value, PolicyError> {
    const EXPECTED: &str = "a mapping of request and response";
    let theirs = theirs.as_object().ok_or_else(|| shape("transformations", EXPECTED))?;
    let mut joined = match ours {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    };
    for (side, value) in theirs.iter().filter(|(_, value)| !value.is_null()) {
        let own = joined.get(side).cloned();
        let taken: &[&str] = if own.is_some() { &["traceparent"] } else { &[] };
        let value = match side.as_str() {
            "request" | "response" => join_headers(&format!("transformations.{side}"), own, value, taken)?,
            _ => return Err(shape("transformations", EXPECTED)),
        };
        joined.insert(side.clone(), value);
    }
    Ok(Value::Object(joined))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn joined(ours: Value, theirs: Value) -> Result<Value, PolicyError> {
        join(ours.as_object().unwrap().clone(), theirs.as_object().unwrap()).map(Value::Object)
    }

    #[test]
    fn rules_of_an_operator_never_admit_a_call_without_the_key() {
        let ours = json!({"authorization": {"rules": ["key"]}});
        let theirs = json!({"authorization": {"rules": ["true", "a || b"]}});
        assert_eq!(
            joined(ours.clone(), theirs).unwrap(),
            json!({"authorization": {"rules": ["key && ((true) || (a || b))"]}})
        );
        assert_eq!(
            joined(ours.clone(), json!({"authorization": {"rules": []}})).unwrap(),
            json!({"authorization": {"rules": ["(key)"]}})
        );
        let escaping = json!({"authorization": {"rules": ["a", "true)) || ((true"]}});
        let error = joined(ours.clone(), escaping).unwrap_err();
        assert!(matches!(&error, PolicyError::NotEnclosed { rule } if rule == "true)) || ((true"), "{error}");
        let error = joined(ours, json!({"authorization": {"rules": [{"allow": "true"}]}})).unwrap_err();
        assert_eq!(error.to_string(), "policies.authorization.rules: expected a list of CEL expressions");
    }

    #[test]
    fn headers_of_ours_cannot_be_taken_away_or_forged() {
        let ours = json!({"responseHeaderModifier": {"set": {"x-sidegate-route": "a"}}});
        let theirs = json!({"responseHeaderModifier": {
            "set": {"X-Sidegate-Route": "b", "x-team": "core"}, "add": {"x-sidegate-route": "c"}, "remove": ["X-SIDEGATE-ROUTE", "server"],
        }});
        assert_eq!(
            joined(ours, theirs).unwrap(),
            json!({"responseHeaderModifier": {
                "set": {"x-sidegate-route": "a", "x-team": "core"}, "add": {}, "remove": ["server"],
            }})
        );
    }

    #[test]
    fn the_trace_context_stays_ours() {
        let ours = json!({"transformations": {"request": {"set": {"traceparent": "ours"}, "remove": ["x-sidegate-traceparent"]}}});
        let theirs = json!({"transformations": {"request": {"set": {"Traceparent": "theirs", "x-a": "1"}}, "response": {"set": {"x-b": "2"}}}});
        assert_eq!(
            joined(ours, theirs).unwrap(),
            json!({"transformations": {
                "request": {"set": {"traceparent": "ours", "x-a": "1"}, "remove": ["x-sidegate-traceparent"]},
                "response": {"set": {"x-b": "2"}},
            }})
        );
        assert!(joined(json!({}), json!({"transformations": {"conditional": []}})).is_err());
    }

    #[test]
    fn other_policies_pass_and_the_rewrite_stays_ours() {
        let ours = json!({"urlRewrite": {"path": {"full": "/mcp"}}, "backendTLS": {}});
        let theirs = json!({"urlRewrite": {"path": {"prefix": "/"}}, "timeout": {"requestTimeout": "5s"}, "backendTLS": {"insecure": true}});
        assert_eq!(
            joined(ours, theirs).unwrap(),
            json!({"urlRewrite": {"path": {"full": "/mcp"}}, "timeout": {"requestTimeout": "5s"}, "backendTLS": {"insecure": true}})
        );
    }
}
