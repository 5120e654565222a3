//! An MCP client of a running instance.

use std::path::Path;
use std::time::Duration;

use bytestring::ByteString;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Uri, header};
use serde_json::{Value, json};
use sidegate::admin::status::Status;
use sidegate::aggregator::exposure::EXPOSURE;
use sidegate::config::Exposure;
use sidegate::wire::client::{ClientConfig, ClientError, Origin, Pool, Session};
use sidegate::wire::message::{Message, View};
use sidegate::wire::rpc::{self, RpcError};
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use super::{Exit, Failure};

/// How long the instance may take to answer for itself. A call has no limit: the user ends it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long the end of a session is waited for.
const GOODBYE: Duration = Duration::from_secs(2);

/// The largest answer taken, in bytes.
const LARGEST_ANSWER: usize = 64 << 20;

/// A session with an instance.
#[derive(Debug)]
pub(super) struct McpClient {
    session: Session,
    tracker: TaskTracker,
}

/// How a call came out.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The raw `result`.
    Result(String),
    /// Somebody wanted it to end.
    Cancelled,
}

impl McpClient {
    /// Opens a session with the instance that says this of itself.
    pub(super) async fn connect(status: &Status) -> Result<Self, Failure> {
        // Commands are about the tools themselves, whatever other clients are shown.
        let config = client_config(&status.url, status.token_file.as_deref(), Some(Exposure::Direct))?;
        let tracker = TaskTracker::new();
        let info = json!({"name": "sidegate", "version": env!("CARGO_PKG_VERSION")}).to_string();
        let opening = Session::open(Pool::new(), config, tracker.clone(), "{}", &info);
        let (session, answer) = patiently(opening).await?;
        outcome(&answer)?;
        Ok(Self { session, tracker })
    }

    /// All tools, as the instance describes them.
    pub(super) async fn tools(&self) -> Result<Vec<Value>, Failure> {
        let mut tools = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({"cursor": cursor}));
            let id = self.session.next_id();
            let request = rpc::request(id, "tools/list", &params.to_string());
            let answer = patiently(self.session.request(request, id, &mut |_| ())).await?;
            let mut page: Value = serde_json::from_str(outcome(&answer)?).map_err(unreadable)?;
            if let Value::Array(page) = page["tools"].take() {
                tools.extend(page);
            }
            let next = page["nextCursor"].as_str().map(str::to_owned);
            if next.is_none() || next == cursor {
                return Ok(tools);
            }
            cursor = next;
        }
    }

    /// Calls a tool and waits for its end, or until `interrupt` comes. `on_progress` gets the parameters of each
    /// notification of progress.
    pub(super) async fn call(
        &self,
        tool: &str,
        arguments: &Value,
        interrupt: impl Future<Output = ()>,
        mut on_progress: impl FnMut(&Value),
    ) -> Result<Outcome, Failure> {
        let id = self.session.next_id();
        let params = json!({"name": tool, "arguments": arguments, "_meta": {"progressToken": id}});
        let request = rpc::request(id, "tools/call", &params.to_string());
        let (sender, mut messages) = mpsc::unbounded_channel();
        let mut on_message = |message: Message| {
            // The receiver lives as long as the call.
            let _ = sender.send(message);
        };
        let answer = self.session.request(request, id, &mut on_message);
        tokio::pin!(answer, interrupt);
        loop {
            tokio::select! {
                // In this order, so that what came before the answer is shown before it.
                biased;
                Some(message) = messages.recv() => self.take(&message, &mut on_progress).await?,
                answer = &mut answer => {
                    let answer = answer.map_err(failure)?;
                    return Ok(Outcome::Result(outcome(&answer)?.to_owned()));
                }
                () = &mut interrupt => {
                    let params = json!({"requestId": id, "reason": "interrupted by the user"}).to_string();
                    let text = rpc::notification("notifications/cancelled", Some(&params));
                    // Who cannot be told is not waited for.
                    let _ = tokio::time::timeout(GOODBYE, self.session.send(text)).await;
                    return Ok(Outcome::Cancelled);
                }
            }
        }
    }

    /// What comes before an answer.
    async fn take(&self, message: &Message, on_progress: &mut impl FnMut(&Value)) -> Result<(), Failure> {
        match message.view() {
            View::Notification { method: "notifications/progress", params: Some(params) } => {
                on_progress(&serde_json::from_str(params).map_err(unreadable)?);
                Ok(())
            }
            View::Request { id, method, .. } => {
                let answer: ByteString = match method {
                    "ping" => rpc::result(id, "{}"),
                    // Nothing was offered at `initialize`; whoever asks all the same must not wait for ever.
                    _ => RpcError::new(RpcError::METHOD_NOT_FOUND, format!("{method} is not supported"))
                        .response(Some(id)),
                };
                self.session.send(answer).await.map_err(failure)
            }
            _ => Ok(()),
        }
    }

    /// Ends the session. That it cannot be ended in time is nobody's loss: it expires.
    pub(super) async fn close(self) {
        let _ = tokio::time::timeout(GOODBYE, self.session.close()).await;
        self.tracker.close();
        let _ = tokio::time::timeout(GOODBYE, self.tracker.wait()).await;
    }
}

