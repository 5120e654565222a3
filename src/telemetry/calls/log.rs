//! Calls as they happen.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwapOption;
use futures_util::future::Either;
use opentelemetry::Context;
use opentelemetry::context::{FutureExt as _, WithContext};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState};

use super::children::{Children, Served};
use super::record::{CallRecord, CallTimes, CallTrace, Outcome, Subject, UpstreamFacts, kept};
use crate::mcpserver::ServerName;
use crate::sync::lock;
use crate::telemetry::sampler::Sampler;
use crate::telemetry::secrets::Secrets;
use crate::telemetry::trace_context::{Ids, Propagation, TraceParent};

/// How many calls that have ended are remembered.
pub const MOST_FINISHED: usize = 1024;

/// Is told of calls. Called where the call is carried: it must be quick, and must not block.
pub trait CallObserver: Send + Sync {
    /// A call is over; [`CallRecord::outcome`] says how.
    fn finished(&self, call: &CallRecord);
}

/// What a [`CallLog`] does with calls.
#[derive(Default)]
pub struct CallLogOptions {
    /// They are told of each call that ends.
    pub observers: Vec<Arc<dyn CallObserver>>,
    /// Which traces are recorded, where spans are exported.
    pub sampler: Option<Sampler>,
    /// Which contexts of clients servers get.
    pub propagation: Propagation,
    /// What is in no text of a call.
    pub secrets: Secrets,
    /// Log records are exported: they are to say which call they are about.
    pub log_records: bool,
}

/// All calls.
pub struct CallLog {
    observers: Vec<Arc<dyn CallObserver>>,
    /// Which traces are recorded, where spans are exported.
    sampler: Option<Sampler>,
    propagation: Propagation,
    secrets: Secrets,
    log_records: bool,
    ids: Ids,
    children: Arc<Children>,
    generation: ArcSwapOption<Arc<str>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    under_way: HashMap<u64, Arc<Live>>,
    finished: VecDeque<CallRecord>,
}

/// What is known when a request comes in.
#[derive(Debug)]
pub struct Begin<'b> {
    /// The JSON-RPC method.
    pub method: &'b str,
    /// What it is about, as a name or URI that is not longer than is kept.
    pub subject: Option<Subject>,
    /// The client's JSON-RPC id, raw.
    pub request_id: &'b str,
    /// The client's session, hashed.
    pub session: Arc<str>,
    /// Its protocol version.
    pub protocol_version: Option<&'static str>,
    /// The client's `traceparent`, where it sent one.
    pub parent: Option<TraceParent>,
}

impl CallLog {
    /// A log without calls; `observers` are told of each that ends. With `exports`, our own spans stand between the client's
    /// and the server's; without, the client's context is passed on as it is.
    pub fn new(observers: Vec<Arc<dyn CallObserver>>, exports: bool) -> Arc<Self> {
        let sampler = exports.then(Sampler::default);
        Self::with(CallLogOptions { observers, sampler, ..CallLogOptions::default() })
    }

    /// As [`new`](Self::new), with everything that can be said.
    pub fn with(options: CallLogOptions) -> Arc<Self> {
        let CallLogOptions { observers, sampler, propagation, secrets, log_records } = options;
        Arc::new(Self {
            observers,
            sampler,
            propagation,
            secrets,
            log_records,
            ids: Ids::default(),
            children: Arc::default(),
            generation: ArcSwapOption::empty(),
            state: Mutex::default(),
        })
    }

    /// Which contexts of clients servers get.
    pub fn propagation(&self) -> Propagation {
        self.propagation
    }

    /// What whoever shows a call has to hide in what clients have said.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// What the bridge knows of calls.
    pub fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// The generation that is in force from now on.
    pub fn set_generation(&self, generation: Option<Arc<str>>) {
        self.generation.store(generation.map(Arc::new));
    }

