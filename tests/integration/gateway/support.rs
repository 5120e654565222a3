//! A gateway task with an applier in front of it, upstreams that do as they are told, and a client.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sidegate::gateway::{self, ServeError};
use sidegate::yaml_applier::*;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Longer than anything here takes; a test that waits so long has failed.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) type Body = BoxBody<Bytes, Infallible>;
pub(crate) type Routes = BTreeMap<sidegate::yaml_applier::RouteName, RoutePlan>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// Holds a port as an instance of sidegate does: bound, never listening.
pub(crate) struct Lease {
    _socket: TcpSocket,
    pub(crate) port: NonZeroU16,
}

impl Lease {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(false).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        socket.set_reuseaddr(true).unwrap();
        let port = NonZeroU16::new(socket.local_addr().unwrap().port()).unwrap();
        Self { _socket: socket, port }
    }
}

/// An instance's part that concerns the gateway.
pub(crate) struct Harness {
    pub(crate) directory: TempDir,
    pub(crate) file: PathBuf,
    pub(crate) ports: GatewayPorts,
    pub(crate) key: GatewayKey,
    pub(crate) applier: Applier,
    pub(crate) child: Option<Child>,
    tasks: TaskTracker,
    cancel: CancellationToken,
    _leases: [Lease; 4],
}

pub(crate) struct Child {
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

impl Child {
    pub(crate) fn spawn(file: PathBuf) -> Self {
        let shutdown = CancellationToken::new();
        Self { task: tokio::spawn(gateway::serve(file, shutdown.clone())), shutdown }
    }

    pub(crate) async fn stop(self) -> Result<(), ServeError> {
        self.shutdown.cancel();
        tokio::time::timeout(LONG, self.task).await.unwrap().unwrap()
    }
}

impl Harness {
    /// An applier without a gateway.
    pub(crate) fn new() -> Self {
        Self::with_reload_deadline(Duration::from_secs(3))
    }

    pub(crate) fn with_reload_deadline(reload_deadline: Duration) -> Self {
        Self::with(reload_deadline, None)
    }

    pub(crate) fn with(reload_deadline: Duration, validator: Option<Arc<dyn Validator>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("agentgateway.yaml");
        let leases = [(); 4].map(|()| Lease::new());
        let [data, admin, stats, readiness] = [0, 1, 2, 3].map(|index: usize| leases[index].port);
        let ports = GatewayPorts { data, admin, stats, readiness };
        let key = GatewayKey::random().unwrap();
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        let settings = GatewaySettings {
            ports,
            ipv6: true,
            log_level: LogLevel::default(),
            spans: None,
            frontend_policies: serde_json::Map::new(),
        };
        let options = ApplierOptions {
            file: file.clone(),
            settings: Arc::new(settings),
            key: key.clone(),
            validator,
            reload_deadline,
            reloads: None,
        };
        let applier = Applier::start(options, &tasks, cancel.clone());
        Self { directory, file, ports, key, applier, child: None, tasks, cancel, _leases: leases }
    }

    /// With a gateway that serves `routes`.
    pub(crate) async fn serving(routes: Routes) -> Self {
        let mut harness = Self::new();
        harness.applier.apply(routes);
        harness.respawn().await;
        harness
    }

    pub(crate) async fn respawn(&mut self) -> InForce {
        if let Some(child) = self.child.take() {
            child.stop().await.unwrap();
        }
        self.applier.prepare(SpawnNonce::random().unwrap()).await.unwrap();
        self.child = Some(Child::spawn(self.file.clone()));
        self.applier.prove(LONG).await.unwrap()
    }

    pub(crate) async fn apply(&self, routes: Routes) -> InForce {
        let revision = self.applier.apply(routes);
        tokio::time::timeout(LONG, self.applier.in_force(revision)).await.unwrap().unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.ports.data).await
    }

    pub(crate) fn get(&self, path: &str) -> http::request::Builder {
        Request::get(path).header(KEY_HEADER, self.key.header_value())
    }

    pub(crate) fn post(&self, path: &str) -> http::request::Builder {
        Request::post(path).header(KEY_HEADER, self.key.header_value())
    }

    /// One GET on a connection of its own.
    pub(crate) async fn fetch(&self, path: &str) -> (u16, String) {
        self.client().await.text(self.get(path).body(full("")).unwrap()).await
    }

    pub(crate) async fn metrics(&self) -> String {
        let request = Request::get("/metrics").body(full("")).unwrap();
        Client::connect(self.ports.stats).await.text(request).await.1
    }

    /// Waits until `line` is among the metrics.
    pub(crate) async fn until_metric(&self, line: &str) {
        let wait = async {
            while !self.metrics().await.lines().any(|found| found == line) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, wait).await.unwrap_or_else(|_| panic!("never saw {line}"));
    }

    /// Ends everything and sees that it ended.
    pub(crate) async fn stop(mut self) {
        if let Some(child) = self.child.take() {
            child.stop().await.unwrap();
        }
        self.cancel.cancel();
        self.tasks.close();
        tokio::time::timeout(LONG, self.tasks.wait()).await.unwrap();
    }
}

/// A kept connection.
pub(crate) struct Client(SendRequest<Body>);

impl Client {
    pub(crate) async fn connect(port: NonZeroU16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port.get())).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    pub(crate) async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        tokio::time::timeout(LONG, async {
            self.0.ready().await.unwrap();
            self.0.send_request(request).await.unwrap()
        })
        .await
        .unwrap()
    }

    pub(crate) async fn text(&mut self, request: Request<Body>) -> (u16, String) {
        let response = self.send(request).await;
        let status = response.status().as_u16();
        (status, String::from_utf8(bytes(response).await.to_vec()).unwrap())
    }
}

pub(crate) async fn bytes(response: Response<Incoming>) -> Bytes {
    tokio::time::timeout(LONG, response.into_body().collect()).await.unwrap().unwrap().to_bytes()
}

pub(crate) fn port(address: SocketAddr) -> NonZeroU16 {
    NonZeroU16::new(address.port()).unwrap()
}

/// An HTTP server on `listener`, until the runtime ends.
pub(crate) fn upstream<F, R>(listener: TcpListener, answer: F) -> NonZeroU16
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let port = port(listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(serve_connection(stream, answer.clone()));
        }
    });
    port
}

pub(crate) async fn serve_connection<S, F, R>(stream: S, answer: F)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Fn(Request<Incoming>) -> R + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // The tests look at what the client sees.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

pub(crate) async fn listen() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

pub(crate) fn dial(port: NonZeroU16) -> DialHost {
    DialHost::new("127.0.0.1", port).unwrap()
}

pub(crate) fn route(dial: Dial, path: &str) -> RoutePlan {
    RoutePlan {
        policies: serde_json::Map::new(),
        backend: RouteBackend::Http(HttpBackend {
            dial,
            path_and_query: path.parse().unwrap(),
            authority: "upstream.test:9000".parse().unwrap(),
            tunnel: None,
        }),
    }
}

pub(crate) fn plain(port: NonZeroU16) -> RoutePlan {
    route(Dial::Plain(dial(port)), "/mcp")
}

pub(crate) fn routes<const N: usize>(routes: [(&str, RoutePlan); N]) -> Routes {
    routes
        .into_iter()
        .map(|(name, route)| (name.parse::<sidegate::mcpserver::ServerName>().unwrap().into(), route))
        .collect()
}
