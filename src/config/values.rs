//! How each type of setting is written in a file and in an environment variable.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Map;
use url::Url;

use crate::mcpserver::ToolPrefix;
use crate::yaml::{Value, shown};

/// A text that is no value of a setting. Says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}; {advice}")]
pub struct InvalidValue {
    pub(super) problem: String,
    pub(super) advice: String,
}

impl InvalidValue {
    pub(super) fn new(problem: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { problem: problem.into(), advice: advice.into() }
    }
}

/// A type of settings.
pub(super) trait Configured: Sized {
    /// From an environment variable.
    fn from_text(text: &str) -> Result<Self, InvalidValue>;

    /// From a file. `None` after noting the mistake.
    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        Self::from_text(value.text()?).map_err(|error| value.wrong(error.problem, error.advice)).ok()
    }

    /// As it would be written in the file; what may be secret is left out.
    fn show(&self) -> String;
}

/// A number of bytes. Written as `512KiB`, `4MiB`, `1GiB`, `4MB` or `4194304`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const BYTE_UNITS: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

impl FromStr for ByteSize {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let size = || {
            let (number, unit) = split_unit(text);
            let (_, factor) = BYTE_UNITS.iter().find(|(name, _)| *name == unit)?;
            number.parse::<u64>().ok()?.checked_mul(*factor)
        };
        size().map(Self).ok_or_else(|| {
            InvalidValue::new(
                format!("{} is no size", shown(text)),
                "write a number and B, KiB, MiB or GiB, such as 4MiB",
            )
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |factor: u64| self.0 != 0 && self.0.is_multiple_of(factor);
        match [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)]
            .into_iter()
            .find(|(_, factor)| whole(*factor))
        {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Configured for ByteSize {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        text.parse()
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        match value.number() {
            Some(_) => value.integer(0..=u64::MAX, " of bytes").map(Self),
            None => {
                Self::from_text(value.text()?).map_err(|error| value.wrong(error.problem, error.advice)).ok()
            }
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

const TIME_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `1h`, `10s`, `500ms`, `1h30m`.
impl Configured for Duration {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        let milliseconds = || {
            let (mut rest, mut sum) = (text, None::<u64>);
            while !rest.is_empty() {
                let (number, after) = split_unit(rest);
                let (unit, after) =
                    after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
                let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
                let part = number.parse::<u64>().ok()?.checked_mul(*factor)?;
                sum = Some(sum.unwrap_or(0).checked_add(part)?);
                rest = after;
            }
            sum
        };
        milliseconds().map(Duration::from_millis).ok_or_else(|| {
            InvalidValue::new(
                format!("{} is no duration", shown(text)),
                "write a number and ms, s, m, h or d, such as 10s",
            )
        })
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        if let Some(number) = value.number() {
            value.wrong(
                "a duration without its unit",
                format!("write ms, s, m, h or d behind it, such as {number}s"),
            );
            return None;
        }
        Self::from_text(value.text()?).map_err(|error| value.wrong(error.problem, error.advice)).ok()
    }

    fn show(&self) -> String {
        let milliseconds = self.as_millis();
        let whole = |factor: u64| milliseconds != 0 && milliseconds.is_multiple_of(u128::from(factor));
        match TIME_UNITS.iter().rev().find(|(_, factor)| whole(*factor)) {
            Some((unit, factor)) => format!("{}{unit}", milliseconds / u128::from(*factor)),
            None => format!("{milliseconds}ms"),
        }
    }
}

/// A release of agentgateway. The default is `1.2.1`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayVersion(String);

impl GatewayVersion {
    /// The version as text, without a `v`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for GatewayVersion {
    fn default() -> Self {
        Self("1.2.1".to_owned())
    }
}

impl FromStr for GatewayVersion {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let plain = text.strip_prefix('v').unwrap_or(text);
        let (core, suffix) = match plain.split_once('-') {
            Some((core, suffix)) => (core, Some(suffix)),
            None => (plain, None),
        };
        let numbers: Vec<_> = core.split('.').collect();
        let right = numbers.len() == 3
            && numbers.iter().all(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
            && suffix.is_none_or(|suffix| {
                !suffix.is_empty()
                    && suffix.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
            });
        if right {
            Ok(Self(plain.to_owned()))
        } else {
            Err(InvalidValue::new(
                format!("{} is no version", shown(text)),
                "write three numbers, such as 1.2.1",
            ))
        }
    }
}

impl fmt::Display for GatewayVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Configured for GatewayVersion {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        text.parse()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The address to listen on, `127.0.0.1:8090`, `[::1]:0` or `localhost:8090`, which is 127.0.0.1.
///
/// # Errors
///
/// When the text is none of these. Other names are not resolved: an address is to mean the same tomorrow.
pub fn listen_address(text: &str) -> Result<SocketAddr, InvalidValue> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse::<u16>().ok());
    local.map(|port| (Ipv4Addr::LOCALHOST, port).into()).ok_or_else(|| {
        InvalidValue::new(
            format!("{} is no address to listen on", shown(text)),
            "write an IP address and a port, such as 127.0.0.1:8090 or [::1]:0",
        )
    })
}

impl Configured for SocketAddr {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        listen_address(text)
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        if let Some(port) = value.number() {
            value.wrong("a port without its address", format!("write 127.0.0.1:{port}"));
            return None;
        }
        listen_address(value.text()?).map_err(|error| value.wrong(error.problem, error.advice)).ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Configured for bool {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| {
            InvalidValue::new(format!("{} is neither true nor false", shown(text)), "write true or false")
        })
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        value.boolean()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Configured for NonZeroUsize {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map_err(|_| {
            InvalidValue::new(
                format!("{} is no number above zero", shown(text)),
                "write a whole number, at least 1",
            )
        })
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        let number = value.integer(1..=u64::MAX, "")?;
        usize::try_from(number).ok().and_then(Self::new)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// A port; 0 is none.
impl Configured for Option<NonZeroU16> {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        text.parse().map(NonZeroU16::new).map_err(|_| {
            InvalidValue::new(
                format!("{} is no port", shown(text)),
                "write a number from 0 to 65535; 0 takes a free one",
            )
        })
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        let port = value.integer(0..=u64::from(u16::MAX), "")?;
        u16::try_from(port).ok().map(NonZeroU16::new)
    }

    fn show(&self) -> String {
        self.map_or(0, NonZeroU16::get).to_string()
    }
}

/// A path; the empty text is none.
impl Configured for Option<PathBuf> {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        if text.contains('\0') {
            return Err(InvalidValue::new("holds a NUL character, which no path does", "remove it"));
        }
        Ok((!text.is_empty()).then(|| PathBuf::from(text)))
    }

    fn show(&self) -> String {
        self.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
    }
}

/// An `http` or `https` URL; the empty text is none.
impl Configured for Option<Url> {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() {
            return Ok(None);
        }
        // The text may hold a password, so it is not repeated.
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(Some(url)),
            Ok(_) => Err(InvalidValue::new(
                "neither http nor https",
                "write a whole URL, such as https://host/path",
            )),
            Err(error) => Err(InvalidValue::new(
                format!("not a URL: {error}"),
                "write a whole URL, such as https://host/path",
            )),
        }
    }

    fn show(&self) -> String {
        let Some(mut url) = self.clone() else { return String::new() };
        // An http URL has a host, so it can have user info and setting it does not fail.
        let hidden = (!url.username().is_empty() || url.password().is_some())
            && (url.set_password(None).is_err() || url.set_username("***").is_err());
        if hidden {
            return "***".to_owned();
        }
        if url.query().is_some() {
            url.set_query(Some("***"));
        }
        url.to_string()
    }
}

/// A list of texts; in a variable separated by commas.
impl Configured for Vec<String> {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        Some(value.texts()?.into_iter().map(str::to_owned).collect())
    }