    /// Begins a call. It ends when it is dropped: as [`Call::ends`] has said, else as cancelled.
    pub fn begin(self: &Arc<Self>, begin: Begin<'_>) -> Call {
        let Begin { method, subject, request_id, session, protocol_version, parent } = begin;
        let id = parent.map_or_else(|| self.ids.trace(), |parent| parent.trace);
        let sampled = self.sampler.map(|sampler| sampler.samples(id, parent.as_ref()));
        let exported = sampled == Some(true);
        let client_span = self.ids.span();
        // One that is not recorded says so, so that nobody after us records half a trace.
        let unsampled = || sampled.map(|sampled| TraceParent { trace: id, span: client_span, sampled });
        let ours = TraceParent { trace: id, span: client_span, sampled: true };
        let record = CallRecord {
            trace: CallTrace {
                id,
                parent: parent.map(|parent| parent.span),
                server_span: self.ids.span(),
                client_span,
                exported,
                outgoing: if exported { Some(ours) } else { parent.or_else(unsampled) },
            },
            method: known_method(method),
            subject,
            request_id: kept(request_id),
            session,
            protocol_version,
            server: None,
            upstream: None,
            upstream_id: 0,
            generation: None,
            pid: None,
            started: SystemTime::now(),
            times: CallTimes::default(),
            tries: 0,
            outcome: None,
            error: None,
        };
        let trace = record.trace;
        let begun = Instant::now();
        let live =
            Arc::new(Live { begun, progress: Mutex::new(Progress { record, sent: None, at_child: None }) });
        let mut state = lock(&self.state);
        state.last += 1;
        let number = state.last;
        state.under_way.insert(number, Arc::clone(&live));
        drop(state);
        Call { log: Arc::clone(self), number, live, trace }
    }

    /// The calls that are under way, oldest first, as they stand.
    pub fn under_way(&self) -> Vec<CallRecord> {
        let mut live: Vec<(u64, Arc<Live>)> = {
            let state = lock(&self.state);
            state.under_way.iter().map(|(number, live)| (*number, Arc::clone(live))).collect()
        };
        live.sort_by_key(|(number, _)| *number);
        live.iter().map(|(_, live)| live.snapshot()).collect()
    }

    /// The last calls that have ended, oldest first; at most [`MOST_FINISHED`].
    pub fn finished(&self) -> Vec<CallRecord> {
        lock(&self.state).finished.iter().cloned().collect()
    }

    /// Where log records of a call belong; none where nobody gets them.
    fn context(&self, trace: &CallTrace) -> Option<Context> {
        if !self.log_records {
            return None;
        }
        let flags = if trace.exported { TraceFlags::SAMPLED } else { TraceFlags::default() };
        let (id, span) = (trace.id.to_bytes(), trace.server_span.to_bytes());
        let (id, span) = (TraceId::from_bytes(id), SpanId::from_bytes(span));
        let span = SpanContext::new(id, span, flags, false, TraceState::default());
        Some(Context::new().with_remote_span_context(span))
    }

    fn finish(&self, number: u64, record: CallRecord) {
        let _context = self.context(&record.trace).map(Context::attach);
        for observer in &self.observers {
            observer.finished(&record);
        }
        let forgotten = {
            let mut state = lock(&self.state);
            let live = state.under_way.remove(&number);
            // That somebody is there is no news, and would push out what is.
            let is_news = record.method != "ping";
            let oldest = (is_news && state.finished.len() == MOST_FINISHED)
                .then(|| state.finished.pop_front())
                .flatten();
            if is_news {
                state.finished.push_back(record);
            }
            (live, oldest)
        };
        // Freed outside of the lock.
        drop(forgotten);
    }
}

impl fmt::Debug for CallLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallLog").field("sampler", &self.sampler).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Live {
    begun: Instant,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    record: CallRecord,
    /// When the last try was sent.
    sent: Option<Instant>,
    at_child: Option<AtChild>,
}

/// A call at a child of ours.
#[derive(Debug)]
struct AtChild {
    session: Arc<str>,
    id: u64,
    served: Arc<Served>,
}

impl Live {
    fn snapshot(&self) -> CallRecord {
        let progress = lock(&self.progress);
        let mut record = progress.record.clone();
        record.times.whole = self.begun.elapsed();
        record
    }
}

/// A call that is under way.
#[derive(Debug)]
pub struct Call {
    log: Arc<CallLog>,
    number: u64,
    live: Arc<Live>,
    trace: CallTrace,
}

impl Call {
    /// Where it stands in its trace.
    pub fn trace(&self) -> &CallTrace {
        &self.trace
    }

