//! One stream of messages to a peer that reads it as server-sent events, now or after it has connected again.
//!
//! The writer never waits. Messages are numbered from 1; an event id is `<stream>-<number>`, so an id names the stream
//! that it belongs to (2025-11-25, basic/transports, "Resumability and Redelivery"). Events that were read stay for a
//! while, so that a reader which lost its connection can go back; both what waits and what stays is bounded.
//!
//! Invariants: at most one reader at a time, a newer one takes over; once [`EventStream::finish`] was called and all
//! was read, readers end; what waits never exceeds [`Limits::waiting`], beyond which notifications are dropped and
//! counted, oldest first, while answers and requests are kept, up to 16 times as much.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytestring::ByteString;

/// How much one stream holds.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of messages that wait for a reader.
    pub waiting: usize,
    /// Bytes of messages that were read and stay for a reader that comes back.
    pub replay: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { waiting: 4 << 20, replay: 256 << 10 }
    }
}

/// How many times over the limit a stream may be with messages that must arrive.
const DESPERATE: usize = 16;

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
    state: Mutex<State>,
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
    /// An empty stream. `number` must be unique in its session.
    pub fn new(number: u64, limits: Limits) -> Arc<Self> {
        let state = State { next_number: 1, cursor: 1, ..State::default() };
        Arc::new(Self { number, limits, state: Mutex::new(state) })
    }

    /// The number of the stream in its session.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Adds a message. After [`finish`](Self::finish) it is discarded.
    pub fn push(&self, data: ByteString, weight: Weight) {
        let waker = {
            let mut state = self.lock();
            if state.finished {
                return;
            }
            state.append(data, weight, self.limits.waiting);
            state.waker.take()
        };
        wake(waker);
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
                state.append(data, Weight::Required, self.limits.waiting);
            }
            state.finished = true;
            state.waker.take()
        };
        wake(waker);
    }

    /// Whether [`finish`](Self::finish) was called.
    pub fn is_finished(&self) -> bool {
        self.lock().finished
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

impl State {
    fn append(&mut self, data: ByteString, weight: Weight, limit: usize) {
        let number = self.next_number;
        self.next_number += 1;
        self.waiting_bytes += data.len();
        self.events.push_back(Queued { number, weight, data });
        self.drop_excess(limit);
    }

    fn drop_excess(&mut self, limit: usize) {
        while self.waiting_bytes > limit {
            let cursor = self.cursor;
            // Beyond any reason, what must arrive goes too: memory is not for whoever never reads.
            let desperate = self.waiting_bytes > limit.saturating_mul(DESPERATE);
            let droppable =
                |event: &Queued| event.number >= cursor && (desperate || event.weight == Weight::Droppable);
            let Some(index) = self.events.iter().position(droppable) else { return };
            if let Some(event) = self.events.remove(index) {
                self.waiting_bytes -= event.data.len();
                self.dropped += 1;
            }
        }
    }

    fn mark_read(&mut self, number: u64, bytes: usize, replay_limit: usize) {
        if number >= self.cursor {
            self.cursor = number + 1;
            self.waiting_bytes -= bytes;
            self.replay_bytes += bytes;
        }
        // The last one stays whatever its size: it may be the answer, and a client comes back for it.
        while self.replay_bytes > replay_limit && self.events.len() > 1 {
            match self.events.front() {
                Some(oldest) if oldest.number < self.cursor => {
                    self.replay_bytes -= oldest.data.len();
                    self.events.pop_front();
                }
                _ => return,
            }
        }
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

    /// The next message; `None` when the stream has finished or another reader has taken over.
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
        state.mark_read(event.number, event.data.len(), self.stream.limits.replay);
        Poll::Ready(Some(event))
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
        let stream = EventStream::new(1, Limits { waiting: 4, replay: 0 });
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
        let stream = EventStream::new(1, Limits { waiting: 100, replay: 2 });
        for text in ["a", "b", "c", "d"] {
            stream.push(text.into(), Weight::Required);
        }
        assert_eq!(texts(&mut stream.read()).len(), 4);
        assert_eq!(texts(&mut stream.read_after(0)), ["c", "d"]);
    }

    #[test]
    fn the_last_message_stays_for_replay_whatever_its_size() {
        let stream = EventStream::new(1, Limits { waiting: 100, replay: 2 });
        stream.push("note".into(), Weight::Droppable);
        stream.finish_with("a long answer".into());
        assert_eq!(texts(&mut stream.read()).len(), 2);
        assert_eq!(texts(&mut stream.read_after(1)), ["a long answer"]);
    }

    #[test]
    fn memory_is_bounded_whatever_must_arrive() {
        let stream = EventStream::new(1, Limits { waiting: 10, replay: 0 });
        for _ in 0..1000 {
            stream.push("0123456789".into(), Weight::Required);
        }
        assert_eq!(texts(&mut stream.read()).len(), DESPERATE);
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
