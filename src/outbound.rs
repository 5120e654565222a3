//! Which proxy stands on the way to a remote server: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY.
//!
//! The rules are curl's (its manual, "Environment"), with ports and `*.` in NO_PROXY as Go has them; lower case goes
//! first. A server on this machine's loopback is never behind a proxy, which would look for it on its own.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU16;

use url::{Host, Url};

use crate::environment::Environment;

/// A proxy that is spoken to over plain HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Its host, an IPv6 address in brackets.
    pub host: String,
    /// Its port.
    pub port: NonZeroU16,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// A proxy that is asked for and cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {why}; write http://host:port, or name the server in NO_PROXY")]
pub struct UnusableProxy {
    variable: &'static str,
    /// Does not repeat the value, which may hold a password.
    why: String,
}

/// The proxies of an environment.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    http: Option<Variable>,
    https: Option<Variable>,
    exceptions: Vec<Exception>,
}

/// A variable that names a proxy.
#[derive(Clone)]
struct Variable {
    name: &'static str,
    /// May hold a password. `None`: not UTF-8.
    value: Option<String>,
}

impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl Proxies {
    /// The proxies that `environment` names.
    pub fn of(environment: &Environment) -> Self {
        let first = |names: [&'static str; 4]| {
            let mut set = names.into_iter().filter_map(|name| Some((name, environment.get_os(name)?)));
            let (name, value) = set.find(|(_, value)| !value.is_empty())?;
            Some(Variable { name, value: value.to_str().map(str::to_owned) })
        };
        let no_proxy = ["no_proxy", "NO_PROXY"].into_iter().find_map(|name| environment.get_os(name));
        let no_proxy = no_proxy.map(|value| value.to_string_lossy().into_owned()).unwrap_or_default();
        let entries = no_proxy.split(|c: char| c == ',' || c.is_whitespace());
        Self {
            http: first(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]),
            https: first(["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]),
            exceptions: entries.filter_map(Exception::parse).collect(),
        }
    }

    /// The proxy on the way to `url`.
    ///
    /// # Errors
    ///
    /// The one that is asked for is of a kind that nobody here can speak to.
    pub fn on_the_way_to(&self, url: &Url) -> Result<Option<Proxy>, UnusableProxy> {
        let variable = if url.scheme() == "https" { &self.https } else { &self.http };
        let (Some(variable), Some(host)) = (variable, url.host()) else { return Ok(None) };
        let port = url.port_or_known_default();
        if is_loopback(&host) || self.exceptions.iter().any(|exception| exception.covers(&host, port)) {
            return Ok(None);
        }
        variable.proxy().map(Some)
    }
}

impl Variable {
    fn proxy(&self) -> Result<Proxy, UnusableProxy> {
        let wrong = |why: &str| UnusableProxy { variable: self.name, why: why.to_owned() };
        let value = self.value.as_deref().ok_or_else(|| wrong("is not UTF-8"))?;
        let whole = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
        let url = Url::parse(&whole).map_err(|error| wrong(&format!("is no URL: {error}")))?;
        if url.scheme() != "http" {
            let why = format!("names a proxy that is spoken to by {}, which is not supported", url.scheme());
            return Err(wrong(&why));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("names a proxy that wants credentials, which no gateway can send"));
        }
        let port = url.port_or_known_default().and_then(NonZeroU16::new);
        let port = port.ok_or_else(|| wrong("names a proxy without a port"))?;
        Ok(Proxy { host: url.host_str().unwrap_or_default().to_owned(), port })
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
}

/// One entry of NO_PROXY.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Exception {
    hosts: Hosts,
    /// Only this port.
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// The name and all below it, in lower case.
    Domain(String),
    /// Addresses that begin with these bits.
    Network {
        address: IpAddr,
        bits: u8,
    },
}

impl Exception {
    fn parse(entry: &str) -> Option<Self> {
        if entry == "*" {
            return Some(Self { hosts: Hosts::All, port: None });
        }
        if let Some(hosts) = network(entry) {
            return Some(Self { hosts, port: None });
        }
        let (host, port) = match entry.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (entry, None),
        };
        let name = host.strip_prefix('*').unwrap_or(host).trim_matches('.');
        let hosts = match network(host) {
            Some(hosts) => hosts,
            None if name.is_empty() => return None,
            None => Hosts::Domain(name.to_ascii_lowercase()),
        };
        Some(Self { hosts, port })
    }

    fn covers(&self, host: &Host<&str>, port: Option<u16>) -> bool {
        let covered = match (&self.hosts, host) {
            (Hosts::All, _) => true,
            (Hosts::Domain(domain), Host::Domain(name)) => {
                let rest = name.trim_end_matches('.').strip_suffix(domain.as_str());
                rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            (Hosts::Network { address, bits }, Host::Ipv4(ip)) => same_bits(*address, (*ip).into(), *bits),
            (Hosts::Network { address, bits }, Host::Ipv6(ip)) => same_bits(*address, (*ip).into(), *bits),
            _ => false,
        };
        covered && (self.port.is_none() || self.port == port)
    }
}

/// An address, in brackets or not, or a block of them: `10.0.0.0/8`.
fn network(text: &str) -> Option<Hosts> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = address.parse().ok()?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some(Hosts::Network { address, bits })
}

