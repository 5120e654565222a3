//! Asking the client's user: the forms of the elicitation tools.

use rmcp::model::{ElicitRequestParams, ElicitationSchema};
use rmcp::{Peer, RoleServer};
use serde_json::{Value, json};

/// Sends the form and describes the answer as `action=…, content=…`.
pub(crate) async fn ask(peer: &Peer<RoleServer>, message: &str, form: Value) -> Result<String, String> {
    if peer.supported_elicitation_modes().is_empty() {
        return Err("the client does not support elicitation".to_owned());
    }
    let requested_schema: ElicitationSchema =
        serde_json::from_value(form).map_err(|error| format!("the form is not valid: {error}"))?;
    let request = ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: message.to_owned(),
        requested_schema,
    };
    let answer = peer.create_elicitation(request).await.map_err(|error| error.to_string())?;
    let action = serde_json::to_value(&answer.action).map_err(|error| error.to_string())?;
    let content = answer.content.unwrap_or(Value::Null);
    Ok(format!("action={}, content={content}", action.as_str().unwrap_or_default()))
}

/// Two plain fields.
pub(crate) fn contact_form() -> Value {
    json!({
        "type": "object",
        "properties": {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        },
        "required": ["username", "email"],
    })
}

/// A default for every primitive type (SEP-1034).
pub(crate) fn form_with_defaults() -> Value {
    json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "User name", "default": "John Doe"},
            "age": {"type": "integer", "description": "User age", "default": 30},
            "score": {"type": "number", "description": "User score", "default": 95.5},
            "status": {
                "type": "string",
                "description": "User status",
                "enum": ["active", "inactive", "pending"],
                "default": "active",
            },
            "verified": {"type": "boolean", "description": "Verification status", "default": true},
        },
        "required": [],
    })
}

/// Every kind of enumeration (SEP-1330).
pub(crate) fn form_with_enums() -> Value {
    json!({
        "type": "object",
        "properties": {
            "untitledSingle": {"type": "string", "enum": ["option1", "option2", "option3"]},
            "titledSingle": {
                "type": "string",
                "oneOf": [
                    {"const": "value1", "title": "First Option"},
                    {"const": "value2", "title": "Second Option"},
                    {"const": "value3", "title": "Third Option"},
                ],
            },
            "legacyEnum": {
                "type": "string",
                "enum": ["opt1", "opt2", "opt3"],
                "enumNames": ["Option One", "Option Two", "Option Three"],
            },
            "untitledMulti": {
                "type": "array",
                "items": {"type": "string", "enum": ["option1", "option2", "option3"]},
            },
            "titledMulti": {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"const": "value1", "title": "First Choice"},
                        {"const": "value2", "title": "Second Choice"},
                        {"const": "value3", "title": "Third Choice"},
                    ],
                },
            },
        },
        "required": [],
    })
}
