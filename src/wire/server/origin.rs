//! Host and Origin: who may talk to us at all.
//!
//! A web page can make a browser send requests to loopback, and with a DNS name that resolves to loopback even read
//! the answers (DNS rebinding). Such requests carry the page's host or origin, so both are checked (2025-11-25,
//! basic/transports, "Security Warning").

use http::{HeaderMap, Uri, header};

/// Which values of Host and Origin are served.
#[derive(Clone, Debug)]
pub struct HostPolicy {
    /// Host names without port, lower case; IPv6 addresses in brackets.
    hosts: Vec<String>,
    /// Whole origins, lower case.
    origins: Vec<String>,
    any: bool,
}

impl HostPolicy {
    /// Serves the names of loopback: `localhost`, `127.0.0.1`, `[::1]`, each with any port.
    pub fn loopback() -> Self {
        let hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned).to_vec();
        Self { hosts, origins: Vec::new(), any: false }
    }

    /// Serves everyone. For a Unix socket, which no browser can reach.
    pub fn any() -> Self {
        Self { hosts: Vec::new(), origins: Vec::new(), any: true }
    }

    /// Serves these hosts (without port) and origins as well.
    #[must_use]
    pub fn and(mut self, hosts: &[String], origins: &[String]) -> Self {
        self.hosts.extend(hosts.iter().map(|host| host.to_ascii_lowercase()));
        self.origins.extend(origins.iter().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase()));
        self
    }

    /// Checks a request.
    ///
    /// # Errors
    ///
    /// The request is answered with 403.
    pub fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), OriginError> {
        if self.any {
            return Ok(());
        }
        let host = one(headers, &header::HOST).map_err(|()| OriginError::Host("more than one".to_owned()))?;
        // A request target in absolute form overrides Host (RFC 9112 section 3.2.2): neither may lie.
        let authority = uri.authority().map(http::uri::Authority::as_str);
        if host.is_none() && authority.is_none() {
            return Err(OriginError::Host("none".to_owned()));
        }
        for host in [host, authority].into_iter().flatten() {
            if !self.allows_host(host) {
                return Err(OriginError::Host(host.to_owned()));
            }
        }
        let origin =
            one(headers, &header::ORIGIN).map_err(|()| OriginError::Origin("more than one".to_owned()))?;
        match origin {
            None => Ok(()),
            Some(origin) if self.allows_origin(origin) => Ok(()),
            Some(origin) => Err(OriginError::Origin(origin.to_owned())),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        self.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }

    fn allows_origin(&self, origin: &str) -> bool {
        if self.origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
            return true;
        }
        match origin.split_once("://") {
            Some(("http" | "https", host)) => self.allows_host(host),
            _ => false,
        }
    }
}

fn one<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Result<Option<&'h str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
        (Some(_), Some(_)) => Err(()),
    }
}

/// A request from where nobody is served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OriginError {
    /// The Host header, or the authority of the request target.
    #[error("host {0:?} is not served; use localhost or 127.0.0.1, or add it to aggregator.allowedHosts")]
    Host(String),
    /// The Origin header.
    #[error("origin {0:?} is not served; add it to aggregator.allowedOrigins")]
    Origin(String),
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn check(policy: &HostPolicy, host: &[&'static str], origin: &[&'static str]) -> bool {
        let mut headers = HeaderMap::new();
        for value in host {
            headers.append(header::HOST, http::HeaderValue::from_static(value));
        }
        for value in origin {
            headers.append(header::ORIGIN, http::HeaderValue::from_static(value));
        }
        policy.check(&Uri::from_static("/mcp"), &headers).is_ok()
    }

    #[rstest]
    #[case(&["localhost"], &[], true)]
    #[case(&["LOCALHOST:8090"], &[], true)]
    #[case(&["127.0.0.1:1"], &["http://localhost:3000"], true)]
    #[case(&["[::1]:8090"], &["https://[::1]"], true)]
    #[case(&["[::1]"], &[], true)]
    #[case(&["evil.example"], &[], false)]
    #[case(&["localhost.evil.example"], &[], false)]
    #[case(&["localhost", "localhost"], &[], false)]
    #[case(&[], &[], false)]
    #[case(&["localhost"], &["null"], false)]
    #[case(&["localhost"], &["http://evil.example"], false)]
    #[case(&["localhost"], &["http://localhost@evil.example"], false)]
    #[case(&["localhost"], &["file://localhost"], false)]
    #[case(&["localhost"], &["http://localhost", "http://localhost"], false)]
    #[case(&["localhost:evil"], &[], false)]
    #[case(&["localhost."], &[], false)]
    #[case(&["user@localhost"], &[], false)]
    #[case(&["127.0.0.1.evil.example:80"], &[], false)]
    #[case(&["[::2]:8090"], &[], false)]
    #[case(&["[::1]evil:8090"], &[], false)]
    #[case(&["::1"], &[], false)]
    #[case(&[""], &[], false)]
    #[case(&["localhost"], &["http://[::1]:5173"], true)]
    #[case(&["localhost"], &["http://[::2]"], false)]
    #[case(&["localhost"], &["http://localhost:8090/path"], false)]
    #[case(&["localhost"], &["localhost"], false)]
    #[case(&["localhost"], &[""], false)]
    fn loopback_names_only(
        #[case] host: &[&'static str],
        #[case] origin: &[&'static str],
        #[case] served: bool,
    ) {
        assert_eq!(check(&HostPolicy::loopback(), host, origin), served);
    }

    #[test]
    fn more_can_be_allowed() {
        let policy = HostPolicy::loopback().and(&["Box.lan".into()], &["vscode-webview://abc/".into()]);
        assert!(check(&policy, &["box.lan:8090"], &["vscode-webview://abc"]));
        assert!(check(&policy, &["localhost"], &["http://box.lan"]));
        assert!(!check(&policy, &["box.lan.evil"], &[]));
    }

    #[test]
    fn a_target_in_absolute_form_is_checked_too() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, http::HeaderValue::from_static("localhost"));
        let policy = HostPolicy::loopback();
        assert!(policy.check(&Uri::from_static("http://localhost/mcp"), &headers).is_ok());
        assert!(policy.check(&Uri::from_static("http://evil.example/mcp"), &headers).is_err());
    }
}