    /// `work` as a part of the call: log records that are exported from within have the ids of its trace and of our span.
    pub fn carrying<F: Future>(&self, work: F) -> Either<WithContext<F>, F> {
        match self.log.context(&self.trace) {
            Some(context) => Either::Left(work.with_context(context)),
            None => Either::Right(work),
        }
    }

    /// It goes to `server`.
    pub fn routed(&self, server: &ServerName) {
        lock(&self.live.progress).record.server = Some(server.clone());
    }

    /// It is sent now, as `id`, in the session that the server calls `session`.
    pub fn sent(&self, upstream: &Arc<UpstreamFacts>, session: Option<&str>, id: u64) {
        let now = Instant::now();
        let at_child = session.and_then(|session| {
            let (pid, session, served) = self.log.children.expect(session, id)?;
            Some((pid, AtChild { session, id, served }))
        });
        let mut progress = lock(&self.live.progress);
        progress.forget_child(&self.log.children);
        progress.sent = Some(now);
        let Progress { record, at_child: child, .. } = &mut *progress;
        record.upstream = Some(Arc::clone(upstream));
        record.upstream_id = id;
        record.generation = self.log.generation.load().as_deref().cloned();
        record.tries += 1;
        record.times.queue = now.duration_since(self.live.begun);
        record.times.first_byte = None;
        record.pid = at_child.as_ref().map(|(pid, _)| *pid);
        *child = at_child.map(|(_, child)| child);
    }

    /// The head of the response is there.
    pub fn head(&self) {
        let mut progress = lock(&self.live.progress);
        let first_byte = progress.sent.map(|sent| sent.elapsed());
        progress.record.times.first_byte.get_or_insert(first_byte.unwrap_or_default());
    }

    /// The last try is over, whatever came of it.
    pub fn returned(&self) {
        let mut progress = lock(&self.live.progress);
        progress.record.times.upstream = progress.sent.map(|sent| sent.elapsed());
    }

    /// How it ends, with words for a person. The first who knows says it best: what is said later does not count.
    pub fn ends(&self, outcome: Outcome, error: Option<&str>) {
        let mut progress = lock(&self.live.progress);
        if progress.record.outcome.is_none() {
            progress.record.outcome = Some(outcome);
            progress.record.error = error.map(|error| kept(&self.log.secrets.redact(error)));
        }
    }
}

