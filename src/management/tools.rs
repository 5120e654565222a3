//! Which tools there are, and how they describe themselves.

use serde_json::{Map, Value, json};

use super::arguments::NAME;
use crate::config::ManagementTools;
use crate::mcpserver::SCHEMA;

/// One of our own tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CoreTool {
    ServiceList,
    ServiceStatus,
    ServiceStart,
    ServiceStop,
    ServiceRestart,
    ServerList,
    ServerGet,
    ServerValidate,
    ServerCreate,
    ServerUpdate,
    ServerDelete,
}

/// What a tool may do to what there is; in the words of MCP's annotations (2025-11-25, schema, `ToolAnnotations`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    /// Nothing.
    None,
    /// It changes something, and can be undone.
    Change,
    /// It destroys something.
    Destruction,
}

impl CoreTool {
    pub(super) const ALL: [Self; 11] = [
        Self::ServiceList,
        Self::ServiceStatus,
        Self::ServiceStart,
        Self::ServiceStop,
        Self::ServiceRestart,
        Self::ServerList,
        Self::ServerGet,
        Self::ServerValidate,
        Self::ServerCreate,
        Self::ServerUpdate,
        Self::ServerDelete,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ServiceList => "core_service_list",
            Self::ServiceStatus => "core_service_status",
            Self::ServiceStart => "core_service_start",
            Self::ServiceStop => "core_service_stop",
            Self::ServiceRestart => "core_service_restart",
            Self::ServerList => "core_mcpserver_list",
            Self::ServerGet => "core_mcpserver_get",
            Self::ServerValidate => "core_mcpserver_validate",
            Self::ServerCreate => "core_mcpserver_create",
            Self::ServerUpdate => "core_mcpserver_update",
            Self::ServerDelete => "core_mcpserver_delete",
        }
    }

    /// Whether it is there where this much is allowed.
    pub(super) fn is_in(self, allowed: ManagementTools) -> bool {
        let least = match self {
            Self::ServiceList
            | Self::ServiceStatus
            | Self::ServerList
            | Self::ServerGet
            | Self::ServerValidate => return allowed != ManagementTools::Off,
            Self::ServiceStart | Self::ServiceStop | Self::ServiceRestart => ManagementTools::Lifecycle,
            Self::ServerCreate | Self::ServerUpdate | Self::ServerDelete => ManagementTools::Full,
        };
        allowed == least || allowed == ManagementTools::Full
    }

    fn title_and_description(self) -> (&'static str, &'static str) {
        match self {
            Self::ServiceList => {
                ("List services", "Lists all MCP servers with state, health and number of tools.")
            }
            Self::ServiceStatus => {
                ("Show a service", "Shows state, health and last error of one MCP server.")
            }
            Self::ServiceStart => (
                "Start a service",
                "Starts an MCP server that is stopped, and returns when its tools can be called.",
            ),
            Self::ServiceStop => (
                "Stop a service",
                "Stops an MCP server and takes its tools away. It stays stopped until it is started again.",
            ),
            Self::ServiceRestart => (
                "Restart a service",
                "Opens a new session with an MCP server; one that is a process gets a new one.",
            ),
            Self::ServerList => ("List MCP servers", "Lists the definitions of all MCP servers."),
            Self::ServerGet => {
                ("Show an MCP server", "Shows the definition of one MCP server, without its secrets.")
            }
            Self::ServerValidate => {
                ("Check a definition", "Checks the definition of an MCP server, and writes nothing.")
            }
            Self::ServerCreate => (
                "Define an MCP server",
                "Defines a new MCP server. A stdio server is a command that is run on this machine.",
            ),
            Self::ServerUpdate => (
                "Change an MCP server",
                "Changes keys of a definition; those that are not given stay as they are, null clears one.",
            ),
            Self::ServerDelete => {
                ("Remove an MCP server", "Removes the definition of an MCP server, and its tools.")
            }
        }
    }

    fn effect(self) -> Effect {
        match self {
            Self::ServiceList
            | Self::ServiceStatus
            | Self::ServerList
            | Self::ServerGet
            | Self::ServerValidate => Effect::None,
            Self::ServiceStart | Self::ServerCreate => Effect::Change,
            Self::ServiceStop | Self::ServiceRestart | Self::ServerUpdate | Self::ServerDelete => {
                Effect::Destruction
            }
        }
    }

    /// Called twice with the same arguments, the second time does nothing.
    fn is_idempotent(self) -> bool {
        !matches!(self, Self::ServiceRestart | Self::ServerCreate | Self::ServerDelete)
    }

    /// The names of its arguments.
    pub(super) fn arguments(self) -> Vec<String> {
        let schema = self.input_schema();
        let properties = schema["properties"].as_object();
        properties.map(|properties| properties.keys().cloned().collect()).unwrap_or_default()
    }

    fn input_schema(self) -> Value {
        let name = json!({
            "type": "string",
            "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
            "maxLength": 63,
            "description": "The name of an MCP server.",
        });
        let mut properties = Map::from_iter([(NAME.to_owned(), name)]);
        let mut required = vec![NAME];
        // A definition is described in one place.
        let definition: Value = serde_json::from_str(SCHEMA).unwrap_or_default();
        let spec = definition["properties"]["spec"]["properties"].as_object().cloned().unwrap_or_default();
        match self {
            Self::ServiceList | Self::ServerList => {
                return json!({"type": "object", "properties": {}, "additionalProperties": false});
            }
            Self::ServiceStatus
            | Self::ServiceStart
            | Self::ServiceStop
            | Self::ServiceRestart
            | Self::ServerGet
            | Self::ServerDelete => {}
            Self::ServerValidate | Self::ServerCreate => {
                required.push("type");
                properties.extend(spec);
            }
            Self::ServerUpdate => properties.extend(
                spec.into_iter().map(|(key, schema)| (key, json!({"anyOf": [schema, {"type": "null"}]}))),
            ),
        }
        let mut schema = json!({
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        });
        if schema["properties"].as_object().is_some_and(|properties| properties.len() > 1) {
            schema["$defs"] = definition["$defs"].clone();
        }
        schema
    }

    /// Its entry in `tools/list`.
    pub(super) fn describe(self) -> Value {
        let (title, description) = self.title_and_description();
        let effect = self.effect();
        json!({
            "name": self.name(),
            "title": title,
            "description": description,
            "inputSchema": self.input_schema(),
            "annotations": {
                "readOnlyHint": effect == Effect::None,
                "destructiveHint": effect == Effect::Destruction,
                "idempotentHint": self.is_idempotent(),
                "openWorldHint": false,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(allowed: ManagementTools) -> Vec<&'static str> {
        CoreTool::ALL.into_iter().filter(|tool| tool.is_in(allowed)).map(CoreTool::name).collect()
    }

    #[test]
    fn what_is_allowed_grows() {
        assert_eq!(names(ManagementTools::Off), Vec::<&str>::new());
        let read = [
            "core_service_list",
            "core_service_status",
            "core_mcpserver_list",
            "core_mcpserver_get",
            "core_mcpserver_validate",
        ];
        assert_eq!(names(ManagementTools::Read), read);
        let lifecycle = names(ManagementTools::Lifecycle);
        assert_eq!(lifecycle.len(), 8);
        assert!(lifecycle.contains(&"core_service_stop") && !lifecycle.contains(&"core_mcpserver_create"));
        assert_eq!(names(ManagementTools::Full).len(), 11);
    }

    #[test]
    fn schemas_are_schemas() {
        for tool in CoreTool::ALL {
            let schema = tool.input_schema();
            jsonschema::draft202012::meta::validate(&schema).unwrap();
            let validator = jsonschema::validator_for(&schema).unwrap();
            let good = match tool {
                CoreTool::ServiceList | CoreTool::ServerList => json!({}),
                CoreTool::ServerCreate | CoreTool::ServerValidate => {
                    json!({"name": "a", "type": "stdio", "command": "x", "toolPrefix": "t"})
                }
                CoreTool::ServerUpdate => json!({"name": "a", "toolPrefix": null, "timeout": 5}),
                _ => json!({"name": "a"}),
            };
            assert!(validator.is_valid(&good), "{tool:?}");
            assert!(!validator.is_valid(&json!({"name": "a", "nmae": "b"})), "{tool:?}");
        }
    }
}
