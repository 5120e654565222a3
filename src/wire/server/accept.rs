//! Listening sockets and their connections.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::own_wakes::PolledAgain;

/// A client has this long to send the head of a request; idle connections are closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);

/// Connections that are busy when the server stops have this long to come to an end.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// After an error that is not about one connection (descriptors used up), accepting pauses for this long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A socket that takes connections.
pub trait Listener: Send + 'static {
    /// One connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection. Safe to drop while it waits.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let (stream, _) = TcpListener::accept(self).await?;
        // Small messages go at once. A connection that refuses the option is slower, not broken.
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "cannot set TCP_NODELAY");
        }
        Ok(stream)
    }
}

impl Listener for UnixListener {
    type Stream = tokio::net::UnixStream;

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        Ok(UnixListener::accept(self).await?.0)
    }
}

/// Serves HTTP/1.1 on `listener` until `stop`, then lets requests that are under way finish. Connections are tasks on
/// `tracker`; whoever owns it waits for them, or drops the runtime.
pub async fn serve_connections<L, H, F, B>(
    mut listener: L,
    handler: H,
    stop: CancellationToken,
    tracker: TaskTracker,
) where
    L: Listener,
    H: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static,
{
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(stream) => stream,
                Err(error) if is_about_one_connection(&error) => continue,
                Err(error) => {
                    warn!(%error, "cannot accept connections for the moment");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        tracker.spawn(PolledAgain::new(serve_connection(stream, handler.clone(), stop.clone())));
    }
}

fn is_about_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn serve_connection<S, H, F, B>(stream: S, handler: H, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<B>>,
    B: http_body::Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
{
    let service = service_fn(|request| {
        let response = handler(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .half_close(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            // Whoever stops us has waited for calls before. A client that reads or writes no further is not waited for.
            match tokio::time::timeout(LAST_MOMENT, connection).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = result {
        // Clients go away as they like; that is no error of ours.
        debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::sync::{Notify, mpsc};

    use super::*;
    use crate::wire::server::Body;

    /// More than the buffers of a connection hold.
    const LONG: usize = 64 << 20;

    /// Longer than anything takes; with a stopped clock it costs nothing.
    const NEVER: Duration = Duration::from_secs(3600);

    /// A server that reads a body, says so, waits for `go`, and answers with `size` bytes.
    struct Serving {
        stop: CancellationToken,
        tracker: TaskTracker,
        begun: mpsc::UnboundedReceiver<()>,
        go: Arc<Notify>,
        client: TcpStream,
    }

    impl Serving {
        async fn start(size: usize, request: &str) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stop, tracker) = (CancellationToken::new(), TaskTracker::new());
            let ((sender, begun), go) = (mpsc::unbounded_channel(), Arc::new(Notify::new()));
            let handler = {
                let go = Arc::clone(&go);
                move |request: Request<Incoming>| {
                    let (sender, go) = (sender.clone(), Arc::clone(&go));
                    async move {
                        sender.send(()).unwrap();
                        // The client is cut off when this fails.
                        let _ = request.into_body().collect().await;
                        go.notified().await;
                        Response::new(Body::text(vec![b'x'; size]))
                    }
                }
            };
            tracker.spawn(serve_connections(listener, handler, stop.clone(), tracker.clone()));
            client.write_all(request.as_bytes()).await.unwrap();
            let mut serving = Self { stop, tracker, begun, go, client };
            serving.begun.recv().await.unwrap();
            serving
        }

        async fn assert_ends(&self) {
            self.stop.cancel();
            self.tracker.close();
            tokio::time::timeout(NEVER, self.tracker.wait()).await.unwrap();
        }
    }

    const WHOLE: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nhi";
    const HALF: &str = "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\nh";

    #[tokio::test(start_paused = true)]
    async fn a_client_that_sends_half_a_request_is_not_waited_for() {
        Serving::start(0, HALF).await.assert_ends().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_not_waited_for() {
        let mut serving = Serving::start(LONG, WHOLE).await;
        serving.go.notify_one();
        // The head has come, so that the body is on its way.
        serving.client.read_u8().await.unwrap();
        serving.assert_ends().await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_closed_at_once() {
        let mut serving = Serving::start(0, WHOLE).await;
        serving.go.notify_one();
        let mut head = [0; 12];
        serving.client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        let before = tokio::time::Instant::now();
        serving.assert_ends().await;
        assert!(before.elapsed() < LAST_MOMENT);
    }

    #[tokio::test]
    async fn a_request_that_is_under_way_is_answered() {
        let mut serving = Serving::start(3, WHOLE).await;
        serving.stop.cancel();
        serving.go.notify_one();
        let mut answer = String::new();
        serving.client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nxxx"), "{answer}");
        serving.assert_ends().await;
    }
}
