//! Whether remote servers can be reached, and what they say.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use http::{HeaderMap, Method, StatusCode, header};
use reqwest::redirect::Policy;
use reqwest::{Client, Response};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use sidegate::error::root_cause;
use sidegate::mcpserver::{Definition, Remote, Transport};
use sidegate::wire::server::SESSION_ID;
use sidegate::wire::version::ProtocolVersion;
use tokio::net::TcpStream;

use super::super::{Exit, Failure};
use super::Finding;

/// How long each server has for everything.
const LIMIT: Duration = Duration::from_secs(3);

/// How much of an answer is looked at, in bytes.
const LOOKED_AT: usize = 4096;

/// All remote servers, at the same time.
pub(super) async fn reachable(definitions: &[Arc<Definition>]) -> Vec<Finding> {
    let remotes: Vec<_> = definitions
        .iter()
        .filter_map(|definition| match &definition.transport {
            Transport::StreamableHttp(remote) => Some((definition, remote, Method::POST)),
            Transport::Sse(remote) => Some((definition, remote, Method::GET)),
            Transport::Stdio(_) => None,
        })
        .collect();
    if remotes.is_empty() {
        return Vec::new();
    }
    let client = match client() {
        Ok(client) => client,
        Err(failure) => return vec![Finding::explained("remote servers", failure.message)],
    };
    join_all(remotes.into_iter().map(|(definition, remote, method)| one(&client, definition, remote, method)))
        .await
}

async fn one(client: &Client, definition: &Definition, remote: &Remote, method: Method) -> Finding {
    let subject = format!("server {}", definition.name);
    // No path: some providers put the key into it.
    let place = remote.url.origin().ascii_serialization();
    let said = match tokio::time::timeout(LIMIT, say_hello(client, remote, method)).await {
        Ok(said) => said,
        Err(_) => Err((
            format!("{place} does not answer within {} s", LIMIT.as_secs()),
            "is the address right, and is there a way to it (network, VPN, firewall)?".to_owned(),
        )),
    };
    match said {
        Ok(what) => Finding::ok(subject, format!("{place} {what}")),
        Err((message, advice)) if definition.suspended || !definition.auto_start => {
            Finding::warning(subject, message, advice)
        }
        Err((message, advice)) => Finding::problem(subject, message, advice),
    }
}

/// What it says, or what is wrong and what to do.
async fn say_hello(client: &Client, remote: &Remote, method: Method) -> Result<String, (String, String)> {
    let place = remote.url.origin().ascii_serialization();
    let (Some(host), Some(port)) = (remote.url.host(), remote.url.port_or_known_default()) else {
        return Err((format!("{place} is no address"), "correct spec.url".to_owned()));
    };
    let connected = match host {
        url::Host::Domain(name) => TcpStream::connect((name, port)).await,
        url::Host::Ipv4(address) => TcpStream::connect((address, port)).await,
        url::Host::Ipv6(address) => TcpStream::connect((address, port)).await,
    };
    if let Err(error) = connected {
        let advice = "start the server, or correct spec.url".to_owned();
        return Err((format!("{place} cannot be connected: {error}"), advice));
    }
    let mut request = client.request(method.clone(), remote.url.clone());
    if method == Method::POST {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": ProtocolVersion::LATEST.as_str(),
            "capabilities": {},
            "clientInfo": {"name": "sidegate-doctor", "version": env!("CARGO_PKG_VERSION")},
        }});
        request = request.header(header::CONTENT_TYPE, "application/json").body(hello.to_string());
        request = request.header(header::ACCEPT, "application/json, text/event-stream");
    } else {
        request = request.header(header::ACCEPT, "text/event-stream");
    }
    let headers: HeaderMap = remote.headers.iter().cloned().collect();
    let answer = request.headers(headers.clone()).send().await.map_err(|error| {
        let cause = root_cause(&error.without_url());
        (
            format!("{place} was connected, and does not answer: {cause}"),
            "is it an HTTP server, and http or https as the URL says?".to_owned(),
        )
    })?;
    judge(client, remote, headers, answer, &place).await
}

async fn judge(
    client: &Client,
    remote: &Remote,
    headers: HeaderMap,
    answer: Response,
    place: &str,
) -> Result<String, (String, String)> {
    let status = answer.status();
    if status.is_redirection() {
        let target = answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let target = target.unwrap_or("nowhere").split('?').next().unwrap_or_default().to_owned();
        let message = format!("{place} sends on to {target}, and redirects are not followed");
        return Err((message, "write that address as spec.url".to_owned()));
    }
    let advice = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            "give it what it wants in spec.headers, such as Authorization"
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            "correct the path of spec.url: there is no MCP endpoint"
        }
        status if status.is_server_error() => "look at the server's own log",
        status if !status.is_success() => "is it an MCP server of this type?",
        _ => return greeted(client, remote, headers, answer, place).await,
    };
    Err((format!("{place} answers with HTTP {status}"), advice.to_owned()))
}

/// The server has answered with success: is it an MCP server? A session that it has opened is closed.
async fn greeted(
    client: &Client,
    remote: &Remote,
    headers: HeaderMap,
    mut answer: Response,
    place: &str,
) -> Result<String, (String, String)> {
    if let Some(session) = answer.headers().get(SESSION_ID).cloned() {
        let goodbye = client.delete(remote.url.clone()).headers(headers).header(SESSION_ID, session);
        // A server may refuse it, and forgets the session by itself.
        let _ = goodbye.send().await;
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.unwrap_or("no content type").to_owned();
    if kind.starts_with("text/event-stream") {
        return Ok("answers".to_owned());
    }
    let mut beginning = Vec::new();
    while beginning.len() < LOOKED_AT
        && let Ok(Some(chunk)) = answer.chunk().await
    {
        beginning.extend_from_slice(&chunk);
    }
    if kind.starts_with("application/json") && beginning.windows(9).any(|window| window == b"\"jsonrpc\"") {
        return Ok("answers".to_owned());
    }
    Err((format!("{place} answers with {kind}, which is not MCP"), "correct the path of spec.url".to_owned()))
}

/// As sidegate dials: no proxy, no redirects.
fn client() -> Result<Client, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Failure::new(Exit::Failed, error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .redirect(Policy::none())
        .build()
        .map_err(|error| Failure::new(Exit::Failed, error))
}
