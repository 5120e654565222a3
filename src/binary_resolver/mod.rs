//! Finds, downloads and verifies pinned agentgateway releases.
//!
//! A [`Resolver`] takes a binary the user names, else one from the cache, else downloads one. [`Releases`] says which
//! releases there are: a download is taken for a release because its SHA-256 is in the table of pins, wherever it came from.
//!
//! Invariants:
//! - A file has the name of a release only after its digest was that of the release, and is executable only then.
//! - A cached file is run only when it is, by inode, size and modification time, the one whose digest was right;
//!   [`verify_running`] proves the same of a process.
//! - What is not the release is never run: a download is removed, a cached file is moved aside and reported.
//! - Nobody but this user and root can write to the cache's directories and files.
//! - Only https leaves this machine; a URL in a message has no user info and no query.
//! - One process works on a release at a time; it leaves nothing behind but the release, and whoever comes next removes what
//!   it left when it was killed.
//! - A failure is an error: nothing falls through from a given binary to the cache, or from a bad download to another place.
//!
//! Knows nothing of how a gateway is run: only a given binary is ever started, for `--version`.

mod cache;
mod digest;
mod download;
mod error;
mod given;
mod pins;
mod platform;
mod progress;
mod releases;
mod resolver;
mod safety;
mod transport;
mod verified;
mod version;

pub use digest::{Digest, InvalidDigest};
pub use download::Limits;
pub use error::ResolveError;
pub use pins::{DEFAULT_VERSION, Pin};
pub use platform::Platform;
pub use progress::{Event, Progress};
pub use releases::Releases;
pub use resolver::{Request, Resolver};
#[cfg(target_os = "linux")]
pub use verified::verify_running;
pub use verified::{Origin, Verified, Warning};
pub use version::{InvalidVersion, ReportedVersion, Version};