fn same_bits(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let differ = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn proxy(variables: &[(&str, &str)], url: &str) -> Result<Option<String>, String> {
        let proxies = Proxies::of(&variables.iter().copied().collect());
        let proxy = proxies.on_the_way_to(&url.parse().unwrap()).map_err(|error| error.to_string())?;
        Ok(proxy.map(|proxy| proxy.to_string()))
    }

    #[rstest]
    #[case(&[("HTTPS_PROXY", "http://p.test:3128")], "https://h.test", Some("p.test:3128"))]
    #[case(&[("https_proxy", "p.test:3128")], "https://h.test", Some("p.test:3128"))]
    #[case(&[("HTTPS_PROXY", "http://upper.test/"), ("https_proxy", "http://lower.test")], "https://h.test", Some("lower.test:80"))]
    #[case(&[("HTTPS_PROXY", "http://p.test"), ("https_proxy", "")], "https://h.test", Some("p.test:80"))]
    #[case(&[("HTTPS_PROXY", "http://p.test")], "http://h.test", None)]
    #[case(&[("HTTP_PROXY", "http://p.test")], "http://h.test", Some("p.test:80"))]
    #[case(&[("HTTP_PROXY", "http://p.test")], "https://h.test", None)]
    #[case(&[("ALL_PROXY", "http://all.test"), ("http_proxy", "http://p.test")], "http://h.test", Some("p.test:80"))]
    #[case(&[("ALL_PROXY", "http://all.test"), ("http_proxy", "http://p.test")], "https://h.test", Some("all.test:80"))]
    #[case(&[("ALL_PROXY", "http://all.test")], "http://localhost:9000", None)]
    #[case(&[("ALL_PROXY", "http://all.test")], "http://a.localhost:9000", None)]
    #[case(&[("ALL_PROXY", "http://all.test")], "http://127.8.8.8:9000", None)]
    #[case(&[("ALL_PROXY", "http://all.test")], "http://[::1]:9000", None)]
    #[case(&[("ALL_PROXY", "http://127.0.0.1:3128")], "http://10.0.0.1", Some("127.0.0.1:3128"))]
    #[case(&[], "https://h.test", None)]
    fn variables_name_a_proxy(
        #[case] variables: &[(&str, &str)],
        #[case] url: &str,
        #[case] expected: Option<&str>,
    ) {
        assert_eq!(proxy(variables, url).unwrap().as_deref(), expected);
    }

    #[rstest]
    #[case("h.test", "http://h.test", true)]
    #[case("h.test", "http://a.b.h.test:9000", true)]
    #[case("h.test", "http://notH.test", false)]
    #[case("H.Test", "http://h.test.", true)]
    #[case(".h.test", "http://h.test", true)]
    #[case(".h.test", "http://a.h.test", true)]
    #[case("*.h.test", "http://a.h.test", true)]
    #[case("h.test:9000", "http://h.test:9000", true)]
    #[case("h.test:9000", "http://h.test", false)]
    #[case("h.test:80", "http://h.test", true)]
    #[case("a.test, h.test", "http://h.test", true)]
    #[case("a.test h.test", "http://h.test", true)]
    #[case("*", "http://h.test", true)]
    #[case("*", "http://10.1.2.3", true)]
    #[case("10.0.0.0/8", "http://10.1.2.3", true)]
    #[case("10.0.0.0/8", "http://11.1.2.3", false)]
    #[case("0.0.0.0/0", "http://11.1.2.3", true)]
    #[case("10.0.0.0/33", "http://10.0.0.0", false)]
    #[case("10.1.2.3", "http://10.1.2.3:9000", true)]
    #[case("10.1.2.3:80", "http://10.1.2.3:9000", false)]
    #[case("10.1.2.3", "http://10.1.2.30", false)]
    #[case("fd00::/8", "http://[fd12::1]", true)]
    #[case("[fd12::1]", "http://[fd12::1]", true)]
    #[case("fd12::1", "http://[fd12::2]", false)]
    #[case("test", "http://10.1.2.3", false)]
    #[case(",. ,h.test:x", "http://h.test", false)]
    #[case("", "http://h.test", false)]
    fn exceptions(#[case] no_proxy: &str, #[case] url: &str, #[case] direct: bool) {
        for name in ["no_proxy", "NO_PROXY"] {
            let found = proxy(&[("http_proxy", "http://p.test"), (name, no_proxy)], url).unwrap();
            assert_eq!(found.is_none(), direct, "{name}={no_proxy} {url}");
        }
    }

    #[rstest]
    #[case("socks5://u:hunter22@p.test", "HTTP_PROXY names a proxy that is spoken to by socks5, which")]
    #[case("https://p.test", "HTTP_PROXY names a proxy that is spoken to by https, which")]
    #[case("http://u:hunter22@p.test", "HTTP_PROXY names a proxy that wants credentials")]
    #[case("http://", "HTTP_PROXY is no URL: ")]
    fn a_proxy_that_cannot_be_used_is_said(#[case] value: &str, #[case] why: &str) {
        let error = proxy(&[("HTTP_PROXY", value)], "http://h.test").unwrap_err();
        assert!(error.starts_with(why), "{error}");
        assert!(!error.contains("hunter22"), "{error}");
        // Who does not need it is not hindered by it.
        assert_eq!(proxy(&[("HTTP_PROXY", value)], "https://h.test"), Ok(None));
        assert_eq!(proxy(&[("HTTP_PROXY", value), ("NO_PROXY", "h.test")], "http://h.test"), Ok(None));
    }
}
