//! A client's request, taken apart.

use std::borrow::Cow;
use std::ops::Range;

use bytestring::ByteString;
use http::HeaderMap;

use crate::wire::json;
use crate::wire::message::{Message, View};
use crate::wire::rpc::RpcError;

/// The members of `_meta`, and the headers, by which a client says what its trace is.
pub(super) const TRACEPARENT: &str = "traceparent";
pub(super) const TRACESTATE: &str = "tracestate";
pub(super) const BAGGAGE: &str = "baggage";

/// A request of a client, and those parts of its text that a relay looks at or exchanges.
#[derive(Debug)]
pub(super) struct ClientRequest<'a> {
    pub(super) text: &'a ByteString,
    /// The client's id, raw.
    pub(super) id: &'a str,
    pub(super) method: &'a str,
    pub(super) params: Option<&'a str>,
    /// `params.name`, raw.
    pub(super) name: Option<&'a str>,
    /// `params.uri`, raw.
    pub(super) uri: Option<&'a str>,
    /// `params.ref`, raw.
    pub(super) reference: Option<&'a str>,
    /// `params.arguments`, raw.
    pub(super) arguments: Option<&'a str>,
    /// `params.taskId`, raw.
    pub(super) task_id: Option<&'a str>,
    /// It asks for a task (`params.task`), whose result comes later.
    pub(super) is_task: bool,
    /// `params._meta.progressToken`, raw, where the client wants progress.
    pub(super) token: Option<&'a str>,
    /// `params._meta`, raw.
    pub(super) meta: Option<&'a str>,
    /// What it says of the client's trace.
    pub(super) context: MetaContext<'a>,
    /// What the headers of its POST say of that.
    pub(super) http: HttpContext<'a>,
}

/// What the headers of a POST say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HttpContext<'a> {
    pub(super) traceparent: Option<&'a str>,
    pub(super) tracestate: Option<&'a str>,
    pub(super) baggage: Option<&'a str>,
}

impl<'a> HttpContext<'a> {
    pub(super) fn of(headers: &'a HeaderMap) -> Self {
        let only = |name| {
            let mut values = headers.get_all(name).iter();
            // Of two contexts neither counts.
            values.next().filter(|_| values.next().is_none())?.to_str().ok()
        };
        Self { traceparent: only(TRACEPARENT), tracestate: only(TRACESTATE), baggage: only(BAGGAGE) }
    }
}

/// What a client says of its trace in `_meta`, raw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MetaContext<'a> {
    pub(super) traceparent: Option<&'a str>,
    pub(super) tracestate: Option<&'a str>,
}

impl<'a> ClientRequest<'a> {
    /// Takes a request apart.
    ///
    /// # Errors
    ///
    /// What the client gets as the answer.
    pub(super) fn parse(message: &'a Message) -> Result<Self, RpcError> {
        let View::Request { id, method, params } = message.view() else {
            return Err(RpcError::new(RpcError::INVALID_REQUEST, "this is no request"));
        };
        let mut request = Self {
            text: message.text(),
            id,
            method,
            params,
            name: None,
            uri: None,
            reference: None,
            arguments: None,
            task_id: None,
            is_task: false,
            token: None,
            meta: None,
            context: MetaContext::default(),
            http: HttpContext::default(),
        };
        if let Some(params) = params {
            let [name, uri, reference, arguments, task, task_id, meta] =
                json::members(params, ["name", "uri", "ref", "arguments", "task", "taskId", "_meta"])
                    .map_err(|error| request.invalid(&error))?;
            request.name = name;
            request.uri = uri;
            request.reference = reference;
            request.arguments = arguments;
            request.task_id = task_id;
            request.is_task = task.is_some_and(|task| task != "null");
            if let Some(meta) = meta.filter(|meta| *meta != "null") {
                let [token, traceparent, tracestate] =
                    json::members(meta, ["progressToken", TRACEPARENT, TRACESTATE])
                        .map_err(|error| request.invalid(&error))?;
                request.token = token.filter(|token| *token != "null");
                request.context = MetaContext { traceparent, tracestate };
            }
            request.meta = meta;
        }
        Ok(request)
    }