impl Progress {
    fn forget_child(&mut self, children: &Children) {
        if let Some(child) = self.at_child.take() {
            children.forget(&child.session, child.id);
            self.record.times.server = child.served.took();
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let record = {
            let mut progress = lock(&self.live.progress);
            progress.forget_child(&self.log.children);
            let record = &mut progress.record;
            record.times.whole = self.live.begun.elapsed();
            // Whoever carries a call to its end says how it ended.
            record.outcome.get_or_insert(Outcome::Cancelled);
            record.clone()
        };
        self.log.finish(self.number, record);
    }
}

/// The method, without a copy where it is one of the protocol's.
fn known_method(method: &str) -> std::borrow::Cow<'static, str> {
    const KNOWN: [&str; 19] = [
        "tools/call",
        "tools/list",
        "prompts/get",
        "prompts/list",
        "resources/read",
        "resources/list",
        "resources/templates/list",
        "resources/subscribe",
        "resources/unsubscribe",
        "completion/complete",
        "logging/setLevel",
        "ping",
        "initialize",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/cancel",
        "server/discover",
        "subscriptions/listen",
    ];
    match KNOWN.into_iter().find(|known| *known == method) {
        Some(known) => known.into(),
        None => method[..method.floor_char_boundary(super::record::LONGEST_TEXT)].to_owned().into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::calls::LONGEST_TEXT;

    #[derive(Default)]
    struct Seen(Mutex<Vec<CallRecord>>);

    impl CallObserver for Seen {
        fn finished(&self, call: &CallRecord) {
            self.0.lock().unwrap().push(call.clone());
        }
    }

    fn request<'b>(method: &'b str, id: &'b str) -> Begin<'b> {
        Begin {
            method,
            subject: None,
            request_id: id,
            session: "s".into(),
            protocol_version: None,
            parent: None,
        }
    }

    #[test]
    fn a_call_is_told_of_once_when_it_is_over() {
        let seen = Arc::new(Seen::default());
        let log = CallLog::new(vec![Arc::clone(&seen) as Arc<dyn CallObserver>], false);
        log.set_generation(Some("g".into()));
        log.children().opened("session", 77);
        let call = log.begin(request("tools/call", "1"));
        call.routed(&"time".parse().unwrap());
        let facts = Arc::new(UpstreamFacts {
            route: "time.1".to_owned(),
            protocol_version: None,
            address: "h".to_owned(),
            port: None,
        });
        call.sent(&facts, Some("another"), 7);
        assert_eq!(log.under_way()[0].pid, None);
        call.sent(&facts, Some("session"), 8);
        log.children().asked("session", 8);
        log.children().answered("session", 8);
        call.head();
        call.returned();
        assert!(seen.0.lock().unwrap().is_empty());
        assert_eq!(log.under_way()[0].tries, 2);

        call.ends(Outcome::ToolError, None);
        call.ends(Outcome::Ok, Some("too late"));
        drop(call);
        assert!(log.under_way().is_empty());
        let seen = seen.0.lock().unwrap();
        let [record] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((record.outcome, &record.error), (Some(Outcome::ToolError), &None));
        assert_eq!((record.pid, record.upstream_id), (Some(77), 8));
        assert_eq!(record.generation.as_deref(), Some("g"));
        let times = record.times;
        assert!(times.server.unwrap() <= times.upstream.unwrap(), "{times:?}");
        assert!(times.first_byte.unwrap() <= times.upstream.unwrap(), "{times:?}");
        assert!(times.queue + times.upstream.unwrap() <= times.whole, "{times:?}");
        assert_eq!(log.finished()[0].trace, record.trace);
    }

    #[test]
    fn a_call_that_is_dropped_was_cancelled_and_memory_is_bounded() {
        let log = CallLog::new(Vec::new(), false);
        let long = "é".repeat(LONGEST_TEXT);
        for _ in 0..MOST_FINISHED + 5 {
            drop(log.begin(request(&long, &long)));
        }
        drop(log.begin(request("ping", "last")));
        let finished = log.finished();
        assert_eq!(finished.len(), MOST_FINISHED);
        for record in finished {
            assert_eq!(record.outcome, Some(Outcome::Cancelled));
            assert!(record.request_id.len() <= LONGEST_TEXT && record.method.len() <= LONGEST_TEXT);
        }
    }

    #[test]
    fn no_span_is_named_as_a_parent_that_nobody_exports() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = TraceParent::parse(text).unwrap();
        let with = |parent| Begin { parent, ..request("tools/call", "1") };

        let quiet = CallLog::new(Vec::new(), false);
        assert_eq!(quiet.begin(with(None)).trace().outgoing, None);
        let passed = *quiet.begin(with(Some(parent))).trace();
        assert_eq!((passed.id, passed.outgoing), (parent.trace, Some(parent)));

        let exporting = CallLog::new(Vec::new(), true);
        let ours = *exporting.begin(with(Some(parent))).trace();
        assert_eq!((ours.id, ours.parent), (parent.trace, Some(parent.span)));
        assert_eq!(ours.outgoing.unwrap().span, ours.client_span);
        let first = *exporting.begin(with(None)).trace();
        assert_eq!(
            first.outgoing,
            Some(TraceParent { trace: first.id, span: first.client_span, sampled: true })
        );
        let unsampled = TraceParent { sampled: false, ..parent };
        assert_eq!(exporting.begin(with(Some(unsampled))).trace().outgoing, Some(unsampled));
    }

    #[test]
    fn what_a_child_takes_is_known_only_of_its_own_calls() {
        let children = Children::default();
        children.opened("s", 1);
        let (pid, _, served) = children.expect("s", 5).unwrap();
        children.asked("s", 6);
        children.answered("s", 6);
        children.answered("s", 5);
        assert_eq!((pid, served.took()), (1, None), "it was not asked");
        children.asked("s", 5);
        children.answered("s", 5);
        assert!(served.took().is_some_and(|took| took < Duration::from_secs(60)));
        children.closed("s");
        assert!(children.expect("s", 7).is_none());
    }
}
