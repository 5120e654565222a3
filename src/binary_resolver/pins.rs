//! The digests of the agentgateway releases that may be run.
//!
//! A download is taken for a release when its digest is here, and for no other reason: the host it came from does not
//! matter. `scripts/refresh-pins` rewrites the table from the `.sha256` files published beside the assets, and
//! `scripts/verify-pins` downloads the assets and compares; both read the lines of the table as text, so keep one pin a line.
//!
//! On the evidence for each version:
//!
//! - 1.2.1: two independent public code bases state the same four digests.
//! - 1.4.1 and 1.5.0: one public code base each.
//!
//! None of these digests was recomputed from a download yet: run `scripts/verify-pins` where there is a network.

use super::{Digest, Platform, Version};

/// A digest that is known for one asset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The release.
    pub version: Version,
    /// The platform.
    pub platform: Platform,
    /// The digest of the platform's asset.
    pub digest: Digest,
}

/// The release that is used when none is chosen.
pub const DEFAULT_VERSION: Version = Version::new(1, 2, 1);

/// Every pin, by version and platform.
#[rustfmt::skip]
pub(super) const PINS: &[Pin] = &[
    pin((1, 2, 1), Platform::LinuxAmd64, "90f549c7f6ce93d65b6a6708c9aafac8f935e3045d3d035766f713bc850c3c3a"),
    pin((1, 2, 1), Platform::LinuxArm64, "bbdf5ac36d531df6e1f3b54b8b6232e240883392e369f405ee5cca951d8c1a82"),
    pin((1, 2, 1), Platform::DarwinArm64, "e785ea8bd84be92f48eb0865643bb803e00f78b76244cf411a09e37fe179605f"),
    pin((1, 2, 1), Platform::WindowsAmd64, "6e517cf2f19c0fa7557a97cb26530f6ffc9e258a23b2105c9c3138c23ef2702f"),
    pin((1, 4, 1), Platform::LinuxAmd64, "20f7b298e0c36eef33e7d612b0d0b91d87d43124f59b01f6e9b730477f66d982"),
    pin((1, 4, 1), Platform::LinuxArm64, "983a0919e30d287ec34ba51a69aa678fb81c5b893a59ae267b29d9fd30365d0e"),
    pin((1, 5, 0), Platform::LinuxAmd64, "daca5cda76e8c5ab0c1a75912fecf2d6365095403f810db72029c49d14a37e7b"),
];

const fn pin((major, minor, patch): (u32, u32, u32), platform: Platform, digest: &str) -> Pin {
    Pin { version: Version::new(major, minor, patch), platform, digest: digest_from_hex(digest) }
}

/// Runs when the table is compiled: a bad digest is a compile error.
const fn digest_from_hex(text: &str) -> Digest {
    let text = text.as_bytes();
    assert!(text.len() == 64, "a digest has 64 hexadecimal digits");
    let mut bytes = [0; 32];
    let mut index = 0;
    while index < bytes.len() {
        bytes[index] = nibble(text[2 * index]) << 4 | nibble(text[2 * index + 1]);
        index += 1;
    }
    Digest::new(bytes)
}

const fn nibble(digit: u8) -> u8 {
    assert!(digit.is_ascii_digit() || (digit >= b'a' && digit <= b'f'), "digests are written in lower case");
    if digit.is_ascii_digit() { digit - b'0' } else { digit - b'a' + 10 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_names_each_asset_once() {
        assert!(
            PINS.windows(2)
                .all(|pair| (pair[0].version, pair[0].platform) < (pair[1].version, pair[1].platform))
        );
    }

    #[test]
    fn the_default_is_pinned_for_every_platform() {
        for platform in Platform::ALL {
            assert!(
                PINS.iter().any(|pin| pin.version == DEFAULT_VERSION && pin.platform == platform),
                "{platform}"
            );
        }
    }

    #[test]
    fn digests_are_read_as_written() {
        assert_eq!(
            PINS[0].digest.to_string(),
            "90f549c7f6ce93d65b6a6708c9aafac8f935e3045d3d035766f713bc850c3c3a"
        );
    }
}
