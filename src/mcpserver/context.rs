//! What all parts of a definition are read with.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use super::Secret;
use super::expand::expand;
use crate::environment::Environment;
use crate::yaml::Value;

/// What the parts of a definition need besides their values.
pub(super) struct Context<'v> {
    config_dir: &'v Path,
    environment: &'v Environment,
    substituted: RefCell<Vec<Secret>>,
}

impl<'v> Context<'v> {
    /// Of a definition below `config_dir`, with `${VAR}` from `environment`.
    pub(super) fn new(config_dir: &'v Path, environment: &'v Environment) -> Self {
        Self { config_dir, environment, substituted: RefCell::default() }
    }

    /// The value's text with its variables put in.
    pub(super) fn expanded(&self, value: &Value<'_>) -> Option<String> {
        match expand(value.text()?, self.environment) {
            Ok(expanded) => {
                let mut substituted = self.substituted.borrow_mut();
                for value in expanded.values.into_iter().map(Secret::from) {
                    if !substituted.contains(&value) {
                        substituted.push(value);
                    }
                }
                Some(expanded.text)
            }
            Err(error) => {
                value.wrong(error.to_string(), error.advice());
                None
            }
        }
    }

    /// `path`, relative to the configuration directory.
    pub(super) fn absolute(&self, path: &str) -> PathBuf {
        // Collected again to drop the dots of "./x".
        self.config_dir.join(path).components().collect()
    }

    /// The values put in so far.
    pub(super) fn into_substituted(self) -> Vec<Secret> {
        self.substituted.into_inner()
    }
}
