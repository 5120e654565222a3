//! What a server's task does next.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{Fuse, FusedFuture as _};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::session::{Opened, Opening, close, list_again};
use super::{Approach, Command, Settled, Shared, limits};
use crate::aggregator::isolation::Isolation;
use crate::aggregator::link::Link;
use crate::aggregator::member::Member;
use crate::aggregator::offer::{Kind, Offer};
use crate::aggregator::upstream::{ConnectError, Dialer, Upstream};
use crate::mcpserver::{self, Definition, Transport};
use crate::reconciler::advice::advice;
use crate::reconciler::held::RouteLease;
use crate::reconciler::state::ServerState;
use crate::wire::client::{ClientConfig, Origin};
use crate::yaml_applier::ROUTE_HEADER;

/// The largest message that a server may send, in bytes.
const MAX_MESSAGE: usize = 64 << 20;

/// How long calls of a lost session wait for an answer that is still on its way.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// The task of one server.
pub(super) struct Task {
    definition: Arc<Definition>,
    approach: Approach,
    origin: watch::Receiver<Arc<Origin>>,
    link: Arc<Link>,
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    failures: u32,
    /// The last try to open a session succeeded.
    was_open: bool,
    /// Clients' own sessions are to be opened by another way, or again.
    isolate_anew: bool,
    /// Who wants to hear how the next try went.
    waiting: Vec<Settled>,
}

/// What to do next. Every state of a server that has an actor is one of these:
///
/// | state | ends when | next |
/// | --- | --- | --- |
/// | `Connect` | the session is open | `Serve` |
/// | | it could not be opened | `Wait` |
/// | `Serve` | the session is lost, for the first time; a restart is asked for | `Connect` |
/// | | the session went with its gateway (`spec.route: mcp`), which was replaced | `Connect` |
/// | | the session is lost, again; a changed way does not work | `Wait` |
/// | | a session by a changed way is open | `Serve` |
/// | `Wait` | the time is over; somebody does not want to wait; the way has changed | `Connect` |
/// | any | the server is not wanted any more | `End` |
enum Next {
    /// Open a session.
    Connect,
    /// Serve one.
    Serve(Opened),
    /// Wait after a failure.
    Wait(ConnectError),
    /// Retired; somebody waits to hear it.
    End(Option<oneshot::Sender<()>>),
}

impl Task {
    pub(super) fn new(
        definition: Arc<Definition>,
        approach: Approach,
        origin: watch::Receiver<Arc<Origin>>,
        link: Arc<Link>,
        shared: Arc<Shared>,
        commands: mpsc::UnboundedReceiver<Command>,
    ) -> Self {
        Self {
            definition,
            approach,
            origin,
            link,
            shared,
            commands,
            failures: 0,
            was_open: false,
            isolate_anew: true,
            waiting: Vec::new(),
        }
    }

    /// Looks after the server until it is retired.
    pub(super) async fn run(mut self) {
        let mut next = Next::Connect;
        let done = loop {
            next = match next {
                Next::Connect => self.connect().await,
                Next::Serve(opened) => self.serve(opened).await,
                Next::Wait(error) => self.wait_after(&error).await,
                Next::End(done) => break done,
            };
        };
        // Also where nobody has retired it, but has lost interest.
        self.link.retire();
        self.shared.registry.withdraw(&self.link).await;
        self.link.own_sessions_closed().await;
        // With it goes the route.
        drop(self);
        if let Some(done) = done {
            // Whoever asked may have lost interest.
            let _ = done.send(());
        }
    }

    async fn connect(&mut self) -> Next {
        // A server that has failed stays `failed` until a try succeeds: what is known of it has not changed.
        if self.failures == 0 || self.was_open {
            self.set_opening();
        }
        let mut opening = self.open();
        loop {
            tokio::select! {
                opened = &mut opening => return match opened {
                    Ok(opened) => Next::Serve(opened),
                    Err(error) => Next::Wait(error),
                },
                command = self.commands.recv() => match command {
                    Some(Command::Update(definition)) => self.take_over(definition),
                    Some(Command::Change(definition, approach)) => {
                        self.take_another_way(definition, approach);
                        return Next::Connect;
                    }
                    Some(Command::Nudge(settled)) => self.waiting.push(settled),
                    Some(Command::Restart(settled)) => {
                        self.waiting.push(settled);
                        opening.give_up(&self.shared.bridge).await;
                        return Next::Connect;
                    }
                    Some(Command::Retire(done)) => return Next::End(Some(done)),
                    None => return Next::End(None),
                },
            }
        }
    }

