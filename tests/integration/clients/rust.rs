//! The round of the Rust SDK's client.
#![expect(
    deprecated,
    reason = "logging, sampling and subscriptions are deprecated by SEP-2577 only for protocols after those tested here"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use rmcp::handler::client::ClientHandler;
use rmcp::model::{
    ArgumentInfo, CallToolRequest, CallToolRequestParams, ClientCapabilities, ClientConfig, ClientRequest,
    CompleteRequestParams, CompletionContext, CreateMessageRequestParams, CreateMessageResult,
    ElicitRequestParams, ElicitResult, ElicitationAction, ErrorCode, GetPromptRequestParams, Implementation,
    JsonObject, LoggingLevel, LoggingMessageNotificationParam, PingRequest, ProgressNotificationParam,
    ReadResourceRequestParams, Reference, ResourceUpdatedNotificationParam, SamplingMessage,
    SetLevelRequestParams, SubscribeRequestParams, UnsubscribeRequestParams,
};
use rmcp::service::{
    NotificationContext, PeerRequestOptions, RequestContext, RoleClient, RunningService, ServiceError,
};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ErrorData, ServiceExt, object};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::super::support::{eventually, within};

const WATCHED: &str = "test://watched-resource";

/// What a client was told outside of answers.
#[derive(Debug, PartialEq)]
enum Heard {
    Progress(f64, Option<f64>),
    Log(LoggingLevel, Value),
    Updated(String),
    Changed(&'static str),
}

/// Writes down what it hears, and answers what it is asked.
struct Host(mpsc::UnboundedSender<Heard>);

impl Host {
    fn hear(&self, heard: Heard) {
        self.0.send(heard).unwrap();
    }
}

impl ClientHandler for Host {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_sampling().enable_elicitation().build();
        ClientConfig::new(capabilities, Implementation::new("round", "1"))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let asked = params.messages[0].content.first().and_then(|block| block.as_text()).unwrap();
        let answer = SamplingMessage::assistant_text(format!("an answer to {}", asked.text));
        Ok(CreateMessageResult::new(answer, "none".to_owned()))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let request = value(&request);
        let filled = json!({"username": "ü", "email": "u@example.org", "name": "Zoë"});
        let asked = request["requestedSchema"]["required"].as_array().unwrap().iter();
        let content =
            asked.map(|name| name.as_str().unwrap()).map(|name| (name.to_owned(), filled[name].clone()));
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content.collect()))
    }

    async fn on_progress(&self, params: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.hear(Heard::Progress(params.progress, params.total));
    }

    async fn on_logging_message(
        &self,
        params: LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.hear(Heard::Log(params.level, params.data));
    }

    async fn on_resource_updated(
        &self,
        params: ResourceUpdatedNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        self.hear(Heard::Updated(params.uri));
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.hear(Heard::Changed("resources"));
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.hear(Heard::Changed("tools"));
    }

    async fn on_prompt_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.hear(Heard::Changed("prompts"));
    }
}

struct Client {
    service: RunningService<RoleClient, Host>,
    heard: mpsc::UnboundedReceiver<Heard>,
}

/// Does all steps; returns the process id of the client's own server.
pub(super) async fn round(url: &str, prepared: &Path, definition: &Path) -> u32 {
    let mut client = Client::initialize(url).await;
    client.lists().await;
    client.calls().await;
    client.prompts().await;
    client.resources().await;
    client.templates().await;
    client.subscriptions().await;
    client.completion().await;
    client.logging().await;
    client.progress().await;
    client.cancellation().await;
    client.sampling().await;
    client.elicitation().await;
    client.changes(prepared, definition).await;
    let own = client.structured("x_own_pid", object!({})).await["pid"].as_u64().unwrap();
    within("the end of the session", client.service.cancel()).await.unwrap();
    own.try_into().unwrap()
}

