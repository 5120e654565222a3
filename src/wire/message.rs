//! One JSON-RPC 2.0 message, parsed once.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use bytestring::ByteString;

use super::json;

/// A JSON-RPC 2.0 request, notification or response, as it came: the text, and where its parts are.
///
/// Cheap to clone: the text is shared.
#[derive(Clone)]
pub struct Message {
    text: ByteString,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    Request { id: Range<usize>, method: Range<usize>, params: Option<Range<usize>> },
    Notification { method: Range<usize>, params: Option<Range<usize>> },
    Response { id: Option<Range<usize>>, outcome: Range<usize>, failed: bool },
}

/// What a [`Message`] is, with the raw texts of its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View<'a> {
    /// A request: it wants an answer.
    Request {
        /// The id as JSON text: a string with its quotes, or a number.
        id: &'a str,
        /// The method, decoded.
        method: &'a str,
        /// The raw text of `params`.
        params: Option<&'a str>,
    },
    /// A notification: nobody answers.
    Notification {
        /// The method, decoded.
        method: &'a str,
        /// The raw text of `params`.
        params: Option<&'a str>,
    },
    /// An answer.
    Response {
        /// The id as JSON text; `None` where it is null or missing, as in an answer to what could not be parsed.
        id: Option<&'a str>,
        /// The raw text of `result`, or of `error` in the `Err` case.
        outcome: Result<&'a str, &'a str>,
    },
}

impl Message {
    /// Parses one message.
    ///
    /// # Errors
    ///
    /// The text is not UTF-8 or not JSON ([`ParseError::Syntax`]), or no JSON-RPC 2.0 message
    /// ([`ParseError::Invalid`]; a batch is none: see [`Message::parse_batch`]).
    pub fn parse(bytes: Bytes) -> Result<Self, ParseError> {
        let text = ByteString::try_from(bytes).map_err(|error| ParseError::Syntax(error.to_string()))?;
        Self::from_text(text)
    }

    /// Parses one message, or an array of messages as protocol version 2025-03-26 allows.
    ///
    /// # Errors
    ///
    /// As [`Message::parse`], and for an empty batch (JSON-RPC 2.0 section 6).
    pub fn parse_batch(bytes: Bytes) -> Result<Incoming, ParseError> {
        let text = ByteString::try_from(bytes).map_err(|error| ParseError::Syntax(error.to_string()))?;
        if !text.trim_start().starts_with('[') {
            return Self::from_text(text).map(Incoming::Single);
        }
        let elements = json::elements(&text).map_err(ParseError::from_json)?;
        if elements.is_empty() {
            return Err(ParseError::Invalid("the batch is empty".to_owned()));
        }
        let messages = elements.into_iter().map(|element| Self::from_text(text.slice_ref(element)));
        Ok(Incoming::Batch(messages.collect::<Result<_, _>>()?))
    }

    /// Parses text that is known to be UTF-8. See [`Message::parse`].
    ///
    /// # Errors
    ///
    /// As [`Message::parse`].
    pub fn from_text(text: ByteString) -> Result<Self, ParseError> {
        let invalid = |why: &str| Err(ParseError::Invalid(why.to_owned()));
        let [version, id, method, params, result, error] =
            json::members(&text, ["jsonrpc", "id", "method", "params", "result", "error"])
                .map_err(ParseError::from_json)?;
        if version.and_then(json::string).as_deref() != Some("2.0") {
            return invalid("\"jsonrpc\" is not \"2.0\"");
        }
        let id = match id {
            None | Some("null") => None,
            Some(raw)
                if raw.starts_with('"') || raw.starts_with(|c: char| c == '-' || c.is_ascii_digit()) =>
            {
                Some(raw)
            }
            Some(_) => return invalid("\"id\" is neither a string nor a number"),
        };
        if params.is_some_and(|raw| !raw.starts_with(['{', '['])) {
            return invalid("\"params\" is neither an object nor an array");
        }
        let at = |part: &str| json::span(&text, part);
        let kind = match (method, result, error) {
            (Some(raw), None, None) => {
                let Some(name) = json::string(raw) else { return invalid("\"method\" is not a string") };
                if let Cow::Owned(name) = name {
                    // Some encoders write `tools\/call`. Spell it plainly once, so that `method` can be a slice.
                    return match json::quoted(&name) {
                        plain if plain.contains('\\') => {
                            invalid("\"method\" holds control characters or quotes")
                        }
                        plain => Self::from_text(json::splice(&text, [(at(raw), &plain)])),
                    };
                }
                let quoted = at(raw);
                let method = quoted.start + 1..quoted.end - 1;
                let params = params.map(at);
                match id {
                    Some(id) => Kind::Request { id: at(id), method, params },
                    None => Kind::Notification { method, params },
                }
            }
            (None, Some(raw), None) => Kind::Response { id: id.map(at), outcome: at(raw), failed: false },
            (None, None, Some(raw)) => Kind::Response { id: id.map(at), outcome: at(raw), failed: true },
            _ => return invalid("it must have exactly one of \"method\", \"result\" and \"error\""),
        };
        Ok(Self { text, kind })
    }