    /// What it is, for messages: the name or URI that it is about, else the method.
    pub(super) fn describe(&self) -> Cow<'a, str> {
        let about = self.name.or(self.uri).and_then(json::string);
        about.unwrap_or(Cow::Borrowed(self.method))
    }

    /// The error of parameters that are not what the method wants.
    pub(super) fn invalid(&self, why: &dyn std::fmt::Display) -> RpcError {
        RpcError::new(RpcError::INVALID_PARAMS, format!("{}: {why}", self.method))
    }

    /// The text of a parameter that must be a string.
    ///
    /// # Errors
    ///
    /// It is missing, or something else.
    pub(super) fn string(&self, what: &str, raw: Option<&'a str>) -> Result<Cow<'a, str>, RpcError> {
        if self.params.is_none() {
            return Err(self.invalid(&"\"params\" is missing"));
        }
        let raw = raw.ok_or_else(|| self.invalid(&format_args!("\"params.{what}\" is missing")))?;
        json::string(raw).ok_or_else(|| self.invalid(&format_args!("\"params.{what}\" is not a string")))
    }

    /// An edit that puts a string in the place of a part of this request.
    pub(super) fn replace(&self, part: &str, by: &str) -> Edit {
        Edit { range: json::span(self.text, part), new: json::quoted(by) }
    }

    /// An edit that takes a piece of this request out.
    pub(super) fn remove(&self, piece: &str) -> Edit {
        Edit { range: json::span(self.text, piece), new: String::new() }
    }

    /// An edit that makes `member` the first of an object, which is a part of this request.
    pub(super) fn insert(&self, object: &str, member: &str) -> Edit {
        let start = json::span(self.text, object).start + 1;
        let comma = if json::is_empty_object(object) { "" } else { "," };
        Edit { range: start..start, new: format!("{member}{comma}") }
    }

    /// An edit that gives a request without `_meta`, or with one that is `null`, one with `members`.
    pub(super) fn add_meta(&self, members: &str) -> Edit {
        if let Some(null) = self.meta {
            return Edit { range: json::span(self.text, null), new: format!("{{{members}}}") };
        }
        let meta = format!(r#""_meta":{{{members}}}"#);
        match self.params {
            Some(params) => self.insert(params, &meta),
            None => {
                let end = json::span(self.text, self.id).end;
                Edit { range: end..end, new: format!(r#","params":{{{meta}}}"#) }
            }
        }
    }

    /// A slice of the request as text of its own.
    pub(super) fn own(&self, part: &str) -> ByteString {
        self.text.slice_ref(part)
    }

    /// The request as the server gets it: with the id `id`, and `edits`.
    pub(super) fn for_server<'e>(&self, id: u64, edits: impl IntoIterator<Item = &'e Edit>) -> ByteString {
        let id = id.to_string();
        let mut all = Vec::with_capacity(5);
        all.push((json::span(self.text, self.id), id.as_str()));
        if let Some(token) = self.token {
            // The id serves as token: it is unique in the session, which the client's token is not.
            all.push((json::span(self.text, token), id.as_str()));
        }
        all.extend(edits.into_iter().map(|edit| (edit.range.clone(), edit.new.as_str())));
        json::splice_all(self.text, &mut all)
    }
}

/// A piece of a request's text that another takes the place of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    range: Range<usize>,
    new: String,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::texts::{Node, any_node, object_with};

    fn message(text: &str) -> Message {
        Message::from_text(text.into()).unwrap()
    }

    #[test]
    fn only_id_name_and_token_change() {
        let text = r#"{"id":"c-1", "params":{"arguments":{"name":"é","n":1.0e2}, "name" : "x_a_tool",
            "_meta":{"v":1,"progressToken":"t"}},"jsonrpc":"2.0","method":"tools/call","x":null}"#;
        let message = message(text);
        let request = ClientRequest::parse(&message).unwrap();
        let edit = request.replace(request.name.unwrap(), "tool \"q\"");
        let expected = text
            .replace("\"c-1\"", "9")
            .replace("\"x_a_tool\"", r#""tool \"q\"""#)
            .replace("\"progressToken\":\"t\"", "\"progressToken\":9");
        assert_eq!(&*request.for_server(9, &[edit]), expected);
    }

    #[test]
    fn parameters_that_cannot_be_read_are_refused() {
        for (params, why) in [
            ("", "tools/call: \"params\" is missing"),
            (r#","params":{}"#, "\"params.name\" is missing"),
            (r#","params":{"name":7}"#, "not a string"),
            (r#","params":{"name":"a","name":"b"}"#, "\"name\" stands twice"),
            (r#","params":{"name":"a","_meta":7}"#, "expected an object"),
            (r#","params":["a"]"#, "expected an object"),
        ] {
            let message = message(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call"{params}}}"#));
            let name = ClientRequest::parse(&message)
                .and_then(|request| request.string("name", request.name).map(drop));
            let error = name.unwrap_err();
            assert_eq!(error.code, RpcError::INVALID_PARAMS);
            assert!(error.message.contains(why), "{}", error.message);
        }
    }

    /// A `tools/call` with everything that is exchanged, among everything else.
    fn any_call() -> impl Strategy<Value = Node> {
        let just = |text: &str| Just(Node::string(text)).boxed();
        let meta = object_with(vec![("progressToken", just("t"))]);
        let params = object_with(vec![
            ("name", just("x_a_tool")),
            ("arguments", any_node().boxed()),
            ("_meta", meta.boxed()),
        ]);
        object_with(vec![
            ("jsonrpc", just("2.0")),
            ("id", just("c-1")),
            ("method", just("tools/call")),
            ("params", params.boxed()),
        ])
    }

    proptest! {
        /// What the server gets is the client's request, parsed, edited and printed.
        #[test]
        fn a_call_is_relayed_as_if_parsed_edited_and_printed(
            mut tree in any_call(),
            id in any::<u64>(),
            name in "[a-z\"\\\\é🦀\n]{0,8}",
        ) {
            let message = message(&tree.print());
            let request = ClientRequest::parse(&message).unwrap();
            let edit = request.replace(request.name.unwrap(), &name);
            let relayed = request.for_server(id, &[edit]);

            *tree.at(&["id"]) = Node::Atom(id.to_string());
            *tree.at(&["params", "name"]) = Node::Atom(serde_json::to_string(&name).unwrap());
            *tree.at(&["params", "_meta", "progressToken"]) = Node::Atom(id.to_string());
            prop_assert_eq!(&*relayed, tree.print());
        }
    }
}
