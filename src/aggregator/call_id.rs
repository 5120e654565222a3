//! The id of a call in its result, for `sidegate explain`.

use std::ops::Range;

use memchr::memmem;

use crate::telemetry::trace_context::TraceId;
use crate::wire::json;

/// The name of the id in `_meta`.
pub(super) const CALL_ID: &str = "sidegate.dev/callId";

/// Whether results of a method tell the id: those of what people call.
pub(super) fn is_told(method: &str) -> bool {
    matches!(method, "tools/call" | "prompts/get" | "resources/read")
}

/// What is put where into `text` so that `result`, a slice of it, holds the id. `None` where it cannot: such a result is
/// not ours to judge.
pub(super) fn edit(text: &str, result: &str, id: TraceId) -> Option<(Range<usize>, String)> {
    let inner = result.strip_prefix('{')?;
    let at = |slice: &str| json::span(text, slice).start;
    // Most results have none, and are not parsed for it.
    let meta = match memmem::find(result.as_bytes(), b"_meta") {
        Some(_) => json::members(result, ["_meta"]).ok()?[0],
        None => None,
    };
    if let Some(meta) = meta
        && let [Some(other)] = json::members(meta, [CALL_ID]).unwrap_or_default()
    {
        // Of a Sidegate behind this one.
        return Some((json::span(text, other), format!("\"{id}\"")));
    }
    let (range, object, is_new) = match meta {
        Some("null") => (json::span(text, meta?), "", true),
        Some(meta) => (at(meta) + 1..at(meta) + 1, meta.strip_prefix('{')?, false),
        None => (at(inner)..at(inner), inner, true),
    };
    let replaces = !range.is_empty();
    let comma = if replaces || object.trim_start().starts_with('}') { "" } else { "," };
    let (before, after) = match (is_new, replaces) {
        (true, true) => ("{", "}"),
        (true, false) => (r#""_meta":{"#, "}"),
        (false, _) => ("", ""),
    };
    Some((range, format!(r#"{before}"{CALL_ID}":"{id}"{after}{comma}"#)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_put_into_meta_and_nothing_else_changes() {
        let id: TraceId = "0af7651916cd43dd8448eb211c80319c".parse().unwrap();
        let member = format!(r#""sidegate.dev/callId":"{id}""#);
        for (result, expected) in [
            ("{}", "{\"_meta\":{M}}"),
            (r#"{"content":[]}"#, r#"{"_meta":{M},"content":[]}"#),
            (r#"{ "a":1}"#, r#"{"_meta":{M}, "a":1}"#),
            (r#"{"a":1,"_meta":{}}"#, r#"{"a":1,"_meta":{M}}"#),
            (r#"{"_meta":{ "x":1 },"a":1}"#, r#"{"_meta":{M, "x":1 },"a":1}"#),
            (r#"{"_meta":null}"#, r#"{"_meta":{M}}"#),
            (r#"{"_meta":{"sidegate.dev/callId":"other"}}"#, r#"{"_meta":{M}}"#),
            (r#"{"a":"_meta"}"#, r#"{"_meta":{M},"a":"_meta"}"#),
            (r#"{"a":{"_meta":1}}"#, r#"{"_meta":{M},"a":{"_meta":1}}"#),
        ] {
            let text = format!(r#"{{"result":{result}}}"#);
            let slice = &text[10..10 + result.len()];
            let (range, new) = edit(&text, slice, id).unwrap();
            let spliced = json::splice(&text, [(range, &new)]);
            assert_eq!(
                &*spliced,
                format!(r#"{{"result":{}}}"#, expected.replace("{M", &format!("{{{member}"))),
                "{result}"
            );
        }
        for result in ["[]", "7", r#"{"_meta":7}"#, r#"{"_meta":{},"_meta":{}}"#] {
            assert_eq!(edit(result, result, id), None, "{result}");
        }
    }
}
