//! Who may see the page, and whose forms count.
//!
//! | rule | defends against |
//! | --- | --- |
//! | `Host` and `Origin`, checked before anything comes here | DNS rebinding |
//! | what a browser says of the page that a request comes from (`Sec-Fetch-Site`, `Origin`) | other pages, also those of other ports of the same host |
//! | a secret in each form that changes something | the same, where a browser says nothing |
//! | the token, where one is set: as bearer token, or given once in a form and kept as a cookie | everybody else |
//!
//! The cookie is a secret of this run and not the token: it is worth nothing after the end of the instance, nor at `/mcp`.

use http::{HeaderMap, HeaderValue, Method, header};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use super::answer::Refusal;

/// Whether a text is the token that clients must send.
pub type TokenCheck = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// The rules of one instance.
pub(super) struct Access {
    /// What forms carry.
    form: Secret,
    /// What the cookie of a browser carries that has signed in.
    cookie: Secret,
    /// Cookies do not know ports: instances on one host must not overwrite each other's.
    cookie_name: String,
    token: Option<TokenCheck>,
}

impl Access {
    /// Draws the secrets. `port` is where the page is served.
    ///
    /// # Errors
    ///
    /// The system has no random bytes.
    pub(super) fn new(port: u16, token: Option<TokenCheck>) -> Result<Self, getrandom::Error> {
        let cookie_name = format!("sidegate-{port}");
        Ok(Self { form: Secret::random()?, cookie: Secret::random()?, cookie_name, token })
    }

    /// The secret for the forms of a page.
    pub(super) fn form_secret(&self) -> &str {
        self.form.text.expose_secret()
    }

    /// Whether there is a token to sign in with.
    pub(super) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// Checks where a request comes from, as far as it says so: ours are the page's own, and those that a person typed.
    ///
    /// # Errors
    ///
    /// It comes from another page.
    pub(super) fn check_source(method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let is_read = matches!(*method, Method::GET | Method::HEAD);
        let is_visit =
            || is(headers, "sec-fetch-mode", "navigate") && is(headers, "sec-fetch-dest", "document");
        match headers.get("sec-fetch-site").map(HeaderValue::as_bytes) {
            None | Some(b"same-origin" | b"none") => {}
            // A link on another page may lead here; it has no power, and nobody can look into the window.
            Some(_) if is_read && is_visit() => {}
            Some(_) => return Err(Refusal::Elsewhere),
        }
        let Some(origin) = headers.get(header::ORIGIN).filter(|_| !is_read) else { return Ok(()) };
        // Other ports of loopback are served at `/mcp`; here they are other pages.
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
        match (host, origin) {
            (Some(host), Some((_, origin))) if origin.eq_ignore_ascii_case(host) => Ok(()),
            _ => Err(Refusal::Elsewhere),
        }
    }

    /// Checks that a request may see the page at all.
    ///
    /// # Errors
    ///
    /// The token is needed first.
    pub(super) fn check_token(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Ok(()) };
        let mut cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let signed_in = cookies.any(|cookies| {
            let mut pairs = cookies.split(';').filter_map(|pair| pair.trim().split_once('='));
            pairs.any(|(name, value)| name == self.cookie_name && self.cookie.is(value))
        });
        if signed_in || bearer(headers).is_some_and(token) { Ok(()) } else { Err(Refusal::SignedOut) }
    }

    /// Checks the secret that came with a form.
    ///
    /// # Errors
    ///
    /// It is not the one of this run.
    pub(super) fn check_form(&self, secret: Option<&str>) -> Result<(), Refusal> {
        if secret.is_some_and(|secret| self.form.is(secret)) { Ok(()) } else { Err(Refusal::OldForm) }
    }

    /// The cookie of a browser that has given the token; `None` where it has given another one.
    pub(super) fn sign_in(&self, token: &str) -> Option<HeaderValue> {
        let is_it = self.token.as_ref()?(token.trim());
        is_it.then(|| self.cookie_header(self.cookie.text.expose_secret(), "")).flatten()
    }

    /// The cookie of a browser that signs out.
    pub(super) fn sign_out(&self) -> Option<HeaderValue> {
        self.cookie_header("", "; Max-Age=0")
    }

    /// Not `Secure`: the listener speaks plain HTTP, and browsers would not send it back.
    fn cookie_header(&self, value: &str, end: &str) -> Option<HeaderValue> {
        let cookie = format!("{}={value}; Path=/ui; HttpOnly; SameSite=Strict{end}", self.cookie_name);
        let mut cookie = HeaderValue::try_from(cookie).ok()?;
        cookie.set_sensitive(true);
        Some(cookie)
    }
}

