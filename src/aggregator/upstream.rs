//! One session with one server: opening it, listing its tools, and what the server says outside of calls.

use std::sync::Arc;
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, debug, info_span};

use super::catalogue::{InvalidTool, Tool};
use super::link::Limits;
use crate::mcpserver::ServerName;
use crate::wire::client::{ClientConfig, ClientError, Pool, Session};
use crate::wire::json;
use crate::wire::message::{Message, View};
use crate::wire::rpc::{self, RpcError};

/// Lists that have more pages than this are not read on: a server that always gives a next cursor never ends.
const MOST_PAGES: usize = 1000;

/// While a route is not in force yet, or a connection is refused, this is how long to wait before trying again.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LONGEST_RETRY: Duration = Duration::from_millis(250);

/// How long the end of a session may take: what a child has to end, and a little more. Not the server's own
/// `spec.timeout`: one that hangs must not hold a shutdown up, and one that is quick may have a child that is not.
const CLOSE: Duration = Duration::from_secs(6);

/// Messages that wait to be sent to a server from our side: answers to its requests.
const OUTBOX: usize = 64;

/// An open session with a server.
#[derive(Debug)]
pub struct Upstream {
    server: ServerName,
    session: Arc<Session>,
    /// The session is of no more use, whoever ended it.
    lost: CancellationToken,
    /// We have ended it.
    closed: CancellationToken,
    said: Arc<ServerSide>,
    calls: TaskTracker,
    has_tools: bool,
}

impl Upstream {
    /// Connects to a server. Its tasks run on `tracker` and end when the session is closed or lost.
    ///
    /// A connection that is refused, and a route that the gateway does not have yet, are tried again within
    /// [`Limits::timeout`].
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub async fn connect(
        server: ServerName,
        pool: Pool,
        config: ClientConfig,
        limits: Limits,
        tracker: TaskTracker,
    ) -> Result<Arc<Self>, ConnectError> {
        let timeout = limits.timeout;
        let opening = open(pool, config, &tracker);
        let (session, answer) =
            tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::Timeout(timeout))??;
        let result = match answer.view() {
            View::Response { outcome: Ok(result), .. } => result,
            View::Response { outcome: Err(error), .. } => {
                return Err(ConnectError::Refused(error_text(error)));
            }
            _ => return Err(ConnectError::Protocol("initialize was not answered".to_owned())),
        };
        let invalid = |error: serde_json::Error| ConnectError::Protocol(error.to_string());
        let [capabilities] = json::members(result, ["capabilities"]).map_err(invalid)?;
        let [tools] = json::members(capabilities.unwrap_or("{}"), ["tools"]).map_err(invalid)?;

        let (outbox, receiver) = mpsc::channel(OUTBOX);
        let session = Arc::new(session);
        let lost = CancellationToken::new();
        let said = Arc::new(ServerSide { tools_changed: Notify::new(), outbox });
        let span = info_span!("upstream", %server);
        // They hold the session and not the upstream: when that is dropped, they end, and the session is closed.
        let listening = listen(Arc::clone(&session), Arc::clone(&said), lost.clone());
        tracker.spawn(listening.instrument(span.clone()));
        tracker.spawn(send_outbox(Arc::clone(&session), receiver, lost.clone()).instrument(span));
        Ok(Arc::new(Self {
            server,
            session,
            lost,
            closed: CancellationToken::new(),
            said,
            calls: TaskTracker::new(),
            has_tools: tools.is_some_and(|tools| tools != "null"),
        }))
    }

    /// The server's name.
    pub fn server(&self) -> &ServerName {
        &self.server
    }

    /// The session itself, for calls.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// The server does not know this session any more.
    pub fn mark_lost(&self) {
        self.lost.cancel();
    }

    /// Whether the session is lost or closed.
    pub fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }

    /// Waits until the session is lost or closed.
    pub async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Counts a call as under way, as long as the value lives.
    pub(super) fn call(&self) -> TaskTrackerToken {
        self.calls.token()
    }

    /// Waits until no call is under way. For a session that gets no new ones.
    pub async fn calls_done(&self) {
        self.calls.close();
        self.calls.wait().await;
    }

    /// Waits until [`close`](Self::close) was called.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Waits until the server says that its tools have changed. What was said while nobody waited counts once.
    pub async fn tools_changed(&self) {
        self.said.tools_changed.notified().await;
    }

    /// All tools of the server, from all pages.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`]. A server that has no tools is none: the list is empty.
    pub async fn list_tools(&self, limits: Limits) -> Result<Arc<[Tool]>, ConnectError> {
        if !self.has_tools {
            return Ok(Arc::from([]));
        }
        let timeout = limits.timeout;
        tokio::time::timeout(timeout, self.read_pages()).await.map_err(|_| ConnectError::Timeout(timeout))?
    }

    async fn read_pages(&self) -> Result<Arc<[Tool]>, ConnectError> {
        let mut tools = Vec::new();
        let mut params = String::from("{}");
        for _ in 0..MOST_PAGES {
            let id = self.session.next_id();
            let request = rpc::request(id, "tools/list", &params);
            let answer = self.session.request(request, id, &mut |message| self.said.take(message)).await?;
            let result = match answer.view() {
                View::Response { outcome: Ok(result), .. } => result,
                View::Response { outcome: Err(error), .. } => {
                    return Err(ConnectError::Refused(error_text(error)));
                }
                _ => return Err(ConnectError::Protocol("tools/list was not answered".to_owned())),
            };
            let invalid = |error: serde_json::Error| ConnectError::Protocol(error.to_string());
            let [page, cursor] = json::members(result, ["tools", "nextCursor"]).map_err(invalid)?;
            let page = page.ok_or_else(|| ConnectError::Protocol("tools/list has no tools".to_owned()))?;
            for raw in json::elements(page).map_err(invalid)? {
                tools.push(Tool::parse(answer.text().slice_ref(raw))?);
            }
            match cursor {
                None | Some("null") => return Ok(tools.into()),
                Some(cursor) => params = format!(r#"{{"cursor":{cursor}}}"#),
            }
        }
        Err(ConnectError::Protocol(format!("tools/list has more than {MOST_PAGES} pages")))
    }

    /// Closes the session: the server may forget it, and ends what belongs to it.
    ///
    /// # Errors
    ///
    /// The server did not answer as it should. The session is over for us all the same.
    pub async fn close(&self) -> Result<(), ConnectError> {
        let was_lost = self.is_lost();
        self.lost.cancel();
        self.closed.cancel();
        if was_lost {
            return Ok(());
        }
        let closing = tokio::time::timeout(CLOSE, self.session.close()).await;
        Ok(closing.map_err(|_| ConnectError::Timeout(CLOSE))??)
    }

    /// Takes a message of the server that belongs to no call, or that no client can do anything with.
    pub fn take(&self, message: Message) {
        self.said.take(message);
    }

    /// Sends something to the server soon: an answer to its request, or a notification.
    pub fn reply(&self, text: ByteString) {
        self.said.reply(text);
    }
}

