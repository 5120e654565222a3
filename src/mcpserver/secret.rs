//! Text that must not be seen.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A text that is wiped when dropped and has no useful `Debug`.
///
/// Unlike `secrecy`'s own type it can be compared, since a changed secret is a changed definition.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_compare_and_do_not_show() {
        let secret = Secret::from("hunter22".to_owned());
        assert_eq!(secret, Secret::from("hunter22".to_owned()));
        assert_ne!(secret, Secret::from("hunter23".to_owned()));
        assert_eq!(format!("{secret:?}"), "[secret]");
    }
}
