//! What servers on the network have in common: how they are dialled, and requests that are passed through as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Either};
use hyper::body::Incoming;
use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::sync::OnceCell;
use url::Url;

use crate::error::{chain, root_cause};
use crate::outbound::Proxies;
use crate::wire::rpc::RpcError;
use crate::wire::server::Body;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// Idle connections are given up after this long: sooner than servers do, so that a request rarely meets one that is
/// being closed.
const IDLE: Duration = Duration::from_secs(20);

/// After so long a silence the other side is asked whether it is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// What `localhost` is (RFC 6761 section 6.3), whether or not the machine's own tables know both. The ports do not count.
const LOCALHOST: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
];

/// Headers that belong to one connection and not to the message (RFC 9110 section 7.6.1), and those that the next
/// connection writes by itself.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::HOST,
];

/// What a response of the bridge carries: its own, or what a server sends.
pub(super) type AnyBody = Either<Body, reqwest::Body>;

/// A server that is dialled.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteTarget {
    /// Where it is.
    pub url: Url,
    /// Headers of every request that the bridge makes by itself. What it passes through has them already.
    pub headers: HeaderMap,
}

/// The way to servers on the network. Their certificates are checked; redirects are not followed.
#[derive(Debug, Default)]
pub(super) struct Web {
    client: OnceCell<Client>,
    proxies: Proxies,
}

impl Web {
    /// The way through these proxies.
    pub(super) fn through(proxies: Proxies) -> Self {
        Self { client: OnceCell::new(), proxies }
    }

    /// The client that all requests share. Made at the first need: only then are the machine's certificates read.
    pub(super) async fn client(&self) -> Result<&Client, String> {
        let made = self.client.get_or_try_init(|| async {
            let tls = tokio::task::spawn_blocking(crate::tls::client_config).await;
            let tls = tls.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            Client::builder()
                .tls_backend_preconfigured(tls)
                .redirect(Policy::none())
                .resolve_to_addrs("localhost", &LOCALHOST)
                .proxy(through(self.proxies.clone()))
                .http1_only()
                .connect_timeout(CONNECT)
                .pool_idle_timeout(IDLE)
                .tcp_keepalive(KEEP_ALIVE)
                .build()
                .map_err(|error| chain(&error))
        });
        made.await
            .map_err(|error: String| format!("the client for servers on the network cannot be made: {error}"))
    }

    /// Passes a request on as it is, and what comes back.
    pub(super) async fn pass(&self, target: &RemoteTarget, request: Request<Incoming>) -> Response<AnyBody> {
        match self.try_pass(target, request).await {
            Ok(response) => response.map(Either::Right),
            Err(why) => {
                let mut response = Response::new(Either::Left(Body::text(why)));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                response
            }
        }
    }

    /// The error is worded as agentgateway words it: callers know by it whether anything was sent.
    async fn try_pass(
        &self,
        target: &RemoteTarget,
        request: Request<Incoming>,
    ) -> Result<Response<reqwest::Body>, String> {
        let client = self.client().await?;
        let (parts, body) = request.into_parts();
        // Messages are held as a whole by whoever sent this one, too.
        let body = body
            .collect()
            .await
            .map_err(|error| format!("upstream call failed: the request broke off: {error}"))?;
        let mut headers = parts.headers;
        remove_hop(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        let outgoing = client.request(parts.method, target.url.clone()).headers(headers);
        let sent = outgoing.body(body.to_bytes()).send().await;
        let mut response = Response::<reqwest::Body>::from(sent.map_err(|error| {
            let stage = if error.is_connect() { "Connect" } else { "SendRequest" };
            format!("upstream call failed: {stage}: {}", root_cause(&error))
        })?);
        remove_hop(response.headers_mut());
        Ok(response)
    }
}

/// Only what these proxies say counts, and not our process's environment. A proxy that cannot be used keeps its servers
/// from being served at all, so none comes here.
fn through(proxies: Proxies) -> reqwest::Proxy {
    reqwest::Proxy::custom(move |url| {
        let proxy = proxies.on_the_way_to(url).ok().flatten()?;
        Some(format!("http://{proxy}"))
    })
}

fn remove_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
}

/// A server could not be asked.
pub(super) fn failed(why: impl Into<String>) -> RpcError {
    RpcError::new(RpcError::UPSTREAM, why)
}

/// An HTTP answer that is no success, in words. Its body's beginning is told.
pub(super) async fn refusal(mut response: reqwest::Response) -> String {
    /// How much of a body is told, in bytes.
    const SHOWN: usize = 300;

    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.unwrap_or("nowhere");
        return format!(
            "HTTP {status}: redirects are not followed; the server points to {location}, use that as url"
        );
    }
    let challenge = response.headers().get(header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
    let mut text = format!("HTTP {status}");
    if let Some(challenge) = challenge {
        text.push_str(&format!(" (it wants authorization by {challenge})"));
    }
    let mut body = Vec::new();
    while body.len() < SHOWN
        && let Ok(Some(chunk)) = response.chunk().await
    {
        body.extend_from_slice(&chunk);
    }
    body.truncate(SHOWN);
    let body = String::from_utf8_lossy(&body);
    let body = body.trim();
    if body.is_empty() { text } else { format!("{text}: {body}") }
}

impl std::fmt::Debug for RemoteTarget {
    /// The host only: queries and headers can hold secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteTarget").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// The bytes of a message that is posted.
pub(super) fn json_body(text: &bytestring::ByteString) -> Bytes {
    text.as_bytes().clone()
}
