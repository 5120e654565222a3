//! Whom requests go to, which may change while sessions are open.

use std::sync::Arc;

use bytes::Bytes;
use http::uri::{Authority, InvalidUri, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, Request, Response, Uri};
use http_body_util::Full;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use url::Url;

use super::direct::Direct;
use super::error::ClientError;
use super::{Body, Pool};

/// Whom to ask at the moment: the gateway, which may be replaced by another while sessions are open.
#[derive(Debug)]
pub struct Origin {
    scheme: Scheme,
    authority: Authority,
    /// What stands before each path, without a slash at its end.
    prefix: Box<str>,
    pub(super) headers: HeaderMap,
    pub(super) habits: Habits,
    /// Where it can be dialled without looking anything up.
    direct: Option<Direct>,
    requests: TaskTracker,
}

/// What a gateway does to requests.
#[derive(Clone, Debug, Default)]
pub struct Habits {
    /// It rewrites the first header: it gets the value under the second name as well, and can put it back.
    pub rewrites: Option<(HeaderName, HeaderName)>,
    /// It does nothing to a request that a server would miss. One in this process ([`ClientConfig::local`]) is asked without
    /// it.
    ///
    /// [`ClientConfig::local`]: super::ClientConfig::local
    pub adds_nothing: bool,
}

/// A URL that no request can be sent to.
#[derive(Debug, thiserror::Error)]
#[error("{url} cannot be sent requests to")]
pub struct InvalidOrigin {
    url: Url,
    source: http::uri::InvalidUri,
}

impl Origin {
    /// An origin at `authority`, over plain HTTP; `headers` go with every request to it.
    pub fn new(authority: Authority, headers: HeaderMap) -> Arc<Self> {
        Self::of(Scheme::HTTP, authority, "", headers, Habits::default())
    }

    /// As [`new`](Self::new), for a gateway with `habits`.
    pub fn gateway(authority: Authority, headers: HeaderMap, habits: Habits) -> Arc<Self> {
        Self::of(Scheme::HTTP, authority, "", headers, habits)
    }

    /// The origin that is meant by `url`, `http` or `https`; its path stands before the paths of all requests. User
    /// info, query and fragment do not count.
    ///
    /// # Errors
    ///
    /// The host has no form in a request.
    pub fn at(url: &Url) -> Result<Arc<Self>, InvalidOrigin> {
        let scheme = if url.scheme() == "https" { Scheme::HTTPS } else { Scheme::HTTP };
        let host = url.host_str().unwrap_or_default();
        let authority = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let invalid = |source| InvalidOrigin { url: url.clone(), source };
        let authority = authority.parse().map_err(invalid)?;
        Ok(Self::of(scheme, authority, url.path().trim_end_matches('/'), HeaderMap::new(), Habits::default()))
    }

    fn of(
        scheme: Scheme,
        authority: Authority,
        prefix: &str,
        headers: HeaderMap,
        habits: Habits,
    ) -> Arc<Self> {
        let direct = if scheme == Scheme::HTTP { Direct::to(&authority) } else { None };
        Arc::new(Self {
            scheme,
            authority,
            prefix: prefix.into(),
            headers,
            habits,
            direct,
            requests: TaskTracker::new(),
        })
    }

    /// The host.
    pub fn host(&self) -> &str {
        self.authority.host()
    }

    /// The port, where it is not that of the scheme.
    pub fn port(&self) -> Option<u16> {
        self.authority.port_u16()
    }

    /// Waits until no request is under way. For an origin that has been replaced. GET streams do not count: they move.
    pub async fn idle(&self) {
        self.requests.close();
        self.requests.wait().await;
    }

    /// Sends a request to `path`; with connections of `pool` where the origin has none of its own.
    pub(super) async fn send(
        &self,
        pool: &Pool,
        path: &PathAndQuery,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Body>, ClientError> {
        let path = self.path(path)?;
        if let Some(direct) = &self.direct {
            return direct.request(path, request).await;
        }
        *request.uri_mut() = self.uri(path)?;
        pool.request(request).await
    }

    fn path(&self, path: &PathAndQuery) -> Result<PathAndQuery, ClientError> {
        match &*self.prefix {
            "" => Ok(path.clone()),
            prefix => format!("{prefix}{path}").parse().map_err(|error: InvalidUri| wrong(&error)),
        }
    }

    fn uri(&self, path: PathAndQuery) -> Result<Uri, ClientError> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|error| wrong(&error))
    }
}

fn wrong(error: &dyn std::error::Error) -> ClientError {
    ClientError::Protocol(format!("the address is wrong: {error}"))
}

/// A request, which is counted at its origin where it goes through that.
pub(super) struct Lease {
    pub(super) origin: Arc<Origin>,
    _counted: Option<TaskTrackerToken>,
}

impl Lease {
    /// The origin of a request that begins now; it is counted there as long as the value lives. Where `is_local`, an origin that adds
    /// nothing is passed over, and need not wait for the request.
    pub(super) fn take(current: &watch::Receiver<Arc<Origin>>, is_local: bool) -> Self {
        loop {
            let origin = Arc::clone(&current.borrow());
            let passed_over = is_local && origin.habits.adds_nothing;
            let token = (!passed_over).then(|| origin.requests.token());
            // Whoever replaces an origin waits for its requests afterwards. A request that is not counted by then must
            // not begin there.
            if Arc::ptr_eq(&origin, &current.borrow()) {
                return Self { origin, _counted: token };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("http://gateway.test", "http://gateway.test/mcp/a")]
    #[case("http://gateway.test:15000/", "http://gateway.test:15000/mcp/a")]
    #[case("https://gateway.test/team/x//", "https://gateway.test/team/x/mcp/a")]
    #[case("https://gateway.test:443/a%20b", "https://gateway.test/a%20b/mcp/a")]
    #[case("http://[::1]:9/x", "http://[::1]:9/x/mcp/a")]
    #[case("http://b\u{fc}cher.test", "http://xn--bcher-kva.test/mcp/a")]
    fn a_path_of_the_url_stands_before_others(#[case] url: &str, #[case] expected: &str) {
        let origin = Origin::at(&url.parse().unwrap()).unwrap();
        let path = origin.path(&PathAndQuery::from_static("/mcp/a")).unwrap();
        assert_eq!(origin.uri(path).unwrap(), expected);
    }
}
