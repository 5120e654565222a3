//! What a long resolution tells while it is under way.

use std::path::Path;
use std::time::Duration;

use super::{Digest, ResolveError};

/// A step of a resolution.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Another process works on the same release; it is waited for, as long as it takes.
    Waiting {
        /// Its process id, where it has said it already.
        pid: Option<u32>,
    },
    /// A cached file is not what was verified: it was moved aside, and nothing runs it.
    MovedAside {
        /// Where the file was.
        path: &'a Path,
        /// Where it is now.
        to: &'a Path,
        /// The pinned digest.
        expected: Digest,
        /// The digest of the file.
        actual: Digest,
    },
    /// A server begins to send the asset, or the rest of it.
    Started {
        /// Where it comes from, after redirects; without user info and query, which can hold secrets.
        url: &'a str,
        /// The size of the asset in bytes, where the server says it.
        total: Option<u64>,
        /// How much of it an earlier try has brought, in bytes.
        resumed_at: u64,
    },
    /// More of the asset has arrived. Comes for every piece, thousands of times.
    Received {
        /// How much is here, in bytes, including earlier tries.
        bytes: u64,
        /// The size of the asset in bytes, where the server says it.
        total: Option<u64>,
    },
    /// A try failed, and there will be another.
    Retrying {
        /// Why it failed.
        error: &'a ResolveError,
        /// The number of the next try; the first was 1.
        attempt: u32,
        /// How long it waits first.
        delay: Duration,
    },
    /// The asset is complete, has the pinned digest, and stands in the cache.
    Installed {
        /// Where.
        path: &'a Path,
    },
}

/// Who is told. Called on the task that resolves: must return at once.
///
/// Every `Fn(Event<'_>)` is one; `&|_| {}` listens to nothing.
pub trait Progress: Send + Sync {
    /// Takes note of an event.
    fn report(&self, event: Event<'_>);
}

impl<F: Fn(Event<'_>) + Send + Sync> Progress for F {
    fn report(&self, event: Event<'_>) {
        self(event);
    }
}
