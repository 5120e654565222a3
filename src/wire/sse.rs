//! Server-sent events (WHATWG HTML section 9.2), both directions.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use bytestring::ByteString;
use memchr::memchr2;

/// What a stream may begin with, and no event has.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// One event as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The last event id seen so far, this event's included; `None` before the first.
    pub id: Option<ByteString>,
    /// The `event` field; `None` means `message`.
    pub name: Option<ByteString>,
    /// The data lines, joined by line feeds. Empty data is an event too: it sets the id (a *priming* event).
    pub data: ByteString,
}

/// Reads events from the chunks of a body.
///
/// Feed it with [`push`](Self::push), then take events with [`next_event`](Self::next_event) until there are none. Data that comes
/// in one line is not copied.
#[derive(Debug)]
pub struct Decoder {
    buffer: BytesMut,
    /// How much of `buffer` is known to hold no line end.
    scanned: usize,
    /// The last byte seen was CR: an LF that follows belongs to it.
    after_cr: bool,
    /// A byte order mark may still come.
    at_start: bool,
    limit: usize,
    /// The id of the event that is being read, which later events inherit.
    id: Option<ByteString>,
    /// The id of the last event that was read to its end.
    last_id: Option<ByteString>,
    name: Option<ByteString>,
    data: Option<Data>,
    retry: Option<Duration>,
}

#[derive(Debug)]
enum Data {
    One(Bytes),
    Joined(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::One(line) => line.len(),
            Self::Joined(lines) => lines.len(),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(line) => line,
            Self::Joined(lines) => lines.freeze(),
        }
    }
}

impl Decoder {
    /// A decoder that refuses events of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            scanned: 0,
            after_cr: false,
            at_start: true,
            limit,
            id: None,
            last_id: None,
            name: None,
            data: None,
            retry: None,
        }
    }

    /// Adds a chunk.
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// How long the sender wants its peer to wait before it connects again, once it has said so.
    pub fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// The id to resume after, as `Last-Event-ID`: that of the last whole event. One that was cut is told again.
    pub fn last_event_id(&self) -> Option<&ByteString> {
        self.last_id.as_ref()
    }

    /// Begins with a new body. What was half read is forgotten; the last event id and the retry time stay.
    pub fn restart(&mut self) {
        let (limit, id, retry) = (self.limit, self.last_id.take(), self.retry);
        *self = Self { id: id.clone(), last_id: id, retry, ..Self::new(limit) };
    }

    /// The next whole event, or `None` when more chunks are needed.
    ///
    /// # Errors
    ///
    /// The event is larger than the limit, or is not UTF-8. The decoder is of no use afterwards.
    pub fn next_event(&mut self) -> Result<Option<Event>, DecodeError> {
        while let Some(line) = self.line()? {
            if line.is_empty() {
                self.last_id.clone_from(&self.id);
                let (name, data) = (self.name.take(), self.data.take());
                if let Some(data) = data {
                    let data = ByteString::try_from(data.into_bytes()).map_err(|_| DecodeError::NotUtf8)?;
                    return Ok(Some(Event { id: self.id.clone(), name, data }));
                }
                continue;
            }
            self.field(line)?;
        }
        Ok(None)
    }

    fn line(&mut self) -> Result<Option<Bytes>, DecodeError> {
        if self.at_start {
            if self.buffer.len() < BYTE_ORDER_MARK.len() && BYTE_ORDER_MARK.starts_with(&self.buffer) {
                return Ok(None);
            }
            self.at_start = false;
            if self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.buffer.advance(BYTE_ORDER_MARK.len());
            }
        }
        if self.after_cr && !self.buffer.is_empty() {
            self.after_cr = false;
            if self.buffer[0] == b'\n' {
                self.buffer.advance(1);
            }
        }
        let Some(offset) = memchr2(b'\n', b'\r', &self.buffer[self.scanned..]) else {
            self.scanned = self.buffer.len();
            return if self.scanned > self.longest_line() { Err(self.too_large()) } else { Ok(None) };
        };
        let end = self.scanned + offset;
        // Also of a line that came at once: what is refused must not depend on how the bytes were cut.
        if end > self.longest_line() {
            return Err(self.too_large());
        }
        self.scanned = 0;
        self.after_cr = self.buffer[end] == b'\r';
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        Ok(Some(line.freeze()))
    }

    fn field(&mut self, line: Bytes) -> Result<(), DecodeError> {
        let colon = memchr::memchr(b':', &line).unwrap_or(line.len());
        let mut value = line.slice((colon + 1).min(line.len())..);
        if value.first() == Some(&b' ') {
            value.advance(1);
        }
        match &line[..colon] {
            b"data" => {
                let data = match self.data.take() {
                    None => Data::One(value),
                    Some(Data::One(first)) => {
                        let mut joined = BytesMut::with_capacity(first.len() + value.len() + 1);
                        joined.extend_from_slice(&first);
                        append_line(&mut joined, &value);
                        Data::Joined(joined)
                    }
                    Some(Data::Joined(mut joined)) => {
                        append_line(&mut joined, &value);
                        Data::Joined(joined)
                    }
                };
                if data.len() > self.limit {
                    return Err(self.too_large());
                }
                self.data = Some(data);
            }
            b"event" => self.name = Some(copied(&value)?),
            b"id" if !value.contains(&0) => {
                self.id = Some(copied(&value)?);
            }
            b"retry" => {
                if let Some(millis) = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok()) {
                    self.retry = Some(Duration::from_millis(millis));
                }
            }
            // Comments have an empty field name; unknown fields are ignored (9.2.6).
            _ => {}
        }
        Ok(())
    }

    /// Data of `limit` bytes, with its field's name.
    fn longest_line(&self) -> usize {
        self.limit.saturating_add(b"data: ".len())
    }

    fn too_large(&self) -> DecodeError {
        DecodeError::TooLarge { limit: self.limit }
    }
}

