//! How a user is authenticated with a remote server.

use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use super::context::Context;
use crate::yaml::Value;

pub(super) const KEYS: &[&str] =
    &["type", "forwardToken", "requiredAudiences", "tokenExchange", "authorizationServer"];
pub(super) const TOKEN_EXCHANGE_KEYS: &[&str] =
    &["enabled", "tokenEndpoint", "expectedIssuer", "connectorId", "scopes", "clientCredentialsFile"];
pub(super) const AUTHORIZATION_SERVER_KEYS: &[&str] = &["issuer", "scopes"];

/// The `auth` block of a definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Auth {
    /// Who asks for a token.
    pub kind: AuthKind,
    /// The caller's own token is sent on to the server.
    pub forward_token: bool,
    /// Audiences the caller's token must have to be sent on.
    pub required_audiences: Vec<String>,
    /// The caller's token is exchanged for one of the server (RFC 8693); `None` when absent or not enabled.
    pub token_exchange: Option<TokenExchange>,
    /// The authorization server, where the server does not name its own (RFC 9728).
    pub authorization_server: Option<AuthorizationServer>,
}

/// Whether a server is behind OAuth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthKind {
    /// It asks for nothing, or for what `headers` hold.
    #[default]
    None,
    /// MCP authorization.
    OAuth,
}

/// An enabled token exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenExchange {
    /// `https`, or `http` to this machine.
    pub token_endpoint: Url,
    /// The issuer the new token must have.
    pub expected_issuer: Option<String>,
    /// The identity provider's connector that trusts the caller's token.
    pub connector_id: Option<String>,
    /// Scopes asked for.
    pub scopes: Vec<String>,
    /// A file with the client's credentials; absolute.
    pub client_credentials_file: Option<PathBuf>,
}

/// An authorization server named by the definition.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuthorizationServer {
    /// Its issuer.
    pub issuer: Issuer,
    /// Scopes asked for.
    pub scopes: Vec<String>,
}

/// An issuer identifier (RFC 8414 section 2): an https URL without query, fragment and trailing slash.
///
/// Kept as written, because issuers are compared as strings (RFC 8414 section 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer(String);

impl Issuer {
    /// The issuer as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Issuer {
    type Err = InvalidIssuer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url = Url::parse(text).map_err(|_| InvalidIssuer)?;
        let valid = url.scheme() == "https"
            && url.username().is_empty()
            && url.password().is_none()
            && url.query().is_none()
            && url.fragment().is_none()
            && !text.ends_with('/');
        if valid { Ok(Self(text.to_owned())) } else { Err(InvalidIssuer) }
    }
}

/// A text that is no issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an issuer; write an https URL without user info, query, fragment and trailing slash")]
pub struct InvalidIssuer;

/// Reads the `auth` block. `None` after mistakes.
pub(super) fn read(value: &Value<'_>, context: &Context<'_>) -> Option<Auth> {
    let fields = value.fields(KEYS)?;
    let mut auth = Auth::default();
    let kinds = [("none", AuthKind::None), ("oauth", AuthKind::OAuth)];
    let kind = fields.get("type").map_or(Some(AuthKind::None), |value| value.one_of(&kinds));
    auth.kind = kind.unwrap_or_default();
    if let Some(value) = fields.get("forwardToken") {
        auth.forward_token = value.boolean().unwrap_or_default();
    }
    if let Some(value) = fields.get("requiredAudiences") {
        auth.required_audiences = value.texts().unwrap_or_default().into_iter().map(str::to_owned).collect();
    }
    if let Some(value) = fields.get("tokenExchange") {
        auth.token_exchange = token_exchange(value, context);
    }
    if let Some(value) = fields.get("authorizationServer") {
        auth.authorization_server = authorization_server(value);
        if auth.authorization_server.is_some() {
            if kind == Some(AuthKind::None) {
                value.misplaced("needs \"type: oauth\"", "set auth.type to oauth".to_owned());
            }
            if auth.forward_token {
                value.misplaced("excludes forwardToken", "keep one of them".to_owned());
            }
            if auth.token_exchange.is_some() {
                value.misplaced("excludes an enabled tokenExchange", "keep one of them".to_owned());
            }
        }
    }
    Some(auth)
}

fn token_exchange(value: &Value<'_>, context: &Context<'_>) -> Option<TokenExchange> {
    let fields = value.fields(TOKEN_EXCHANGE_KEYS)?;
    // All of it is read before `enabled` decides, so that a block that is switched off is checked as well.
    let text = |key| fields.get(key).and_then(Value::text).filter(|text| !text.is_empty());
    let expected_issuer = text("expectedIssuer").map(str::to_owned);
    let connector_id = text("connectorId").map(str::to_owned);
    let scopes = words(text("scopes"));
    let client_credentials_file = text("clientCredentialsFile").map(|file| context.absolute(file));
    let endpoint = fields.get("tokenEndpoint").zip(text("tokenEndpoint"));
    let token_endpoint = endpoint.and_then(|(value, text)| token_endpoint(value, text));
    let enabled = fields.get("enabled").is_some_and(|value| value.boolean() == Some(true));
    if !enabled {
        return None;
    }
    if endpoint.is_none() && fields.get("tokenEndpoint").is_none_or(|value| value.text() == Some("")) {
        fields.wrong("enabled without a tokenEndpoint", "add tokenEndpoint: https://…".to_owned());
    }
    Some(TokenExchange {
        token_endpoint: token_endpoint?,
        expected_issuer,
        connector_id,
        scopes,
        client_credentials_file,
    })
}

