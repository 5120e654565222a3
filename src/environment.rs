//! A snapshot of environment variables.
//!
//! The library does not read the environment of its process: the binary takes one snapshot at start and hands it down,
//! so tests hold it in their hands and nothing changes under a running instance. Only
//! [`Instance::builder`](crate::Instance::builder) takes the snapshot itself, where it is given none.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::sync::Arc;

/// Environment variables as they were at one moment. Cheap to clone.
///
/// `Debug` shows names only: values may be secrets.
#[derive(Clone, Default)]
pub struct Environment(Arc<BTreeMap<OsString, OsString>>);

impl Environment {
    /// The value of `name` as the operating system has it.
    pub fn get_os(&self, name: &str) -> Option<&OsStr> {
        self.0.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// The value of `name` as text; `None` when it is not set.
    ///
    /// # Errors
    ///
    /// When the value is not UTF-8.
    pub fn get(&self, name: &str) -> Result<Option<&str>, NotUnicode> {
        match self.get_os(name) {
            None => Ok(None),
            Some(value) => value.to_str().map(Some).ok_or_else(|| NotUnicode(name.to_owned())),
        }
    }

    /// A snapshot with one variable more, or another value of it.
    #[must_use]
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut variables = BTreeMap::clone(&self.0);
        variables.insert(name.into(), value.into());
        Self(Arc::new(variables))
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }
}

/// `std::env::vars_os().collect()` is the snapshot of the process.
impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self(Arc::new(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect()))
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// An environment variable whose value is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {0} is not UTF-8")]
pub struct NotUnicode(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_and_never_shown() {
        let environment = Environment::from_iter([("TOKEN", "hunter22"), ("HOME", "/h")]);
        assert_eq!(environment.get("HOME"), Ok(Some("/h")));
        assert_eq!(environment.get("ABSENT"), Ok(None));
        assert_eq!(format!("{environment:?}"), r#"{"HOME", "TOKEN"}"#);
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_no_text_is_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let environment = Environment::from_iter([("BAD", OsString::from_vec(vec![0xff]))]);
        assert!(environment.get("BAD").is_err());
        assert!(environment.get_os("BAD").is_some());
    }
}
