//! The request that the call of a meta tool stands for, and its result as that of a tool.
//!
//! `call_tool` is the call that it names: what it names takes the place of its own name and arguments in the text, and
//! every other byte stays. A resource and a prompt are asked for with requests of their own, under the same id and with
//! the same `_meta`; what comes back is put into a tool's result, piece by piece, each as it was written.

use bytestring::ByteString;

use super::arguments::{ARGUMENTS, Arguments, Refused};
use super::entry::entries;
use super::find;
use super::tools::{MetaTool, Subject};
use crate::aggregator::catalogue::Catalogue;
use crate::aggregator::offer::Kind;
use crate::aggregator::registry::Registry;
use crate::aggregator::request::ClientRequest;
use crate::aggregator::route;
use crate::wire::json;

/// A request in place of another.
#[derive(Debug)]
pub(in crate::aggregator) struct Relayed {
    /// The request.
    pub(in crate::aggregator) text: ByteString,
    /// What its result is made into.
    pub(in crate::aggregator) shape: Shape,
}

/// What a result is made into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::aggregator) enum Shape {
    /// It is a tool's already.
    AsItIs,
    /// Each of `contents` becomes an embedded resource.
    Resource,
    /// Each of `messages` becomes its content, after who says it.
    Prompt,
}

/// The request that the call of `tool` stands for.
///
/// # Errors
///
/// There is nothing of that name, or URI.
pub(super) fn request(
    tool: MetaTool,
    arguments: &Arguments<'_>,
    request: &ClientRequest<'_>,
    catalogue: &Catalogue,
    registry: &Registry,
) -> Result<Relayed, Refused> {
    let subject = tool.subject;
    let key = arguments.required(subject.key())?;
    let is_known = match subject {
        Subject::Tools => {
            catalogue.target(Kind::Tool, &key).is_some() || catalogue.shared_tool(&key).is_some()
        }
        Subject::Resources => route::resource(&key, catalogue, registry).is_ok(),
        Subject::Prompts => catalogue.target(Kind::Prompt, &key).is_some(),
    };
    // Tools of our own are in the list only.
    if !is_known {
        let entries = entries(catalogue, subject);
        if subject != Subject::Tools || !entries.iter().any(|entry| entry.key == key) {
            return Err(find::unknown(subject, &key, entries, registry));
        }
    }
    let raw_key = arguments.raw(subject.key()).unwrap_or_default();
    let inner = if subject == Subject::Resources { None } else { arguments.object(ARGUMENTS)? };
    Ok(match subject {
        Subject::Tools => Relayed { text: call(request, raw_key, inner), shape: Shape::AsItIs },
        Subject::Resources => {
            Relayed { text: other(request, "resources/read", "uri", raw_key, inner), shape: Shape::Resource }
        }
        Subject::Prompts => {
            Relayed { text: other(request, "prompts/get", "name", raw_key, inner), shape: Shape::Prompt }
        }
    })
}

/// The request with another name and other arguments, both raw.
fn call(request: &ClientRequest<'_>, name: &str, arguments: Option<&str>) -> ByteString {
    let text = request.text;
    let mut edits = Vec::with_capacity(2);
    edits.extend(request.name.map(|own| (json::span(text, own), name)));
    match (request.arguments, arguments) {
        (Some(own), Some(arguments)) => edits.push((json::span(text, own), arguments)),
        (Some(_), None) => {
            // A tool that is called without arguments is called without any.
            let member = request.params.and_then(|params| json::member_to_remove(params, ARGUMENTS).ok()?);
            edits.extend(member.map(|member| (json::span(text, member), "")));
        }
        // Cannot be: they were found in there.
        (None, _) => {}
    }
    json::splice_all(text, &mut edits)
}

/// Another request under the same id and with the same `_meta`.
fn other(
    request: &ClientRequest<'_>,
    method: &str,
    key: &str,
    raw: &str,
    arguments: Option<&str>,
) -> ByteString {
    let meta = request.params.and_then(|params| json::members(params, ["_meta"]).ok()?[0]);
    let mut params = format!(r#""{key}":{raw}"#);
    for (name, value) in [(ARGUMENTS, arguments), ("_meta", meta)] {
        if let Some(value) = value {
            params.push_str(&format!(r#","{name}":{value}"#));
        }
    }
    let id = request.id;
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params}}}}}"#).into()
}

