//! Which releases there are, and where.

use url::Url;

use super::error::ResolveError;
use super::pins::{PINS, Pin};
use super::transport::check_url;
use super::{Digest, Platform, Version};

/// Where the project publishes its releases.
const OFFICIAL: &str = "https://github.com/agentgateway/agentgateway/releases/download";

/// A table of pins, and a place that serves the assets as `<base>/v<version>/<asset>`.
#[derive(Clone, Debug)]
pub struct Releases {
    base: Url,
    pins: Vec<Pin>,
}

impl Releases {
    /// The pins of this program, served by the project itself.
    ///
    /// # Errors
    ///
    /// Never in practice: the address is a constant.
    pub fn official() -> Result<Self, ResolveError> {
        Self::from_mirror(OFFICIAL)
    }

    /// The pins of this program, served by `mirror`, which has the directory layout of the official place. The digests make
    /// it irrelevant who runs it.
    ///
    /// # Errors
    ///
    /// Refuses what is no URL, and plain http to anything but a loopback address.
    pub fn from_mirror(mirror: &str) -> Result<Self, ResolveError> {
        Self::new(mirror, PINS.to_vec())
    }

    /// Other pins: for tests, and for builds of one's own.
    ///
    /// # Errors
    ///
    /// As [`Releases::from_mirror`].
    pub fn new(base: &str, pins: Vec<Pin>) -> Result<Self, ResolveError> {
        let base = Url::parse(base)
            .map_err(|source| ResolveError::InvalidMirror { text: base.to_owned(), source })?;
        check_url(&base, true)?;
        Ok(Self { base, pins })
    }

    /// Every pin, by version and platform.
    pub fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// The digest of a release's asset.
    ///
    /// # Errors
    ///
    /// Lists what is pinned when this is not.
    pub fn digest(&self, version: Version, platform: Platform) -> Result<Digest, ResolveError> {
        let pin = self.pins.iter().find(|pin| (pin.version, pin.platform) == (version, platform));
        pin.map(|pin| pin.digest).ok_or_else(|| ResolveError::NotPinned {
            version,
            platform,
            pinned: self.listing(),
        })
    }

    /// Where the asset is downloaded from.
    pub fn url(&self, version: Version, platform: Platform) -> Url {
        let mut url = self.base.clone();
        // `check_url` admitted only schemes whose URLs have path segments.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&format!("v{version}")).push(platform.asset());
        }
        url
    }

    /// `1.2.1 (linux-amd64, linux-arm64), 1.4.1 (linux-amd64)`.
    fn listing(&self) -> String {
        let mut versions: Vec<Version> = self.pins.iter().map(|pin| pin.version).collect();
        versions.sort_unstable();
        versions.dedup();
        let platforms = |version| {
            let pins = self.pins.iter().filter(|pin| pin.version == version);
            pins.map(|pin| pin.platform.to_string()).collect::<Vec<_>>().join(", ")
        };
        let lines = versions.into_iter().map(|version| format!("{version} ({})", platforms(version)));
        lines.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::binary_resolver::DEFAULT_VERSION;

    #[test]
    fn assets_stand_below_the_base() {
        let expected =
            "https://github.com/agentgateway/agentgateway/releases/download/v1.2.1/agentgateway-linux-amd64";
        let official = Releases::official().unwrap();
        assert_eq!(official.url(DEFAULT_VERSION, Platform::LinuxAmd64).as_str(), expected);
        for base in ["https://mirror.example/gateways", "https://mirror.example/gateways/"] {
            let mirror = Releases::from_mirror(base).unwrap();
            let expected = "https://mirror.example/gateways/v1.2.1/agentgateway-windows-amd64.exe";
            assert_eq!(mirror.url(DEFAULT_VERSION, Platform::WindowsAmd64).as_str(), expected);
        }
    }

    #[test]
    fn mirrors_are_https_or_loopback() {
        for good in ["https://m.example", "http://127.0.0.1:8000/x", "http://[::1]:1", "http://localhost/x"] {
            assert!(Releases::from_mirror(good).is_ok(), "{good}");
        }
        for bad in [
            "http://m.example",
            "http://10.0.0.1",
            "ftp://127.0.0.1",
            "file:///tmp",
            "m.example",
            "",
            "http://localhost.evil.example",
        ] {
            assert!(Releases::from_mirror(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_pinned_is_answered_with_what_is() {
        let error =
            Releases::official().unwrap().digest(Version::new(1, 5, 0), Platform::DarwinArm64).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no digest of agentgateway 1.5.0 for darwin-arm64 is pinned; pinned are 1.2.1 (linux-amd64, linux-arm64, \
             darwin-arm64, windows-amd64), 1.4.1 (linux-amd64, linux-arm64), 1.5.0 (linux-amd64)"
        );
    }
}
