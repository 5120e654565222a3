//! TLS as a client: whom the system trusts. The crypto provider is named here, so none has to be installed for the process.

use std::io;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
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

fn trusting(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn system_roots() -> RootCertStore {
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
