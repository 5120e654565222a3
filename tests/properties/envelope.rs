//! Any bytes as a JSON-RPC message.

use bytes::Bytes;
use serde_json::Value;
use sidegate::wire::message::{Incoming, Message, ParseError, View};

/// Reads `bytes` as a message, and holds it against what `serde_json` makes of them.
///
/// # Panics
///
/// When the two disagree, or when more than the id changes where only the id should.
pub(crate) fn judge(bytes: &[u8]) {
    let parsed = Message::parse(Bytes::copy_from_slice(bytes));
    let batch = Message::parse_batch(Bytes::copy_from_slice(bytes));
    match (&parsed, &batch) {
        (Ok(message), Ok(Incoming::Single(single))) => assert_eq!(single.view(), message.view()),
        // An array is no message, but may be a batch.
        (Err(ParseError::Invalid(_)), Ok(Incoming::Batch(messages))) => {
            assert!(!messages.is_empty());
            messages.iter().for_each(whole);
        }
        (Err(_), Err(_)) => {}
        other => panic!("{other:?}"),
    }
    // What it cannot read itself (deep nesting, numbers and halves of characters out of range) is not its business.
    let tree = serde_json::from_slice::<Value>(bytes).ok();
    match (&parsed, tree) {
        (Ok(message), tree) => {
            whole(message);
            if let Some(tree) = tree {
                same(message, &tree);
            }
        }
        (Err(_), Some(tree)) => refused(&tree),
        (Err(_), None) => {}
    }
}

/// A message can be read again, and given another id and its own again.
fn whole(message: &Message) {
    let again = Message::from_text(message.text().clone()).unwrap();
    assert_eq!(again.view(), message.view());
    let Some(id) = message.id() else {
        assert_eq!(message.with_id("1"), *message.text());
        return;
    };
    let text = message.with_id("\"another\"");
    let other = Message::from_text(text.clone()).unwrap();
    assert_eq!(other.id().unwrap().as_raw(), "\"another\"");
    assert_eq!(other.with_id(id.as_raw()), *message.text());
    assert_eq!(text.len() - "\"another\"".len(), message.text().len() - id.as_raw().len());
}

/// The parts of a message are those of the tree.
fn same(message: &Message, tree: &Value) {
    let value = |raw: &str| serde_json::from_str::<Value>(raw).unwrap();
    let of = |raw: Option<&str>| raw.map(value).unwrap_or_default();
    assert_eq!(tree["jsonrpc"], "2.0");
    match message.view() {
        View::Request { id, method, params } => {
            assert_eq!(
                (&tree["id"], &tree["method"], &tree["params"]),
                (&value(id), &method.into(), &of(params))
            );
        }
        View::Notification { method, params } => {
            assert!(tree["id"].is_null());
            assert_eq!((&tree["method"], &tree["params"]), (&method.into(), &of(params)));
        }
        View::Response { id, outcome } => {
            assert!(tree.get("method").is_none());
            let (key, raw) = match outcome {
                Ok(result) => ("result", result),
                Err(error) => ("error", error),
            };
            assert_eq!((&tree["id"], &tree[key]), (&of(id), &value(raw)));
        }
    }
}

/// What was refused is refused for a reason: a message whose members stand once would have been taken.
fn refused(tree: &Value) {
    let Value::Object(members) = tree else { return };
    let has = |key: &str| members.contains_key(key);
    let kinds = ["method", "result", "error"].into_iter().filter(|key| has(key)).count();
    let id = members.get("id").is_none_or(|id| id.is_null() || id.is_string() || id.is_number());
    let params = members.get("params").is_none_or(|params| params.is_object() || params.is_array());
    // Methods that must be escaped are refused: none has such characters.
    let method = members.get("method").is_none_or(|method| {
        method.as_str().is_some_and(|method| !serde_json::to_string(method).unwrap().contains('\\'))
    });
    let good = members.get("jsonrpc").is_some_and(|version| version == "2.0")
        && kinds == 1
        && id
        && params
        && method;
    if good {
        // Printed by a tree, each member stands once.
        Message::parse(Bytes::from(tree.to_string())).unwrap();
    }
}
