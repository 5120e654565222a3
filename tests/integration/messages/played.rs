//! Servers on the network that do one thing, whatever they are asked.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// A server; ends when dropped.
pub(super) struct Played {
    pub(super) address: String,
    _serving: AbortOnDropHandle<()>,
}

/// What it does with a connection.
#[derive(Clone)]
enum Does {
    /// Says this to whoever has sent something, and closes the connection.
    Say(&'static str),
    /// Never says anything.
    Wait,
    /// Speaks TLS with a certificate that nobody has signed.
    Tls(TlsAcceptor),
}

impl Played {
    /// Says `answer` to whoever has sent something, and closes the connection; with an empty one that is all it does.
    pub(super) async fn saying(answer: &'static str) -> Self {
        Self::serving(Does::Say(answer)).await
    }

    /// Listens, and never says anything.
    pub(super) async fn silent() -> Self {
        Self::serving(Does::Wait).await
    }

    /// Speaks TLS with a certificate that nobody has signed.
    pub(super) async fn self_signed() -> Self {
        let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![signed.cert.der().clone()], key.into())
            .unwrap();
        Self::serving(Does::Tls(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serving(does: Does) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, does.clone()));
            }
        };
        Self { address, _serving: AbortOnDropHandle::new(tokio::spawn(serving)) }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}

async fn serve(mut stream: TcpStream, does: Does) {
    match does {
        Does::Say(answer) => {
            heard(&mut stream).await;
            // Whoever has gone hears nothing.
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
        Does::Wait => {
            heard(&mut stream).await;
            std::future::pending::<()>().await;
        }
        // Whoever does not trust it has gone.
        Does::Tls(acceptor) => drop(acceptor.accept(stream).await),
    }
}

/// Waits until something has come: its head and, as they are small, its body.
async fn heard(stream: &mut TcpStream) {
    let mut request = [0; 8192];
    let _ = stream.read(&mut request).await;
}
