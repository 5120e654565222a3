//! The table of sessions.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

use crate::sync::lock;
use crate::wire::stream::{Dropped, EventReader, EventStream, Limits, parse_event_id};
use crate::wire::version::ProtocolVersion;

/// An unguessable name of a session: 128 random bits in hex (visible ASCII, as the specification asks).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(Arc<str>);

impl SessionId {
    /// A new one.
    ///
    /// # Errors
    ///
    /// The operating system gives no random bytes.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex::encode(bytes).into()))
    }

    /// As it stands in the header.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What may be told to others: it tells sessions apart, and opens none.
    pub fn hashed(&self) -> Arc<str> {
        hex::encode(&Sha256::digest(self.0.as_bytes())[..8]).into()
    }

    /// The first digits, for logs: enough to tell sessions apart, not enough to use one.
    pub fn short(&self) -> &str {
        self.0.get(..8).unwrap_or_default()
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…", self.short())
    }
}

/// The stream number of the GET stream of each session.
const STANDALONE: u64 = 0;

/// Streams of POST requests that have finished and were read to their end, and stay for a client that lost its connection
/// before it had what was written to it.
const READ_STREAMS: usize = 16;

/// All streams that have finished, those included whose answer nobody has come for, and the bytes that they hold. Beyond
/// either, the oldest go; the newest stays whatever its size.
const FINISHED_STREAMS: usize = 256;
const FINISHED_BYTES: usize = 32 << 20;

/// What an endpoint holds of its session: the way to the client outside of any request.
#[derive(Clone, Debug)]
pub struct SessionHandle {
    id: SessionId,
    standalone: Arc<EventStream>,
    ended: Arc<AtomicBool>,
}

impl SessionHandle {
    pub(super) fn new(id: SessionId, dropped: Dropped) -> Self {
        let standalone = EventStream::counted(STANDALONE, Limits::default(), dropped);
        Self { id, standalone, ended: Arc::default() }
    }

    /// Ends the session from the endpoint's side: from now on the client is told that it is not known, which makes it
    /// initialize again. [`closed`](super::Endpoint::closed) is called soon.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.standalone.finish();
    }

    /// The name of the session.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The stream that the client reads with GET.
    pub fn standalone(&self) -> &Arc<EventStream> {
        &self.standalone
    }
}

/// One open session.
#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) session: Arc<S>,
    pub(super) version: ProtocolVersion,
    /// The path that the session was opened on; it is known there only.
    pub(super) path: String,
    handle: SessionHandle,
    next_stream: AtomicU64,
    streams: Mutex<VecDeque<Arc<EventStream>>>,
    usage: Arc<Usage>,
}

/// Whether a session is in use, and when it was last.
#[derive(Debug)]
struct Usage {
    /// The client has come back after `initialize`.
    confirmed: AtomicBool,
    active: AtomicUsize,
    last_used: Mutex<Instant>,
}

impl<S> Entry<S> {
    pub(super) fn new(
        session: Arc<S>,
        version: ProtocolVersion,
        path: String,
        handle: SessionHandle,
    ) -> Self {
        Self {
            session,
            version,
            path,
            handle,
            next_stream: AtomicU64::new(STANDALONE + 1),
            streams: Mutex::default(),
            usage: Arc::new(Usage {
                confirmed: AtomicBool::new(false),
                active: AtomicUsize::new(0),
                last_used: Mutex::new(Instant::now()),
            }),
        }
    }

    /// A stream for the answers to one POST. A client can resume it once it was [kept](Self::keep).
    pub(super) fn new_stream(&self) -> Arc<EventStream> {
        self.handle.standalone.sibling(self.next_stream.fetch_add(1, Ordering::Relaxed))
    }

    /// Keeps a stream for a client that may come back for it.
    pub(super) fn keep(&self, stream: Arc<EventStream>) {
        lock(&self.streams).push_back(stream);
        self.forget_old_streams();
    }

    /// Forgets the oldest of the streams that have finished, where they are too many. To be called when one more has.
    pub(super) fn forget_old_streams(&self) {
        let (mut read, mut finished, mut bytes) = (0, 0, 0);
        let mut keep = |stream: &Arc<EventStream>| {
            let Some(remains) = stream.remains() else { return true };
            read += usize::from(remains.read);
            finished += 1;
            bytes += remains.bytes;
            let newest = finished == 1;
            newest
                || (finished <= FINISHED_STREAMS
                    && bytes <= FINISHED_BYTES
                    && !(remains.read && read > READ_STREAMS))
        };
        let mut streams = lock(&self.streams);
        // Newest first.
        let mut kept: VecDeque<_> = streams.drain(..).rev().filter(|stream| keep(stream)).collect();
        kept.make_contiguous().reverse();
        *streams = kept;
    }

