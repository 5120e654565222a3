//! The control socket: HTTP on a Unix socket in the runtime directory, for the owner of the instance only.
//!
//! It is bound and dialled through `/proc/self/fd/<directory>`, so that a long path of the runtime directory does not
//! matter: the name of a socket has at most 107 bytes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tracing::warn;

use crate::wire::server::Listener;

/// The name of the socket in the runtime directory.
pub const SOCKET: &str = "control.sock";

/// How long an operation may take: a swap waits for calls in flight, a start for a server that has up to 300 s.
const PATIENCE: Duration = Duration::from_secs(330);

/// A control socket that takes connections of our own user, and of root.
#[derive(Debug)]
pub struct ControlListener(UnixListener);

impl ControlListener {
    /// Binds the socket in `directory`, where there must be none.
    ///
    /// # Errors
    ///
    /// It cannot be bound.
    pub fn bind(directory: &Path) -> io::Result<Self> {
        let directory = File::open(directory)?;
        Ok(Self(UnixListener::bind(through(&directory))?))
    }
}

impl Listener for ControlListener {
    type Stream = UnixStream;

    async fn accept(&mut self) -> io::Result<UnixStream> {
        loop {
            let (stream, _) = self.0.accept().await?;
            let user = stream.peer_cred()?.uid();
            if user == rustix::process::geteuid().as_raw() || user == 0 {
                return Ok(stream);
            }
            warn!(user, "somebody else's connection to the control socket is refused");
        }
    }
}

/// Asks the instance that runs in `directory`; gives status and body of the answer.
///
/// # Errors
///
/// See [`ControlError`].
pub async fn ask(directory: &Path, method: Method, path: &str) -> Result<(StatusCode, String), ControlError> {
    let not_running = |source| ControlError::NotRunning { directory: directory.to_owned(), source };
    let opened = File::open(directory).map_err(not_running)?;
    let stream = UnixStream::connect(through(&opened)).await.map_err(not_running)?;
    let exchange = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap_or_default();
        request.headers_mut().insert(http::header::HOST, http::HeaderValue::from_static("localhost"));
        let answer = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(answer, connection);
        loop {
            tokio::select! {
                answer = &mut answer => return answer,
                // What it had to say is in the answer.
                ended = &mut connection => ended?,
            }
        }
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .map_err(|_| ControlError::Timeout)?
        .map_err(ControlError::Http)
}

fn through(directory: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(SOCKET)
}

/// Why an instance does not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// Nobody listens.
    #[error("no instance runs in {}", .directory.display())]
    NotRunning {
        /// The runtime directory.
        directory: PathBuf,
        /// Why the socket cannot be connected.
        source: io::Error,
    },
    /// It takes too long.
    #[error("the instance does not answer within {} s", PATIENCE.as_secs())]
    Timeout,
    /// The exchange failed.
    #[error("the instance did not answer")]
    Http(#[source] hyper::Error),
}

#[cfg(test)]
mod tests {
    use http::Response;
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::wire::server::{Body, serve_connections};

    #[tokio::test]
    async fn the_owner_is_answered_however_long_the_path_is() {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("x".repeat(150));
        std::fs::create_dir(&directory).unwrap();
        let listener = ControlListener::bind(&directory).unwrap();
        let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
        let handler = |request: Request<hyper::body::Incoming>| async move {
            Response::new(Body::text(format!("{} {}", request.method(), request.uri().path())))
        };
        let serving = tokio::spawn(serve_connections(listener, handler, stop.clone(), tracker));
        let answer = ask(&directory, Method::POST, "/v1/x").await.unwrap();
        assert_eq!(answer, (StatusCode::OK, "POST /v1/x".to_owned()));
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn without_an_instance_there_is_no_answer() {
        let directory = tempfile::tempdir().unwrap();
        let error = ask(directory.path(), Method::GET, "/v1/status").await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning { .. }), "{error}");
        // A socket that a killed instance left behind.
        drop(ControlListener::bind(directory.path()).unwrap());
        let error = ask(directory.path(), Method::GET, "/v1/status").await.unwrap_err();
        assert!(matches!(error, ControlError::NotRunning { .. }), "{error}");
    }
}
