//! Clients that speak 2024-11-05, which streamable HTTP is newer than.
//!
//! Over a pipe its messages are those of 2025-03-26, which only adds to them (2025-03-26, "Key Changes"). So the server is
//! asked for that version, and the client is told the one that it knows.

use std::borrow::Cow;

use bytestring::ByteString;

use crate::wire::json;
use crate::wire::message::{Message, View};
use crate::wire::version::ProtocolVersion;

const OLD: ProtocolVersion = ProtocolVersion::V2024_11_05;
const NEW: ProtocolVersion = ProtocolVersion::OLDEST_FOR_CLIENTS;

/// An `initialize` for the server, where the client's asks for the old version.
pub(super) fn raised(initialize: &Message) -> Option<ByteString> {
    let View::Request { params: Some(params), .. } = initialize.view() else { return None };
    with_version(initialize.text(), params, OLD, NEW)
}

/// The answer for a client whose `initialize` was raised.
pub(super) fn lowered(answer: &Message) -> Option<ByteString> {
    let View::Response { outcome: Ok(result), .. } = answer.view() else { return None };
    with_version(answer.text(), result, NEW, OLD)
}

/// `text` with another version in `object`, which is part of it; `None` where `from` does not stand there.
fn with_version(text: &str, object: &str, from: ProtocolVersion, to: ProtocolVersion) -> Option<ByteString> {
    // What is wrong with the object is the server's to say.
    let [version] = json::members(object, ["protocolVersion"]).ok()?;
    let version = version?;
    (json::string(version) == Some(Cow::Borrowed(from.as_str())))
        .then(|| json::splice(text, [(json::span(text, version), &json::quoted(to.as_str()))]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Message {
        Message::from_text(text.into()).unwrap()
    }

    #[test]
    fn only_the_version_is_exchanged() {
        let old = r#"{"method":"initialize","id":1,"params":{"protocolVersion": "2024-11-05","x":[1.0]},"jsonrpc":"2.0"}"#;
        let new = old.replace("2024-11-05", "2025-03-26");
        assert_eq!(raised(&message(old)).as_deref(), Some(&*new));
        assert_eq!(raised(&message(&new)), None);
        let answer =
            r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-03-26","capabilities":{}}}"#;
        assert_eq!(lowered(&message(answer)).as_deref(), Some(&*answer.replace("2025-03-26", "2024-11-05")));
        assert_eq!(lowered(&message(&answer.replace("03-26", "11-25"))), None);
    }
}
