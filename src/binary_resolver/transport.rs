//! Requests for an asset: TLS, proxies, redirects.
//!
//! Redirects are followed here and not by the HTTP client, because each hop has to pass [`check_url`] and chooses whether it
//! goes through a proxy.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{IF_RANGE, LOCATION, RANGE};
use http::{HeaderValue, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use url::{Host, Url};

use super::error::ResolveError;

/// The rest of an asset whose beginning is here.
#[derive(Clone, Debug)]
pub(super) struct Rest {
    /// How much is here, in bytes.
    pub(super) from: u64,
    /// Says which version of the asset that was: a strong ETag or a date (RFC 9110 section 13.1.5).
    pub(super) validator: HeaderValue,
}

/// What sends requests.
#[derive(Debug)]
pub(super) struct Transport {
    /// For this machine: no proxy, whatever the environment says.
    direct: Client,
    /// For all others: the proxies of the environment.
    proxied: Client,
    max_redirects: usize,
}

impl Transport {
    /// Reads the machine's certificates and the proxy variables. Blocks.
    pub(super) fn new(connect: Duration, idle: Duration, max_redirects: usize) -> Result<Self, ResolveError> {
        let tls =
            crate::tls::client_config().map_err(|source| ResolveError::Client { source: source.into() })?;
        let builder = || -> ClientBuilder {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .user_agent(concat!("sidegate/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .connect_timeout(connect)
                .read_timeout(idle)
        };
        let build = |builder: ClientBuilder| {
            builder.build().map_err(|source| ResolveError::Client { source: source.into() })
        };
        Ok(Self { direct: build(builder().no_proxy())?, proxied: build(builder())?, max_redirects })
    }

    /// Asks for an asset, or the rest of it, and follows redirects. The answer can have any other status.
    pub(super) async fn get(&self, first: &Url, rest: Option<&Rest>) -> Result<Response, ResolveError> {
        // Somebody out there has no business with the services of this machine.
        let allow_loopback = is_loopback(first);
        let mut url = first.clone();
        for _ in 0..=self.max_redirects {
            check_url(&url, allow_loopback)?;
            let client = if is_loopback(&url) { &self.direct } else { &self.proxied };
            let mut request = client.get(url.clone());
            if let Some(rest) = rest {
                request =
                    request.header(RANGE, format!("bytes={}-", rest.from)).header(IF_RANGE, &rest.validator);
            }
            let received = rest.map_or(0, |rest| rest.from);
            let response = request.send().await.map_err(|source| transfer_failed(&url, received, source))?;
            match response.status() {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = target(&url, &response)?,
                _ => return Ok(response),
            }
        }
        Err(ResolveError::TooManyRedirects { url: shown(first), limit: self.max_redirects })
    }
}

pub(super) fn transfer_failed(url: &Url, received: u64, source: reqwest::Error) -> ResolveError {
    // The client's own text has the whole URL, query included.
    ResolveError::Transfer { url: shown(url), received, source: source.without_url() }
}

/// Refuses what could be read or changed on its way: only https may leave this machine.
pub(super) fn check_url(url: &Url, allow_loopback: bool) -> Result<(), ResolveError> {
    match url.scheme() {
        "https" if allow_loopback || !is_loopback(url) => Ok(()),
        "http" if allow_loopback && is_loopback(url) => Ok(()),
        _ => Err(ResolveError::Insecure { url: shown(url) }),
    }
}

/// A URL as it may stand in a message: user info and query can hold secrets.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // These fail for URLs that cannot have user info, which have none then.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.to_string()
}

/// By name or address; `localhost` and what is below it is this machine by RFC 6761 section 6.3.
fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::from(ip).to_canonical().is_loopback(),
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        None => false,
    }
}

fn target(from: &Url, response: &Response) -> Result<Url, ResolveError> {
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok());
    target.ok_or_else(|| ResolveError::BadRedirect { url: shown(from) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn only_https_leaves_the_machine() {
        for (text, from_loopback, from_elsewhere) in [
            ("https://example.com/a", true, true),
            ("http://example.com/a", false, false),
            ("http://127.0.0.1/a", true, false),
            ("https://127.0.0.1/a", true, false),
            ("http://[::1]:80/", true, false),
            ("http://[::ffff:127.0.0.1]/", true, false),
            ("http://LOCALHOST./", true, false),
            ("http://a.localhost/", true, false),
            ("http://localhost.example.com/", false, false),
            ("http://127.0.0.1.example.com/", false, false),
            ("http://127.0.0.1@example.com/", false, false),
            ("ftp://127.0.0.1/", false, false),
            ("file:///etc/passwd", false, false),
        ] {
            assert_eq!(check_url(&url(text), true).is_ok(), from_loopback, "{text}");
            assert_eq!(check_url(&url(text), false).is_ok(), from_elsewhere, "{text}");
        }
    }

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        assert_eq!(shown(&url("https://me:pw@m.example/a?sig=s#f")), "https://m.example/a");
    }
}