    /// A reader for a GET: of the stream that `last_event_id` names, else of the GET stream. `None` where the named
    /// stream is not known (any more): another one's messages must not be delivered in its place (2025-11-25,
    /// "Resumability and Redelivery", item 2).
    pub(super) fn read(&self, last_event_id: Option<&str>) -> Option<EventReader> {
        let Some(id) = last_event_id else { return Some(self.handle.standalone.read()) };
        let (stream, number) = parse_event_id(id)?;
        if stream == STANDALONE {
            return Some(self.handle.standalone.read_after(number));
        }
        let streams = lock(&self.streams);
        streams.iter().find(|known| known.number() == stream).map(|known| known.read_after(number))
    }

    /// Counts a request or stream as long as the value lives.
    pub(super) fn activity(&self) -> Activity {
        self.usage.confirmed.store(true, Ordering::Release);
        self.usage.active.fetch_add(1, Ordering::AcqRel);
        Activity(Arc::clone(&self.usage))
    }

    /// Ends every stream.
    pub(super) fn finish(&self) {
        self.handle.standalone.finish();
        for stream in lock(&self.streams).drain(..) {
            stream.finish();
        }
    }

    /// Whether the endpoint has ended the session.
    pub(super) fn is_ended(&self) -> bool {
        self.handle.ended.load(Ordering::Acquire)
    }

    fn is_confirmed(&self) -> bool {
        self.usage.confirmed.load(Ordering::Acquire)
    }

    fn idle_since(&self) -> Option<Instant> {
        (self.usage.active.load(Ordering::Acquire) == 0).then(|| *lock(&self.usage.last_used))
    }
}

/// A session is in use as long as one of these lives.
#[derive(Debug)]
pub(super) struct Activity(Arc<Usage>);

impl Drop for Activity {
    fn drop(&mut self) {
        // First the time, so that nobody sees an idle session with an old one.
        *lock(&self.0.last_used) = Instant::now();
        self.0.active.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All open sessions.
#[derive(Debug)]
pub(super) struct Table<S> {
    cap: usize,
    inner: Mutex<Inner<S>>,
}

#[derive(Debug)]
struct Inner<S> {
    sessions: HashMap<Arc<str>, Arc<Entry<S>>>,
    /// Slots of sessions that are being opened.
    opening: usize,
    closed: bool,
}

/// A place in the table for a session that is being opened; given back when dropped.
#[derive(Debug)]
pub(super) struct Slot<'t, S>(&'t Table<S>);

impl<S> Drop for Slot<'_, S> {
    fn drop(&mut self) {
        lock(&self.0.inner).opening -= 1;
    }
}

/// A place, and the session that had to go for it.
type Reserved<'t, S> = (Slot<'t, S>, Option<Arc<Entry<S>>>);

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    Full,
    ShuttingDown,
}

impl<S> Table<S> {
    pub(super) fn new(cap: usize) -> Self {
        Self { cap, inner: Mutex::new(Inner { sessions: HashMap::new(), opening: 0, closed: false }) }
    }

