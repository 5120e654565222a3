//! One stream of messages to a peer that reads it as server-sent events, now or after it has connected again.
//!
//! The writer never waits. Messages are numbered from 1; an event id is `<stream>-<number>`, so an id names the stream
//! that it belongs to (2025-11-25, basic/transports, "Resumability and Redelivery"). Events that were read stay for a
//! while, so that a reader which lost its connection can go back; both what waits and what stays is bounded.
//!
//! Invariants: at most one reader at a time, a newer one takes over; once [`EventStream::finish`] was called and all
//! was read, readers end. A reader that ends before that is told when to come back ([`EventReader::comes_back_after`]).
//!
//! Memory is bounded, for each stream and for all streams of a session together ([`Limits::session`]). Beyond that, what
//! was read goes first, then notifications that wait, oldest first, each counted; answers and requests that wait are
//! kept until they are four times over the session's limit or 16 times over the stream's. A reader that goes back
//! further than what is held reads on with the oldest message there is.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytestring::ByteString;

/// How much a stream holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of messages that wait for a reader.
    pub waiting: usize,
    /// Bytes of messages that were read and stay for a reader that comes back.
    pub replay: usize,
    /// Bytes of all messages that the streams of one session hold together.
    pub session: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { waiting: 4 << 20, replay: 256 << 10, session: 64 << 20 }
    }
}

/// How many times over its limit a stream may be with messages that must arrive.
const DESPERATE: usize = 16;

/// How many times over their limit the streams of a session may be with messages that must arrive.
const SESSION_DESPERATE: usize = 4;

/// How a message behaves when the stream is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// May be dropped: a notification.
    Droppable,
    /// Must arrive: an answer, or a request.
    Required,
}

/// The writing side. Dropping every handle does not finish the stream; [`finish`](Self::finish) does.
#[derive(Debug)]
pub struct EventStream {
    number: u64,
    limits: Limits,
    account: Arc<Account>,
    state: Mutex<State>,
}

/// What the streams of one session have in common.
#[derive(Debug, Default)]
struct Account {
    /// The bytes of messages that they hold.
    held: AtomicUsize,
    dropped: Dropped,
}

impl Account {
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// Counts messages that were dropped, by all who have a clone.
#[derive(Clone, Debug, Default)]
pub struct Dropped(Arc<AtomicU64>);

impl Dropped {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn total(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Queued>,
    /// The number of the first event in `events`; they are consecutive but for dropped ones.
    next_number: u64,
    /// Events numbered below this one have been read.
    cursor: u64,
    waiting_bytes: usize,
    replay_bytes: usize,
    dropped: u64,
    finished: bool,
    /// When a reader that was sent away should come back.
    retry: Option<Duration>,
    /// Counts readers: only the newest reads.
    reader: u64,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Queued {
    number: u64,
    weight: Weight,
    data: ByteString,
}

/// A message on its way to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The event's number in its stream, from 1.
    pub number: u64,
    /// The message.
    pub data: ByteString,
    /// The stream ends with this message.
    pub last: bool,
}

impl EventStream {
    /// An empty stream, the first of its session. `number` must be unique there.
    pub fn new(number: u64, limits: Limits) -> Arc<Self> {
        Self::counted(number, limits, Dropped::default())
    }

    /// As [`new`](Self::new); what the streams of the session drop is counted by `dropped` as well.
    pub fn counted(number: u64, limits: Limits, dropped: Dropped) -> Arc<Self> {
        Self::with_account(number, limits, Arc::new(Account { dropped, ..Account::default() }))
    }

    /// An empty stream of the same session.
    pub fn sibling(&self, number: u64) -> Arc<Self> {
        Self::with_account(number, self.limits, Arc::clone(&self.account))
    }

    fn with_account(number: u64, limits: Limits, account: Arc<Account>) -> Arc<Self> {
        let state = State { next_number: 1, cursor: 1, ..State::default() };
        Arc::new(Self { number, limits, account, state: Mutex::new(state) })
    }

    /// The number of the stream in its session.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds a message. After [`finish`](Self::finish) it is discarded.
    pub fn push(&self, data: ByteString, weight: Weight) {
        self.try_push(data, weight);
    }

