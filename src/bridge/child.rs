//! One session: a child, its pipes, and which request waits for what.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytestring::ByteString;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::openings::Life;
use super::pending::{Pending, opened};
use super::served::Served;
use super::{BridgeSettings, MAX_MESSAGE, StdioTarget};
use crate::error::chain;
use crate::mcpserver::log_name;
use crate::subprocess::{
    ChildTree, LineFilter, LogFileSettings, Output, OutputSettings, Source, Spec, StopRecipe, Stream, Tail,
};
use crate::sync::lock;
use crate::telemetry::calls::Children;
use crate::wire::message::{Message, View};
use crate::wire::rpc::RpcError;
use crate::wire::server::{Opened, Reply, SessionHandle, SessionId};
use crate::wire::stdio::{LineReader, write_line};

/// Messages that wait to be written to a child that does not read.
const QUEUE: usize = 256;

/// How long stdout is read on after the child has exited.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How many of a child's last lines go into a message.
const SHOWN_LINES: usize = 5;

/// Lines on stdout that are no messages are logged up to this length.
const SHOWN_LENGTH: usize = 200;

/// A session with its child.
#[derive(Debug)]
pub(super) struct ChildSession {
    pending: Pending,
    stdin: mpsc::Sender<ByteString>,
    life: Arc<Life>,
    /// `initialize` has been answered.
    opened: AtomicBool,
    /// Who wants to know which child answers what, and how long it takes.
    children: Arc<Children>,
    /// The session.
    id: SessionId,
}

impl ChildSession {
    /// Starts a child and lets it answer `initialize`.
    ///
    /// When the future is dropped, the child is ended. From before its start to its end it is a task's of `tracker`, so
    /// that whoever waits for the tasks waits for a child that was given up while it was being started, too.
    pub(super) async fn open(
        served: &Arc<Served>,
        target: &Arc<StdioTarget>,
        settings: &BridgeSettings,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        request: &Message,
        handle: &SessionHandle,
    ) -> Result<Opened<Self>, RpcError> {
        let Some(id) = request.id() else {
            return Err(RpcError::new(RpcError::INVALID_REQUEST, "initialize must be a request"));
        };
        let (stdin_sender, messages) = mpsc::channel(QUEUE);
        let session = Arc::new(Self {
            pending: Pending::new(handle.clone()),
            id: handle.id().clone(),
            stdin: stdin_sender,
            life: Life::until(stop),
            opened: AtomicBool::new(false),
            children: Arc::clone(&settings.children),
        });
        if !served.server.openings.enter(&session.life) {
            return Err(RpcError::new(RpcError::UPSTREAM, "the server is being restarted"));
        }
        let ended_early = EndOnDrop(Some(Arc::clone(&session.life)));
        let receiver = session.pending.expect_initialize(id);
        let what = (Arc::clone(served), Arc::clone(target));
        let keeping = keep(Arc::clone(&session), what, settings.clone(), tracker.clone(), messages);
        tracker.spawn(served.server.children.track_future(keeping));
        session.send(request.text().clone()).await;

        let (answer, version) = opened(receiver).await?;
        session.opened.store(true, Ordering::Release);
        served.server.openings.leave(&session.life);
        ended_early.disarm();
        Ok(Opened { session, response: answer.text().clone(), version })
    }

    /// Asks the child; its answer goes to `reply`.
    pub(super) async fn request(&self, request: &Message, reply: Reply) {
        if self.pending.begin(request, reply) {
            if let View::Request { id, .. } = request.view()
                && let Ok(id) = id.parse()
            {
                self.children.asked(self.id.as_str(), id);
            }
            self.send(request.text().clone()).await;
        }
    }

    /// Takes a message of the child.
    fn take(&self, message: &Message) {
        if let View::Response { id: Some(id), .. } = message.view()
            && let Ok(id) = id.parse()
        {
            self.children.answered(self.id.as_str(), id);
        }
        self.pending.take(message);
    }

    /// Takes a notification, or an answer to a request of the child.
    pub(super) async fn deliver(&self, message: &Message) {
        self.pending.cancelled(message);
        self.send(message.text().clone()).await;
    }

