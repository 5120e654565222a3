//! Why there is no binary to run.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use super::{Digest, Platform, Version};

/// Why a gateway binary cannot be given, found, downloaded or trusted.
///
/// URLs in it are without user info and query, which can hold secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// agentgateway publishes nothing for this platform.
    #[error("agentgateway is not published for {os} on {arch}")]
    UnsupportedPlatform {
        /// As in `std::env::consts::OS`.
        os: &'static str,
        /// As in `std::env::consts::ARCH`.
        arch: &'static str,
    },
    /// There is no digest to check a download against.
    #[error("no digest of agentgateway {version} for {platform} is pinned; pinned are {pinned}")]
    NotPinned {
        /// What was asked for.
        version: Version,
        /// The platform.
        platform: Platform,
        /// Every pinned version with its platforms.
        pinned: String,
    },
    /// The release is not in the cache, where nothing was to be downloaded.
    #[error("agentgateway {version} is not in the cache ({path}){}", if *.offline { ", and downloads are off" } else { "" })]
    NotCached {
        /// What was asked for.
        version: Version,
        /// Where it would be.
        path: PathBuf,
        /// Whether it would have been downloaded otherwise.
        offline: bool,
    },
    /// A path is not an executable regular file.
    #[error("{path} {problem}")]
    NotExecutable {
        /// The path as given.
        path: PathBuf,
        /// What it is instead.
        problem: &'static str,
    },
    /// Other users could replace the file, or could have.
    #[error("{path} {problem}")]
    Unsafe {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A given binary cannot be started.
    #[error("{path} cannot be started")]
    Start {
        /// The binary.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// A given binary did not end after `--version`.
    #[error("{path} --version did not end within {seconds} s")]
    ProbeTimeout {
        /// The binary.
        path: PathBuf,
        /// How long it was given.
        seconds: u64,
    },
    /// A given binary did not say its version.
    #[error("{path} --version says no version ({status}): {output:?}")]
    NoVersion {
        /// The binary.
        path: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The beginning of what it printed.
        output: String,
    },
    /// A mirror that is no URL.
    #[error("{text:?} is not a URL")]
    InvalidMirror {
        /// What was given.
        text: String,
        /// What is wrong with it.
        source: url::ParseError,
    },
    /// Plain http beyond this machine, or another scheme.
    #[error("{url} is not https (http is for loopback addresses only)")]
    Insecure {
        /// The address.
        url: String,
    },
    /// The HTTP client cannot be set up.
    #[error("setting up the HTTP client failed")]
    Client {
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server answered, but with something else than the asset.
    #[error("{url} answered {status}")]
    Status {
        /// What was asked for, after redirects.
        url: String,
        /// What it answered.
        status: http::StatusCode,
    },
    /// A redirect that leads nowhere.
    #[error("{url} answered with a redirect that cannot be followed")]
    BadRedirect {
        /// Who sent it.
        url: String,
    },
    /// A chain of redirects that does not end.
    #[error("{url} led to more than {limit} redirects")]
    TooManyRedirects {
        /// The first address.
        url: String,
        /// How many are followed.
        limit: usize,
    },
    /// The connection failed, was cut, or fell silent.
    #[error("the transfer from {url} failed after {received} bytes")]
    Transfer {
        /// What was asked for, after redirects.
        url: String,
        /// How much had arrived, in bytes, including earlier tries.
        received: u64,
        /// What happened.
        source: reqwest::Error,
    },
    /// A server that resumes with something else than what was asked for.
    #[error("{url} continued a transfer at the wrong place")]
    BadRange {
        /// What was asked for, after redirects.
        url: String,
    },
    /// More than any release could be.
    #[error("{url} sends more than {limit} bytes")]
    TooLarge {
        /// What was asked for, after redirects.
        url: String,
        /// The cap.
        limit: u64,
    },
    /// Every try failed.
    #[error("downloading {url} failed {tries} times")]
    GaveUp {
        /// What was asked for.
        url: String,
        /// How often.
        tries: u32,
        /// How the last try failed.
        source: Box<ResolveError>,
    },
    /// What was downloaded is not the pinned release.
    #[error("{url} is not the pinned release: its SHA-256 is {actual}, pinned is {expected}")]
    DownloadMismatch {
        /// Where it came from.
        url: String,
        /// The pin.
        expected: Digest,
        /// What arrived.
        actual: Digest,
    },
    /// A cached file is not the pinned release.
    #[error("{path} is not the pinned release: its SHA-256 is {actual}, pinned is {expected}")]
    CacheMismatch {
        /// The file.
        path: PathBuf,
        /// The pin.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A cached file was written to while it was hashed.
    #[error("{path} changes while it is read")]
    Unstable {
        /// The file.
        path: PathBuf,
    },
    /// A process runs another file than the one that was verified.
    #[error("pid {pid} does not run the verified file {path}")]
    OtherFile {
        /// The process.
        pid: u32,
        /// The file it should run.
        path: PathBuf,
    },
    /// A file operation failed.
    #[error("{action} {path} failed")]
    Io {
        /// What was tried: "creating", "reading", …
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Work on the thread pool was lost: the runtime is shutting down, or there is a bug.
    #[error("the work was interrupted")]
    Interrupted {
        /// How.
        #[from]
        source: tokio::task::JoinError,
    },
}

impl ResolveError {
    /// What the user can do about it, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::UnsupportedPlatform { .. } => {
                "build agentgateway and name it with --gateway-binary, or use --gateway embedded"
            }
            Self::NotPinned { .. } => {
                "choose a pinned version with --gateway-version, or name a binary with --gateway-binary"
            }
            Self::NotCached { .. } => {
                "run `sidegate gateway fetch` once with a network, or use --gateway embedded"
            }
            Self::NotExecutable { .. } => "the agentgateway executable itself is expected there",
            Self::Unsafe { .. } => {
                "other users could replace what sidegate runs: correct owner and mode (chmod go-w)"
            }
            Self::Start { .. } | Self::ProbeTimeout { .. } | Self::NoVersion { .. } => {
                "is this an agentgateway executable for this machine?"
            }
            Self::InvalidMirror { .. } | Self::Insecure { .. } => "write the mirror as https://host/path",
            Self::Status { .. }
            | Self::BadRedirect { .. }
            | Self::TooManyRedirects { .. }
            | Self::TooLarge { .. } => "a mirror must serve the assets as <mirror>/v<version>/<asset>",
            Self::Transfer { .. } | Self::BadRange { .. } => {
                "is there a network? a proxy is taken from HTTPS_PROXY, other certificates from SSL_CERT_FILE"
            }
            Self::GaveUp { source, .. } => return source.hint(),
            Self::DownloadMismatch { .. } => {
                "nothing was kept; the server or something before it changed the file: compare with another network or mirror"
            }
            Self::CacheMismatch { .. } => "`sidegate gateway fetch` moves it aside and downloads it again",
            Self::Unstable { .. } => "something writes to the cache: find out what, then try again",
            Self::OtherFile { .. } => {
                "somebody replaced the file while it was started; `sidegate gateway verify` tells more"
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                "make room, or set XDG_CACHE_HOME to another disk"
            }
            Self::Client { .. } | Self::Io { .. } | Self::Interrupted { .. } => return None,
        })
    }

    /// Whether another try of the same download can end better.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Transfer { .. } | Self::BadRange { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        http::StatusCode::REQUEST_TIMEOUT | http::StatusCode::TOO_MANY_REQUESTS
                    )
            }
            _ => false,
        }
    }

    /// For `map_err` on a file operation.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