    /// Serves a session, and sees to what becomes of it then.
    async fn serve(&mut self, session: Opened) -> Next {
        self.was_open = true;
        self.isolate(&session.lease);
        self.link.set(Some(Arc::clone(&session.upstream)));
        self.publish(&session.offer).await;
        let Opened { upstream, offer, lease, origin } = session;
        let next = self.serve_until(&upstream, offer, &origin).await;
        let drain = self.shared.drain;
        match &next {
            // The new session takes the calls before the old one is closed.
            Next::Serve(new) => {
                self.isolate(&new.lease);
                self.link.set(Some(Arc::clone(&new.upstream)));
                self.shared.tracker.spawn(close(upstream, lease, drain));
            }
            Next::Wait(_) => {
                self.withdraw().await;
                self.shared.tracker.spawn(close(upstream, lease, drain));
            }
            // Lost, or in need of a successor that must not meet it: a command can hold what there is only one of.
            Next::Connect => {
                self.link.set(None);
                // A gateway that was replaced lets the calls through it end, also those of its own sessions.
                let cut = upstream.is_lost() && self.is_in_front(&origin);
                let patience = if cut { LAST_ANSWERS } else { drain };
                let closing = close(upstream, lease, patience).boxed();
                if self.waiting.is_empty() {
                    self.shared.tracker.spawn(closing);
                } else {
                    // Calls wait already, and that may take as long as those in flight do.
                    self.set_opening();
                    closing.await;
                }
            }
            Next::End(_) => close(upstream, lease, drain).boxed().await,
        }
        next
    }

    async fn serve_until(
        &mut self,
        upstream: &Arc<Upstream>,
        mut offer: Arc<Offer>,
        origin: &Arc<Origin>,
    ) -> Next {
        let opened = Instant::now();
        // A list that is being read anew, and a session by another way that is being opened; everything else is heard
        // meanwhile.
        let listing = Fuse::terminated();
        let mut replacing: Option<Opening> = None;
        tokio::pin!(listing);
        loop {
            tokio::select! {
                () = upstream.lost() => {
                    if opened.elapsed() >= self.shared.retry.healthy_after {
                        self.failures = 0;
                    }
                    debug!(server = %self.definition.name, "the session is lost");
                    // It was the gateway's own (spec.route: mcp), and went with it: no failure of the server.
                    if !self.is_in_front(origin) {
                        return Next::Connect;
                    }
                    // It is opened again at once, the first time; its tools stay meanwhile.
                    if self.failures == 0 {
                        self.failures = 1;
                        return Next::Connect;
                    }
                    return Next::Wait(ConnectError::Protocol("it ends its sessions".to_owned()));
                }
                replaced = replacement(&mut replacing) => return match replaced {
                    Ok(new) => Next::Serve(new),
                    Err(error) => Next::Wait(error),
                },
                () = upstream.lists_changed(), if listing.is_terminated() => {
                    let again = list_again(Arc::clone(upstream), Arc::clone(&offer), self.link.limits());
                    listing.set(again.boxed().fuse());
                }
                listed = &mut listing, if !listing.is_terminated() => match listed {
                    Ok(new) => {
                        offer = new;
                        self.publish(&offer).await;
                    }
                    // What it lists now is ours: it must go before somebody takes it for news.
                    Err(error @ ConnectError::Circle(_)) => return Next::Wait(error),
                    Err(error) => self.degrade(&error, &offer),
                },
                () = sleep_until(opened + self.shared.retry.healthy_after), if self.failures > 0 => {
                    self.failures = 0;
                }
                command = self.commands.recv() => match command {
                    Some(Command::Update(definition)) => {
                        self.take_over(definition);
                        self.publish(&offer).await;
                    }
                    Some(Command::Change(definition, approach)) => {
                        self.take_another_way(definition, approach);
                        replacing = Some(self.open());
                    }
                    // Whoever does not listen any more has lost interest.
                    Some(Command::Nudge(settled)) => drop(settled.send(Ok(()))),
                    Some(Command::Restart(settled)) => {
                        self.waiting.push(settled);
                        self.isolate_anew = true;
                        if let Some(opening) = replacing {
                            opening.give_up(&self.shared.bridge).await;
                        }
                        return Next::Connect;
                    }
                    Some(Command::Retire(done)) => return Next::End(Some(done)),
                    None => return Next::End(None),
                },
            }
        }
    }

    /// Writes the failure down and waits for the next try.
    async fn wait_after(&mut self, error: &ConnectError) -> Next {
        self.failures += 1;
        self.was_open = false;
        let retry_in = self.shared.retry.wait(self.failures);
        self.withdraw().await;
        let reason = self.explain(error);
        for waiting in self.waiting.drain(..) {
            // Whoever asked may have lost interest.
            let _ = waiting.send(Err(reason.clone()));
        }
        let failures = self.failures;
        self.set_state(
            match error.wants_credentials() {
                true => ServerState::AuthRequired { reason, failures, retry_in },
                false => ServerState::Failed { reason, failures, retry_in },
            },
            0,
        );
        let until = Instant::now() + retry_in;
        loop {
            tokio::select! {
                () = sleep_until(until) => return Next::Connect,
                command = self.commands.recv() => match command {
                    Some(Command::Update(definition)) => self.take_over(definition),
                    Some(Command::Change(definition, approach)) => {
                        self.take_another_way(definition, approach);
                        return Next::Connect;
                    }
                    Some(Command::Nudge(settled) | Command::Restart(settled)) => {
                        self.waiting.push(settled);
                        return Next::Connect;
                    }
                    Some(Command::Retire(done)) => return Next::End(Some(done)),
                    None => return Next::End(None),
                },
            }
        }
    }

