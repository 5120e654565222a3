//! Which URIs a URI template (RFC 6570) can have given.
//!
//! Only that: no values are taken out. Time is the product of both lengths, whatever the template.

/// URIs longer than this, in bytes, match no template.
const LONGEST_URI: usize = 64 << 10;

/// A URI template, ready to match.
#[derive(Clone, Debug)]
pub(super) struct UriTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    /// `{x}`, `{.x}`, `{/x}`, `{;x}`, `{?x}`, `{&x}`: nothing, or the operator's character and some more.
    Expression {
        /// What stands before the values, where there are any.
        lead: Option<u8>,
        /// Which characters the values may hold.
        holds: fn(u8) -> bool,
        /// There may be nothing.
        optional: bool,
    },
}

impl UriTemplate {
    /// A template. What is no expression is literal, so that any text is a template.
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{')
            && let Some((expression, after)) = after.split_once('}')
        {
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            parts.push(Part::expression(expression));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Literal(rest.to_owned()));
        }
        Self { parts }
    }

    /// How many bytes are literal: a template that has more of them says more of what it gives.
    pub(super) fn literal_length(&self) -> usize {
        let length = |part: &Part| if let Part::Literal(text) = part { text.len() } else { 0 };
        self.parts.iter().map(length).sum()
    }

    /// Whether the template can give `uri`. `leniently`: also where values hold what they should have escaped.
    pub(super) fn matches(&self, uri: &str, leniently: bool) -> bool {
        if uri.len() > LONGEST_URI {
            return false;
        }
        let uri = uri.as_bytes();
        // Where in the URI the parts so far can have ended.
        let mut ends = vec![false; uri.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            ends = part.advance(uri, &ends, leniently);
        }
        ends[uri.len()]
    }
}

impl Part {
    fn expression(text: &str) -> Self {
        let anything: fn(u8) -> bool = |_| true;
        let list: fn(u8) -> bool = |byte| !matches!(byte, b'/' | b'?' | b'#');
        let (lead, holds, optional) = match text.as_bytes().first() {
            Some(b'+') => (None, anything, false),
            Some(b'#') => (Some(b'#'), anything, true),
            Some(lead @ (b'.' | b';')) => (Some(*lead), list, true),
            // `{/x*}` and `{/x,y}` give more than one segment.
            Some(b'/') => (Some(b'/'), (|byte| !matches!(byte, b'?' | b'#')) as fn(u8) -> bool, true),
            Some(lead @ (b'?' | b'&')) => (Some(*lead), (|byte| byte != b'#') as fn(u8) -> bool, true),
            _ => (None, list, false),
        };
        Self::Expression { lead, holds, optional }
    }

    fn advance(&self, uri: &[u8], starts: &[bool], leniently: bool) -> Vec<bool> {
        let mut ends = vec![false; starts.len()];
        match self {
            Self::Literal(text) => {
                for start in (0..starts.len()).filter(|start| starts[*start]) {
                    if uri[start..].starts_with(text.as_bytes()) {
                        ends[start + text.len()] = true;
                    }
                }
            }
            Self::Expression { lead, holds, optional } => {
                // `inside`: a value can have begun before this byte.
                let mut inside = false;
                for position in 0..starts.len() {
                    if *optional && starts[position] {
                        ends[position] = true;
                    }
                    let Some(byte) = uri.get(position) else { break };
                    let begins = starts[position]
                        && match lead {
                            Some(lead) => byte == lead,
                            None => leniently || holds(*byte),
                        };
                    inside = begins || (inside && (leniently || holds(*byte)));
                    if inside {
                        ends[position + 1] = true;
                    }
                }
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(template: &str, uri: &str) -> bool {
        UriTemplate::parse(template).matches(uri, false)
    }

    #[test]
    fn a_template_matches_what_it_gives() {
        for (template, uri) in [
            ("test://template/{id}/data", "test://template/1%202/data"),
            ("file:///{+path}", "file:///etc/hosts"),
            ("db://{table}{?limit,offset}", "db://users?limit=1&offset=2"),
            ("db://{table}{?limit,offset}", "db://users"),
            ("x://{a}-{b}", "x://1-2-3"),
            ("x://h{/path*}", "x://h/a/b"),
            ("x://h{#part}", "x://h#a/b?c"),
            ("x://h/{name}{.ext}", "x://h/a.tar.gz"),
            ("x://plain", "x://plain"),
            ("x://{broken", "x://{broken"),
            ("x://é/{a}", "x://é/ü"),
        ] {
            assert!(matches(template, uri), "{template} {uri}");
        }
    }

    #[test]
    fn a_template_matches_nothing_else() {
        for (template, uri) in [
            ("test://template/{id}/data", "test://template//data"),
            ("test://template/{id}/data", "test://template/1/2/data"),
            ("test://template/{id}/data", "test://template/1/data/more"),
            ("db://{table}{?limit}", "db://users#limit=1"),
            ("x://plain", "x://plain2"),
            ("x://{a}", "x://"),
        ] {
            assert!(!matches(template, uri), "{template} {uri}");
        }
        assert!(UriTemplate::parse("file:///{path}").matches("file:///etc/hosts", true));
    }

    #[test]
    fn the_worst_template_takes_no_time() {
        let template = "{a}{b}{c}{d}{e}{f}{g}{h}".repeat(8);
        let uri = format!("{}/", "a".repeat(20_000));
        assert!(!matches(&template, &uri));
        assert!(!matches("{+a}", &"a".repeat(LONGEST_URI + 1)));
    }
}