impl Drop for Upstream {
    /// Ends the tasks of a session that was given up.
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

/// What the server says outside of calls, and what it is answered.
#[derive(Debug)]
struct ServerSide {
    tools_changed: Notify,
    outbox: mpsc::Sender<ByteString>,
}

impl ServerSide {
    fn take(&self, message: Message) {
        match message.view() {
            View::Notification { method: "notifications/tools/list_changed", .. } => {
                self.tools_changed.notify_one();
            }
            View::Request { id, method: "ping", .. } => self.reply(rpc::result(id, "{}")),
            View::Request { id, method, .. } => {
                // The session was opened without these capabilities, so a server should not ask.
                debug!(%method, "the server asks for what no client offered");
                let why = format!("{method} is not offered to this server");
                self.reply(RpcError::new(RpcError::METHOD_NOT_FOUND, why).response(Some(id)));
            }
            View::Notification { method: "notifications/message", params } => {
                debug!(params = params.unwrap_or_default(), "the server logs");
            }
            View::Notification { .. } | View::Response { .. } => debug!(?message, "belongs to no call"),
        }
    }

    fn reply(&self, text: ByteString) {
        if self.outbox.try_send(text).is_err() {
            debug!("an answer to the server is dropped: too many wait, or the session is over");
        }
    }
}

async fn listen(session: Arc<Session>, said: Arc<ServerSide>, lost: CancellationToken) {
    let mut on_message = |message| said.take(message);
    let result = tokio::select! {
        result = session.listen(&mut on_message) => result,
        () = lost.cancelled() => return,
    };
    match result {
        Ok(()) => debug!("the server offers no stream for what belongs to no call"),
        Err(error) if error.is_session_lost() => {
            debug!(%error, "the server has ended the session");
            lost.cancel();
        }
        Err(error) => debug!(%error, "the server refuses its GET stream"),
    }
}

async fn send_outbox(
    session: Arc<Session>,
    mut receiver: mpsc::Receiver<ByteString>,
    lost: CancellationToken,
) {
    let sending = async {
        while let Some(text) = receiver.recv().await {
            if let Err(error) = session.send(text).await {
                debug!(%error, "the server did not take an answer");
            }
        }
    };
    tokio::select! {
        () = sending => {}
        () = lost.cancelled() => {}
    }
}

async fn open(
    pool: Pool,
    config: ClientConfig,
    tracker: &TaskTracker,
) -> Result<(Session, Message), ConnectError> {
    let client_info = format!(r#"{{"name":"sidegate","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
    let mut wait = FIRST_RETRY;
    loop {
        match Session::open(pool.clone(), config.clone(), tracker.clone(), "{}", &client_info).await {
            Err(error @ ClientError::Connect(_)) => {
                debug!(%error, "trying again");
            }
            Err(ClientError::Status(error))
                if !error.from_server && error.status == http::StatusCode::NOT_FOUND =>
            {
                debug!(%error, "the route is not there yet");
            }
            other => return Ok(other?),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}

/// The message of a JSON-RPC error, or all of it where it has none.
fn error_text(error: &str) -> String {
    let message = json::members(error, ["message"]).ok().and_then(|[message]| json::string(message?));
    message.map_or_else(|| error.to_owned(), |message| message.into_owned())
}

impl ConnectError {
    /// Whether the server wants to know who asks (RFC 9110 section 15.5.2).
    pub fn wants_credentials(&self) -> bool {
        matches!(self, Self::Client(ClientError::Status(error))
            if error.from_server && error.status == http::StatusCode::UNAUTHORIZED)
    }
}

/// Why a server cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// It took too long.
    #[error("no answer within {} s (spec.timeout)", .0.as_secs())]
    Timeout(Duration),
    /// The exchange with it failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// It answered with an error.
    #[error("{0}")]
    Refused(String),
    /// It does not speak MCP as it should.
    #[error("the server does not speak MCP as it should: {0}")]
    Protocol(String),
    /// It lists what is no tool.
    #[error(transparent)]
    Tool(#[from] InvalidTool),
}
