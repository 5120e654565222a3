//! One session with one server: opening it, listing what it offers, and what the server says outside of calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, debug, info_span};

use super::link::{Limits, Link};
use super::offer::{InvalidItem, Item, Kind, List, Offer, PerKind};
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
    /// What the server said of itself; without lists.
    introduction: Offer,
}

/// What it takes to open sessions with a server.
#[derive(Clone, Debug)]
pub struct Dialer {
    /// Connections.
    pub pool: Pool,
    /// Where the server is.
    pub config: ClientConfig,
    /// Tasks of sessions run on it.
    pub tracker: TaskTracker,
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
    pub async fn connect(link: &Link, dialer: Dialer) -> Result<Arc<Self>, ConnectError> {
        let server = link.server().clone();
        let timeout = link.limits().timeout;
        let Dialer { pool, config, tracker } = dialer;
        let opening = open(pool, config, &tracker, Instant::now() + timeout);
        let (session, answer) =
            tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::Timeout(timeout))??;
        let result = answer_of("initialize", &answer)?;
        let introduction = Offer::parse(&answer.text().slice_ref(result)).map_err(invalid)?;

        let (outbox, receiver) = mpsc::channel(OUTBOX);
        let session = Arc::new(session);
        let lost = CancellationToken::new();
        let said = Arc::new(ServerSide { changed: PerKind::default(), woken: Notify::new(), outbox });
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
            introduction,
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

    /// Waits until the server says that a list has changed. What was said while nobody waited counts once.
    pub async fn lists_changed(&self) {
        self.said.woken.notified().await;
    }

    /// What the server offers: all its lists, from all pages.
    ///
    /// # Errors
    ///
    /// Its tools cannot be listed. Other lists that fail are empty, and the log says why: the tools of a server that
    /// cannot list its prompts are of use.
    pub async fn offer(&self, limits: Limits) -> Result<Offer, ConnectError> {
        self.relist(&self.introduction, Kind::ALL.map(|_| true), limits).await
    }

    /// `offer` with the lists of which the server has said that they have changed.
    ///
    /// # Errors
    ///
    /// As [`offer`](Self::offer).
    pub async fn changed_offer(&self, offer: &Offer, limits: Limits) -> Result<Offer, ConnectError> {
        let changed = Kind::ALL.map(|kind| self.said.changed[kind].swap(false, Ordering::AcqRel));
        self.relist(offer, changed, limits).await
    }

    async fn relist(&self, offer: &Offer, wanted: [bool; 4], limits: Limits) -> Result<Offer, ConnectError> {
        let list = async |kind: Kind| {
            if !wanted[kind as usize] {
                return Ok(offer.lists[kind].clone());
            }
            if !offer.has(kind.capability()) {
                return Ok(List::of(kind, []));
            }
            let listing = tokio::time::timeout(limits.timeout, self.read_pages(kind));
            match listing.await.unwrap_or(Err(ConnectError::Timeout(limits.timeout))) {
                Err(error) if kind != Kind::Tool => {
                    // Servers that have resources and no templates often know nothing of them.
                    debug!(server = %self.server, %error, method = kind.method(), "a list is left empty");
                    Ok(List::of(kind, []))
                }
                listed => listed,
            }
        };
        let (tools, prompts, resources, templates) = tokio::try_join!(
            list(Kind::Tool),
            list(Kind::Prompt),
            list(Kind::Resource),
            list(Kind::Template)
        )?;
        let mut lists = [tools, prompts, resources, templates].into_iter();
        let mut offer = offer.clone();
        for kind in Kind::ALL {
            offer.lists[kind] = lists.next().unwrap_or_else(|| List::of(kind, []));
        }
        Ok(offer)
    }

    async fn read_pages(&self, kind: Kind) -> Result<List, ConnectError> {
        let method = kind.method();
        let mut items = Vec::new();
        let mut params = String::from("{}");
        for page_number in 0..MOST_PAGES {
            let answer = self.ask(method, &params).await?;
            let result = answer_of(method, &answer)?;
            let [page, cursor] = json::members(result, [kind.member(), "nextCursor"]).map_err(invalid)?;
            let page = page.ok_or_else(|| {
                ConnectError::Protocol(format!("the answer to {method} has no {}", kind.member()))
            })?;
            for raw in json::elements(page).map_err(invalid)? {
                items.push(Item::parse(kind, answer.text().slice_ref(raw))?);
            }
            match cursor {
                None | Some("null") if page_number == 0 => {
                    return Ok(List { items: items.into(), result: answer.text().slice_ref(result) });
                }
                None | Some("null") => return Ok(List::of(kind, items)),
                Some(cursor) => params = format!(r#"{{"cursor":{cursor}}}"#),
            }
        }
        Err(ConnectError::Protocol(format!("{method} has more than {MOST_PAGES} pages")))
    }

    /// Asks the server something of our own.
    async fn ask(&self, method: &str, params: &str) -> Result<Message, ClientError> {
        let id = self.session.next_id();
        let request = rpc::request(id, method, params);
        self.session.request(request, id, &mut |message| self.said.take(message)).await
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
    /// The lists of which the server has said that they have changed.
    changed: PerKind<AtomicBool>,
    /// One of them has.
    woken: Notify,
    outbox: mpsc::Sender<ByteString>,
}

impl ServerSide {
    fn take(&self, message: Message) {
        match message.view() {
            View::Notification { method: "notifications/tools/list_changed", .. } => {
                self.list_changed(&[Kind::Tool]);
            }
            View::Notification { method: "notifications/prompts/list_changed", .. } => {
                self.list_changed(&[Kind::Prompt]);
            }
            View::Notification { method: "notifications/resources/list_changed", .. } => {
                self.list_changed(&[Kind::Resource, Kind::Template]);
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

    fn list_changed(&self, kinds: &[Kind]) {
        for kind in kinds {
            self.changed[*kind].store(true, Ordering::Release);
        }
        self.woken.notify_one();
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
    deadline: Instant,
) -> Result<(Session, Message), ConnectError> {
    let client_info = format!(r#"{{"name":"sidegate","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
    let mut wait = FIRST_RETRY;
    loop {
        let error =
            match Session::open(pool.clone(), config.clone(), tracker.clone(), "{}", &client_info).await {
                Err(error) if may_be_too_early(&error) => error,
                other => return Ok(other?),
            };
        if Instant::now() + wait >= deadline {
            return Err(error.into());
        }
        debug!(%error, "trying again");
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(LONGEST_RETRY);
    }
}

/// The result in the answer to a request of ours.
fn answer_of<'a>(method: &str, answer: &'a Message) -> Result<&'a str, ConnectError> {
    match answer.view() {
        View::Response { outcome: Ok(result), .. } => Ok(result),
        View::Response { outcome: Err(error), .. } => Err(ConnectError::Refused(error_text(error))),
        _ => Err(ConnectError::Protocol(format!("{method} was not answered"))),
    }
}

fn invalid(error: serde_json::Error) -> ConnectError {
    ConnectError::Protocol(error.to_string())
}

/// A gateway that does not listen, or has no such route, may do so in a moment.
fn may_be_too_early(error: &ClientError) -> bool {
    match error {
        ClientError::Connect(_) => true,
        ClientError::Status(error) => !error.from_server && error.status == http::StatusCode::NOT_FOUND,
        _ => false,
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
    /// It lists what is not what the list is of.
    #[error(transparent)]
    Item(#[from] InvalidItem),
}
