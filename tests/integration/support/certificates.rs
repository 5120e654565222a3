//! A certificate authority of a test's own, and what it has signed: a server at 127.0.0.1, and a client.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

/// The files, for whoever is told of them by name.
pub(crate) struct Certificates {
    directory: TempDir,
    authority: String,
    server: (String, String),
    /// Servers ask clients who they are.
    asks_clients: bool,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let signed = |name: &str| {
            let key = KeyPair::generate().unwrap();
            let params = CertificateParams::new([name.to_owned()]).unwrap();
            (params.signed_by(&key, &authority).unwrap().pem(), key.serialize_pem())
        };
        let (server, client) = (signed("127.0.0.1"), signed("client.test"));
        let directory = tempfile::tempdir().unwrap();
        let files = [("ca.pem", &authority.pem()), ("client.pem", &client.0), ("client.key", &client.1)];
        for (name, text) in files {
            fs_err::write(directory.path().join(name), text).unwrap();
        }
        Self { directory, authority: authority.pem(), server, asks_clients: false }
    }

    /// Servers take only clients that the authority knows.
    pub(crate) fn asking_clients(self) -> Self {
        Self { asks_clients: true, ..self }
    }

    /// A file: `ca.pem`, `client.pem` or `client.key`.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(super) fn of_tonic(&self) -> ServerTlsConfig {
        let (certificate, key) = &self.server;
        let config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
        if self.asks_clients { config.client_ca_root(Certificate::from_pem(&self.authority)) } else { config }
    }

    pub(super) fn of_rustls(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = if self.asks_clients {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(self.authority.as_bytes()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        } else {
            builder.with_no_client_auth()
        };
        let (certificate, key) = &self.server;
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        Arc::new(builder.with_single_cert(chain, key).unwrap())
    }
}