    /// What it is, and its parts.
    pub fn view(&self) -> View<'_> {
        let slice = |range: &Range<usize>| &self.text[range.clone()];
        match &self.kind {
            Kind::Request { id, method, params } => {
                View::Request { id: slice(id), method: slice(method), params: params.as_ref().map(slice) }
            }
            Kind::Notification { method, params } => {
                View::Notification { method: slice(method), params: params.as_ref().map(slice) }
            }
            Kind::Response { id, outcome, failed } => View::Response {
                id: id.as_ref().map(slice),
                outcome: if *failed { Err(slice(outcome)) } else { Ok(slice(outcome)) },
            },
        }
    }

    /// The whole text, as it came.
    pub fn text(&self) -> &ByteString {
        &self.text
    }

    /// The id, where there is one.
    pub fn id(&self) -> Option<RequestId> {
        match &self.kind {
            Kind::Request { id, .. } | Kind::Response { id: Some(id), .. } => {
                Some(RequestId(self.text.slice_ref(&self.text[id.clone()])))
            }
            Kind::Notification { .. } | Kind::Response { id: None, .. } => None,
        }
    }

    /// Where the id stands in the text, where there is one.
    pub fn id_span(&self) -> Option<Range<usize>> {
        match &self.kind {
            Kind::Request { id, .. } | Kind::Response { id: Some(id), .. } => Some(id.clone()),
            Kind::Notification { .. } | Kind::Response { id: None, .. } => None,
        }
    }

    /// The text with another id. A message without an id stays as it is.
    pub fn with_id(&self, id: &str) -> ByteString {
        match &self.kind {
            Kind::Request { id: span, .. } | Kind::Response { id: Some(span), .. } => {
                json::splice(&self.text, [(span.clone(), id)])
            }
            Kind::Notification { .. } | Kind::Response { id: None, .. } => self.text.clone(),
        }
    }
}

impl fmt::Debug for Message {
    /// Says what it is without what it carries: arguments and results may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.view() {
            View::Request { id, method, .. } => write!(f, "request {method} {id}"),
            View::Notification { method, .. } => write!(f, "notification {method}"),
            View::Response { id, outcome } => {
                write!(f, "{} {}", if outcome.is_ok() { "result" } else { "error" }, id.unwrap_or("null"))
            }
        }
    }
}

/// What one POST body or line may hold.
#[derive(Clone, Debug)]
pub enum Incoming {
    /// One message.
    Single(Message),
    /// A batch, never empty (protocol version 2025-03-26 only).
    Batch(Vec<Message>),
}

/// A JSON-RPC id as JSON text: `7` and `"7"` are different ids.
///
/// Two ids are equal when they are spelled the same; a peer must return an id as it was given.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(ByteString);

impl RequestId {
    /// A numeric id.
    pub fn number(number: u64) -> Self {
        Self(ByteString::from(number.to_string()))
    }

    /// An id from its JSON text.
    pub fn from_raw(raw: &str) -> Self {
        Self(ByteString::from(raw))
    }