    fn show(&self) -> String {
        format!("[{}]", self.join(", "))
    }
}

/// A mapping that is passed through; in a variable as JSON.
impl Configured for Map<String, serde_json::Value> {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        serde_json::from_str(text).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            InvalidValue::new(format!("not a JSON object ({place})"), "write {\"key\": value}")
        })
    }

    fn from_yaml(value: &Value<'_>) -> Option<Self> {
        value.json_map()
    }

    fn show(&self) -> String {
        serde_json::Value::Object(self.clone()).to_string()
    }
}

/// The name of a host, or its address, without port; an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl FromStr for HostName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match url::Host::parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(InvalidValue::new(
                format!("{} is no host", shown(text)),
                "write a name or an address without port",
            )),
        }
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What every exposed name begins with; the same rule as for [`ToolPrefix`]. The default is `x`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NamePrefix(String);

impl NamePrefix {
    /// The prefix as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for NamePrefix {
    fn default() -> Self {
        Self("x".to_owned())
    }
}

impl FromStr for NamePrefix {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        match text.parse::<ToolPrefix>() {
            Ok(_) if text == "core" => Err(InvalidValue::new(
                "core is what the names of our own tools begin with".to_owned(),
                "use another word",
            )),
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(InvalidValue::new(
                format!("{} is not usable in tool names", shown(text)),
                "use a letter, then letters, digits, '_' and '-'",
            )),
        }
    }
}