fn is(headers: &HeaderMap, name: &str, value: &str) -> bool {
    headers.get(name).is_some_and(|found| found == value)
}

/// The one bearer token of a request (RFC 6750 section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A random text and its digest. Digests are compared, so the time tells nothing of the text.
struct Secret {
    text: SecretString,
    digest: [u8; 32],
}

impl Secret {
    fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        let text = hex::encode(bytes);
        Ok(Self { digest: Sha256::digest(&text).into(), text: text.into() })
    }

    fn is(&self, text: &str) -> bool {
        <[u8; 32]>::from(Sha256::digest(text)) == self.digest
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)));
        pairs.collect()
    }

    #[rstest]
    #[case("GET", &[], true)]
    #[case("POST", &[], true)]
    #[case("GET", &[("sec-fetch-site", "none")], true)]
    #[case("POST", &[("sec-fetch-site", "same-origin"), ("origin", "http://localhost:1")], true)]
    #[case("POST", &[("sec-fetch-site", "same-site")], false)]
    #[case("POST", &[("sec-fetch-site", "cross-site")], false)]
    #[case("POST", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], false)]
    #[case("GET", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")], true)]
    #[case("GET", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe")], false)]
    #[case("GET", &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], false)]
    #[case("POST", &[("origin", "http://localhost:2")], false)]
    #[case("POST", &[("origin", "http://localhost:1.evil.example")], false)]
    #[case("POST", &[("origin", "null")], false)]
    #[case("POST", &[("origin", "http://LOCALHOST:1")], true)]
    fn only_its_own_requests_count(
        #[case] method: Method,
        #[case] given: &[(&'static str, &'static str)],
        #[case] served: bool,
    ) {
        let mut headers = headers(given);
        headers.insert("host", HeaderValue::from_static("localhost:1"));
        assert_eq!(Access::check_source(&method, &headers).is_ok(), served);
    }

    #[test]
    fn the_token_is_given_once() {
        let access = Access::new(7, Some(Box::new(|token| token == "the-token"))).unwrap();
        assert!(access.check_token(&HeaderMap::new()).is_err());
        assert!(access.check_token(&headers(&[("authorization", "Bearer the-token")])).is_ok());
        assert!(access.check_token(&headers(&[("authorization", "Bearer other")])).is_err());
        assert!(access.sign_in("other").is_none());

        let cookie = access.sign_in(" the-token\n").unwrap();
        let cookie = cookie.to_str().unwrap();
        assert!(cookie.starts_with("sidegate-7=") && !cookie.contains("the-token"));
        assert!(cookie.ends_with("; Path=/ui; HttpOnly; SameSite=Strict"));
        let pair = cookie.split(';').next().unwrap();
        let with = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::try_from(value).unwrap());
            access.check_token(&headers).is_ok()
        };
        assert!(with(format!("a=b; {pair}")));
        assert!(!with(format!("{pair}0")));
        assert!(!with(pair.replace("sidegate-7", "sidegate-8")));
        assert!(!with("sidegate-7=the-token".to_owned()));
        let other = Access::new(7, Some(Box::new(|_| true))).unwrap().sign_in("").unwrap();
        assert!(!with(other.to_str().unwrap().split(';').next().unwrap().to_owned()));
    }

    #[test]
    fn a_form_of_another_run_does_not_count() {
        let (access, other) = (Access::new(7, None).unwrap(), Access::new(7, None).unwrap());
        assert!(access.check_form(Some(access.form_secret())).is_ok());
        for wrong in [None, Some(""), Some(other.form_secret())] {
            assert!(access.check_form(wrong).is_err());
        }
        assert_ne!(access.form_secret(), access.cookie.text.expose_secret());
    }
}
