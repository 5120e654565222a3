//! URIs in results, of servers some of whose URIs are exposed under another one.

use std::ops::Range;

use crate::wire::json;

/// Finds the URIs in the `result` of a request with `method`, and what takes their place: what `exposed` says of each,
/// `None` where it stays. Ranges are of `whole`, which `result` is a slice of.
///
/// Where a result is not what the specification has there, nothing is found: it is passed on as it is.
pub(super) fn exposed_uris(
    method: &str,
    whole: &str,
    result: &str,
    exposed: impl Fn(&str) -> Option<String>,
) -> Vec<(Range<usize>, String)> {
    let mut raw = Vec::new();
    match method {
        "resources/read" => {
            raw.extend(elements(member(result, "contents")).map(|content| member(content, "uri")));
        }
        "tools/call" | "tasks/result" => {
            elements(member(result, "content")).for_each(|block| of_block(block, &mut raw));
        }
        "prompts/get" => {
            for message in elements(member(result, "messages")) {
                of_block(member(message, "content"), &mut raw);
            }
        }
        _ => {}
    }
    let edit = |raw: &str| Some((json::span(whole, raw), json::quoted(&exposed(&json::string(raw)?)?)));
    raw.into_iter().filter_map(edit).collect()
}

/// The URI of a content block that is a link to a resource, or holds one.
fn of_block<'a>(block: &'a str, found: &mut Vec<&'a str>) {
    let Ok([uri, resource]) = json::members(block, ["uri", "resource"]) else { return };
    found.extend(uri);
    if let Some(resource) = resource {
        found.push(member(resource, "uri"));
    }
}

/// A member, or text that is no JSON.
fn member<'a>(object: &'a str, key: &str) -> &'a str {
    json::members(object, [key]).ok().and_then(|[member]| member).unwrap_or_default()
}

fn elements(array: &str) -> impl Iterator<Item = &str> {
    json::elements(array).unwrap_or_default().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(method: &str, result: &str) -> String {
        let edits = exposed_uris(method, result, result, |uri| (uri == "t://1").then(|| format!("b+{uri}")));
        let mut edits: Vec<(Range<usize>, &str)> =
            edits.iter().map(|(range, new)| (range.clone(), new.as_str())).collect();
        json::splice_all(result, &mut edits).to_string()
    }

    #[test]
    fn uris_are_found_where_the_protocol_has_them() {
        let result = r#"{"contents":[{"uri":"t://1","text":"t://1"},{"text":"\"uri\":", "uri" : "t:\/\/1"},7,{"uri":"t://2"}],"uri":"t://1"}"#;
        let expected = r#"{"contents":[{"uri":"b+t://1","text":"t://1"},{"text":"\"uri\":", "uri" : "b+t://1"},7,{"uri":"t://2"}],"uri":"t://1"}"#;
        assert_eq!(rewritten("resources/read", result), expected);

        let result = r#"{"content":[{"type":"resource","resource":{"uri":"t://1"}},{"type":"resource_link","uri":"t://1"},{"type":"text","text":"t://1"}],"structuredContent":{"uri":"t://1"}}"#;
        let expected = result
            .replace(r#""resource":{"uri":"t"#, r#""resource":{"uri":"b+t"#)
            .replace(r#""resource_link","uri":"t"#, r#""resource_link","uri":"b+t"#);
        assert_eq!(rewritten("tools/call", result), expected);

        let result =
            r#"{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"t://1"}}}]}"#;
        assert_eq!(rewritten("prompts/get", result), result.replace("t://1", "b+t://1"));
    }

    #[test]
    fn what_is_not_as_it_should_be_stays_as_it_is() {
        for result in ["[]", "{}", r#"{"contents":{"uri":"t://1"}}"#, r#"{"contents":[{"uri":7}]}"#] {
            assert_eq!(rewritten("resources/read", result), result);
        }
        assert_eq!(
            rewritten("x/y", r#"{"contents":[{"uri":"t://1"}]}"#),
            r#"{"contents":[{"uri":"t://1"}]}"#
        );
    }
}
