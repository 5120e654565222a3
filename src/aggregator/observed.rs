//! What is told of a call to whoever observes calls: what it is about, and how it ended.

use memchr::memmem;

use super::client::Client;
use super::request::ClientRequest;
use crate::telemetry::calls::{Begin, Failure, Outcome, Subject, kept};
use crate::telemetry::trace_context::TraceParent;
use crate::wire::client::ClientError;
use crate::wire::json;

/// What is known of a request when it has come in.
pub(super) fn begin<'r>(
    client: &Client,
    request: &ClientRequest<'r>,
    parent: Option<TraceParent>,
) -> Begin<'r> {
    let name = || request.name.and_then(json::string);
    let subject = match request.method.split_once('/').map(|(subject, _)| subject) {
        Some("tools") => name().map(|name| Subject::Tool(kept(&name))),
        Some("prompts") => name().map(|name| Subject::Prompt(kept(&name))),
        Some("resources") => request.uri.and_then(json::string).map(|uri| Subject::Resource(kept(&uri))),
        _ => None,
    };
    Begin {
        method: request.method,
        subject,
        request_id: request.id,
        session: client.hashed_session.clone(),
        protocol_version: Some(client.version.as_str()),
        parent,
    }
}

/// How a call ended that got a result.
pub(super) fn outcome_of_result(method: &str, result: &str) -> Outcome {
    if method == "tools/call" && is_tool_error(result) { Outcome::ToolError } else { Outcome::Ok }
}

/// How a call ended that got a JSON-RPC error, and what the error says.
pub(super) fn outcome_of_error(error: &str) -> (Outcome, Option<String>) {
    let [code, message] = json::members(error, ["code", "message"]).unwrap_or_default();
    let code = code.and_then(|code| code.parse().ok()).unwrap_or_default();
    let message = message.and_then(json::string).map(|message| message.into_owned());
    (Outcome::Error { code }, message)
}

/// Why a server gave no answer.
pub(super) fn failure(error: &ClientError) -> Failure {
    match error {
        ClientError::Connect(_) => Failure::Connect,
        ClientError::Send(_) | ClientError::Body(_) | ClientError::NoAnswer => Failure::Broken,
        ClientError::Status(error) => Failure::Status(error.status.as_u16()),
        _ => Failure::Protocol,
    }
}

/// Whether a `CallToolResult` says that the tool has failed. Results are large and failures rare: the text is only parsed
/// where it may say so.
fn is_tool_error(result: &str) -> bool {
    const KEY: &str = "\"isError\"";
    let may_be = memmem::find_iter(result.as_bytes(), KEY).any(|at| {
        let rest = result[at + KEY.len()..].trim_start();
        rest.strip_prefix(':').is_some_and(|value| value.trim_start().starts_with("true"))
    });
    may_be && matches!(json::members(result, ["isError"]), Ok([Some("true")]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_has_failed_where_its_result_says_so_itself() {
        for (result, failed) in [
            (r#"{"content":[],"isError":true}"#, true),
            (r#"{"isError" : true,"content":[]}"#, true),
            (r#"{"content":[],"isError":false}"#, false),
            (r#"{"content":[{"type":"text","text":"{\"isError\":true}"}]}"#, false),
            (r#"{"structuredContent":{"isError":true},"isError":false}"#, false),
            (r#"{"structuredContent":{"isError":true}}"#, false),
            ("{}", false),
        ] {
            let expected = if failed { Outcome::ToolError } else { Outcome::Ok };
            assert_eq!(outcome_of_result("tools/call", result), expected, "{result}");
            assert_eq!(outcome_of_result("prompts/get", result), Outcome::Ok);
        }
    }
}