    /// A session by the way there is now.
    fn open(&mut self) -> Opening {
        let (bridge, link) = (Arc::clone(&self.shared.bridge), Arc::clone(&self.link));
        let (lease, origin) = (Arc::clone(&self.approach.lease), Arc::clone(&self.origin.borrow()));
        // Only the first try: what is tried again is tried because it has failed.
        let cause = std::mem::take(&mut self.approach.cause);
        Opening::begin(bridge, link, self.dialer(), lease, origin, cause)
    }

    fn dialer(&self) -> Dialer {
        let Approach { headers, lease, .. } = &self.approach;
        let config = ClientConfig {
            origin: self.origin.clone(),
            path: lease.name().path(),
            headers: headers.clone(),
            route_marker: Some(http::HeaderName::from_static(ROUTE_HEADER)),
            local: self.approach.is_child.then(|| self.shared.bridge.local(lease.name())),
            max_message: MAX_MESSAGE,
            patience: ClientConfig::WITH_GATEWAY,
        };
        let (pool, tracker) = (self.shared.pool.clone(), self.shared.tracker.clone());
        Dialer { pool, config, tracker }
    }

    /// Gives clients sessions of their own, where the definition says so; by the way that the session with `lease` goes.
    fn isolate(&mut self, lease: &Arc<RouteLease>) {
        if !std::mem::take(&mut self.isolate_anew) {
            return;
        }
        let isolated = self.definition.isolation == mcpserver::Isolation::Session;
        let keep = Arc::clone(lease) as _;
        self.link.isolate(isolated.then(|| Isolation::new(self.dialer(), self.shared.drain, keep)));
    }

    fn take_over(&mut self, definition: Arc<Definition>) {
        self.link.set_limits(limits(&definition));
        self.definition = definition;
    }

    /// A new definition starts afresh.
    fn take_another_way(&mut self, definition: Arc<Definition>, approach: Approach) {
        self.take_over(definition);
        self.approach = approach;
        self.isolate_anew = true;
        self.failures = 0;
    }

    async fn withdraw(&self) {
        self.shared.registry.withdraw(&self.link).await;
        self.link.set(None);
    }

    async fn publish(&mut self, offer: &Arc<Offer>) {
        let definition = &self.definition;
        let prefix =
            definition.tool_prefix.as_ref().map_or(definition.name.as_str(), |prefix| prefix.as_str());
        let member = Member {
            prefix: prefix.to_owned(),
            link: Arc::clone(&self.link),
            offer: Arc::clone(offer),
            family: definition.family.clone(),
        };
        self.shared.registry.publish(member).await;
        let state = if self.is_stdio() { ServerState::Running } else { ServerState::Connected };
        self.set_state(state, tools(offer));
        for waiting in self.waiting.drain(..) {
            // Whoever asked may have lost interest.
            let _ = waiting.send(Ok(()));
        }
    }

    /// The old list stays: the server has not told another.
    fn degrade(&self, error: &ConnectError, offer: &Offer) {
        let reason = format!("what it offers has changed and cannot be listed: {}", self.explain(error));
        self.set_state(ServerState::Degraded { reason }, tools(offer));
    }

    /// A session is about to be opened.
    fn set_opening(&self) {
        self.set_state(if self.is_stdio() { ServerState::Starting } else { ServerState::Connecting }, 0);
    }

    fn set_state(&self, state: ServerState, tools: usize) {
        self.shared.board.set_while(&self.definition.name, state, tools, || !self.link.is_retired());
    }

    /// Whether calls still go to `origin`.
    fn is_in_front(&self, origin: &Arc<Origin>) -> bool {
        Arc::ptr_eq(&self.origin.borrow(), origin)
    }

    fn is_stdio(&self) -> bool {
        matches!(self.definition.transport, Transport::Stdio(_))
    }

    /// The error with what the server itself printed last, where it does not say so already.
    fn explain(&self, error: &ConnectError) -> String {
        let lines = match error {
            ConnectError::Timeout(_) if self.is_stdio() => {
                self.shared.bridge.last_lines(self.approach.lease.name())
            }
            _ => Vec::new(),
        };
        let advice = advice(error).map(|advice| format!("; {advice}")).unwrap_or_default();
        let why = match lines.last() {
            Some(last) => format!("{error}{advice}; the last line it printed: {last}"),
            None => format!("{error}{advice}"),
        };
        self.shared.secrets.redact(&why).into_owned()
    }
}

/// The session that is being opened; never, where there is none.
async fn replacement(opening: &mut Option<Opening>) -> Result<Opened, ConnectError> {
    match opening {
        Some(opening) => opening.await,
        None => pending().await,
    }
}

/// How many tools there are.
fn tools(offer: &Offer) -> usize {
    offer.lists[Kind::Tool].items.len()
}
