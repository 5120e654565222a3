//! Versions of agentgateway.

use std::fmt;
use std::str::FromStr;

/// A release: three numbers, written `1.2.1` and read with or without a leading `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// The version `major.minor.patch`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl FromStr for Version {
    type Err = InvalidVersion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `u32::from_str` also reads "+1".
        let number =
            |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.').map(number);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Self::new(major, minor, patch))
            }
            _ => Err(InvalidVersion(text.to_owned())),
        }
    }
}

/// A text that is no version of a release.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a version: write three numbers like 1.2.1")]
pub struct InvalidVersion(String);

/// What a binary says its version is. Builds between releases add text to the three numbers (`1.2.1-4-g0a1b2c3`), so this
/// is more than a [`Version`]; the leading `v` is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportedVersion(String);

impl ReportedVersion {
    /// Reads the output of `--version`: a JSON object with a `version`, or the bare version. `None` for anything else.
    pub(super) fn from_output(output: &str) -> Option<Self> {
        #[derive(serde::Deserialize)]
        struct Report {
            version: String,
        }
        let text = output.trim();
        let text = match serde_json::from_str::<Report>(text) {
            Ok(report) => report.version,
            Err(_) => text.to_owned(),
        };
        let version = text.strip_prefix('v').unwrap_or(&text);
        let numbers = version.split(['-', '+']).next()?;
        let rest_is_plain = version.bytes().all(|b| b.is_ascii_alphanumeric() || b".-+_".contains(&b));
        (rest_is_plain && numbers.parse::<Version>().is_ok()).then(|| Self(version.to_owned()))
    }

    /// Whether this is exactly that release.
    pub fn is(&self, version: Version) -> bool {
        self.0.parse() == Ok(version)
    }
}

impl From<Version> for ReportedVersion {
    fn from(version: Version) -> Self {
        Self(version.to_string())
    }
}

impl fmt::Display for ReportedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_numbers_are_a_version() {
        assert_eq!("1.2.1".parse(), Ok(Version::new(1, 2, 1)));
        assert_eq!("v10.0.3".parse::<Version>().unwrap().to_string(), "10.0.3");
        for text in ["", "1.2", "1.2.1.0", "1.2.x", "1.2.+1", "1..1", "vv1.2.1", "1.2.1-rc1", " 1.2.1"] {
            assert!(text.parse::<Version>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn versions_are_ordered_as_numbers() {
        assert!(Version::new(1, 10, 0) > Version::new(1, 9, 9));
    }

    #[test]
    fn what_a_binary_answers_is_read_in_every_known_form() {
        for output in [
            "{\"version\":\"1.2.1\",\"git_revision\":\"abc\"}\n",
            "1.2.1",
            "v1.2.1\n",
            "{\"version\": \"v1.2.1\"}",
        ] {
            let version = ReportedVersion::from_output(output).unwrap();
            assert!(version.is(Version::new(1, 2, 1)), "{output:?}");
            assert_eq!(version.to_string(), "1.2.1");
        }
        let between = ReportedVersion::from_output("{\"version\":\"v1.2.1-4-g0a1b2c3\"}").unwrap();
        assert!(!between.is(Version::new(1, 2, 1)));
        assert_eq!(between.to_string(), "1.2.1-4-g0a1b2c3");
        for output in
            ["", "{}", "{\"version\":3}", "sleep (GNU coreutils) 9.1", "usage: thing", "1.2.1 or so"]
        {
            assert_eq!(ReportedVersion::from_output(output), None, "{output:?}");
        }
    }
}
