//! What a tool has answered, as it is shown.

use serde_json::Value;

/// The longest text that is shown of one block, in characters.
pub(super) const LONGEST_TEXT: usize = 200_000;

/// The largest picture that is shown, in characters of Base64.
const LARGEST_IMAGE: usize = 8 << 20;

/// Pictures that every browser knows. They can do nothing, whatever is in them; SVG is a document, and is not among them.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// A result.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) is_error: bool,
    pub(super) blocks: Vec<Block>,
    /// `structuredContent`, printed.
    pub(super) structured: Option<String>,
    /// The whole, printed.
    pub(super) raw: String,
}

/// A block of content.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Block {
    Text(String),
    /// A picture, as an address that holds it.
    Image {
        source: String,
        about: String,
    },
    /// What is not shown, and what it is.
    Other(String),
    /// A resource with its text.
    Resource {
        about: String,
        text: String,
    },
}

impl Shown {
    /// Takes a `CallToolResult` apart.
    pub(super) fn of(result: &Value) -> Self {
        let structured = result.get("structuredContent").filter(|value| !value.is_null());
        // Servers repeat what is structured as a text, for older clients (2025-11-25, server/tools, "Structured Content").
        let repeats = |block: &&Value| {
            let text = block["text"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
            structured.is_some() && text.as_ref() == structured
        };
        let content = result["content"].as_array().map(Vec::as_slice).unwrap_or_default();
        Self {
            is_error: result["isError"].as_bool().unwrap_or_default(),
            blocks: content.iter().filter(|block| !repeats(block)).map(block).collect(),
            structured: structured.map(pretty),
            raw: pretty(result),
        }
    }

    /// Whether a picture is among the blocks.
    pub(super) fn has_images(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block, Block::Image { .. }))
    }
}

/// JSON as people read it.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

fn block(block: &Value) -> Block {
    let word = |key: &str| block[key].as_str().unwrap_or_default();
    match word("type") {
        "text" => Block::Text(word("text").to_owned()),
        kind @ ("image" | "audio") => {
            let (mime, data) = (word("mimeType"), word("data"));
            let about = described(&[kind, mime, &size(data)]);
            match image(mime, data) {
                Some(source) if kind == "image" => Block::Image { source, about },
                _ => Block::Other(about),
            }
        }
        "resource_link" => Block::Other(described(&["link", word("uri"), word("name"), word("mimeType")])),
        "resource" => {
            let resource = &block["resource"];
            let word = |key: &str| resource[key].as_str().unwrap_or_default();
            let blob = resource["blob"].as_str();
            let size = blob.map(size).unwrap_or_default();
            let about = described(&["resource", word("uri"), word("mimeType"), &size]);
            match (resource["text"].as_str(), blob.and_then(|blob| image(word("mimeType"), blob))) {
                (Some(text), _) => Block::Resource { about, text: text.to_owned() },
                (None, Some(source)) => Block::Image { source, about },
                (None, None) => Block::Other(about),
            }
        }
        "" => Block::Other("something without a type".to_owned()),
        kind => Block::Other(kind.to_owned()),
    }
}

/// The address of a picture that holds it (RFC 2397), where it is one of those that are shown.
fn image(mime: &str, data: &str) -> Option<String> {
    let mime = IMAGES.into_iter().find(|known| known.eq_ignore_ascii_case(mime))?;
    let is_base64 =
        data.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'='));
    (is_base64 && data.len() <= LARGEST_IMAGE).then(|| format!("data:{mime};base64,{data}"))
}

fn described(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

/// How many bytes a text in Base64 stands for.
fn size(base64: &str) -> String {
    let padding = base64.bytes().rev().take_while(|byte| *byte == b'=').count().min(2);
    format!("{} bytes", (base64.len() / 4 * 3).saturating_sub(padding))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case(json!({"type": "text", "text": "a"}), Block::Text("a".into()))]
    #[case(json!({"type": "image", "mimeType": "image/svg+xml", "data": "PHN2Zz4="}), Block::Other("image, image/svg+xml, 5 bytes".into()))]
    #[case(json!({"type": "image", "mimeType": "image/png", "data": "\"onerror=x"}), Block::Other("image, image/png, 6 bytes".into()))]
    #[case(json!({"type": "image", "mimeType": "IMAGE/PNG", "data": "AAAA"}), Block::Image { source: "data:image/png;base64,AAAA".into(), about: "image, IMAGE/PNG, 3 bytes".into() })]
    #[case(json!({"type": "audio", "mimeType": "image/png", "data": "AAAA"}), Block::Other("audio, image/png, 3 bytes".into()))]
    #[case(json!({"type": "resource", "resource": {"uri": "a:b", "text": "t"}}), Block::Resource { about: "resource, a:b".into(), text: "t".into() })]
    #[case(json!({"type": "resource_link", "uri": "javascript:x"}), Block::Other("link, javascript:x".into()))]
    #[case(json!({"type": "new"}), Block::Other("new".into()))]
    #[case(json!(7), Block::Other("something without a type".into()))]
    fn blocks(#[case] given: Value, #[case] expected: Block) {
        assert_eq!(block(&given), expected);
    }

    #[test]
    fn what_is_structured_is_shown_once() {
        let result = json!({
            "content": [{"type": "text", "text": "{\"a\":1}"}, {"type": "text", "text": "b"}],
            "structuredContent": {"a": 1},
            "isError": true,
        });
        let shown = Shown::of(&result);
        assert!(shown.is_error && !shown.has_images());
        assert_eq!(shown.blocks, [Block::Text("b".into())]);
        assert_eq!(shown.structured.as_deref(), Some("{\n  \"a\": 1\n}"));
        for nothing in [json!(null), json!({}), json!({"content": 7})] {
            assert!(Shown::of(&nothing).blocks.is_empty());
        }
    }
}