    /// A place for one more session, and the session that has to go for it, if any.
    pub(super) fn reserve(&self) -> Result<Reserved<'_, S>, NoSlot> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(NoSlot::ShuttingDown);
        }
        let mut evicted = None;
        if inner.sessions.len() + inner.opening >= self.cap {
            let idle = inner
                .sessions
                .values()
                .filter_map(|entry| Some((entry.idle_since()?, entry.handle.id.clone())));
            let (_, id) = idle.min_by_key(|(since, _)| *since).ok_or(NoSlot::Full)?;
            evicted = inner.sessions.remove(id.as_str());
        }
        inner.opening += 1;
        Ok((Slot(self), evicted))
    }

    /// Enters an open session. Gives it back where the table has been emptied for good meanwhile.
    pub(super) fn insert(&self, _slot: Slot<'_, S>, entry: Arc<Entry<S>>) -> Result<(), Arc<Entry<S>>> {
        let mut inner = lock(&self.inner);
        if inner.closed {
            return Err(entry);
        }
        inner.sessions.insert(Arc::clone(&entry.handle.id.0), entry);
        // `_slot` is dropped after `inner`: locals go first, then arguments.
        Ok(())
    }

    pub(super) fn get(&self, id: &str) -> Option<Arc<Entry<S>>> {
        lock(&self.inner).sessions.get(id).cloned()
    }

    pub(super) fn remove(&self, id: &str) -> Option<Arc<Entry<S>>> {
        lock(&self.inner).sessions.remove(id)
    }

    /// Takes out what has been idle for `limit`, for `unconfirmed` where the client never came back after `initialize`, or
    /// has ended.
    pub(super) fn take_expired(&self, limit: Duration, unconfirmed: Duration) -> Vec<Arc<Entry<S>>> {
        let expired = |entry: &Entry<S>| {
            let limit = if entry.is_confirmed() { limit } else { limit.min(unconfirmed) };
            entry.is_ended() || entry.idle_since().is_some_and(|since| since.elapsed() >= limit)
        };
        lock(&self.inner).sessions.extract_if(|_, entry| expired(entry)).map(|(_, entry)| entry).collect()
    }

    /// Takes out everything, for good.
    pub(super) fn close(&self) -> Vec<Arc<Entry<S>>> {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        inner.sessions.drain().map(|(_, entry)| entry).collect()
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.inner).sessions.len()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn entry(name: &str) -> Arc<Entry<()>> {
        let handle = SessionHandle::new(SessionId(name.into()), Dropped::default());
        Arc::new(Entry::new(Arc::new(()), ProtocolVersion::LATEST, "/mcp".to_owned(), handle))
    }

    fn add(table: &Table<()>, name: &str) -> Arc<Entry<()>> {
        let (slot, _) = table.reserve().unwrap();
        let entry = entry(name);
        table.insert(slot, Arc::clone(&entry)).unwrap();
        entry
    }

    #[test]
    fn ids_are_unguessable_and_do_not_show_in_logs() {
        let id = SessionId::random().unwrap();
        assert_eq!(id.as_str().len(), 32);
        assert!(!format!("{id:?}").contains(id.as_str()));
        assert_ne!(id, SessionId::random().unwrap());
    }

    #[test]
    fn at_the_cap_the_longest_idle_session_goes() {
        let table = Table::new(2);
        let first = add(&table, "a");
        let second = add(&table, "b");
        drop(first.activity());
        let (_slot, evicted) = table.reserve().unwrap();
        assert!(Arc::ptr_eq(&evicted.unwrap(), &second));
    }

    #[test]
    fn a_client_that_never_came_back_is_not_waited_for_as_long() {
        let table = Table::new(2);
        let (lost, known) = (add(&table, "a"), add(&table, "b"));
        drop(known.activity());
        let taken = table.take_expired(Duration::MAX, Duration::ZERO);
        assert!(taken.len() == 1 && Arc::ptr_eq(&taken[0], &lost));
    }

    #[test]
    fn sessions_in_use_are_not_evicted_and_do_not_expire() {
        let table = Table::new(1);
        let entry = add(&table, "a");
        let activity = entry.activity();
        assert_eq!(table.reserve().unwrap_err(), NoSlot::Full);
        assert!(table.take_expired(Duration::ZERO, Duration::MAX).is_empty());
        drop(activity);
        assert_eq!(table.take_expired(Duration::ZERO, Duration::MAX).len(), 1);
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn the_end_of_a_long_use_is_when_it_was_last_used() {
        let table = Table::new(1);
        let entry = add(&table, "a");
        let activity = entry.activity();
        let before = Instant::now();
        drop(activity);
        assert!(entry.idle_since().is_some_and(|since| since >= before));
    }

    #[test]
    fn a_session_being_opened_counts_and_its_place_comes_back() {
        let table = Table::<()>::new(1);
        let (slot, _) = table.reserve().unwrap();
        assert_eq!(table.reserve().unwrap_err(), NoSlot::Full);
        drop(slot);
        assert!(table.reserve().is_ok());
    }

    #[test]
    fn a_closed_table_takes_nothing_more() {
        let table = Table::new(2);
        add(&table, "a");
        let (slot, _) = table.reserve().unwrap();
        assert_eq!(table.close().len(), 1);
        assert!(table.insert(slot, entry("b")).is_err());
        assert_eq!(table.reserve().unwrap_err(), NoSlot::ShuttingDown);
    }

    #[test]
    fn finished_streams_stay_for_a_while() {
        let entry = entry("a");
        for _ in 0..READ_STREAMS + 5 {
            let stream = entry.new_stream();
            entry.keep(Arc::clone(&stream));
            stream.finish_with("x".into());
            assert!(stream.read().next().now_or_never().flatten().is_some_and(|event| event.last));
            entry.forget_old_streams();
        }
        assert_eq!(lock(&entry.streams).len(), READ_STREAMS);
        let number = |id| entry.read(id).map(|reader| reader.stream_number());
        assert_eq!(number(Some("21-0")), Some(21));
        assert_eq!(number(Some("0-0")), Some(STANDALONE));
        assert_eq!(number(None), Some(STANDALONE));
        for unknown in ["1-0", "99-0", "nonsense"] {
            assert_eq!(number(Some(unknown)), None, "{unknown}");
        }
    }

    #[test]
    fn answers_that_nobody_has_come_for_stay_longer() {
        let entry = entry("a");
        for _ in 0..FINISHED_STREAMS + 5 {
            let stream = entry.new_stream();
            stream.finish_with("x".into());
            entry.keep(stream);
        }
        assert_eq!(lock(&entry.streams).len(), FINISHED_STREAMS);
        assert!(entry.read(Some("5-0")).is_none() && entry.read(Some("6-0")).is_some());
        for _ in 0..2 {
            let stream = entry.new_stream();
            stream.finish_with("x".repeat(FINISHED_BYTES).into());
            entry.keep(stream);
            assert_eq!(lock(&entry.streams).len(), 1, "the newest stays whatever its size");
        }
    }
}
