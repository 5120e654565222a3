//! The secret that admits a caller to a gateway's data port.

use std::fmt;

use http::HeaderValue;
use sha2::{Digest, Sha256};

/// The random key of one gateway child: 64 hexadecimal characters that stand for 32 bytes.
///
/// agentgateway listens on all interfaces, so without it anyone on the network could call every server.
#[derive(Clone)]
pub struct GatewayKey(HeaderValue);

impl GatewayKey {
    /// Draws a new key from the system's random source.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(RandomSourceError)?;
        Self::from_text(hex::encode(bytes))
    }

    fn from_text(text: String) -> Result<Self, KeyError> {
        let mut value = HeaderValue::try_from(text)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }

    /// The digest that stands in the gateway's file.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(hex::encode(Sha256::digest(self.0.as_bytes())))
    }

    /// The value of [`KEY_HEADER`](super::KEY_HEADER), marked as sensitive, so that its `Debug` hides it.
    pub fn header_value(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// The hexadecimal SHA-256 of a key's text. Not secret: the gateway's admin port shows it to every local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDigest(String);

impl KeyDigest {
    #[cfg(test)]
    pub(super) fn of(text: &str) -> Self {
        Self(hex::encode(Sha256::digest(text.as_bytes())))
    }

    /// The 64 hexadecimal characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// No key could be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There was nothing random to make it from.
    #[error(transparent)]
    Random(#[from] RandomSourceError),
    /// The text is no header value.
    #[error("the key is not a header value")]
    Header(#[from] http::header::InvalidHeaderValue),
}

/// The system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the system's random source failed")]
pub struct RandomSourceError(#[source] pub(super) getrandom::Error);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_the_one_agentgateway_computes() {
        assert_eq!(
            GatewayKey::from_text("example-key".to_owned()).unwrap().digest().as_str(),
            "c018c41c1afaf2c0b66c64f97d0ee135657b699ad260f299234cd40a5d625e0e"
        );
    }

    #[test]
    fn keys_are_random_headers_that_debug_hides() {
        let (one, two) = (GatewayKey::random().unwrap(), GatewayKey::random().unwrap());
        assert_ne!(one.digest(), two.digest());
        assert_eq!(one.header_value().len(), 64);
        assert_eq!(format!("{:?}", one.header_value()), "Sensitive");
    }
}
