//! The result of a call as people read it.

use serde_json::Value;

/// The content, one block below the other, and what is structured as JSON.
///
/// Servers repeat what is structured as a text, for older clients (2025-11-25, server/tools, "Structured Content"): that
/// text is left out.
pub(super) fn text(result: &Value) -> String {
    let structured = result.get("structuredContent").filter(|value| !value.is_null());
    let repeats = |block: &&Value| {
        let text = block["text"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
        structured.is_some() && text.as_ref() == structured
    };
    let content = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut parts: Vec<String> = content.iter().filter(|block| !repeats(block)).map(block).collect();
    if let Some(structured) = structured {
        parts.push(serde_json::to_string_pretty(structured).unwrap_or_else(|_| structured.to_string()));
    }
    parts.join("\n")
}

fn block(block: &Value) -> String {
    let word = |key: &str| block[key].as_str().unwrap_or_default();
    match word("type") {
        "text" => word("text").to_owned(),
        kind @ ("image" | "audio") => described(&[kind, word("mimeType"), &size(word("data"))]),
        "resource_link" => described(&["link", word("uri"), word("name"), word("mimeType")]),
        "resource" => {
            let resource = &block["resource"];
            let word = |key: &str| resource[key].as_str().unwrap_or_default();
            let size = resource["blob"].as_str().map(size).unwrap_or_default();
            let head = described(&["resource", word("uri"), word("mimeType"), &size]);
            match resource["text"].as_str() {
                Some(text) => format!("{head}\n{text}"),
                None => head,
            }
        }
        kind => described(&[if kind.is_empty() { "something without a type" } else { kind }]),
    }
}

fn described(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    format!("[{}]", parts.join(", "))
}

/// How many bytes a text in Base64 stands for.
fn size(base64: &str) -> String {
    let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count();
    format!("{} bytes", base64.len() / 4 * 3 - padding.min(2).min(base64.len() / 4 * 3))
}

/// The parameters of a notification of progress, on one line.
pub(super) fn progress(progress: &Value) -> String {
    let number = |key: &str| progress[key].as_f64();
    let far = match (number("progress"), number("total")) {
        (Some(now), Some(total)) => format!("{now} of {total}"),
        (Some(now), None) => now.to_string(),
        (None, _) => "…".to_owned(),
    };
    match progress["message"].as_str() {
        Some(message) => format!("{far}: {message}"),
        None => far,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"content": []}), "")]
    #[case(json!({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}), "a\nb")]
    #[case(json!({"content": [{"type": "image", "mimeType": "image/png", "data": "aGVsbG8="}]}), "[image, image/png, 5 bytes]")]
    #[case(json!({"content": [{"type": "audio", "mimeType": "audio/wav", "data": "="}]}), "[audio, audio/wav, 0 bytes]")]
    #[case(json!({"content": [{"type": "resource_link", "uri": "file:///a", "name": "a"}]}), "[link, file:///a, a]")]
    #[case(json!({"content": [{"type": "resource", "resource": {"uri": "x:1", "text": "hello"}}]}), "[resource, x:1]\nhello")]
    #[case(json!({"content": [{"type": "resource", "resource": {"uri": "x:1", "blob": "AAAA"}}]}), "[resource, x:1, 3 bytes]")]
    #[case(json!({"content": [{"type": "video"}, {}, 7]}), "[video]\n[something without a type]\n[something without a type]")]
    #[case(json!({"content": [{"type": "text", "text": "{\"a\": 1}"}], "structuredContent": {"a": 1}}), "{\n  \"a\": 1\n}")]
    #[case(json!({"content": [{"type": "text", "text": "one"}], "structuredContent": {"a": 1}}), "one\n{\n  \"a\": 1\n}")]
    #[case(json!({}), "")]
    fn results(#[case] result: Value, #[case] expected: &str) {
        assert_eq!(text(&result), expected);
    }

    #[rstest]
    #[case(json!({"progress": 1, "total": 4, "message": "copying"}), "1 of 4: copying")]
    #[case(json!({"progress": 0.5}), "0.5")]
    #[case(json!({}), "…")]
    fn progresses(#[case] notification: Value, #[case] expected: &str) {
        assert_eq!(progress(&notification), expected);
    }
}
