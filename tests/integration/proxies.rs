//! Remote servers behind an outbound proxy, as HTTP_PROXY and its kin say.

use http::Method;
use rstest::rstest;
use serde_json::json;

use super::support::definitions::{example, remote, with};
use super::support::forwarder::Forwarder;
use super::support::optional::Through;
use super::support::{McpClient, Upstream};

#[rstest]
#[tokio::test]
async fn remote_servers_are_reached_through_the_proxy(
    #[values(Through::Embedded, Through::Agentgateway)] through: Through,
) {
    let Some(builder) = through.builder() else { return };
    let far = Upstream::everything(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    // The one behind TLS is reached through a tunnel, the other by asking the proxy for its URL.
    let (behind_tls, proxy) = (Forwarder::default(), Forwarder::default());
    behind_tls.route("/mcp", &far);
    proxy.route("/mcp", &far);
    let (address, trusted) = behind_tls.listen_with_tls("secure.test", directory.path()).await;
    proxy.tunnel_to(address);
    let url = format!("http://{}", proxy.listen().await);
    let builder = builder
        .env("http_proxy", &url)
        .env("HTTPS_PROXY", &url)
        .env("NO_PROXY", "direct.test")
        .env("SSL_CERT_FILE", &trusted)
        .definition("direct", &with(remote("http://direct.test:9000/mcp"), "timeout: 1"))
        .definition("here", &remote(&far.url))
        .definition("near", &example("everything", &[]))
        .definition("plain", &remote("http://plain.test:9000/mcp"))
        .definition("secure", &remote("https://secure.test/mcp"))
        .wait_for_servers();
    let sidegate = builder.start().await;
    let client = McpClient::connect(sidegate.url()).await;
    for server in ["here", "near", "plain", "secure"] {
        let answer = client.call(&format!("x_{server}_echo"), json!({"payload": server})).await;
        assert!(answer.raw().contains(server), "{server}: {answer:?}");
    }
    let mut seen: Vec<_> = proxy.seen().into_iter().map(|seen| (seen.method, seen.uri.to_string())).collect();
    seen.sort_by_key(|(method, uri)| (method.to_string(), uri.clone()));
    seen.dedup();
    let plain = "http://plain.test:9000/mcp".to_owned();
    assert_eq!(
        seen,
        [
            (Method::CONNECT, "secure.test:443".to_owned()),
            (Method::GET, plain.clone()),
            (Method::POST, plain)
        ]
    );
    // It was dialled itself, and is not there.
    assert!(sidegate.stderr().contains("server=direct state=failed"), "{}", sidegate.stderr());
}

#[tokio::test]
async fn a_proxy_that_cannot_be_used_is_said_by_those_who_need_it() {
    let far = Upstream::everything(&[]).await;
    let builder = Through::Embedded.builder().unwrap();
    let sidegate = builder
        .env("HTTPS_PROXY", "socks5://user:hunter22@proxy.test")
        .definition("far", &remote("https://far.test/mcp"))
        .definition("here", &remote(&far.url))
        .wait_for_servers()
        .start()
        .await;
    let why = "HTTPS_PROXY names a proxy that is spoken to by socks5, which is not supported; \
               write http://host:port, or name the server in NO_PROXY server=far state=unsupported";
    assert!(sidegate.stderr().contains(why), "{}", sidegate.stderr());
    assert!(!sidegate.stderr().contains("hunter22"), "{}", sidegate.stderr());
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await.len(), 24);
}