    /// The JSON text.
    pub fn as_raw(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Not UTF-8 or not JSON.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// JSON, but no JSON-RPC 2.0 message.
    #[error("not a JSON-RPC 2.0 message: {0}")]
    Invalid(String),
}

impl ParseError {
    fn from_json(error: serde_json::Error) -> Self {
        match error.classify() {
            serde_json::error::Category::Data => Self::Invalid(error.to_string()),
            _ => Self::Syntax(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::texts::{Node, any_node, object_with};
    use super::*;

    fn parse(text: &str) -> Result<Message, ParseError> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn the_three_kinds_are_told_apart() {
        let request = parse(r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":{"x":1}}"#).unwrap();
        assert_eq!(request.view(), View::Request { id: "\"a\"", method: "ping", params: Some("{\"x\":1}") });
        let notification = parse(r#"{"method":"n","jsonrpc":"2.0"}"#).unwrap();
        assert_eq!(notification.view(), View::Notification { method: "n", params: None });
        let result = parse(r#"{"jsonrpc":"2.0","id":1,"result":null}"#).unwrap();
        assert_eq!(result.view(), View::Response { id: Some("1"), outcome: Ok("null") });
        let error = parse(r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#).unwrap();
        assert_eq!(error.view(), View::Response { id: None, outcome: Err("{\"code\":1}") });
    }

    #[test]
    fn another_id_leaves_every_other_byte_alone() {
        let text =
            "{ \"result\" : {\"n\": 1.0e2, \"é\":\"\\u00e9\"},\n \"id\" : 12 , \"jsonrpc\":\"2.0\",\"x\":[]}";
        let spliced = parse(text).unwrap().with_id("\"client-7\"");
        assert_eq!(&*spliced, text.replace("12", "\"client-7\""));
    }

    #[test]
    fn an_escaped_method_is_spelled_plainly() {
        let message =
            parse(r#"{"jsonrpc":"2.0","id":1,"method":"tools\/call","params":{"a":"\/"}}"#).unwrap();
        assert_eq!(
            message.view(),
            View::Request { id: "1", method: "tools/call", params: Some(r#"{"a":"\/"}"#) }
        );
    }

    #[test]
    fn what_is_not_json_is_a_syntax_error() {
        for text in ["", "{", "hello", "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"} x"] {
            assert!(matches!(parse(text), Err(ParseError::Syntax(_))), "{text:?}");
        }
        assert!(matches!(Message::parse(Bytes::from_static(b"\xff\xfe")), Err(ParseError::Syntax(_))));
    }

    #[test]
    fn what_is_no_message_is_invalid() {
        for text in [
            "[]",
            "7",
            "{}",
            r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":true,"method":"a"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","params":"x"}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
            r#"{"jsonrpc":"2.0","id":1}"#,
        ] {
            assert!(matches!(parse(text), Err(ParseError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn a_batch_holds_its_messages_in_order() {
        let text = r#" [{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","method":"b"}]"#;
        let Incoming::Batch(messages) = Message::parse_batch(Bytes::from_static(text.as_bytes())).unwrap()
        else {
            panic!("not a batch");
        };
        assert_eq!(format!("{messages:?}"), "[request a 1, notification b]");
        assert!(Message::parse_batch(Bytes::from_static(b"[]")).is_err());
    }

    fn any_id() -> BoxedStrategy<Node> {
        proptest::sample::select(vec![
            "7",
            "-0",
            "1.0e2",
            "18446744073709551616",
            r#""""#,
            r#""\u0061\/""#,
            r#""é""#,
        ])
        .prop_map(|id| Node::Atom(id.to_owned()))
        .boxed()
    }

    proptest! {
        /// Splicing an id in is parsing the message, changing the id and printing it, whatever else it holds.
        #[test]
        fn another_id_is_parse_edit_print(
            mut tree in any_node().prop_flat_map(|outcome| prop_oneof![
                object_with(vec![
                    ("jsonrpc", Just(Node::string("2.0")).boxed()),
                    ("id", any_id()),
                    ("result", Just(outcome.clone()).boxed()),
                ]),
                object_with(vec![
                    ("jsonrpc", Just(Node::string("2.0")).boxed()),
                    ("id", any_id()),
                    ("method", Just(Node::string("tools/call")).boxed()),
                    ("params", object_with(vec![("arguments", Just(outcome).boxed())]).boxed()),
                ]),
            ]),
            new in any_id(),
        ) {
            let text = tree.print();
            let message = parse(&text).unwrap();
            prop_assert_eq!(&**message.text(), &text);
            let old = tree.at(&["id"]).print();
            let id = message.id().unwrap();
            prop_assert_eq!(id.as_raw(), &old);

            let spliced = message.with_id(&new.print());
            let read = serde_json::from_str::<serde_json::Value>(&text);
            *tree.at(&["id"]) = new.clone();
            prop_assert_eq!(&*spliced, tree.print());

            // Where another parser can read the text too, it sees the same change and no other.
            if let Ok(mut value) = read {
                value["id"] = serde_json::from_str(&new.print()).unwrap();
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&spliced).unwrap(), value);
            }
            let back = parse(&spliced).unwrap().with_id(&old);
            prop_assert_eq!(&*back, text);
        }
    }
}
