//! Response bodies: text, or a stream of events.

use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep};

use super::session::Activity;
use crate::wire::sse;
use crate::wire::stream::{EventReader, event_id};

/// A response body.
#[derive(Debug)]
pub struct Body(Inner);

#[derive(Debug)]
enum Inner {
    Text(Option<Bytes>),
    Events(Box<Events>),
}

/// The times that matter to a stream of events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How often a quiet one says that it is alive.
    pub(super) keep_alive: Duration,
    /// How long a client should wait before it comes back.
    pub(super) retry: Duration,
}

#[derive(Debug)]
struct Events {
    /// What is sent before anything is read.
    head: Option<Bytes>,
    reader: EventReader,
    /// All has been sent, the time to come back included.
    over: bool,
    pace: Pace,
    keep_alive: Pin<Box<Sleep>>,
    _activity: Activity,
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self(Inner::Text(None))
    }

    /// Text, known as a whole.
    pub fn text(text: impl Into<Bytes>) -> Self {
        Self(Inner::Text(Some(text.into())))
    }

    /// Events as they come. `head` goes first; `activity` keeps the session from expiring while somebody reads.
    pub(super) fn events(head: Option<Bytes>, reader: EventReader, pace: Pace, activity: Activity) -> Self {
        let keep_alive = Box::pin(sleep(pace.keep_alive));
        Self(Inner::Events(Box::new(Events {
            head,
            reader,
            over: false,
            pace,
            keep_alive,
            _activity: activity,
        })))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match &mut self.get_mut().0 {
            Inner::Text(text) => text.take(),
            Inner::Events(events) => match events.poll(context) {
                Poll::Ready(data) => data,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, Inner::Text(None))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        match &self.0 {
            Inner::Text(text) => http_body::SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Inner::Events(_) => http_body::SizeHint::default(),
        }
    }
}

impl Events {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let data = match self.head.take() {
            Some(head) => Some(head),
            None => match self.reader.poll_next(context) {
                Poll::Ready(Some(event)) => {
                    Some(sse::encode(&event_id(self.reader.stream_number(), event.number), &event.data))
                }
                // The connection ends and the stream does not: the client should know when to come back.
                Poll::Ready(None) => match self.reader.comes_back_after(self.pace.retry) {
                    Some(retry) if !std::mem::replace(&mut self.over, true) => Some(sse::retry(retry)),
                    _ => None,
                },
                Poll::Pending => match self.keep_alive.as_mut().poll(context) {
                    Poll::Ready(()) => Some(Bytes::from_static(sse::KEEP_ALIVE)),
                    Poll::Pending => return Poll::Pending,
                },
            },
        };
        self.keep_alive.as_mut().reset(Instant::now() + self.pace.keep_alive);
        Poll::Ready(data)
    }
}
