//! One session with one server: opening it, listing what it offers, asking it for what its clients want.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::{Instrument as _, debug, info_span};

use super::asked::Asker as _;
use super::behind::{Circle, Ids, InstanceId};
use super::ledger::Ledger;
use super::limits::Limits;
use super::offer::{InvalidItem, Item, Kind, List, Offer, PerKind};
use super::outbox::send_outbox;
use super::pauses::Pauses;
use super::said::{ListChanges, Origin, ServerSide};
use crate::mcpserver::ServerName;
use crate::telemetry::calls::UpstreamFacts;
use crate::wire::client::{ClientConfig, ClientError, Pool, Session};
use crate::wire::json;
use crate::wire::message::{Message, View};
use crate::wire::rpc;
use crate::wire::stream::Dropped;
use crate::wire::version::ProtocolVersion;

/// Lists that have more pages than this are not read on: a server that always gives a next cursor never ends.
const MOST_PAGES: usize = 1000;

/// How long the end of a session may take: what a child has to end, and a little more. Not the server's own
/// `spec.timeout`: one that hangs must not hold a shutdown up, and one that is quick may have a child that is not.
const CLOSE: Duration = Duration::from_secs(6);

/// Messages that wait to be sent to a server from our side: answers to its requests, and notifications.
const OUTBOX: usize = 256;

/// What servers are told that clients who share a session can do. Which of them can is said when one is asked. Never
/// roots: those are one client's.
const SHARED_CAPABILITIES: &str = r#"{"sampling":{},"elicitation":{"form":{},"url":{}}}"#;

/// An open session with a server.
#[derive(Debug)]
pub struct Upstream {
    server: ServerName,
    session: Arc<Session>,
    /// The session is of no more use, whoever ended it.
    lost: CancellationToken,
    /// We have ended it.
    closed: CancellationToken,
    /// Somebody closes it, or has.
    closing: AtomicBool,
    /// The server has been told, or could not be.
    over: CancellationToken,
    side: Arc<ServerSide>,
    lists: Arc<ListChanges>,
    tracker: TaskTracker,
    calls: TaskTracker,
    /// What the server said of itself; without lists.
    introduction: Offer,
    facts: Arc<UpstreamFacts>,
    identity: InstanceId,
}

/// What a server is told of its client, both raw.
#[derive(Clone, Copy, Debug)]
pub(super) struct Introduction<'i> {
    pub(super) capabilities: &'i str,
    pub(super) info: &'i str,
}

