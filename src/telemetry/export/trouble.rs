//! Why a collector cannot be reached.

use std::fmt::Display;
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Why the collector could not be reached the last time: the exporter keeps it for itself. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// How the last request ended.
    pub(super) fn note(&self, why: Option<String>) {
        *lock(&self.0) = why;
    }

    /// What the exporter says, and why where that is known.
    pub(super) fn explain(&self, error: &impl Display) -> String {
        match lock(&self.0).take() {
            Some(why) => format!("{error}: {why}"),
            None => error.to_string(),
        }
    }
}