    /// Writes a message to the child. Waits while the child does not read; is lost when the child has ended.
    async fn send(&self, text: ByteString) {
        if self.stdin.send(text).await.is_err() {
            debug!("a message for a server that has ended is dropped");
        }
    }

    /// Ends the child; returns when nothing of it is left.
    pub(super) async fn end(&self) {
        self.life.end.cancel();
        self.life.gone.cancelled().await;
    }
}

/// Ends a session that is given up before it was open.
struct EndOnDrop(Option<Arc<Life>>);

impl EndOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(life) = &self.0 {
            life.end.cancel();
        }
    }
}

/// Owns the child of a session from before its start to its end.
async fn keep(
    session: Arc<ChildSession>,
    (served, target): (Arc<Served>, Arc<StdioTarget>),
    settings: BridgeSettings,
    tracker: TaskTracker,
    messages: mpsc::Receiver<ByteString>,
) {
    match Keeper::start(&session, &served, &target, settings, &tracker).await {
        Ok((keeper, stdin, stdout)) => {
            let root = keeper.tree.root();
            lock(&served.server.roots).push(root);
            session.children.opened(session.id.as_str(), keeper.tree.pid());
            keeper.run(stdin, messages, stdout).await;
            session.children.closed(session.id.as_str());
            lock(&served.server.roots).retain(|other| *other != root);
        }
        Err(why) => tell_end(&session, format!("the server cannot be started: {why}")),
    }
    session.life.gone.cancel();
    served.server.openings.leave(&session.life);
}

/// The child of a session.
struct Keeper {
    session: Arc<ChildSession>,
    name: String,
    tree: ChildTree,
    output: Output,
    /// For what of its stdout is logged.
    filter: LineFilter,
    recipe: StopRecipe,
}

impl Keeper {
    async fn start(
        session: &Arc<ChildSession>,
        served: &Served,
        target: &StdioTarget,
        settings: BridgeSettings,
        tracker: &TaskTracker,
    ) -> Result<(Self, pipe::Sender, pipe::Receiver), String> {
        // Not cancelled, which would leave behind what is half started: it takes a few milliseconds.
        let spawned = ChildTree::spawn(spec(target, &settings), &settings.helper).await;
        let mut tree = spawned.map_err(|error| chain(&error))?;
        let pipes = (tree.take_stdin(), tree.take_stdout(), tree.take_stderr());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err("its pipes are missing".to_owned());
        };
        let output = OutputSettings {
            file: settings.logs.map(LogFileSettings::new),
            filter: Some(settings.secrets.line_filter()),
            ..OutputSettings::default()
        };
        let output =
            Output::drain(log_name(served.server.name.as_str()), [(Source::Stderr, stderr)], output, tracker);
        lock(&served.tail).replace(output.tail());
        let keeper = Self {
            session: Arc::clone(session),
            name: served.server.name.to_string(),
            tree,
            output,
            filter: settings.secrets.line_filter(),
            recipe: StopRecipe::stdio(settings.grace),
        };
        Ok((keeper, stdin, stdout))
    }

    async fn run(
        mut self,
        stdin: pipe::Sender,
        messages: mpsc::Receiver<ByteString>,
        stdout: pipe::Receiver,
    ) {
        let session = Arc::clone(&self.session);
        let end = session.life.end.clone();
        let writing = write_messages(stdin, messages, end.clone());
        let reading = read_messages(&self.name, stdout, &session, Arc::clone(&self.filter));
        // stdout at its end: nothing more can be answered, whether or not the process is still there.
        let ended_itself = {
            tokio::pin!(writing, reading);
            let mut written = false;
            let mut last_words = None;
            loop {
                tokio::select! {
                    // A child that ends because it is told to has not ended by itself.
                    biased;
                    () = end.cancelled() => break false,
                    () = &mut reading => break true,
                    // The pipe may hold answers that were written before the end: `reading` comes to them, unless a
                    // descendant holds the pipe open.
                    _ = self.tree.wait(), if last_words.is_none() => {
                        last_words = Some(Box::pin(tokio::time::sleep(LAST_WORDS)));
                    }
                    () = async { if let Some(timer) = &mut last_words { timer.await } }, if last_words.is_some() => {
                        break true;
                    }
                    () = &mut writing, if !written => written = true,
                }
            }
        };
        if ended_itself && timeout(LAST_WORDS, self.tree.wait()).await.is_err() {
            // It lives on, deaf and dumb. Ending it takes a while, in which nobody should wait for it.
            tell_end(&session, "the server has closed its stdout".to_owned());
        }
        let stopped = self.tree.stop(&self.recipe).await;
        let tail = self.output.tail();
        self.output.finish().await;
        if stopped.left > 0 {
            warn!(server = %self.name, left = stopped.left, "processes of a server could not be ended");
        }
        let why = if ended_itself {
            let why = format!("the server {}{}", stopped.ending, last_words(&tail));
            if session.opened.load(Ordering::Acquire) {
                warn!(server = %self.name, "{why}");
            } else {
                // Whoever wanted the session gets it as the answer, and says it.
                debug!(server = %self.name, "{why}");
            }
            why
        } else {
            debug!(server = %self.name, ending = %stopped.ending, "ended");
            "the server was stopped".to_owned()
        };
        tell_end(&session, why);
    }
}

