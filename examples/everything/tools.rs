//! The tools: `test_…` for the conformance suite, the rest for Sidegate's own tests.
#![expect(
    deprecated,
    reason = "logging and sampling are deprecated by SEP-2577 only for protocols after those tested here"
)]

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CallToolResult, ContentBlock, CreateMessageRequestParams, JsonObject, LoggingLevel,
    LoggingMessageNotificationParam, ProgressNotificationParam, ResourceContents, SamplingMessage,
};
use rmcp::schemars::{self, JsonSchema};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, tool, tool_router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::elicitation;
use crate::http::PostStream;
use crate::resources;
use crate::server::Everything;

/// Between two notifications of one call: long enough that they leave in separate writes.
const STEP: Duration = Duration::from_millis(50);

#[derive(Debug, Deserialize, JsonSchema)]
struct Sampling {
    /// The prompt to send to the model
    prompt: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Elicitation {
    /// The message to show the user
    message: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Named {
    name: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Located {
    uri: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Sleep {
    /// Milliseconds
    ms: u64,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Crash {
    /// The process's exit code
    code: i32,
}

#[derive(Debug, Deserialize, JsonSchema)]
struct Stderr {
    text: String,
}

#[tool_router(vis = "pub(crate)")]
impl Everything {
    /// Return a fixed text.
    #[tool(name = "test_simple_text")]
    async fn simple_text(&self) -> String {
        "This is a simple text response for testing.".to_owned()
    }

    /// Return a picture.
    #[tool(name = "test_image_content")]
    async fn image_content(&self) -> CallToolResult {
        CallToolResult::success(vec![ContentBlock::image(resources::PNG, "image/png")])
    }

    /// Return a sound.
    #[tool(name = "test_audio_content")]
    async fn audio_content(&self) -> CallToolResult {
        CallToolResult::success(vec![ContentBlock::audio(resources::WAV, "audio/wav")])
    }

    /// Return an embedded resource.
    #[tool(name = "test_embedded_resource")]
    async fn embedded_resource(&self) -> CallToolResult {
        let resource =
            ResourceContents::text("This is an embedded resource content.", "test://embedded-resource");
        CallToolResult::success(vec![ContentBlock::resource(resource)])
    }

    /// Return a text, a picture and a resource at once.
    #[tool(name = "test_multiple_content_types")]
    async fn multiple_content_types(&self) -> CallToolResult {
        let resource =
            ResourceContents::text(r#"{"test":"data","value":123}"#, "test://mixed-content-resource");
        CallToolResult::success(vec![
            ContentBlock::text("Multiple content types test:"),
            ContentBlock::image(resources::PNG, "image/png"),
            ContentBlock::resource(resource.with_mime_type("application/json")),
        ])
    }

    /// Send three log messages while running.
    #[tool(name = "test_tool_with_logging")]
    async fn with_logging(&self, context: RequestContext<RoleServer>) -> Result<String, String> {
        for (step, text) in
            ["Tool execution started", "Tool processing data", "Tool execution completed"].iter().enumerate()
        {
            if step > 0 {
                tokio::time::sleep(STEP).await;
            }
            if self.wants(LoggingLevel::Info) {
                let message = LoggingMessageNotificationParam::new(LoggingLevel::Info, json!(text))
                    .with_logger("everything");
                context.peer.notify_logging_message(message).await.map_err(|error| error.to_string())?;
            }
        }
        Ok("Tool with logging executed successfully".to_owned())
    }

    /// Report progress three times while running, if the caller gave a token.
    #[tool(name = "test_tool_with_progress")]
    async fn with_progress(&self, context: RequestContext<RoleServer>) -> Result<String, String> {
        for (step, progress) in [0.0, 50.0, 100.0].into_iter().enumerate() {
            if step > 0 {
                tokio::time::sleep(STEP).await;
            }
            if let Some(token) = context.meta.get_progress_token() {
                let report = ProgressNotificationParam::new(token, progress)
                    .with_total(100.0)
                    .with_message(format!("Completed {progress} of 100"));
                context.peer.notify_progress(report).await.map_err(|error| error.to_string())?;
            }
        }
        Ok("Tool with progress executed successfully".to_owned())
    }

    /// Always fail.
    #[tool(name = "test_error_handling")]
    async fn error_handling(&self) -> Result<String, String> {
        Err("This tool intentionally returns an error for testing".to_owned())
    }

    /// Ask the client's model.
    #[tool(name = "test_sampling")]
    async fn sampling(
        &self,
        Parameters(Sampling { prompt }): Parameters<Sampling>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, String> {
        if context.client_capabilities().is_none_or(|capabilities| capabilities.sampling.is_none()) {
            return Err("the client does not support sampling".to_owned());
        }
        let request = CreateMessageRequestParams::new(vec![SamplingMessage::user_text(prompt)], 100);
        let answer = context.peer.create_message(request).await.map_err(|error| error.to_string())?;
        let text = answer.message.content.first().and_then(|block| block.as_text());
        Ok(format!("LLM response: {}", text.map_or("no text", |text| &text.text)))
    }

    /// Ask the client's user for a name and an address.
    #[tool(name = "test_elicitation")]
    async fn elicitation(
        &self,
        Parameters(Elicitation { message }): Parameters<Elicitation>,
        context: RequestContext<RoleServer>,
    ) -> Result<String, String> {
        let answer = elicitation::ask(&context.peer, &message, elicitation::contact_form()).await?;
        Ok(format!("User response: {answer}"))
    }

    /// Ask the client's user with a form that has a default for every primitive type (SEP-1034).
    #[tool(name = "test_elicitation_sep1034_defaults")]
    async fn elicitation_with_defaults(&self, context: RequestContext<RoleServer>) -> Result<String, String> {
        let form = elicitation::form_with_defaults();
        let answer = elicitation::ask(&context.peer, "Please review the defaults", form).await?;
        Ok(format!("Elicitation completed: {answer}"))
    }

    /// Ask the client's user with a form that has every kind of enumeration (SEP-1330).
    #[tool(name = "test_elicitation_sep1330_enums")]
    async fn elicitation_with_enums(&self, context: RequestContext<RoleServer>) -> Result<String, String> {
        let form = elicitation::form_with_enums();
        let answer = elicitation::ask(&context.peer, "Please choose", form).await?;
        Ok(format!("Elicitation completed: {answer}"))
    }

    /// Tool with JSON Schema 2020-12 features.
    #[tool(name = "json_schema_2020_12_tool", input_schema = json_schema_2020_12())]
    async fn json_schema_tool(&self, Parameters(arguments): Parameters<JsonObject>) -> String {
        format!("Called with {}", Value::Object(arguments))
    }

    /// End the POST stream before the result is there, and send the result when the client has come back (SEP-1699).
    #[tool(name = "test_reconnection")]
    async fn reconnection(&self, context: RequestContext<RoleServer>) -> Result<String, String> {
        match context.extensions.get::<PostStream>() {
            Some(stream) => stream.interrupt(STEP).await?,
            None => return Ok("This transport has no streams to reconnect".to_owned()),
        }
        Ok("Reconnection test completed successfully".to_owned())
    }

    /// Return the arguments, whatever they are, as text and as structured content.
    #[tool]
    async fn echo(&self, Parameters(arguments): Parameters<JsonObject>) -> CallToolResult {
        CallToolResult::structured(Value::Object(arguments))
    }

    /// Return the value of one of this process's environment variables, or null.
    #[tool]
    async fn env(&self, Parameters(Named { name }): Parameters<Named>) -> CallToolResult {
        let value = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        CallToolResult::structured(json!({ "value": value }))
    }

    /// Return this process's id.
    #[tool]
    async fn pid(&self) -> CallToolResult {
        CallToolResult::structured(json!({ "pid": std::process::id() }))
    }

    /// Wait until the time is over or the call is cancelled.
    #[tool]
    async fn sleep(
        &self,
        Parameters(Sleep { ms }): Parameters<Sleep>,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResult, String> {
        let sleeper = self.shared.sleepers.enter();
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(ms)) => {
                Ok(CallToolResult::structured(json!({ "slept": ms })))
            }
            () = context.ct.cancelled() => {
                sleeper.cancelled();
                Err("cancelled".to_owned())
            }
        }
    }

    /// Return how many `sleep` calls run now, ran at once at most, and were cancelled.
    #[tool]
    async fn sleep_counts(&self) -> CallToolResult {
        CallToolResult::structured(json!(self.shared.sleepers.counts()))
    }

    /// Add a tool that says its name, and tell every client.
    #[tool]
    async fn add_tool(&self, Parameters(Named { name }): Parameters<Named>) -> Result<String, String> {
        if !self.shared.add_tool(&name) {
            return Err(format!("there is a tool {name} already"));
        }
        self.shared.announce_tools().await;
        Ok(format!("added {name}"))
    }

    /// Remove a tool that was added, and tell every client.
    #[tool]
    async fn remove_tool(&self, Parameters(Named { name }): Parameters<Named>) -> Result<String, String> {
        if !self.shared.remove_tool(&name) {
            return Err(format!("no tool {name} was added"));
        }
        self.shared.announce_tools().await;
        Ok(format!("removed {name}"))
    }

    /// Say to every subscriber that a resource changed; return how many there are.
    #[tool]
    async fn touch_resource(&self, Parameters(Located { uri }): Parameters<Located>) -> CallToolResult {
        let subscribers = self.shared.announce_update(&uri).await;
        CallToolResult::structured(json!({ "subscribers": subscribers }))
    }

    /// End this process at once.
    #[tool]
    async fn crash(&self, Parameters(Crash { code }): Parameters<Crash>) -> String {
        #[expect(clippy::disallowed_methods, reason = "an end without destructors is what this tool is for")]
        std::process::exit(code)
    }

    /// Write a line to this process's standard error.
    #[tool]
    async fn stderr(&self, Parameters(Stderr { text }): Parameters<Stderr>) -> Result<String, String> {
        writeln!(std::io::stderr(), "{text}").map_err(|error| error.to_string())?;
        Ok("written".to_owned())
    }
}

fn json_schema_2020_12() -> Arc<JsonObject> {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "$defs": {
            "address": {
                "type": "object",
                "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
            },
        },
        "properties": {
            "name": {"type": "string"},
            "address": {"$ref": "#/$defs/address"},
        },
        "additionalProperties": false,
    });
    Arc::new(schema.as_object().cloned().unwrap_or_default())
}