impl Client {
    async fn initialize(url: &str) -> Self {
        // The client's TLS has no cryptography of its own. Another test of this process may have been first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let transport = StreamableHttpClientTransport::with_client(
            reqwest::Client::new(),
            StreamableHttpClientTransportConfig::with_uri(Arc::from(url)),
        );
        let (sender, heard) = mpsc::unbounded_channel();
        let service = within("initialize", Host(sender).serve(transport)).await.unwrap();
        let server = service.peer_info().unwrap();
        assert_eq!(server.server_info.as_ref().unwrap().name, "sidegate");
        assert_eq!(server.protocol_version.as_str(), "2025-11-25");
        let ping = service.send_request(ClientRequest::PingRequest(PingRequest::default()));
        within("ping", ping).await.unwrap();
        Self { service, heard }
    }

    async fn lists(&self) {
        let tools = self.tools().await;
        for tool in ["x_time_get_current_time", "x_npm_echo", "x_far_echo", "x_near_echo", "x_own_pid"] {
            assert!(tools.contains(tool), "{tool}: {tools:?}");
        }
        let prompts = self.prompt_names().await;
        for prompt in ["x_npm_args-prompt", "x_far_test_simple_prompt", "x_near_test_simple_prompt"] {
            assert!(prompts.contains(prompt), "{prompt}: {prompts:?}");
        }
        let resources = self.uris().await;
        let document = "demo://resource/static/document/features.md";
        for uri in [document, "test://static-text", "near+test://static-text"] {
            assert!(resources.contains(uri), "{uri}: {resources:?}");
        }
        let listed = within("templates", self.service.list_all_resource_templates()).await.unwrap();
        let templates: Vec<_> = listed.iter().map(|template| template.uri_template.as_str()).collect();
        for template in ["demo://resource/dynamic/text/{resourceId}", "test://template/{id}/data"] {
            assert!(templates.contains(&template), "{template}: {templates:?}");
        }
    }

    async fn calls(&self) {
        let zones = object!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
        assert_eq!(self.structured("x_time_convert_time", zones).await["time_difference"], "+9.0h");
        assert_eq!(self.text("x_npm_echo", object!({"message": "ü 🦀"})).await, "Echo: ü 🦀");
        for server in ["far", "near"] {
            let arguments = object!({"b": [1, null], "a": server});
            let echoed = self.structured(&format!("x_{server}_echo"), arguments.clone()).await;
            assert_eq!(echoed, Value::Object(arguments));
            let failed = self.call(&format!("x_{server}_test_error_handling"), object!({})).await.unwrap();
            assert_eq!(failed["isError"], true);
        }
        let picture = self.call("x_npm_get-tiny-image", object!({})).await.unwrap();
        let blocks = picture["content"].as_array().unwrap();
        assert!(blocks.iter().any(|block| block["type"] == "image"), "{picture}");
        match self.call("x_far_nope", object!({})).await {
            Err(ServiceError::McpError(error)) => assert_eq!(error.code, ErrorCode::INVALID_PARAMS),
            other => panic!("{other:?}"),
        }
    }

    async fn prompts(&self) {
        for (name, arguments, expected) in [
            ("x_npm_args-prompt", object!({"city": "Genève"}), "What's weather in Genève?"),
            (
                "x_near_test_prompt_with_arguments",
                object!({"arg1": "a", "arg2": "b"}),
                "Prompt with arguments: arg1='a', arg2='b'",
            ),
        ] {
            let params = GetPromptRequestParams::new(name).with_arguments(arguments);
            let prompt = value(&within(name, self.service.get_prompt(params)).await.unwrap());
            assert_eq!(prompt["messages"][0]["content"]["text"], expected);
        }
    }

    async fn resources(&self) {
        for uri in ["test://static-text", "near+test://static-text"] {
            let contents = self.read(uri).await;
            assert_eq!(contents["text"], "This is the content of the static text resource.");
        }
        assert!(self.read("test://static-binary").await["blob"].is_string());
    }

    async fn templates(&self) {
        for (uri, part) in
            [("test://template/7/data", "Data for ID: 7"), ("demo://resource/dynamic/text/3", "Resource 3:")]
        {
            let contents = self.read(uri).await;
            assert!(contents["text"].as_str().unwrap().contains(part), "{contents}");
        }
    }

    async fn subscriptions(&mut self) {
        for (server, uri) in [("far", WATCHED.to_owned()), ("near", format!("near+{WATCHED}"))] {
            let touch = format!("x_{server}_touch_resource");
            let subscribed = self.service.subscribe(SubscribeRequestParams::new(&uri));
            within("subscribe", subscribed).await.unwrap();
            let touched = self.structured(&touch, object!({"uri": WATCHED})).await;
            assert_eq!(touched, json!({"subscribers": 1}));
            assert_eq!(self.hears().await, Heard::Updated(uri.clone()));
            let unsubscribed = self.service.unsubscribe(UnsubscribeRequestParams::new(&uri));
            within("unsubscribe", unsubscribed).await.unwrap();
            let touched = self.structured(&touch, object!({"uri": WATCHED})).await;
            assert_eq!(touched, json!({"subscribers": 0}));
        }
    }

    async fn completion(&self) {
        let complete = async |reference: Reference, name: &str, start: &str, context| {
            let argument = ArgumentInfo::new(name, start);
            let mut params = CompleteRequestParams::new(reference, argument);
            params.context = context;
            within("completion", self.service.complete(params)).await.unwrap().completion.values
        };
        let prompt = || Reference::for_prompt("x_npm_completable-prompt");
        assert_eq!(complete(prompt(), "department", "S", None).await, ["Sales", "Support"]);
        let chosen =
            CompletionContext::with_arguments([("department".to_owned(), "Sales".to_owned())].into());
        assert_eq!(complete(prompt(), "name", "E", Some(chosen)).await, ["Eve"]);
        let template = Reference::for_resource("test://template/{id}/data");
        assert_eq!(complete(template, "id", "par", None).await, ["paris", "park", "party"]);
    }

    async fn logging(&mut self) {
        for server in ["far", "near"] {
            let tool = format!("x_{server}_test_tool_with_logging");
            self.set_level(LoggingLevel::Info).await;
            self.call(&tool, object!({})).await.unwrap();
            for said in ["Tool execution started", "Tool processing data", "Tool execution completed"] {
                assert_eq!(self.hears().await, Heard::Log(LoggingLevel::Info, json!(said)));
            }
            self.set_level(LoggingLevel::Error).await;
            // Were it heard, the next step would find it.
            self.call(&tool, object!({})).await.unwrap();
        }
    }

    async fn progress(&mut self) {
        for server in ["far", "near"] {
            self.call(&format!("x_{server}_test_tool_with_progress"), object!({})).await.unwrap();
            for progress in [0.0, 50.0, 100.0] {
                assert_eq!(self.hears().await, Heard::Progress(progress, Some(100.0)));
            }
        }
        let operation = object!({"duration": 0.2, "steps": 4});
        self.call("x_npm_trigger-long-running-operation", operation).await.unwrap();
        for step in 1..=4 {
            assert_eq!(self.hears().await, Heard::Progress(f64::from(step), Some(4.0)));
        }
    }

    async fn cancellation(&self) {
        for server in ["far", "near"] {
            let counts = format!("x_{server}_sleep_counts");
            let counted = async |what: &str| {
                eventually(what, async || {
                    (self.structured(&counts, object!({})).await[what] == 1).then_some(())
                })
                .await;
            };
            let params = CallToolRequestParams::new(format!("x_{server}_sleep"))
                .with_arguments(object!({"ms": 600_000}));
            let request = ClientRequest::CallToolRequest(CallToolRequest::new(params));
            let options = PeerRequestOptions::no_options();
            let sleep =
                within("sleep", self.service.send_cancellable_request(request, options)).await.unwrap();
            counted("running").await;
            within("cancel", sleep.cancel(Some("enough".to_owned()))).await.unwrap();
            counted("cancelled").await;
        }
    }

    async fn sampling(&self) {
        let question = || object!({"prompt": "a question"});
        for server in ["far", "near"] {
            let answered = self.text(&format!("x_{server}_test_sampling"), question()).await;
            assert_eq!(answered, "LLM response: an answer to a question");
        }
        let answered = self.text("x_npm_trigger-sampling-request", question()).await;
        let expected = "an answer to Resource trigger-sampling-request context: a question";
        assert!(answered.contains(expected), "{answered}");
    }

    async fn elicitation(&self) {
        for server in ["far", "near"] {
            let tool = format!("x_{server}_test_elicitation");
            let answered = self.text(&tool, object!({"message": "who?"})).await;
            for part in ["action=accept", r#""username":"ü""#, r#""email":"u@example.org""#] {
                assert!(answered.contains(part), "{answered}");
            }
        }
        let answered = self.call("x_npm_trigger-elicitation-request", object!({})).await.unwrap();
        assert_eq!(answered["content"][1]["text"], "User inputs:\n- Name: Zoë");
    }

    async fn changes(&mut self, prepared: &Path, definition: &Path) {
        fs_err::rename(prepared, definition).unwrap();
        let mut changed = BTreeSet::new();
        while changed.len() < 3 {
            match self.hears().await {
                Heard::Changed(kind) => changed.insert(kind),
                other => panic!("{other:?}"),
            };
        }
        assert!(self.tools().await.contains("x_late_echo"));
        assert!(self.prompt_names().await.contains("x_late_test_simple_prompt"));
        assert!(self.uris().await.contains("late+test://static-text"));
        assert_eq!(self.structured("x_late_echo", object!({"n": 1})).await, json!({"n": 1}));
    }

    async fn hears(&mut self) -> Heard {
        within("something to hear", self.heard.recv()).await.unwrap()
    }

    async fn set_level(&self, level: LoggingLevel) {
        within("setLevel", self.service.set_level(SetLevelRequestParams::new(level))).await.unwrap();
    }

    async fn call(&self, name: &str, arguments: JsonObject) -> Result<Value, ServiceError> {
        let params = CallToolRequestParams::new(name.to_owned()).with_arguments(arguments);
        within(name, self.service.call_tool(params)).await.map(|result| value(&result))
    }

    async fn structured(&self, name: &str, arguments: JsonObject) -> Value {
        self.call(name, arguments).await.unwrap()["structuredContent"].take()
    }

    async fn text(&self, name: &str, arguments: JsonObject) -> String {
        self.call(name, arguments).await.unwrap()["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// The first contents behind a URI, which must be that URI's.
    async fn read(&self, uri: &str) -> Value {
        let params = ReadResourceRequestParams::new(uri);
        let mut result = value(&within(uri, self.service.read_resource(params)).await.unwrap());
        let contents = result["contents"][0].take();
        assert_eq!(contents["uri"], uri);
        contents
    }

    async fn tools(&self) -> BTreeSet<String> {
        let tools = within("tools", self.service.list_all_tools()).await.unwrap();
        tools.into_iter().map(|tool| tool.name.into_owned()).collect()
    }

    async fn prompt_names(&self) -> BTreeSet<String> {
        let prompts = within("prompts", self.service.list_all_prompts()).await.unwrap();
        prompts.into_iter().map(|prompt| prompt.name).collect()
    }

    async fn uris(&self) -> BTreeSet<String> {
        let resources = within("resources", self.service.list_all_resources()).await.unwrap();
        resources.into_iter().map(|resource| resource.uri).collect()
    }
}

fn value(of: &impl Serialize) -> Value {
    serde_json::to_value(of).unwrap()
}