/// Tells everyone who waits why there will be no answer, and ends the session.
fn tell_end(session: &ChildSession, why: String) {
    session.pending.end(&RpcError::new(RpcError::UPSTREAM, why));
}

async fn write_messages(
    mut stdin: pipe::Sender,
    mut messages: mpsc::Receiver<ByteString>,
    end: CancellationToken,
) {
    let writing = async {
        while let Some(message) = messages.recv().await {
            if let Err(error) = write_line(&mut stdin, &message).await {
                // The end of the child is noticed by its exit and by its stdout.
                debug!(%error, "a server does not take messages any more");
                return;
            }
        }
    };
    // `stdin` is closed either way when this returns, which asks the child to end.
    let _ = end.run_until_cancelled(writing).await;
}

async fn read_messages(name: &str, stdout: pipe::Receiver, session: &ChildSession, filter: LineFilter) {
    let mut lines = LineReader::new(stdout, MAX_MESSAGE);
    let mut complained = false;
    loop {
        match lines.next().await {
            Ok(Some(line)) => match Message::parse(line.clone()) {
                Ok(message) => session.take(&message),
                Err(error) => {
                    let line = filter(String::from_utf8_lossy(&line).into_owned());
                    let shown: String = line.chars().take(SHOWN_LENGTH).collect();
                    if complained {
                        debug!(server = name, %error, "a line on stdout is no MCP message: {shown}");
                    } else {
                        complained = true;
                        warn!(server = name, %error, "a line on stdout is no MCP message (more of them are not shown): {shown}");
                    }
                }
            },
            Ok(None) => return,
            Err(error) => {
                warn!(server = name, %error, "stdout cannot be read on");
                return;
            }
        }
    }
}

fn spec(target: &StdioTarget, settings: &BridgeSettings) -> Spec {
    Spec {
        program: target.command.clone(),
        args: target.args.clone(),
        env: environment(target, settings),
        cwd: Some(target.cwd.clone()),
        stdin: Stream::Piped,
        stdout: Stream::Piped,
        stderr: Stream::Piped,
        open_files: settings.open_files,
        ..Spec::default()
    }
}

fn environment(target: &StdioTarget, settings: &BridgeSettings) -> Vec<(OsString, OsString)> {
    let ours = |name: &OsString| settings.environment.iter().any(|(known, _)| known == name);
    let theirs = target.env.iter().filter(|(name, _)| !ours(name));
    theirs.chain(&settings.environment).cloned().collect()
}

fn last_words(tail: &Tail) -> String {
    let lines = tail.lines();
    if lines.is_empty() {
        return ", and wrote nothing to stderr".to_owned();
    }
    let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
    format!("; its last lines on stderr: {}", shown.join(" | "))
}