    /// As [`push`](Self::push); says whether the message was taken.
    pub fn try_push(&self, data: ByteString, weight: Weight) -> bool {
        let waker = {
            let mut state = self.lock();
            if state.finished {
                return false;
            }
            state.append(data, weight, self.limits, &self.account);
            state.waker.take()
        };
        wake(waker);
        true
    }

    /// Adds the last message. A reader sees it as such: see [`Event::last`].
    pub fn finish_with(&self, data: ByteString) {
        self.end(Some(data));
    }

    /// Nothing will be added any more.
    pub fn finish(&self) {
        self.end(None);
    }

    fn end(&self, data: Option<ByteString>) {
        let waker = {
            let mut state = self.lock();
            if state.finished {
                return;
            }
            if let Some(data) = data {
                state.append(data, Weight::Required, self.limits, &self.account);
            }
            state.finished = true;
            state.waker.take()
        };
        wake(waker);
    }

    /// Ends the reader that there is, which should come back after `retry`. What is added meanwhile waits for it.
    pub fn send_reader_away(&self, retry: Duration) {
        let waker = {
            let mut state = self.lock();
            state.reader += 1;
            state.retry = Some(retry);
            state.waker.take()
        };
        wake(waker);
    }

    /// Whether [`finish`](Self::finish) was called.
    pub fn is_finished(&self) -> bool {
        self.lock().finished
    }

    /// What is left of a stream that has finished; `None` before.
    pub fn remains(&self) -> Option<Remains> {
        let state = self.lock();
        let bytes = state.waiting_bytes + state.replay_bytes;
        state.finished.then(|| Remains { bytes, read: state.all_read() })
    }

    /// Messages that were dropped because nobody read them.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Reads from the first message that was not read yet. A reader that exists ends.
    pub fn read(self: &Arc<Self>) -> EventReader {
        let next = self.lock().cursor;
        self.read_from(next)
    }

    /// Reads from the message after number `after`, or the oldest one still held. A reader that exists ends.
    pub fn read_after(self: &Arc<Self>, after: u64) -> EventReader {
        self.read_from(after.saturating_add(1))
    }

    fn read_from(self: &Arc<Self>, mut next: u64) -> EventReader {
        let (reader, waker) = {
            let mut state = self.lock();
            state.reader += 1;
            // Nobody can go back to what was never sent: such an id is not ours.
            next = next.min(state.cursor);
            (state.reader, state.waker.take())
        };
        wake(waker);
        EventReader { stream: Arc::clone(self), reader, next }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Drop for EventStream {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.account.held.fetch_sub(state.waiting_bytes + state.replay_bytes, Ordering::Relaxed);
    }
}

/// What is left of a stream that has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remains {
    /// Bytes of the messages that it holds.
    pub bytes: usize,
    /// Nothing waits for a reader any more.
    pub read: bool,
}

impl State {
    fn append(&mut self, data: ByteString, weight: Weight, limits: Limits, account: &Account) {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting_bytes += data.len();
        account.held.fetch_add(data.len(), Ordering::Relaxed);
        self.events.push_back(Queued { number, weight, data });
        self.drop_excess(limits, account);
    }

    fn drop_excess(&mut self, limits: Limits, account: &Account) {
        while account.held() > limits.session && self.drop_oldest_read(account) {}
        while self.waiting_bytes > limits.waiting || account.held() > limits.session {
            let cursor = self.cursor;
            // Beyond any reason, what must arrive goes too: memory is not for whoever never reads.
            let desperate = self.waiting_bytes > limits.waiting.saturating_mul(DESPERATE)
                || account.held() > limits.session.saturating_mul(SESSION_DESPERATE);
            let droppable =
                |event: &Queued| event.number >= cursor && (desperate || event.weight == Weight::Droppable);
            let Some(index) = self.events.iter().position(droppable) else { return };
            if let Some(event) = self.events.remove(index) {
                self.waiting_bytes -= event.data.len();
                account.held.fetch_sub(event.data.len(), Ordering::Relaxed);
                account.dropped.add();
                self.dropped += 1;
            }
        }
    }

    fn mark_read(&mut self, number: u64, bytes: usize, replay_limit: usize, account: &Account) {
        if number >= self.cursor {
            self.cursor = number + 1;
            self.waiting_bytes -= bytes;
            self.replay_bytes += bytes;
        }
        // The last one stays whatever its size: it may be the answer, and a client comes back for it.
        while self.replay_bytes > replay_limit && self.events.len() > 1 && self.drop_oldest_read(account) {}
    }

