//! Sidegate's own tools: looking at servers and definitions, and changing them, over MCP.
//!
//! | part | owns |
//! | --- | --- |
//! | `tools` | which tools there are, and how they describe themselves |
//! | `arguments` | what a call was given |
//! | [`Management`] | what each of them does |
//!
//! Names, texts and the shapes of results are those that users of its Go predecessor rely on. Whatever is wrong with a call is told
//! as a result with `isError`, which a model can read and act on (2025-11-25, server/tools, "Error Handling").
//!
//! Knows nothing of sessions and of how tools are listed and called.

mod arguments;
mod tools;

use std::fmt;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytestring::ByteString;
use futures_util::future::BoxFuture;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use crate::aggregator::local::LocalTools;
use crate::config::ManagementTools;
use crate::error::chain;
use crate::mcpserver::{Definitions, EditError, Invalid, SecretNames, ServerName};
use crate::reconciler::{Done, OperateError, Operator, ServerState, ServerStatus, Statuses};
use arguments::Arguments;
use tools::CoreTool;

/// How long a change waits for what becomes of its server. Clients give up on calls after a minute.
const OUTCOME: Duration = Duration::from_secs(20);

/// The tools that look at servers and definitions, and change them, as far as that is allowed.
#[derive(Debug)]
pub struct Management {
    operator: Operator,
    definitions: Definitions,
    statuses: watch::Receiver<Statuses>,
    secrets: SecretNames,
    tools: Vec<(CoreTool, ByteString)>,
}

/// What a tool has to say: the text, and the same for programs.
struct Answer {
    text: Option<String>,
    structured: Value,
}

impl Answer {
    /// A sentence for people, and values for programs.
    fn new(text: impl Into<String>, structured: Value) -> Self {
        Self { text: Some(text.into()), structured }
    }

    /// Values only; people get them as JSON.
    fn values(structured: Value) -> Self {
        Self { text: None, structured }
    }
}

/// What was wrong with a call, in words for whoever made it.
#[derive(Debug)]
struct CallError(String);

impl<E: fmt::Display> From<E> for CallError {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Management {
    /// The tools that `allowed` allows.
    pub fn new(
        allowed: ManagementTools,
        operator: Operator,
        definitions: Definitions,
        statuses: watch::Receiver<Statuses>,
        secrets: SecretNames,
    ) -> Self {
        let tools = CoreTool::ALL.into_iter().filter(|tool| tool.is_in(allowed));
        let tools = tools.map(|tool| (tool, tool.describe().to_string().into())).collect();
        Self { operator, definitions, statuses, secrets, tools }
    }

    async fn answer(&self, tool: CoreTool, arguments: &str) -> Result<Answer, CallError> {
        let arguments = Arguments::parse(arguments, &tool.arguments()).map_err(CallError)?;
        match tool {
            CoreTool::ServiceList => Ok(self.services()),
            CoreTool::ServiceStatus => self.service(arguments.name()?),
            CoreTool::ServiceStart => {
                operated(arguments.name()?, self.operator.start(arguments.name()?).await)
            }
            CoreTool::ServiceStop => operated(arguments.name()?, self.operator.stop(arguments.name()?).await),
            CoreTool::ServiceRestart => {
                operated(arguments.name()?, self.operator.restart(arguments.name()?).await)
            }
            CoreTool::ServerList => self.servers().await,
            CoreTool::ServerGet => {
                let name = server_name(&arguments)?;
                let stored = self.blocking(move |definitions| definitions.get(&name)).await?;
                let mut value = json!({"name": arguments.name()?, "file": stored.path});
                match &stored.outcome {
                    Ok(definition) => value["definition"] = definition.redacted(&self.secrets),
                    Err(invalid) => value["errors"] = mistakes(invalid),
                }
                if let Some(status) = self.statuses.borrow().get(&server_name(&arguments)?) {
                    value["status"] = service(arguments.name()?, status);
                }
                Ok(Answer::values(value))
            }
            CoreTool::ServerValidate => {
                let (name, spec) = (server_name(&arguments)?, arguments.spec());
                match self.blocking(move |definitions| definitions.validate(&name, &spec)).await {
                    Ok(_) => {
                        let text = format!("MCP server '{}' is valid", arguments.name()?);
                        Ok(Answer::new(text, json!({"valid": true, "errors": []})))
                    }
                    Err(EditError::Invalid(invalid)) => {
                        let text = format!("MCP server '{}' is not valid:\n{invalid}", arguments.name()?);
                        Ok(Answer::new(text, json!({"valid": false, "errors": mistakes(&invalid)})))
                    }
                    Err(error) => Err(CallError(chain(&error))),
                }
            }
            CoreTool::ServerCreate => {
                let (name, spec) = (server_name(&arguments)?, arguments.spec());
                let written = self.blocking(move |definitions| definitions.create(&name, &spec)).await?;
                self.changed("created", &arguments, json!({"file": written.path})).await
            }
            CoreTool::ServerUpdate => {
                let (name, patch) = (server_name(&arguments)?, arguments.spec());
                let patch = json!({"spec": patch});
                let written = self.blocking(move |definitions| definitions.update(&name, &patch)).await?;
                let details = json!({"file": written.path, "backup": written.backup});
                self.changed("updated", &arguments, details).await
            }
            CoreTool::ServerDelete => {
                let name = server_name(&arguments)?;
                let path = self.blocking(move |definitions| definitions.delete(&name)).await?;
                self.changed("deleted", &arguments, json!({"file": path})).await
            }
        }
    }

