//! The MCP handler: dispatch to tools, prompts and resources, and the small protocol features.
#![expect(
    deprecated,
    reason = "logging is deprecated by SEP-2577 only for protocols after those tested here"
)]

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rmcp::handler::server::router::prompt::PromptRouter;
use rmcp::handler::server::router::tool::ToolRouter;
use rmcp::handler::server::tool::ToolCallContext;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CompleteRequestParams, CompleteResult,
    CompletionInfo, ContentBlock, Implementation, JsonObject, ListResourceTemplatesResult,
    ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, SetLevelRequestParams,
    SubscribeRequestParams, Tool, UnsubscribeRequestParams,
};
use rmcp::service::{NotificationContext, RequestContext};
use rmcp::{ErrorData, RoleServer, ServerHandler, prompt_handler};
use serde_json::json;

use crate::resources;
use crate::state::{Session, Shared, lock};

#[derive(Debug)]
pub(crate) struct Everything {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<Session>,
    tools: ToolRouter<Self>,
    prompts: PromptRouter<Self>,
}

impl Everything {
    /// A handler for one session.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, session: Arc::default(), tools: Self::tool_router(), prompts: Self::prompt_router() }
    }

    /// Whether the client asked for log messages of this level.
    pub(crate) fn wants(&self, level: LoggingLevel) -> bool {
        severity(level) >= self.session.log_threshold.load(Ordering::Relaxed)
    }
}

#[prompt_handler(router = self.prompts)]
impl ServerHandler for Everything {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_logging()
            .enable_completions()
            .enable_prompts()
            .enable_resources()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .build();
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new("everything", env!("CARGO_PKG_VERSION")))
            .with_instructions("One of everything in the protocol, for tests.")
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.shared.register(context.peer, Arc::clone(&self.session));
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut tools = self.tools.list_all();
        tools.extend(self.shared.extra_tools().into_iter().map(extra_tool));
        Ok(ListToolsResult::with_all_items(tools))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.tools
            .get(name)
            .cloned()
            .or_else(|| self.shared.has_extra_tool(name).then(|| extra_tool(name.to_owned())))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        if self.shared.has_extra_tool(&request.name) {
            let called = ContentBlock::text(format!("{} was called", request.name));
            return Ok(CallToolResult::success(vec![called]).into());
        }
        self.tools.call(ToolCallContext::new(self, request, context)).await
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list()))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        match resources::read(&request.uri) {
            Some(contents) => Ok(ReadResourceResult::new(vec![contents]).into()),
            None => {
                Err(ErrorData::resource_not_found("no such resource", Some(json!({ "uri": request.uri }))))
            }
        }
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        lock(&self.session.subscriptions).insert(request.uri);
        Ok(())
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        lock(&self.session.subscriptions).remove(&request.uri);
        Ok(())
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let matching = ["paris", "park", "party", "tokyo"]
            .into_iter()
            .filter(|word| word.starts_with(&request.argument.value))
            .map(str::to_owned)
            .collect();
        let completion = CompletionInfo::with_all_values(matching)
            .map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(completion))
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.session.log_threshold.store(severity(request.level), Ordering::Relaxed);
        Ok(())
    }
}

fn extra_tool(name: String) -> Tool {
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    Tool::new(name, "A tool that says its name.", schema)
}

fn severity(level: LoggingLevel) -> usize {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}
