//! Servers behind agentgateway's own MCP backend (`spec.route: mcp`): its sessions are its own, and go with its process.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::support::definitions::{example, remote, spec, with};
use super::support::forwarder::Forwarder;
use super::support::optional::real_agentgateway;
use super::support::sidegate::Builder;
use super::support::{McpClient, Sidegate, Upstream, eventually, leaks, within};

fn agentgateway() -> Option<Builder> {
    Some(Sidegate::builder().agentgateway(&real_agentgateway()?))
}

async fn restart_gateway(sidegate: &Sidegate) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_sidegate"));
    command.args(["gateway", "restart", "--runtime-dir"]).arg(&sidegate.ready.runtime_dir).env_clear();
    let output = within("the restart", command.output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test]
async fn calls_cross_the_mcp_backend() {
    let Some(builder) = agentgateway() else { return };
    let far = Upstream::everything(&[]).await;
    let headers = with(with(remote(&far.url), "route: mcp"), "headers: {X-Team: core}");
    let variables = "env: {PRICE: '$5', TEXT: \"a: 'b'\"}";
    let child = with(with(with(example("everything", &[]), "route: mcp"), variables), "cwd: work");
    fs_err::create_dir(builder.config_dir().join("work")).unwrap();
    let work = builder.config_dir().join("work").canonicalize().unwrap();
    let builder = builder
        .env("SECRET_OF_THE_SHELL", "hunter22")
        .definition("far", &headers)
        .definition("near", &child)
        .wait_for_servers();
    let sidegate = builder.start().await;
    let client = McpClient::connect(sidegate.url()).await;
    for server in ["far", "near"] {
        let answer = client.call(&format!("x_{server}_echo"), json!({"payload": server})).await;
        assert!(answer.raw().contains(server), "{server}: {answer:?}");
    }
    let variable = async |name: &str| {
        let answer = client.call("x_near_env", json!({"name": name})).await;
        answer.value()["structuredContent"]["value"].clone()
    };
    assert_eq!(variable("PRICE").await, "$5");
    assert_eq!(variable("TEXT").await, "a: 'b'");
    assert_eq!(variable("SECRET_OF_THE_SHELL").await, Value::Null);
    // It is agentgateway's child and not the bridge's, in the directory of the definition.
    let pid: u64 =
        client.call("x_near_pid", json!({})).await.value()["structuredContent"]["pid"].as_u64().unwrap();
    assert_eq!(fs_err::read_link(format!("/proc/{pid}/cwd")).unwrap(), work);
    let parent = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let parent = parent.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().to_owned();
    assert_eq!(parent, sidegate.ready.gateway.pid.unwrap().to_string());

    let tag = sidegate.tag.clone();
    assert!(sidegate.stop().await.status.success());
    assert_eq!(leaks::processes(&tag), []);
}

#[tokio::test]
async fn sessions_are_opened_again_when_their_gateway_has_gone() {
    let Some(builder) = agentgateway() else { return };
    let far = Upstream::everything(&[]).await;
    let builder = builder
        .definition("far", &with(remote(&far.url), "route: mcp"))
        .definition("near", &with(example("everything", &[]), "route: mcp"))
        .definition("plain", &example("everything", &[]))
        .wait_for_servers();
    let sidegate = builder.start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let pid = async |server: &str| client.call(&format!("x_{server}_pid"), json!({})).await.text();
    let (near, plain, far_pid) = (pid("near").await, pid("plain").await, pid("far").await);

    kill_process(sidegate.gateway_pid().unwrap(), Signal::KILL).unwrap();
    eventually("a call", async || {
        let answer = client.call("x_near_pid", json!({})).await;
        (answer.envelope().result.is_some() && answer.text() != near).then_some(())
    })
    .await;
    eventually("a call", async || {
        client.call("x_far_pid", json!({})).await.envelope().result.is_some().then_some(())
    })
    .await;
    assert_eq!(pid("plain").await, plain, "its session lives in the bridge");

    // Replaced, as often as one likes: no call fails, and the tools stay.
    for _ in 0..4 {
        let before = pid("near").await;
        restart_gateway(&sidegate).await;
        assert_ne!(pid("near").await, before);
        assert_eq!(pid("far").await, far_pid);
        assert_eq!(pid("plain").await, plain);
        assert_eq!(client.tool_names().await.len(), 72);
    }
    assert!(!sidegate.stderr().contains("state=failed"), "{}", sidegate.stderr());
    let tag = sidegate.tag.clone();
    assert!(sidegate.stop().await.status.success());
    assert_eq!(leaks::processes(&tag), []);
}

