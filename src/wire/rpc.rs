//! The messages that this project says itself: results, errors, requests and notifications of its own.

use std::fmt::Write as _;

use bytestring::ByteString;

use super::{json, message::ParseError};

/// A JSON-RPC error of our own making.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// The code; see the constants of this type.
    pub code: i32,
    /// One sentence for a person.
    pub message: String,
}

impl RpcError {
    /// JSON-RPC 2.0 section 5.1: the text is not JSON.
    pub const PARSE_ERROR: i32 = -32700;
    /// JSON-RPC 2.0 section 5.1: the JSON is no request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// JSON-RPC 2.0 section 5.1: there is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// JSON-RPC 2.0 section 5.1; MCP uses it for unknown tools too (2025-11-25, server/tools, "Error Handling").
    pub const INVALID_PARAMS: i32 = -32602;
    /// JSON-RPC 2.0 section 5.1: something of ours went wrong.
    pub const INTERNAL_ERROR: i32 = -32603;
    /// The range that JSON-RPC 2.0 leaves to implementations: a server behind us could not be reached or gave up.
    pub const UPSTREAM: i32 = -32000;

    /// An error with a code.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// The answer to `id` (raw JSON text; `None` where the id could not be read).
    pub fn response(&self, id: Option<&str>) -> ByteString {
        let (id, code) = (id.unwrap_or("null"), self.code);
        let message = json::quoted(&self.message);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":{message}}}}}"#).into()
    }
}

impl From<&ParseError> for RpcError {
    fn from(error: &ParseError) -> Self {
        let code = match error {
            ParseError::Syntax(_) => Self::PARSE_ERROR,
            ParseError::Invalid(_) => Self::INVALID_REQUEST,
        };
        Self::new(code, error.to_string())
    }
}

/// The answer to `id` (raw JSON text) with `result` (raw JSON text).
pub fn result(id: &str, result: &str) -> ByteString {
    let mut text = String::with_capacity(result.len() + id.len() + 40);
    // Writing to a String cannot fail.
    let _ = write!(text, r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
    text.into()
}

/// The answer to `id` (raw JSON text) with `error` (a raw JSON error object).
pub fn error(id: &str, error: &str) -> ByteString {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{error}}}"#).into()
}

/// A request with `params` (raw JSON text).
pub fn request(id: u64, method: &str, params: &str) -> ByteString {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#).into()
}

/// A notification, with `params` (raw JSON text) where there are any.
pub fn notification(method: &str, params: Option<&str>) -> ByteString {
    match params {
        Some(params) => format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#).into(),
        None => format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Message, View};

    #[test]
    fn what_we_say_is_what_we_can_read() {
        let error = RpcError::new(-32000, "a \"quoted\"\nreason").response(Some("\"x\""));
        let error = Message::from_text(error).unwrap();
        assert_eq!(
            error.view(),
            View::Response {
                id: Some("\"x\""),
                outcome: Err(r#"{"code":-32000,"message":"a \"quoted\"\nreason"}"#)
            }
        );
        let message = Message::from_text(request(7, "ping", "{}")).unwrap();
        assert_eq!(message.view(), View::Request { id: "7", method: "ping", params: Some("{}") });
        let message = Message::from_text(notification("a/b", None)).unwrap();
        assert_eq!(message.view(), View::Notification { method: "a/b", params: None });
        let message = Message::from_text(super::error("1", "{}")).unwrap();
        assert_eq!(message.view(), View::Response { id: Some("1"), outcome: Err("{}") });
        let message = Message::from_text(result("1", "{}")).unwrap();
        assert_eq!(message.view(), View::Response { id: Some("1"), outcome: Ok("{}") });
    }
}