    fn services(&self) -> Answer {
        let statuses = self.statuses.borrow();
        let services: Vec<Value> =
            statuses.iter().map(|(name, status)| service(name.as_str(), status)).collect();
        Answer::values(json!({"total": services.len(), "services": services}))
    }

    fn service(&self, name: &str) -> Result<Answer, CallError> {
        let statuses = self.statuses.borrow();
        let status = ServerName::from_str(name).ok().and_then(|name| statuses.get(&name));
        let status = status.ok_or_else(|| OperateError::NotFound(name.to_owned()))?;
        Ok(Answer::values(service(name, status)))
    }

    async fn servers(&self) -> Result<Answer, CallError> {
        let scan = self.blocking(|definitions| Ok(definitions.scan())).await??;
        let statuses = self.statuses.borrow();
        let servers: Vec<Value> = scan
            .entries
            .iter()
            .filter_map(|entry| {
                let name = entry.name.as_ref()?;
                let mut value = json!({"name": name.as_str(), "file": entry.path});
                match &entry.outcome {
                    Ok(definition) => {
                        value["type"] = definition.transport.type_name().into();
                        value["autoStart"] = definition.auto_start.into();
                        value["suspended"] = definition.suspended.into();
                        if !definition.description.is_empty() {
                            value["description"] = definition.description.as_str().into();
                        }
                    }
                    Err(invalid) => value["errors"] = mistakes(invalid),
                }
                if let Some(status) = statuses.get(name) {
                    value["state"] = status.state.name().into();
                }
                Some(value)
            })
            .collect();
        Ok(Answer::values(json!({"total": servers.len(), "mcpServers": servers, "mode": "filesystem"})))
    }

    /// After a change: says so when it has been looked at.
    async fn changed(&self, what: &str, arguments: &Arguments, details: Value) -> Result<Answer, CallError> {
        self.operator.look().await?;
        let name = arguments.name()?;
        let mut structured = json!({"name": name, "result": what});
        if let (Value::Object(structured), Value::Object(details)) = (&mut structured, details) {
            structured.extend(details.into_iter().filter(|(_, value)| !value.is_null()));
        }
        let mut text = format!("MCP server '{name}' {what} successfully");
        if let Some((state, tools)) = self.outcome(&server_name(arguments)?).await {
            structured["state"] = state.name().into();
            text.push_str(&match state.reason() {
                Some(reason) => format!("; it is {state}: {reason}"),
                None if state.is_up() => format!("; it is {state}, with {}", count(tools)),
                None => format!("; it is {state}"),
            });
            if let Some(reason) = state.reason() {
                structured["error"] = reason.into();
            }
            structured["tools"] = tools.into();
        }
        Ok(Answer::new(text, structured))
    }

