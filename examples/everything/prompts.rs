//! Prompts with the names and messages that the conformance suite asks for.

use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ContentBlock, PromptMessage, ResourceContents, Role};
use rmcp::schemars::{self, JsonSchema};
use rmcp::{prompt, prompt_router};
use serde::Deserialize;

use crate::resources;
use crate::server::Everything;

#[derive(Debug, Deserialize, JsonSchema)]
struct WithArguments {
    /// First test argument
    arg1: String,
    /// Second test argument
    arg2: String,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WithEmbeddedResource {
    /// URI of the resource to embed
    resource_uri: String,
}

#[prompt_router(vis = "pub(crate)")]
impl Everything {
    /// A prompt without arguments.
    #[prompt(name = "test_simple_prompt")]
    async fn simple_prompt(&self) -> Vec<PromptMessage> {
        vec![PromptMessage::new_text(Role::User, "This is a simple prompt for testing.")]
    }

    /// A prompt that shows its arguments.
    #[prompt(name = "test_prompt_with_arguments")]
    async fn prompt_with_arguments(
        &self,
        Parameters(WithArguments { arg1, arg2 }): Parameters<WithArguments>,
    ) -> Vec<PromptMessage> {
        let text = format!("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'");
        vec![PromptMessage::new_text(Role::User, text)]
    }

    /// A prompt that embeds a resource.
    #[prompt(name = "test_prompt_with_embedded_resource")]
    async fn prompt_with_embedded_resource(
        &self,
        Parameters(WithEmbeddedResource { resource_uri }): Parameters<WithEmbeddedResource>,
    ) -> Vec<PromptMessage> {
        let resource = ResourceContents::text("Embedded resource content for testing.", resource_uri);
        vec![
            PromptMessage::new(Role::User, ContentBlock::resource(resource)),
            PromptMessage::new_text(Role::User, "Please process the embedded resource above."),
        ]
    }

    /// A prompt that shows a picture.
    #[prompt(name = "test_prompt_with_image")]
    async fn prompt_with_image(&self) -> Vec<PromptMessage> {
        vec![
            PromptMessage::new(Role::User, ContentBlock::image(resources::PNG, "image/png")),
            PromptMessage::new_text(Role::User, "Please analyze the image above."),
        ]
    }
}
