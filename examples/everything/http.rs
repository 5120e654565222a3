//! Streamable HTTP, with POST streams that a tool can end early (SEP-1699).

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::Stream;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rmcp::model::{ClientJsonRpcMessage, GetExtensions, ServerJsonRpcMessage};
use rmcp::transport::common::server_side_http::ServerSseMessage;
use rmcp::transport::streamable_http_server::session::local::{
    LocalSessionHandle, LocalSessionManager, LocalSessionManagerError,
};
use rmcp::transport::streamable_http_server::session::{SessionId, SessionManager};
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::server::Everything;
use crate::state::Shared;

/// Serves until the process is killed.
pub(crate) async fn serve(address: SocketAddr, shared: Arc<Shared>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let url = format!("http://{}/mcp", listener.local_addr()?);
    // One write, so that whoever reads the pipe sees the line whole or not at all.
    std::io::stdout().write_all(format!("{}\n", json!({ "url": url })).as_bytes())?;

    let sessions = Arc::new(PollingSessions::default());
    let service = StreamableHttpService::new(
        move || Ok(Everything::new(Arc::clone(&shared))),
        sessions,
        StreamableHttpServerConfig::default(),
    );
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = service.clone();
        tokio::spawn(async move {
            let handle = service_fn(move |request| {
                let service = service.clone();
                async move { Ok::<_, Infallible>(service.handle(request).await) }
            });
            let connection = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = connection.serve_connection(TokioIo::new(stream), handle).await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

/// How long a client may stay away from a stream that was ended early.
const AWAY: Duration = Duration::from_secs(20);

/// The POST stream that a request came on. In the request's extensions over HTTP, absent over stdio.
#[derive(Clone)]
pub(crate) struct PostStream {
    session: LocalSessionHandle,
    http_request_id: u64,
    resumed: broadcast::Sender<Resumed>,
}

/// A stream to which a client has come back.
#[derive(Clone)]
struct Resumed {
    session: SessionId,
    last_event_id: String,
}

impl PostStream {
    /// Ends the stream, and waits until the client has come back with `Last-Event-ID`, for which it should take the time
    /// `retry`. rmcp forgets the answer to a request whose stream nobody reads.
    pub(crate) async fn interrupt(&self, retry: Duration) -> Result<(), String> {
        let mut resumed = self.resumed.subscribe();
        self.session
            .close_sse_stream(self.http_request_id, Some(retry))
            .await
            .map_err(|error| error.to_string())?;
        let back = async {
            loop {
                match resumed.recv().await {
                    Ok(resumed) if self.is(&resumed) => return,
                    // The one that was waited for may be among those that were missed.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(AWAY, back).await.map_err(|_| "the client has not come back".to_owned())
    }

    /// rmcp's event ids end with the number of the request.
    fn is(&self, resumed: &Resumed) -> bool {
        let request = resumed.last_event_id.rsplit_once('/').map(|(_, request)| request);
        resumed.session == *self.session.id() && request == Some(self.http_request_id.to_string().as_str())
    }
}

/// rmcp's local sessions, which tell each request its own POST stream: a handler cannot learn it otherwise.
struct PollingSessions {
    sessions: LocalSessionManager,
    resumed: broadcast::Sender<Resumed>,
}

impl Default for PollingSessions {
    fn default() -> Self {
        Self { sessions: LocalSessionManager::default(), resumed: broadcast::Sender::new(256) }
    }
}

impl SessionManager for PollingSessions {
    type Error = LocalSessionManagerError;
    type Transport = <LocalSessionManager as SessionManager>::Transport;

    async fn create_session(&self) -> Result<(SessionId, Self::Transport), Self::Error> {
        self.sessions.create_session().await
    }

    async fn initialize_session(
        &self,
        id: &SessionId,
        message: ClientJsonRpcMessage,
    ) -> Result<ServerJsonRpcMessage, Self::Error> {
        self.sessions.initialize_session(id, message).await
    }

    async fn has_session(&self, id: &SessionId) -> Result<bool, Self::Error> {
        self.sessions.has_session(id).await
    }

    async fn close_session(&self, id: &SessionId) -> Result<(), Self::Error> {
        self.sessions.close_session(id).await
    }

    async fn create_stream(
        &self,
        id: &SessionId,
        mut message: ClientJsonRpcMessage,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let session = self.sessions.sessions.read().await.get(id).cloned();
        let session = session.ok_or_else(|| LocalSessionManagerError::SessionNotFound(id.clone()))?;
        let mut receiver = session.establish_request_wise_channel().await?;
        if let (ClientJsonRpcMessage::Request(request), Some(http_request_id)) =
            (&mut message, receiver.http_request_id)
        {
            let resumed = self.resumed.clone();
            let stream = PostStream { session: session.clone(), http_request_id, resumed };
            request.request.extensions_mut().insert(stream);
        }
        session.push_message(message, receiver.http_request_id).await?;
        Ok(futures_util::stream::poll_fn(move |context| receiver.inner.poll_recv(context)))
    }

    async fn accept_message(&self, id: &SessionId, message: ClientJsonRpcMessage) -> Result<(), Self::Error> {
        self.sessions.accept_message(id, message).await
    }

    async fn create_standalone_stream(
        &self,
        id: &SessionId,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        self.sessions.create_standalone_stream(id).await
    }

    async fn resume(
        &self,
        id: &SessionId,
        last_event_id: String,
    ) -> Result<impl Stream<Item = ServerSseMessage> + Send + Sync + 'static, Self::Error> {
        let stream = self.sessions.resume(id, last_event_id.clone()).await?;
        // Nobody may be waiting.
        let _ = self.resumed.send(Resumed { session: id.clone(), last_event_id });
        Ok(stream)
    }
}
