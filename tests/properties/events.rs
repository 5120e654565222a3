//! Any bytes as a stream of server-sent events.

use std::time::Duration;

use sidegate::wire::sse::{DecodeError, Decoder, Event, encode};

/// Small, so that short inputs reach it.
const LIMIT: usize = 24;

/// Everything that a decoder says in the end.
#[derive(Debug, PartialEq)]
struct Told {
    events: Vec<Event>,
    error: Option<DecodeError>,
    resume_after: Option<String>,
    retry: Option<Duration>,
}

/// Reads `bytes` at once, byte by byte, and in pieces whose length the first byte gives; and what was read, once more.
///
/// # Panics
///
/// When it matters how the bytes are cut, or an event is over the limit or does not survive being written.
pub(crate) fn judge(bytes: &[u8]) {
    let (piece, stream) =
        bytes.split_first().map_or((1, bytes), |(first, rest)| (usize::from(*first).max(1), rest));
    let told = read(stream, usize::MAX);
    assert_eq!(read(stream, 1), told);
    assert_eq!(read(stream, piece), told);
    for event in &told.events {
        assert!(event.data.len() <= LIMIT, "{event:?}");
        let written = encode("7", &event.data);
        let again = read(&written, piece).events;
        assert_eq!(again, [Event { id: Some("7".into()), name: None, data: event.data.clone() }]);
    }
}

fn read(stream: &[u8], piece: usize) -> Told {
    let mut decoder = Decoder::new(LIMIT);
    let mut events = Vec::new();
    let mut error = None;
    'all: for chunk in stream.chunks(piece) {
        decoder.push(chunk);
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break,
                Err(why) => {
                    error = Some(why);
                    break 'all;
                }
            }
        }
    }
    let resume_after = decoder.last_event_id().map(ToString::to_string);
    Told { events, error, resume_after, retry: decoder.retry() }
}