impl Shape {
    /// An answer with its result made into that of a tool. Errors stay as they are.
    pub(in crate::aggregator) fn result(self, answer: ByteString) -> ByteString {
        let Ok([Some(result)]) = json::members(&answer, ["result"]) else { return answer };
        let content = match self {
            Self::AsItIs => return answer,
            Self::Resource => resource(result),
            Self::Prompt => prompt(result),
        };
        // What is not as the specification has it is shown as it is.
        let content = content.unwrap_or_else(|| text_block(result));
        let meta = json::members(result, ["_meta"]).ok().and_then(|[meta]| meta);
        let meta = meta.map(|meta| format!(r#","_meta":{meta}"#)).unwrap_or_default();
        let whole = format!(r#"{{"content":[{content}]{meta}}}"#);
        json::splice(&answer, [(json::span(&answer, result), whole.as_str())])
    }
}

/// The content of a resource, as content blocks (2025-11-25, server/tools, "Embedded Resources").
fn resource(result: &str) -> Option<String> {
    let [contents] = json::members(result, ["contents"]).ok()?;
    let contents = json::elements(contents?).ok()?;
    let blocks: Vec<String> =
        contents.iter().map(|raw| format!(r#"{{"type":"resource","resource":{raw}}}"#)).collect();
    Some(blocks.join(","))
}

/// The messages of a prompt, as content blocks: tools have the same ones.
fn prompt(result: &str) -> Option<String> {
    let [description, messages] = json::members(result, ["description", "messages"]).ok()?;
    let mut blocks = Vec::new();
    if let Some(description) = description.and_then(json::string).filter(|text| !text.is_empty()) {
        blocks.push(text_block(&description));
    }
    for message in json::elements(messages?).ok()? {
        let [role, content] = json::members(message, ["role", "content"]).ok()?;
        blocks.push(text_block(&format!("{}:", json::string(role?)?)));
        blocks.push(content?.to_owned());
    }
    Some(blocks.join(","))
}

fn text_block(text: &str) -> String {
    format!(r#"{{"type":"text","text":{}}}"#, json::quoted(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;
    use crate::wire::message::Message;
    use crate::wire::texts::{Node, any_node, object_with};

    #[rstest]
    #[case(
        Shape::Resource,
        r#"{ "contents":[{"uri":"s://1", "text":"é"},{"uri":"s://1","blob":"AA=="}],"_meta":{"n":1.0}}"#,
        r#"{"content":[{"type":"resource","resource":{"uri":"s://1", "text":"é"}},{"type":"resource","resource":{"uri":"s://1","blob":"AA=="}}],"_meta":{"n":1.0}}"#
    )]
    #[case(Shape::Resource, r#"{"contents":[]}"#, r#"{"content":[]}"#)]
    #[case(
        Shape::Resource,
        r#"{"contents":7}"#,
        r#"{"content":[{"type":"text","text":"{\"contents\":7}"}]}"#
    )]
    #[case(
        Shape::Prompt,
        r#"{"description":"D","messages":[{"role":"user","content":{"type":"image", "data":"AA=="}},{"role":"assistant","content":{"type":"text","text":"ok"}}]}"#,
        r#"{"content":[{"type":"text","text":"D"},{"type":"text","text":"user:"},{"type":"image", "data":"AA=="},{"type":"text","text":"assistant:"},{"type":"text","text":"ok"}]}"#
    )]
    #[case(
        Shape::Prompt,
        r#"{"messages":[{}]}"#,
        r#"{"content":[{"type":"text","text":"{\"messages\":[{}]}"}]}"#
    )]
    #[case(Shape::AsItIs, r#"{ "content":[]}"#, r#"{ "content":[]}"#)]
    fn results_become_those_of_tools(#[case] shape: Shape, #[case] result: &str, #[case] expected: &str) {
        let answer = |result: &str| format!(r#"{{"jsonrpc":"2.0","id":"c-1","result":{result}}}"#);
        assert_eq!(&*shape.result(answer(result).into()), &answer(expected));
        let error = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32002,"message":"m","data":[1.0]}}"#;
        assert_eq!(&*shape.result(error.into()), error);
    }

    #[test]
    fn arguments_that_are_not_there_are_not_there() {
        for (params, expected) in [
            (r#"{"name":"call_tool","arguments":{"name":"x_a_t"}}"#, r#"{"name":"x_a_t"}"#),
            (r#"{ "arguments": {"name":"x_a_t"} , "name":"call_tool"}"#, r#"{ "name":"x_a_t"}"#),
            (
                r#"{"name":"call_tool","arguments":{"name":"x_a_t","arguments":null},"task":{}}"#,
                r#"{"name":"x_a_t","task":{}}"#,
            ),
        ] {
            let whole =
                |params| format!(r#"{{"id":1,"jsonrpc":"2.0","method":"tools/call","params":{params}}}"#);
            let message = Message::from_text(whole(params).into()).unwrap();
            let request = ClientRequest::parse(&message).unwrap();
            assert_eq!(&*call(&request, r#""x_a_t""#, None), &whole(expected));
        }
    }

    /// The parameters of a call, among others that nobody looks for.
    fn params(name: &str, arguments: BoxedStrategy<Node>) -> impl Strategy<Value = Node> {
        let meta = object_with(vec![("progressToken", Just(Node::string("t")).boxed())]);
        object_with(vec![
            ("name", Just(Node::string(name)).boxed()),
            ("arguments", arguments),
            ("_meta", meta.boxed()),
            ("task", any_node().boxed()),
        ])
    }

    proptest! {
        /// What `call_tool` stands for is the direct call: the same text with the inner name and arguments in place.
        #[test]
        fn a_call_is_the_direct_call(
            (mut outer, inner) in object_with(vec![]).prop_flat_map(|arguments| {
                let inner = object_with(vec![
                    ("name", Just(Node::string("x_a_tool")).boxed()),
                    ("arguments", Just(arguments.clone()).boxed()),
                ]);
                (params("call_tool", inner.boxed()), Just(arguments))
            })
        ) {
            let whole = |params: &Node| {
                format!(r#"{{"jsonrpc":"2.0", "id":7,"method":"tools/call","params": {} }}"#, params.print())
            };
            let message = Message::from_text(whole(&outer).into()).unwrap();
            let request = ClientRequest::parse(&message).unwrap();
            let text = call(&request, r#""x_a_tool""#, Some(&inner.print()));
            *outer.at(&["name"]) = Node::string("x_a_tool");
            *outer.at(&["arguments"]) = inner;
            prop_assert_eq!(&*text, whole(&outer));
        }
    }
}
