//! Server-sent events, read as the HTML standard says (section 9.2.6, "Interpreting an event stream").

/// One dispatched event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The id this event carried itself; an id in force from an earlier event is not repeated here.
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    /// `None` when there was no `data` line at all, empty for a priming event.
    pub(crate) data: Option<String>,
    /// Milliseconds.
    pub(crate) retry: Option<u64>,
}

/// An incremental parser.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The unfinished line.
    line: Vec<u8>,
    /// The last byte was CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    event: Event,
    any_field: bool,
}

impl Parser {
    /// The events that `bytes` complete.
    ///
    /// Unlike a browser this also gives events without data, since MCP servers send their `retry` in such events.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let was_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
            match byte {
                b'\n' if was_cr => {}
                b'\n' | b'\r' => events.extend(self.end_line()),
                _ => self.line.push(byte),
            }
        }
        events
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = String::from_utf8(std::mem::take(&mut self.line)).expect("event streams are UTF-8");
        if line.is_empty() {
            let any_field = std::mem::take(&mut self.any_field);
            let event = std::mem::take(&mut self.event);
            return any_field.then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match field {
            "id" => self.event.id = Some(value),
            "event" => self.event.event = Some(value),
            "data" => match &mut self.event.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(&value);
                }
                None => self.event.data = Some(value),
            },
            "retry" => self.event.retry = value.parse().ok(),
            _ => return None,
        }
        self.any_field = true;
        None
    }
}