    /// Whether there was one.
    fn drop_oldest_read(&mut self, account: &Account) -> bool {
        let read = |event: &mut Queued| event.number < self.cursor;
        let Some(oldest) = self.events.pop_front_if(read) else { return false };
        self.replay_bytes -= oldest.data.len();
        account.held.fetch_sub(oldest.data.len(), Ordering::Relaxed);
        true
    }

    fn all_read(&self) -> bool {
        self.events.back().is_none_or(|event| event.number < self.cursor)
    }
}

/// The reading side.
#[derive(Debug)]
pub struct EventReader {
    stream: Arc<EventStream>,
    reader: u64,
    next: u64,
}

impl EventReader {
    /// The number of the stream in its session.
    pub fn stream_number(&self) -> u64 {
        self.stream.number
    }

    /// The next message; `None` when the stream has finished, another reader has taken over, or this one was sent away.
    pub async fn next(&mut self) -> Option<Event> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// As [`next`](Self::next).
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Event>> {
        let mut state = self.stream.lock();
        if state.reader != self.reader {
            return Poll::Ready(None);
        }
        // Numbers rise along the queue, with gaps where messages were dropped.
        let index = state.events.partition_point(|event| event.number < self.next);
        let Some(event) = state.events.get(index) else {
            if state.finished {
                return Poll::Ready(None);
            }
            state.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        let last = state.finished && index + 1 == state.events.len();
        let event = Event { number: event.number, data: event.data.clone(), last };
        self.next = event.number + 1;
        state.mark_read(event.number, event.data.len(), self.stream.limits.replay, &self.stream.account);
        Poll::Ready(Some(event))
    }

    /// For a reader that has ended: how long its client should wait before it reads on with another one, which is
    /// `usual` unless this one was sent away. `None` when the stream is over and all of it was read.
    pub fn comes_back_after(&self, usual: Duration) -> Option<Duration> {
        let state = self.stream.lock();
        let over = state.finished && state.all_read();
        (!over).then(|| state.retry.unwrap_or(usual))
    }
}

/// The event id of message `number` of stream `stream`.
pub fn event_id(stream: u64, number: u64) -> String {
    format!("{stream}-{number}")
}

/// The stream and message that an event id names.
pub fn parse_event_id(id: &str) -> Option<(u64, u64)> {
    let (stream, number) = id.split_once('-')?;
    Some((stream.parse().ok()?, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn texts(reader: &mut EventReader) -> Vec<String> {
        let mut texts = Vec::new();
        while let Some(Some(event)) = reader.next().now_or_never() {
            texts.push(event.data.to_string());
        }
        texts
    }

    #[test]
    fn a_reader_that_comes_back_reads_on_where_it_was() {
        let stream = EventStream::new(1, Limits::default());
        for text in ["a", "b", "c"] {
            stream.push(text.into(), Weight::Droppable);
        }
        let mut reader = stream.read();
        let first = reader.next().now_or_never().flatten().unwrap();
        assert_eq!((first.number, &*first.data, first.last), (1, "a", false));
        assert_eq!(texts(&mut reader), ["b", "c"]);

        assert_eq!(texts(&mut stream.read_after(1)), ["b", "c"]);
        assert_eq!(texts(&mut stream.read()), Vec::<String>::new());
    }

    #[test]
    fn the_newest_reader_takes_over() {
        let stream = EventStream::new(1, Limits::default());
        let mut old = stream.read();
        let mut new = stream.read();
        stream.push("a".into(), Weight::Required);
        assert_eq!(old.next().now_or_never(), Some(None));
        assert_eq!(texts(&mut new), ["a"]);
    }

    #[test]
    fn a_full_stream_drops_the_oldest_notifications_only() {
        let stream = EventStream::new(1, Limits { waiting: 4, replay: 0, ..Limits::default() });
        stream.push("r1".into(), Weight::Required);
        for text in ["n1", "n2", "n3"] {
            stream.push(text.into(), Weight::Droppable);
        }
        stream.push("r2".into(), Weight::Required);
        stream.push("r3".into(), Weight::Required);
        assert_eq!(stream.dropped(), 3);
        assert_eq!(texts(&mut stream.read()), ["r1", "r2", "r3"]);
    }

    #[test]
    fn what_stays_for_replay_is_bounded() {
        let stream = EventStream::new(1, Limits { waiting: 100, replay: 2, ..Limits::default() });
        for text in ["a", "b", "c", "d"] {
            stream.push(text.into(), Weight::Required);
        }
        assert_eq!(texts(&mut stream.read()).len(), 4);
        assert_eq!(texts(&mut stream.read_after(0)), ["c", "d"]);
    }

    #[test]
    fn the_last_message_stays_for_replay_whatever_its_size() {
        let stream = EventStream::new(1, Limits { waiting: 100, replay: 2, ..Limits::default() });
        stream.push("note".into(), Weight::Droppable);
        stream.finish_with("a long answer".into());
        assert_eq!(texts(&mut stream.read()).len(), 2);
        assert_eq!(texts(&mut stream.read_after(1)), ["a long answer"]);
    }

    #[test]
    fn memory_is_bounded_whatever_must_arrive() {
        let stream = EventStream::new(1, Limits { waiting: 10, replay: 0, ..Limits::default() });
        for _ in 0..1000 {
            stream.push("0123456789".into(), Weight::Required);
        }
        assert_eq!(texts(&mut stream.read()).len(), DESPERATE);
    }

    #[test]
    fn the_streams_of_a_session_are_bounded_together() {
        let limits = Limits { waiting: 100, replay: 100, session: 10 };
        let first = EventStream::new(1, limits);
        let second = first.sibling(2);
        first.push("read".into(), Weight::Required);
        first.push("wait".into(), Weight::Required);
        assert_eq!(first.read().next().now_or_never().flatten().map(|event| event.number), Some(1));
        for text in ["n1", "n2"] {
            second.push(text.into(), Weight::Droppable);
        }
        assert_eq!((first.dropped(), second.dropped()), (0, 1), "whoever adds too much loses his own");
        first.push("r".into(), Weight::Required);
        assert_eq!(texts(&mut first.read_after(0)), ["wait", "r"], "what was read goes first");
        second.push("x".repeat(36).into(), Weight::Required);
        assert_eq!(second.dropped(), 3, "what must arrive goes in the end");
        drop(second);
        assert_eq!(first.account.held(), 5);
    }

    #[test]
    fn a_reader_that_was_sent_away_misses_nothing() {
        let stream = EventStream::new(1, Limits::default());
        let mut reader = stream.read();
        stream.push("a".into(), Weight::Required);
        stream.send_reader_away(Duration::from_millis(7));
        stream.finish_with("b".into());
        assert_eq!(reader.next().now_or_never(), Some(None));
        assert_eq!(reader.comes_back_after(Duration::ZERO), Some(Duration::from_millis(7)));
        assert_eq!(stream.remains(), Some(Remains { bytes: 2, read: false }));
        let mut back = stream.read_after(0);
        assert_eq!(texts(&mut back), ["a", "b"]);
        assert_eq!(back.comes_back_after(Duration::ZERO), None);
        assert_eq!(stream.remains(), Some(Remains { bytes: 2, read: true }));
    }

    #[test]
    fn a_reader_that_another_one_replaced_may_come_back() {
        let stream = EventStream::new(1, Limits::default());
        let mut old = stream.read();
        let _new = stream.read();
        assert_eq!(old.next().now_or_never(), Some(None));
        assert_eq!(old.comes_back_after(Duration::from_secs(1)), Some(Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken_by_a_message_and_by_the_end() {
        let stream = EventStream::new(1, Limits::default());
        let mut reader = stream.read();
        let task =
            tokio::spawn(async move { (reader.next().await.map(|event| event.data), reader.next().await) });
        tokio::task::yield_now().await;
        stream.push("a".into(), Weight::Required);
        tokio::task::yield_now().await;
        stream.finish();
        assert_eq!(task.await.unwrap(), (Some("a".into()), None));
    }

    #[test]
    fn an_id_that_was_never_given_out_skips_nothing() {
        let stream = EventStream::new(1, Limits::default());
        stream.finish_with("a".into());
        let event = stream.read_after(99).next().now_or_never().flatten().unwrap();
        assert_eq!((&*event.data, event.last), ("a", true));
    }

    #[test]
    fn event_ids_name_stream_and_message() {
        assert_eq!(parse_event_id(&event_id(3, 14)), Some((3, 14)));
        for id in ["", "3", "a-1", "1-", "-1", "1-2-3"] {
            assert_eq!(parse_event_id(id), None, "{id}");
        }
    }
}