fn token_endpoint(value: &Value<'_>, text: &str) -> Option<Url> {
    let local = |url: &Url| match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let url = Url::parse(text).ok().filter(|url| match url.scheme() {
        "https" => true,
        "http" => local(url),
        _ => false,
    });
    if url.is_none() {
        value.wrong("not an https URL", "write the whole URL, https://…".to_owned());
    }
    url
}

fn authorization_server(value: &Value<'_>) -> Option<AuthorizationServer> {
    let fields = value.fields(AUTHORIZATION_SERVER_KEYS)?;
    let text = |key| fields.get(key).and_then(Value::text).filter(|text| !text.is_empty());
    let scopes = words(text("scopes"));
    match (text("issuer"), fields.get("issuer")) {
        (Some(_), Some(issuer)) => Some(AuthorizationServer { issuer: issuer.parsed()?, scopes }),
        (None, _) if !scopes.is_empty() => {
            fields.wrong("scopes without an issuer", "add issuer: https://…".to_owned());
            None
        }
        _ => None,
    }
}

/// Scopes are separated by spaces (RFC 6749 section 3.3).
fn words(text: Option<&str>) -> Vec<String> {
    text.unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::mcpserver::tests::{definition, mistakes};

    fn auth(block: &str) -> String {
        format!("type: streamable-http, url: http://h/mcp, auth: {{{block}}}")
    }

    #[rstest]
    #[case("https://issuer.example", true)]
    #[case("https://issuer.example/realms/a", true)]
    #[case("https://issuer.example/", false)]
    #[case("http://issuer.example", false)]
    #[case("https://issuer.example?a", false)]
    #[case("https://issuer.example#a", false)]
    #[case("https://user@issuer.example", false)]
    #[case("issuer.example", false)]
    fn issuers(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(text.parse::<Issuer>().is_ok(), valid);
    }

    #[test]
    fn empty_values_are_absent() {
        let all_empty = "type: none, forwardToken: false, requiredAudiences: [], tokenExchange: {enabled: false, \
            tokenEndpoint: '', expectedIssuer: '', connectorId: '', scopes: '', clientCredentialsFile: ''}, \
            authorizationServer: {issuer: '', scopes: ''}";
        assert_eq!(definition(&auth(all_empty)).auth, Auth::default());
    }

    #[test]
    fn everything_is_read() {
        let auth = definition(&auth(
            "type: oauth, requiredAudiences: [a, b], tokenExchange: {enabled: true, tokenEndpoint: 'https://t/x', \
             expectedIssuer: 'https://i/', connectorId: c, scopes: 'openid  mail', clientCredentialsFile: s/c.json}",
        ))
        .auth;
        assert_eq!(auth.kind, AuthKind::OAuth);
        assert_eq!(auth.required_audiences, ["a", "b"]);
        let exchange = auth.token_exchange.unwrap();
        assert_eq!(exchange.scopes, ["openid", "mail"]);
        assert_eq!(exchange.client_credentials_file.unwrap(), PathBuf::from("/etc/sidegate/s/c.json"));
    }

    #[test]
    fn mistakes_of_auth() {
        let report: String = [
            "type: basic",
            "forwardToken: yes, requiredAudiences: [5], tokenExchange: x",
            "requiredAudiences: a",
            "authorizationServer: {issuer: 'https://i'}",
            "type: oauth, forwardToken: true, authorizationServer: {issuer: 'https://i'}",
            "type: oauth, tokenExchange: {enabled: true, tokenEndpoint: 'https://t'}, authorizationServer: {issuer: 'https://i'}",
            "type: oauth, authorizationServer: {issuer: 'https://i/'}",
            "type: oauth, authorizationServer: {scopes: 'a b'}",
            "type: oauth, tokenExchange: {enabled: true}",
            "type: oauth, tokenExchange: {enabled: true, tokenEndpoint: 'http://elsewhere/t'}",
            "type: oauth, tokenExchange: {tokenEndpoint: 5, dexTokenEndpoint: x}",
        ]
        .iter()
        .map(|block| format!("{block}\n{}\n", mistakes(&auth(block))))
        .collect();
        insta::assert_snapshot!(report);
    }

    #[test]
    fn a_token_endpoint_on_this_machine_may_be_http() {
        for host in ["127.0.0.1:80", "[::1]", "localhost"] {
            let block = format!("tokenExchange: {{enabled: true, tokenEndpoint: 'http://{host}/t'}}");
            assert!(definition(&auth(&block)).auth.token_exchange.is_some());
        }
    }
}
