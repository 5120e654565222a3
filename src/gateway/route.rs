//! Routes as calls find them.

use std::collections::HashMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use sha2::{Digest as _, Sha256};

use super::config::{Action, Forward, HeaderEdit, KeyRule, PathRule, RouteConfig};
use super::metrics::RouteMetrics;
use super::pool::Backend;

/// One route in service.
pub(super) struct Route {
    pub(super) name: String,
    pub(super) key: Option<KeyRule>,
    pub(super) target: Target,
    pub(super) response: HeaderEdit,
    pub(super) metrics: Arc<RouteMetrics>,
}

pub(super) enum Target {
    Answer { status: http::StatusCode, body: bytes::Bytes },
    Upstream(Box<Upstream>),
}

/// Everything of a forwarded request that does not depend on the request.
pub(super) struct Upstream {
    pub(super) uri: Uri,
    pub(super) host: HeaderValue,
    pub(super) request: HeaderEdit,
    pub(super) copy: Vec<(HeaderName, HeaderName)>,
    pub(super) remove: Vec<HeaderName>,
    pub(super) backend: Arc<Backend>,
}

impl Route {
    pub(super) fn new(
        config: &RouteConfig,
        metrics: Arc<RouteMetrics>,
        backend: impl FnOnce(&Forward) -> Arc<Backend>,
    ) -> Self {
        let target = match &config.action {
            Action::Answer { status, body } => Target::Answer { status: *status, body: body.clone() },
            Action::Forward(forward) => Target::Upstream(Box::new(Upstream {
                uri: forward.uri.clone(),
                host: forward.host.clone(),
                request: forward.request.clone(),
                copy: forward.copy.clone(),
                remove: forward.remove.clone(),
                backend: backend(forward),
            })),
        };
        Self {
            name: config.name.clone(),
            key: config.key.clone(),
            target,
            response: config.response.clone(),
            metrics,
        }
    }

    /// Whether the call carries the key, if the route asks for one.
    pub(super) fn admits(&self, headers: &HeaderMap) -> bool {
        self.key.as_ref().is_none_or(|rule| headers.get(&rule.header).is_some_and(|value| rule.holds(value)))
    }
}

impl KeyRule {
    /// Looks at every byte, so that the time says nothing of how much was right.
    fn holds(&self, value: &HeaderValue) -> bool {
        let digest = Sha256::digest(value.as_bytes());
        digest.iter().zip(&self.digest).fold(0, |difference, (one, other)| difference | (one ^ other)) == 0
    }
}

/// All routes; of several that match, an exact path wins, then the longest prefix.
#[derive(Default)]
pub(super) struct Table {
    exact: HashMap<String, Arc<Route>>,
    prefix: HashMap<String, Arc<Route>>,
}

impl Table {
    pub(super) fn insert(&mut self, paths: &[PathRule], route: Arc<Route>) {
        for path in paths {
            let route = Arc::clone(&route);
            match path {
                PathRule::Exact(path) => self.exact.insert(path.clone(), route),
                PathRule::Prefix(path) => self.prefix.insert(path.clone(), route),
            };
        }
    }

    /// One look-up a segment, the longest path first.
    pub(super) fn find(&self, path: &str) -> Option<&Arc<Route>> {
        if let Some(route) = self.exact.get(path) {
            return Some(route);
        }
        let mut prefix = path;
        loop {
            if let Some(route) = self.prefix.get(prefix) {
                return Some(route);
            }
            prefix = prefix.get(..prefix.rfind('/')?)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(paths: &[PathRule]) -> Table {
        let mut table = Table::default();
        for path in paths {
            let name = match path {
                PathRule::Exact(path) => format!("={path}"),
                PathRule::Prefix(path) => path.clone(),
            };
            let config = RouteConfig {
                name,
                paths: vec![path.clone()],
                key: None,
                action: Action::Answer { status: http::StatusCode::OK, body: bytes::Bytes::new() },
                response: HeaderEdit::default(),
            };
            let metrics = Arc::new(RouteMetrics::default());
            let route = Route::new(&config, metrics, |_| unreachable!("no backend"));
            table.insert(&config.paths, Arc::new(route));
        }
        table
    }

    #[test]
    fn prefixes_end_at_segments_and_the_closest_match_wins() {
        let table = table(&[
            PathRule::Prefix("/mcp/a".to_owned()),
            PathRule::Prefix("/mcp/a/deep".to_owned()),
            PathRule::Exact("/mcp/a/b".to_owned()),
        ]);
        let found = |path: &str| table.find(path).map(|route| route.name.clone());
        for (path, expected) in [
            ("/mcp/a", Some("/mcp/a")),
            ("/mcp/a/", Some("/mcp/a")),
            ("/mcp/a/x/y", Some("/mcp/a")),
            ("/mcp/a/deep/x", Some("/mcp/a/deep")),
            ("/mcp/a/b", Some("=/mcp/a/b")),
            ("/mcp/a/b/c", Some("/mcp/a")),
            ("/mcp/ab", None),
            ("/mcp", None),
            ("/", None),
            ("", None),
            ("*", None),
        ] {
            assert_eq!(found(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn a_prefix_of_nothing_matches_everything() {
        assert!(table(&[PathRule::Prefix(String::new())]).find("/x/y").is_some());
    }
}