    /// What became of a server, or what it is on its way to after [`OUTCOME`]; `None` where there is none of that name.
    async fn outcome(&self, name: &ServerName) -> Option<(ServerState, usize)> {
        let mut statuses = self.statuses.clone();
        let is_settled =
            |statuses: &Statuses| statuses.get(name).is_none_or(|status| status.state.is_settled());
        // Whether it has settled, has not, or nobody knows any more: the last that is known is said.
        let _ = tokio::time::timeout(OUTCOME, statuses.wait_for(is_settled)).await;
        let status = self.statuses.borrow().get(name).cloned()?;
        Some((status.state, status.tools))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Definitions) -> Result<T, EditError> + Send + 'static,
    ) -> Result<T, EditError> {
        let definitions = self.definitions.clone();
        let directory = self.definitions.directory();
        match tokio::task::spawn_blocking(move || work(&definitions)).await {
            Ok(done) => done,
            // A blocking task is cut off only by the end of the runtime.
            Err(error) => Err(EditError::Io { path: directory, source: std::io::Error::other(error) }),
        }
    }
}

impl LocalTools for Management {
    fn tools(&self) -> Vec<ByteString> {
        self.tools.iter().map(|(_, description)| description.clone()).collect()
    }

    fn call<'a>(&'a self, name: &str, arguments: &'a str) -> Option<BoxFuture<'a, ByteString>> {
        let (tool, _) = self.tools.iter().find(|(tool, _)| tool.name() == name)?;
        Some(Box::pin(async move { result(self.answer(*tool, arguments).await) }))
    }
}

/// The `CallToolResult`, as JSON text.
fn result(answer: Result<Answer, CallError>) -> ByteString {
    let value = match answer {
        Ok(Answer { text, structured }) => {
            let text = text.unwrap_or_else(|| format!("{structured:#}"));
            json!({"content": [{"type": "text", "text": text}], "structuredContent": structured})
        }
        Err(CallError(text)) => json!({"content": [{"type": "text", "text": text}], "isError": true}),
    };
    value.to_string().into()
}

fn operated(name: &str, done: Result<Done, OperateError>) -> Result<Answer, CallError> {
    match done {
        Ok(done) => Ok(Answer::new(done.sentence(name), json!({"name": name, "result": done.word()}))),
        Err(error) => Err(CallError(chain(&error))),
    }
}

fn count(tools: usize) -> String {
    if tools == 1 { "1 tool".to_owned() } else { format!("{tools} tools") }
}

fn server_name(arguments: &Arguments) -> Result<ServerName, CallError> {
    Ok(ServerName::from_str(arguments.name()?)?)
}

fn mistakes(invalid: &Invalid) -> Value {
    invalid.mistakes.iter().map(ToString::to_string).collect()
}

fn service(name: &str, status: &ServerStatus) -> Value {
    let since = status.since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut metadata =
        Map::from_iter([("since".into(), since.into()), ("tools".into(), status.tools.into())]);
    if let Some((failures, _)) = status.state.next_try() {
        metadata.insert("failures".into(), failures.into());
    }
    if let Some(next) = status.next_try {
        let wait = next.duration_since(SystemTime::now()).unwrap_or_default().as_secs_f64();
        metadata.insert("retryInSeconds".into(), wait.into());
    }
    if let Some(stale) = &status.stale {
        metadata.insert("stale".into(), stale.as_str().into());
    }
    let mut value = json!({
        "name": name,
        "serviceType": "MCPServer",
        "state": status.state.name(),
        "health": health(&status.state),
        "metadata": metadata,
    });
    if let Some(reason) = status.state.reason() {
        value["error"] = reason.into();
    }
    value
}

/// In the predecessor's words.
fn health(state: &ServerState) -> &'static str {
    match state {
        ServerState::Running | ServerState::Connected => "healthy",
        ServerState::Starting | ServerState::Connecting => "checking",
        ServerState::Stopped | ServerState::Disconnected => "unknown",
        ServerState::Failed { .. }
        | ServerState::AuthRequired { .. }
        | ServerState::Degraded { .. }
        | ServerState::Invalid { .. }
        | ServerState::Unsupported { .. } => "unhealthy",
    }
}
