//! A reverse proxy that tests look into: somebody else's gateway, a server behind TLS, a proxy that is asked.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::Upstream;

type Body = BoxBody<Bytes, hyper::Error>;

/// Sends requests on by their path, and writes down what it is asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Forwarder(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    routes: HashMap<String, Uri>,
    tunnel: Option<SocketAddr>,
    seen: Vec<Seen>,
    marks: bool,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// As it stood in the request.
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
}

impl Forwarder {
    /// What comes for `path` goes to `upstream`.
    pub(crate) fn route(&self, path: &str, upstream: &Upstream) {
        self.0.lock().unwrap().routes.insert(path.to_owned(), upstream.url.parse().unwrap());
    }

    /// Whoever asks to CONNECT gets to `address`.
    pub(crate) fn tunnel_to(&self, address: SocketAddr) {
        self.0.lock().unwrap().tunnel = Some(address);
    }

    /// Answers of routes get the header that our gateways put there.
    pub(crate) fn mark(&self, marks: bool) {
        self.0.lock().unwrap().marks = marks;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.0.lock().unwrap().seen.clone()
    }

    pub(crate) async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.accept(listener, None);
        address
    }

    /// Listens with TLS as `name`; gives the file, in `directory`, with the certificate to trust.
    pub(crate) async fn listen_with_tls(&self, name: &str, directory: &Path) -> (SocketAddr, PathBuf) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let file = directory.join("trusted.pem");
        fs_err::write(&file, made.cert.pem()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        self.accept(listener, Some(TlsAcceptor::from(Arc::new(config))));
        (address, file)
    }

    /// Serves until the runtime ends.
    pub(crate) fn accept(&self, listener: TcpListener, tls: Option<TlsAcceptor>) {
        let gateway = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (gateway, tls) = (gateway.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => gateway.serve(stream).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                gateway.serve(stream).await;
                            }
                        }
                    }
                });
            }
        });
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let service = service_fn(move |request| {
            let gateway = self.clone();
            async move { Ok::<_, std::convert::Infallible>(gateway.answer(request).await) }
        });
        // A client that goes away is no fault.
        drop(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await,
        );
    }

    async fn answer(&self, mut request: Request<Incoming>) -> Response<Body> {
        let (target, tunnel, marks) = {
            let mut state = self.0.lock().unwrap();
            let (method, uri) = (request.method().clone(), request.uri().clone());
            state.seen.push(Seen { method, uri: uri.clone(), headers: request.headers().clone() });
            (state.routes.get(uri.path()).cloned(), state.tunnel, state.marks)
        };
        if let (&Method::CONNECT, Some(address)) = (request.method(), tunnel) {
            tokio::spawn(async move {
                let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
                let mut target = TcpStream::connect(address).await.unwrap();
                // Either side may end it as it likes.
                drop(tokio::io::copy_bidirectional(&mut stream, &mut target).await);
            });
            return Response::new(Full::default().map_err(|never| match never {}).boxed());
        }
        let own = |status: StatusCode, text: String| {
            let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
            Response::builder().status(status).header("content-type", "text/plain").body(body).unwrap()
        };
        let Some(target) = target else {
            return own(StatusCode::NOT_FOUND, "route not found".to_owned());
        };
        let host = target.authority().unwrap().to_string();
        let stream = match TcpStream::connect(&host).await {
            Ok(stream) => stream,
            Err(error) => {
                return own(
                    StatusCode::SERVICE_UNAVAILABLE,
                    format!("upstream call failed: Connect: {error}"),
                );
            }
        };
        stream.set_nodelay(true).unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        *request.uri_mut() = Uri::from_static("/mcp");
        request.headers_mut().insert("host", host.parse().unwrap());
        let mut response = sender.send_request(request).await.unwrap().map(http_body_util::BodyExt::boxed);
        if marks {
            response.headers_mut().insert("x-sidegate-route", "theirs".parse().unwrap());
        }
        response
    }
}