#[tokio::test]
async fn a_call_that_is_under_way_ends_on_the_old_gateway() {
    let Some(builder) = agentgateway() else { return };
    let near = with(example("everything", &[]), "route: mcp");
    let sidegate = builder.definition("near", &near).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    let long = client.start("tools/call", json!({"name": "x_near_sleep", "arguments": {"ms": 2500}})).await;
    let answered = tokio::spawn(long.response());
    let before = client.call("x_near_pid", json!({})).await.text();
    restart_gateway(&sidegate).await;
    let answer = within("the answer", answered).await.unwrap();
    answer.result();
    assert_ne!(client.call("x_near_pid", json!({})).await.text(), before);
}

/// A server of the kind of 2024: an event stream, which names where messages are to be sent.
#[derive(Clone, Default)]
struct LegacyServer(Arc<Mutex<Option<mpsc::UnboundedSender<String>>>>);

impl LegacyServer {
    async fn start() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self::default();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = server.clone();
                let service = service_fn(move |request| {
                    let server = server.clone();
                    async move { Ok::<_, Infallible>(server.answer(request).await) }
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        address
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
        if request.method() == Method::GET {
            let (sender, receiver) = mpsc::unbounded_channel();
            *self.0.lock().unwrap() = Some(sender);
            let first = stream::iter(["event: endpoint\ndata: /message?s=1\n\n".to_owned()]);
            let rest =
                stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)));
            let frames = first.chain(rest).map(|text| Ok(Frame::data(Bytes::from(text))));
            let body = http_body_util::BodyExt::boxed(StreamBody::new(frames));
            return Response::builder().header("content-type", "text/event-stream").body(body).unwrap();
        }
        let message = request.into_body().collect().await.unwrap().to_bytes();
        let message: Value = serde_json::from_slice(&message).unwrap();
        let result = match message["method"].as_str().unwrap() {
            "initialize" => json!({
                "protocolVersion": "2024-11-05", "capabilities": {"tools": {}},
                "serverInfo": {"name": "legacy", "version": "1"},
            }),
            "tools/list" => json!({"tools": [{"name": "poke", "inputSchema": {"type": "object"}}]}),
            "tools/call" => json!({"content": [{"type": "text", "text": "poked"}]}),
            _ => json!({}),
        };
        if let (Some(id), Some(stream)) = (message.get("id"), &*self.0.lock().unwrap()) {
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": result});
            stream.send(format!("event: message\ndata: {answer}\n\n")).unwrap();
        }
        let body = Full::default().boxed();
        Response::builder().status(StatusCode::ACCEPTED).body(body).unwrap()
    }
}

#[tokio::test]
async fn a_legacy_server_is_reached_through_the_mcp_backend() {
    let Some(builder) = agentgateway() else { return };
    let address = LegacyServer::start().await;
    let old = spec(&format!("{{type: sse, url: 'http://{address}/sse', route: mcp}}"));
    let sidegate = builder.definition("old", &old).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    assert_eq!(client.tool_names().await, ["x_old_poke"]);
    assert_eq!(client.call("x_old_poke", json!({})).await.text(), "poked");
}

#[tokio::test]
async fn the_mcp_backend_dials_through_the_proxy() {
    let Some(builder) = agentgateway() else { return };
    let (proxy, far) = (Forwarder::default(), Upstream::everything(&[]).await);
    proxy.route("/mcp", &far);
    let url = format!("http://{}", proxy.listen().await);
    let definition = with(remote("http://far.test/mcp"), "route: mcp");
    let sidegate =
        builder.env("http_proxy", &url).definition("far", &definition).wait_for_servers().start().await;
    let client = McpClient::connect(sidegate.url()).await;
    client.call("x_far_pid", json!({})).await.result();
    assert!(proxy.seen().iter().all(|seen| seen.uri == "http://far.test/mcp"), "{:?}", proxy.seen());
}
