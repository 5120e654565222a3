//! TLS as a client: whom the system trusts. The crypto provider is named here, so none has to be installed for the process.

use std::io;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The provider of all our TLS.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Settings that trust the certificates of this machine. Reads them, and so blocks.
pub(crate) fn client_config() -> Result<ClientConfig, rustls::Error> {
    trusting(system_roots())
}

/// As [`client_config`], for HTTP/1.1 only.
///
/// # Errors
///
/// The machine trusts nobody.
pub(crate) fn system_client() -> io::Result<Arc<ClientConfig>> {
    let roots = system_roots();
    if roots.is_empty() {
        return Err(io::Error::other("the system has no root certificates; set SSL_CERT_FILE"));
    }
    client(roots)
}

/// A client of HTTP/1.1 that trusts `roots`.
///
/// # Errors
///
/// The provider has no protocol version in common with the library.
pub(crate) fn client(roots: RootCertStore) -> io::Result<Arc<ClientConfig>> {
    Ok(http1_only(trusting(roots).map_err(io::Error::other)?))
}

/// Offers HTTP/1.1 and nothing else.
pub(crate) fn http1_only(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// Who we are, for servers that want to know.
pub(crate) struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ClientIdentity {
    /// Reads certificates and a key, both PEM.
    ///
    /// # Errors
    ///
    /// There are none.
    pub(crate) fn from_pem(chain: &[u8], key: &[u8]) -> io::Result<Self> {
        let chain = certificates(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(io::Error::other)?;
        Ok(Self { chain, key })
    }
}

/// The certificates in a PEM text as those to trust.
///
/// # Errors
///
/// There are none.
pub(crate) fn roots_of(pem: &[u8]) -> io::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(io::Error::other)?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> io::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(io::Error::other)?;
    if found.is_empty() { Err(io::Error::other("it holds no certificate")) } else { Ok(found) }
}

/// As [`client`], as `identity` where there is one.
///
/// # Errors
///
/// As [`client`], or key and certificate do not belong together.
pub(crate) fn client_as(
    roots: RootCertStore,
    identity: Option<ClientIdentity>,
) -> io::Result<Arc<ClientConfig>> {
    let Some(ClientIdentity { chain, key }) = identity else { return client(roots) };
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let config = config.map_err(io::Error::other)?.with_root_certificates(roots);
    Ok(http1_only(config.with_client_auth_cert(chain, key).map_err(io::Error::other)?))
}

fn trusting(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Whom the machine trusts. Reads files, and so blocks.
pub(crate) fn system_roots() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of this machine cannot be read");
    }
    let mut roots = RootCertStore::empty();
    // A machine's store often holds a few that no library takes.
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "read the certificates of this machine");
    roots
}