/// How to be a client of the endpoint at `url`, whose token is in `token_file`; one that wants tools shown as `exposure` says,
/// or as the instance shows them.
pub(super) fn client_config(
    url: &str,
    token_file: Option<&Path>,
    exposure: Option<Exposure>,
) -> Result<ClientConfig, Failure> {
    let uri = reachable(url)?;
    let wrong = || Failure::text(Exit::Failed, format!("the instance's address is wrong: {url}"));
    let authority = uri.authority().cloned().ok_or_else(wrong)?;
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut headers = HeaderMap::new();
    if let Some(file) = token_file {
        headers.insert(header::AUTHORIZATION, bearer(file)?);
    }
    if let Some(exposure) = exposure {
        headers.insert(EXPOSURE, HeaderValue::from_static(exposure.as_str()));
    }
    // A sender that is dropped sends nowhere else.
    let (_, origin) = watch::channel(Origin::new(authority, HeaderMap::new()));
    let patience = ClientConfig::ALONE;
    let max_message = LARGEST_ANSWER;
    Ok(ClientConfig { origin, path, headers, route_marker: None, local: None, max_message, patience })
}

/// The endpoint as it is reached from here: an unspecified address stands for all, and is none to be called by.
pub(super) fn reachable(url: &str) -> Result<Uri, Failure> {
    let wrong = || Failure::text(Exit::Failed, format!("the instance's address is wrong: {url}"));
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    Ok(sidegate::instance::reachable(&uri))
}

/// The token in a file.
pub(super) fn bearer_token(file: &Path) -> Result<String, Failure> {
    let token = std::fs::read_to_string(file).map_err(|error| {
        Failure::text(Exit::Failed, format!("the token file {} cannot be read: {error}", file.display()))
            .hint("run the command as the user who started the instance")
    })?;
    Ok(token.trim().to_owned())
}

fn bearer(file: &Path) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", bearer_token(file)?)).map_err(|_| {
        Failure::text(Exit::Failed, format!("the token file {} holds no token", file.display()))
    })?;
    value.set_sensitive(true);
    Ok(value)
}

async fn patiently<T>(asking: impl Future<Output = Result<T, ClientError>>) -> Result<T, Failure> {
    match tokio::time::timeout(PATIENCE, asking).await {
        Ok(answer) => answer.map_err(failure),
        Err(_) => {
            let message = format!("the instance does not answer within {} s", PATIENCE.as_secs());
            Err(Failure::text(Exit::Failed, message))
        }
    }
}

fn failure(error: ClientError) -> Failure {
    let unauthorized =
        matches!(&error, ClientError::Status(error) if error.status == http::StatusCode::UNAUTHORIZED);
    let failure = Failure::text(Exit::Failed, format!("the instance did not answer: {error}"));
    if unauthorized {
        failure.hint("its token file has changed since it was started: restart it")
    } else {
        failure
    }
}

/// The raw `result` of an answer.
fn outcome(answer: &Message) -> Result<&str, Failure> {
    match answer.view() {
        View::Response { outcome: Ok(result), .. } => Ok(result),
        View::Response { outcome: Err(error), .. } => {
            let error: Value = serde_json::from_str(error).map_err(unreadable)?;
            let message = error["message"].as_str().unwrap_or("it did not say why");
            Err(Failure::text(Exit::Failed, format!("{message} (code {})", error["code"])))
        }
        _ => Err(Failure::text(Exit::Failed, "the instance answered with no answer")),
    }
}

fn unreadable(error: serde_json::Error) -> Failure {
    Failure::text(Exit::Failed, format!("the instance's answer cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://127.0.0.1:8090/mcp", "http://127.0.0.1:8090/mcp")]
    #[case("http://0.0.0.0:8090/mcp", "http://127.0.0.1:8090/mcp")]
    #[case("http://[::]:8090/mcp", "http://[::1]:8090/mcp")]
    #[case("http://192.0.2.1:8090/mcp", "http://192.0.2.1:8090/mcp")]
    fn addresses(#[case] url: &str, #[case] expected: &str) {
        assert_eq!(reachable(url).unwrap().to_string(), expected);
    }
}