/// What a session has of the way to its server, which outlives it.
#[derive(Debug)]
pub(super) struct Terms {
    /// What those who share it have in common.
    pub(super) ledger: Arc<Ledger>,
    /// What the server says of its lists.
    pub(super) lists: Arc<ListChanges>,
    /// Counts answers that the server does not take.
    pub(super) unsent: Dropped,
    /// [`Limits::timeout`].
    pub(super) timeout: Duration,
    /// Who we are.
    pub(super) identity: InstanceId,
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
    /// Opens a session that clients share.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub(super) async fn connect(
        terms: Terms,
        dialer: Dialer,
        given_up: &CancellationToken,
    ) -> Result<Arc<Self>, ConnectError> {
        let us = format!(r#"{{"name":"sidegate","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
        let introduction = Introduction { capabilities: SHARED_CAPABILITIES, info: &us };
        Self::open(terms, introduction, dialer, given_up).await
    }

    /// Opens a session with a server that is told this of its client. Its tasks run on the dialer's tracker, and end when the
    /// session is closed or lost.
    ///
    /// A connection that is refused, and a route that the gateway does not have yet, are tried again within
    /// [`Limits::timeout`], until `given_up`. What was sent by then is answered first.
    ///
    /// # Errors
    ///
    /// See [`ConnectError`].
    pub(super) async fn open(
        terms: Terms,
        Introduction { capabilities, info }: Introduction<'_>,
        dialer: Dialer,
        given_up: &CancellationToken,
    ) -> Result<Arc<Self>, ConnectError> {
        let Terms { ledger, lists, unsent, timeout, identity } = terms;
        let server = ledger.server.clone();
        let Dialer { pool, config, tracker } = dialer;
        let params = format!(r#""capabilities":{capabilities},"clientInfo":{info}{}"#, identity.asking());
        let opening = open(pool, config, &tracker, &params, Instant::now() + timeout, given_up);
        let (session, answer) =
            tokio::time::timeout(timeout, opening).await.map_err(|_| ConnectError::Timeout(timeout))??;
        let result = answer_of("initialize", &answer)?;
        identity.behind(result)?;
        let introduction = Offer::parse(&answer.text().slice_ref(result)).map_err(invalid)?;

        let (outbox, receiver) = mpsc::channel(OUTBOX);
        let origin = session.origin();
        let facts = Arc::new(UpstreamFacts {
            // The gateway's paths end with the names of its routes.
            route: session.path().rsplit('/').next().unwrap_or_default().to_owned(),
            protocol_version: session.version().map(ProtocolVersion::as_str),
            address: origin.host().to_owned(),
            port: origin.port(),
        });
        let session = Arc::new(session);
        let lost = CancellationToken::new();
        let side = ServerSide::new(ledger, Arc::clone(&lists), outbox, unsent);
        // Of its own: it lasts longer than the opening of the session, which may be a part of something.
        let span = info_span!(parent: None, "upstream", %server);
        // They hold the session and not the upstream: when that is dropped, they end, and the session is closed.
        let listening = listen(Arc::clone(&session), Arc::clone(&side), lost.clone());
        tracker.spawn(listening.instrument(span.clone()));
        let sending = send_outbox(Arc::clone(&session), receiver, timeout, lost.clone());
        let (given_up, side_of_outbox) = (lost.clone(), Arc::clone(&side));
        let sending = async move {
            sending.await;
            given_up.cancelled().await;
            side_of_outbox.give_up();
        };
        tracker.spawn(sending.instrument(span));
        Ok(Arc::new(Self {
            server,
            session,
            lost,
            closed: CancellationToken::new(),
            closing: AtomicBool::new(false),
            over: CancellationToken::new(),
            side,
            lists,
            tracker,
            calls: TaskTracker::new(),
            introduction,
            facts,
            identity,
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

    /// What is told of it to whoever observes calls.
    pub(super) fn facts(&self) -> &Arc<UpstreamFacts> {
        &self.facts
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
        self.lists.wait().await;
    }

    /// What the server offers: all its lists, from all pages.
    ///
    /// # Errors
    ///
    /// Its tools cannot be listed. Other lists that fail are empty, and the log says why: the tools of a server that
    /// cannot list its prompts are of use.
    pub async fn offer(&self, limits: Limits) -> Result<Offer, ConnectError> {
        self.relist(&self.introduction, PerKind::from_fn(|_| true), limits).await
    }

    /// `offer` with the lists of which the server has said that they have changed.
    ///
    /// # Errors
    ///
    /// As [`offer`](Self::offer).
    pub async fn changed_offer(&self, offer: &Offer, limits: Limits) -> Result<Offer, ConnectError> {
        self.relist(offer, self.lists.take(), limits).await
    }

    async fn relist(
        &self,
        offer: &Offer,
        wanted: PerKind<bool>,
        limits: Limits,
    ) -> Result<Offer, ConnectError> {
        let list = async |kind: Kind| {
            if !wanted[kind] {
                return Ok((offer.lists[kind].clone(), Ids::new()));
            }
            if !offer.has(kind.capability()) {
                return Ok((List::of(kind, []), Ids::new()));
            }
            let listing = tokio::time::timeout(limits.timeout, self.read_pages(kind));
            match listing.await.unwrap_or(Err(ConnectError::Timeout(limits.timeout))) {
                Err(error) if kind != Kind::Tool && !matches!(error, ConnectError::Circle(_)) => {
                    // Servers that have resources and no templates often know nothing of them.
                    debug!(server = %self.server, %error, method = kind.method(), "a list is left empty");
                    Ok((List::of(kind, []), Ids::new()))
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
        let mut behind = Ids::new();
        for kind in Kind::ALL {
            let (list, behind_it) = lists.next().unwrap_or_else(|| (List::of(kind, []), Ids::new()));
            offer.lists[kind] = list;
            behind.extend(behind_it);
        }
        offer.behind = behind.into_iter().collect();
        Ok(offer)
    }

    /// All of one kind, and the instances that it is of.
    async fn read_pages(&self, kind: Kind) -> Result<(List, Ids), ConnectError> {
        let mut pages = self.elements(kind.method(), kind.member()).await?;
        let (mut items, mut behind) = (Vec::new(), Ids::new());
        for (answer, elements) in &pages {
            behind.extend(self.identity.behind(answer_of(kind.method(), answer)?)?);
            for raw in elements {
                items.push(Item::parse(kind, answer.text().slice_ref(&answer.text()[raw.clone()]))?);
            }
        }
        let list = match (pages.pop(), pages.is_empty()) {
            // As it came.
            (Some((answer, _)), true) => {
                let result = answer_of(kind.method(), &answer)?;
                List { items: items.into(), result: answer.text().slice_ref(result) }
            }
            _ => List::of(kind, items),
        };
        Ok((list, behind))
    }

    /// The tasks that the server lists: ids and raw JSON objects.
    ///
    /// # Errors
    ///
    /// They cannot be listed.
    pub(super) async fn tasks(&self, limits: Limits) -> Result<Vec<(String, ByteString)>, ConnectError> {
        let listing = tokio::time::timeout(limits.timeout, self.elements("tasks/list", "tasks"));
        let pages = listing.await.map_err(|_| ConnectError::Timeout(limits.timeout))??;
        let mut tasks = Vec::new();
        for (answer, elements) in &pages {
            for raw in elements {
                let raw = answer.text().slice_ref(&answer.text()[raw.clone()]);
                let [id] = json::members(&raw, ["taskId"]).map_err(invalid)?;
                if let Some(id) = id.and_then(json::string).map(Cow::into_owned) {
                    tasks.push((id, raw));
                }
            }
        }
        Ok(tasks)
    }

    /// All pages of a list, and where the elements are in each.
    async fn elements(
        &self,
        method: &str,
        member: &str,
    ) -> Result<Vec<(Message, Vec<Range<usize>>)>, ConnectError> {
        let mut pages = Vec::new();
        let mut params = String::from("{}");
        for _ in 0..MOST_PAGES {
            let answer = self.ask(method, &params).await?;
            let result = answer_of(method, &answer)?;
            let [page, cursor] = json::members(result, [member, "nextCursor"]).map_err(invalid)?;
            let page = page
                .ok_or_else(|| ConnectError::Protocol(format!("the answer to {method} has no {member}")))?;
            let spans = json::elements(page).map_err(invalid)?.into_iter();
            let spans = spans.map(|raw| json::span(answer.text(), raw)).collect();
            let next = cursor.filter(|cursor| *cursor != "null");
            let next = next.map(|cursor| format!(r#"{{"cursor":{cursor}}}"#));
            pages.push((answer, spans));
            match next {
                Some(next) => params = next,
                None => return Ok(pages),
            }
        }
        Err(ConnectError::Protocol(format!("{method} has more than {MOST_PAGES} pages")))
    }

    /// Asks the server something of our own, again as long as there is no gateway to carry it: what a server has said to have
    /// changed, it does not say twice. Whoever asks knows for how long.
    async fn ask(&self, method: &str, params: &str) -> Result<Message, ClientError> {
        let mut pauses = Pauses::new();
        loop {
            let id = self.session.next_id();
            let mut on_message = |message| self.side.take(&message, Origin::Outside);
            match self.session.request(rpc::request(id, method, params), id, &mut on_message).await {
                Err(ClientError::Connect(_)) => {}
                other => return other,
            }
            pauses.pass().await;
        }
    }

    /// Closes the session: the server may forget it, and ends what belongs to it. Who comes second waits for the first, to whom
    /// goes what the server says.
    ///
    /// # Errors
    ///
    /// The server did not answer as it should. The session is over for us all the same.
    pub async fn close(&self) -> Result<(), ConnectError> {
        if self.closing.swap(true, Ordering::AcqRel) {
            self.over.cancelled().await;
            return Ok(());
        }
        // Also where nobody waits for this any more.
        let _over = self.over.clone().drop_guard();
        let was_lost = self.is_lost();
        self.lost.cancel();
        self.closed.cancel();
        if was_lost {
            return Ok(());
        }
        let closing = tokio::time::timeout(CLOSE, self.session.close()).await;
        Ok(closing.map_err(|_| ConnectError::Timeout(CLOSE))??)
    }

    /// What the server says besides its answers.
    pub(super) fn side(&self) -> &Arc<ServerSide> {
        &self.side
    }

    /// Asks a new session for what its predecessors were asked for, soon.
    pub(super) fn restore(self: &Arc<Self>) {
        if self.side.ledger.level.get().is_some() {
            self.align_level();
        }
        let subscriptions = self.side.ledger.subscriptions();
        if !subscriptions.is_empty() {
            let upstream = Arc::clone(self);
            self.in_background(async move {
                for uri in subscriptions {
                    upstream.ask_for("resources/subscribe", &of_uri(&uri)).await;
                }
            });
        }
    }

    /// Asks the server for log messages of the level that is wanted, soon.
    pub(super) fn align_level(self: &Arc<Self>) -> JoinHandle<()> {
        let upstream = Arc::clone(self);
        self.in_background(async move {
            let wanted = || upstream.side.ledger.level.get();
            let mut asked = None;
            // Another level may be wanted meanwhile; whoever asks last has asked for the right one.
            while upstream.introduction.has("logging")
                && let Some(level) = wanted()
                && asked != Some(level)
            {
                let params = format!(r#"{{"level":"{}"}}"#, level.as_str());
                upstream.ask_for("logging/setLevel", &params).await;
                asked = Some(level);
            }
        })
    }

    /// Tells the server that nobody is subscribed to a resource any more, soon.
    pub(super) fn unsubscribe(self: &Arc<Self>, uri: String) -> JoinHandle<()> {
        let upstream = Arc::clone(self);
        self.in_background(async move {
            upstream.ask_for("resources/unsubscribe", &of_uri(&uri)).await;
            upstream.resubscribe(&uri).await;
        })
    }

    /// Subscribes again where somebody has subscribed while the server was told that nobody is: it may have heard of the
    /// one after the other.
    pub(super) async fn resubscribe(&self, uri: &str) {
        if self.side.ledger.is_subscribed(uri) {
            self.ask_for("resources/subscribe", &of_uri(uri)).await;
        }
    }

    /// Asks for something that no client waits for.
    async fn ask_for(&self, method: &str, params: &str) {
        match self.ask(method, params).await {
            Ok(answer) => {
                if let Err(error) = answer_of(method, &answer) {
                    debug!(server = %self.server, %method, %error, "the server does not do it");
                }
            }
            Err(error) => debug!(server = %self.server, %method, %error, "the server cannot be asked"),
        }
    }

    /// Runs as long as the session lives.
    fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let lost = self.lost.clone();
        self.tracker.spawn(async move {
            let _ = lost.run_until_cancelled(work).await;
        })
    }

    /// Tells the server something soon.
    pub(super) fn tell(&self, text: ByteString) {
        self.side.reply(text);
    }
}

impl Drop for Upstream {
    /// Ends the tasks of a session that was given up.
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

async fn listen(session: Arc<Session>, side: Arc<ServerSide>, lost: CancellationToken) {
    let mut on_message = |message| side.take(&message, Origin::Outside);
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

async fn open(
    pool: Pool,
    config: ClientConfig,
    tracker: &TaskTracker,
    params: &str,
    deadline: Instant,
    given_up: &CancellationToken,
) -> Result<(Session, Message), ConnectError> {
    let mut pauses = Pauses::new();
    loop {
        let error = match Session::open_saying(pool.clone(), config.clone(), tracker.clone(), params).await {
            Err(error) if may_be_too_early(&error) => error,
            other => return Ok(other?),
        };
        if Instant::now() + pauses.next() >= deadline {
            return Err(error.into());
        }
        debug!(%error, "trying again");
        given_up.run_until_cancelled(pauses.pass()).await.ok_or(ConnectError::GivenUp)?;
    }
}

/// The parameters of what is about a resource.
fn of_uri(uri: &str) -> String {
    format!(r#"{{"uri":{}}}"#, json::quoted(uri))
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
    /// Nobody wants the session any more.
    #[error("it was given up")]
    GivenUp,
    /// It would have us serve ourselves.
    #[error(transparent)]
    Circle(#[from] Circle),
    /// It lists what is not what the list is of.
    #[error(transparent)]
    Item(#[from] InvalidItem),
}
