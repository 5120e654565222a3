//! What a proxy does to headers.

use http::header::{
    CONNECTION, EXPECT, HOST, HeaderMap, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue};

use super::config::HeaderEdit;
use super::route::Upstream;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Removes what concerns one connection only: RFC 9110 section 7.6.1, and what the message itself nominates.
pub(super) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in nominated {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
}

impl HeaderEdit {
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

impl Upstream {
    /// Makes the headers of a call those of the request to the backend.
    pub(super) fn rewrite(&self, headers: &mut HeaderMap) {
        remove_hop_by_hop(headers);
        // Meant for a proxy, and that is us; `Expect` is answered by our own server half when the body is first asked for.
        headers.remove(PROXY_AUTHORIZATION);
        headers.remove(EXPECT);
        for (target, source) in &self.copy {
            let value: Option<HeaderValue> = headers.get(source).cloned();
            match value {
                Some(value) => headers.insert(target.clone(), value),
                None => headers.remove(target),
            };
        }
        for name in &self.remove {
            headers.remove(name);
        }
        self.request.apply(headers);
        headers.insert(HOST, self.host.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn what_concerns_one_connection_stays_there() {
        let mut headers = map(&[
            ("connection", "close, X-Private"),
            ("connection", "x-other"),
            ("x-private", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-connection", "close"),
            ("mcp-session-id", "s"),
            ("content-length", "3"),
        ]);
        remove_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("mcp-session-id", "s"), ("content-length", "3")]));
    }

    #[test]
    fn edits_set_then_add_then_remove() {
        let edit = HeaderEdit {
            set: vec![(HeaderName::from_static("a"), HeaderValue::from_static("new"))],
            add: vec![(HeaderName::from_static("b"), HeaderValue::from_static("2"))],
            remove: vec![HeaderName::from_static("c")],
        };
        let mut headers = map(&[("a", "old"), ("a", "older"), ("b", "1"), ("c", "x")]);
        edit.apply(&mut headers);
        assert_eq!(headers, map(&[("a", "new"), ("b", "1"), ("b", "2")]));
    }
}