impl fmt::Display for NamePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Configured for NamePrefix {
    fn from_text(text: &str) -> Result<Self, InvalidValue> {
        text.parse()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("127.0.0.1:8090", Some("127.0.0.1:8090"))]
    #[case("0.0.0.0:0", Some("0.0.0.0:0"))]
    #[case("[::1]:0", Some("[::1]:0"))]
    #[case("[::]:8090", Some("[::]:8090"))]
    #[case("localhost:8090", Some("127.0.0.1:8090"))]
    #[case("localhost:99999", None)]
    #[case("localhost", None)]
    #[case("::1:8090:x", None)]
    #[case(":8090", None)]
    #[case("8090", None)]
    #[case("example.com:80", None)]
    #[case("", None)]
    fn listen_addresses(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(listen_address(text).ok().map(|address| address.to_string()).as_deref(), expected);
    }

    #[rstest]
    #[case("500ms", Some(500))]
    #[case("10s", Some(10_000))]
    #[case("0s", Some(0))]
    #[case("1h30m", Some(5_400_000))]
    #[case("2d", Some(172_800_000))]
    #[case("", None)]
    #[case("10", None)]
    #[case("s", None)]
    #[case("1.5h", None)]
    #[case("-1s", None)]
    #[case("10 s", None)]
    #[case("1h30", None)]
    #[case("99999999999999999999s", None)]
    #[case("18446744073709551615d", None)]
    fn durations(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(Duration::from_text(text).ok(), expected.map(Duration::from_millis));
    }

    #[rstest]
    #[case("4MiB", Some(4 << 20))]
    #[case("512KiB", Some(512 << 10))]
    #[case("1GB", Some(1_000_000_000))]
    #[case("10", Some(10))]
    #[case("10B", Some(10))]
    #[case("", None)]
    #[case("MiB", None)]
    #[case("4mib", None)]
    #[case("4 MiB", None)]
    #[case("99999999999GiB", None)]
    fn sizes(#[case] text: &str, #[case] expected: Option<u64>) {
        assert_eq!(text.parse().ok(), expected.map(ByteSize));
    }

    #[rstest]
    #[case("1.2.1", Some("1.2.1"))]
    #[case("v1.3.1", Some("1.3.1"))]
    #[case("1.4.0-alpha.1", Some("1.4.0-alpha.1"))]
    #[case("1.2", None)]
    #[case("1.2.x", None)]
    #[case("1.2.1-", None)]
    #[case("../1.2.1", None)]
    #[case("1.2.1-../..", None)]
    #[case("latest", None)]
    fn versions(#[case] text: &str, #[case] expected: Option<&str>) {
        let version = text.parse::<GatewayVersion>().ok();
        assert_eq!(version.as_ref().map(GatewayVersion::as_str), expected);
    }

    #[rstest]
    #[case("https://h/p", "https://h/p")]
    #[case("https://user:hunter22@h/p", "https://***@h/p")]
    #[case("https://h/p?token=hunter22", "https://h/p?***")]
    #[case("", "")]
    fn urls_are_shown_without_secrets(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(Option::<Url>::from_text(text).unwrap().show(), expected);
    }

    proptest! {
        #[test]
        fn durations_are_shown_as_they_are_read(milliseconds in 0u64..1 << 40) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(Duration::from_text(&duration.show()), Ok(duration));
        }

        #[test]
        fn sizes_are_shown_as_they_are_read(size in any::<u64>()) {
            prop_assert_eq!(ByteSize(size).show().parse(), Ok(ByteSize(size)));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,20}") {
            let _ = (Duration::from_text(&text), ByteSize::from_text(&text), GatewayVersion::from_text(&text));
            let _ = (listen_address(&text), Option::<Url>::from_text(&text), Vec::<String>::from_text(&text));
        }
    }
}