/// A copy: a slice would keep the whole buffer that it was received in.
fn copied(value: &[u8]) -> Result<ByteString, DecodeError> {
    std::str::from_utf8(value).map(ByteString::from).map_err(|_| DecodeError::NotUtf8)
}

fn append_line(joined: &mut BytesMut, line: &[u8]) {
    joined.extend_from_slice(b"\n");
    joined.extend_from_slice(line);
}

/// A stream of events that cannot be read on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// One event is larger than allowed.
    #[error("an event is larger than {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The bytes are not UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// An event on the wire, with an id.
///
/// A line end inside `data` (JSON may have them between its tokens) begins another data line.
pub fn encode(id: &str, data: &str) -> Bytes {
    let mut out = BytesMut::with_capacity(data.len() + id.len() + 16);
    for part in ["id: ", id, "\n"] {
        out.extend_from_slice(part.as_bytes());
    }
    for line in data.split(['\n', '\r']) {
        for part in ["data: ", line, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    }
    out.extend_from_slice(b"\n");
    out.freeze()
}

/// A *priming* event: it has no data, and gives an id to resume after. With it the reader is told how long to wait
/// before it comes back.
pub fn priming(id: &str, retry: Duration) -> Bytes {
    format!("id: {id}\nretry: {}\ndata: \n\n", retry.as_millis()).into()
}

/// Tells the reader how long to wait before it comes back. This is no event.
pub fn retry(retry: Duration) -> Bytes {
    format!("retry: {}\n\n", retry.as_millis()).into()
}

/// A comment: keeps a quiet connection alive and shows a peer that has gone.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::new(1 << 20);
        let mut events = Vec::new();
        for chunk in chunks {
            decoder.push(chunk);
            while let Some(event) = decoder.next_event().unwrap() {
                events.push(event);
            }
        }
        events
    }

    fn event(id: Option<&str>, name: Option<&str>, data: &str) -> Event {
        Event { id: id.map(Into::into), name: name.map(Into::into), data: data.into() }
    }

    #[test]
    fn fields_lines_and_comments() {
        let text =
            b"\xef\xbb\xbf: hi\nevent: a\nid: 1\ndata: x\ndata:y\n\ndata\n\nid\ndata:  z\n\nretry: 50\n\n";
        let expected =
            [event(Some("1"), Some("a"), "x\ny"), event(Some("1"), None, ""), event(Some(""), None, " z")];
        assert_eq!(decode(&[text]), expected);
    }

    #[test]
    fn the_three_line_ends_are_equal() {
        for text in ["data: a\n\ndata: b\n\n", "data: a\r\n\r\ndata: b\r\n\r\n", "data: a\r\rdata: b\r\r"] {
            assert_eq!(
                decode(&[text.as_bytes()]),
                [event(None, None, "a"), event(None, None, "b")],
                "{text:?}"
            );
        }
    }

    #[test]
    fn half_an_event_is_no_event() {
        assert_eq!(decode(&[b"data: a\n"]), []);
    }

    #[test]
    fn an_event_over_the_limit_is_refused() {
        for text in ["data: 0123456789a".to_owned(), "data: 01234\n".repeat(3)] {
            let mut decoder = Decoder::new(10);
            decoder.push(text.as_bytes());
            assert_eq!(decoder.next_event(), Err(DecodeError::TooLarge { limit: 10 }));
        }
    }

    #[test]
    fn what_is_over_the_limit_does_not_depend_on_how_it_is_cut() {
        let outcomes = |text: &str, cut: usize| {
            let mut decoder = Decoder::new(10);
            let mut outcomes = Vec::new();
            for chunk in [&text[..cut], &text[cut..]] {
                decoder.push(chunk.as_bytes());
                match decoder.next_event() {
                    Ok(event) => outcomes.extend(event),
                    Err(error) => return Err(error),
                }
            }
            Ok(outcomes)
        };
        for text in [
            "data: 0123456789\n\n",
            "data:0123456789\n\n",
            ": 0123456789 abcdef\n\n",
            "id: 0123456789 abcdef\n\n",
        ] {
            for cut in 0..text.len() {
                assert_eq!(outcomes(text, cut), outcomes(text, 0), "{text:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_may_be_cut_and_counts_at_the_start_only() {
        let events = decode(&[b"\xef\xbb", b"\xbf", b"\ndata: a\n\n"]);
        assert_eq!(events, [event(None, None, "a")]);
        assert_eq!(decode(&[b"\xef\xbb", b"\xbf\ndata: a\n\n"]), events);
        // What follows the first line begins with a field that nobody knows.
        assert_eq!(decode(&[b"\n", b"\xef\xbb\xbfdata: a\n\n"]), []);
    }

    #[test]
    fn what_is_said_about_coming_back_is_understood() {
        let mut decoder = Decoder::new(100);
        decoder.push(&priming("1-0", Duration::from_millis(250)));
        assert_eq!(decoder.next_event(), Ok(Some(event(Some("1-0"), None, ""))));
        assert_eq!(decoder.retry(), Some(Duration::from_millis(250)));
        decoder.push(&retry(Duration::from_secs(7)));
        assert_eq!(decoder.next_event(), Ok(None));
        assert_eq!(decoder.retry(), Some(Duration::from_secs(7)));
        assert_eq!(decoder.last_event_id().map(|id| &**id), Some("1-0"));
    }

    #[test]
    fn retry_is_kept() {
        let mut decoder = Decoder::new(100);
        decoder.push(b"retry: 250\nid: 9\ndata:\n\n");
        assert_eq!(decoder.next_event(), Ok(Some(event(Some("9"), None, ""))));
        assert_eq!(decoder.retry(), Some(Duration::from_millis(250)));
        assert_eq!(decoder.last_event_id().map(|id| &**id), Some("9"));
    }

    proptest! {
        /// However the bytes are cut into chunks, the same events come out.
        #[test]
        fn chunking_does_not_matter(
            data in proptest::collection::vec("[ -~\n]{0,30}", 1..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let text: Vec<u8> = data.iter().enumerate().flat_map(|(i, d)| encode(&i.to_string(), d)).collect();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.extend([0, text.len()]);
            at.sort_unstable();
            let chunks: Vec<&[u8]> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
            let expected: Vec<Event> =
                data.iter().enumerate().map(|(i, d)| event(Some(&i.to_string()), None, d)).collect();
            prop_assert_eq!(decode(&chunks), expected);
        }

        #[test]
        fn rubbish_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::new(64);
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next_event() {}
        }
    }
}
