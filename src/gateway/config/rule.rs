//! The only two expressions there are.

use http::HeaderName;

use super::KeyRule;

/// `sha256.encode(request.headers["<name>"]) == "<64 hex digits>"`, to the letter.
pub(super) fn key_rule(text: &str) -> Option<KeyRule> {
    let (header, rest) = header_reference(text.strip_prefix("sha256.encode(")?)?;
    let digest = rest.strip_prefix(r#") == ""#)?.strip_suffix('"')?;
    let mut bytes = [0; 32];
    hex::decode_to_slice(digest, &mut bytes).ok()?;
    Some(KeyRule { header, digest: bytes })
}

/// `request.headers["<name>"]`, to the letter.
pub(super) fn header_value(text: &str) -> Option<HeaderName> {
    header_reference(text).and_then(|(name, rest)| rest.is_empty().then_some(name))
}

fn header_reference(text: &str) -> Option<(HeaderName, &str)> {
    let (name, rest) = text.strip_prefix(r#"request.headers[""#)?.split_once(r#""]"#)?;
    Some((name.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_rendered_shapes_are_read() {
        let digest = "c018c41c1afaf2c0b66c64f97d0ee135657b699ad260f299234cd40a5d625e0e";
        let rule = format!(r#"sha256.encode(request.headers["x-sidegate-key"]) == "{digest}""#);
        let read = key_rule(&rule).unwrap();
        assert_eq!((read.header.as_str(), hex::encode(read.digest).as_str()), ("x-sidegate-key", digest));
        for other in [
            "true".to_owned(),
            format!("{rule} || true"),
            format!(" {rule}"),
            rule.replace("==", "!="),
            rule.replace(digest, "c018"),
            rule.replace("x-sidegate-key", "x y"),
        ] {
            assert_eq!(key_rule(&other), None, "{other}");
        }
        assert_eq!(header_value(r#"request.headers["x-a"]"#).unwrap(), "x-a");
        assert_eq!(header_value(r#"request.headers["x-a"] + "b""#), None);
    }
}
