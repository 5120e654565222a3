//! TLS as a client. The crypto provider is named here, so none has to be installed for the process.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

/// Settings that trust the certificates of this machine. Reads them, and so blocks.
pub(crate) fn client_config() -> Result<ClientConfig, rustls::Error> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        tracing::warn!(%error, "a certificate of this machine cannot be read");
    }
    let mut roots = RootCertStore::empty();
    // A machine's store often holds a few that no library takes.
    let (added, ignored) = roots.add_parsable_certificates(found.certs);
    tracing::debug!(added, ignored, "read the certificates of this machine");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
