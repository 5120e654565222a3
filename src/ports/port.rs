//! The number of a TCP port.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A TCP port that can be connected to: 1 to 65535.
///
/// "Any port", which socket calls write as 0, is `Option::<Port>::None`; [`Port::new`] translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port with this number; `None` for 0.
    pub const fn new(number: u16) -> Option<Self> {
        match NonZeroU16::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number, 1 to 65535.
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

impl From<Port> for u16 {
    fn from(port: Port) -> Self {
        port.get()
    }
}

impl From<Port> for NonZeroU16 {
    fn from(port: Port) -> Self {
        port.0
    }
}

impl FromStr for Port {
    type Err = InvalidPort;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| InvalidPort(text.to_owned()))
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A text that is no port number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a port: use a number from 1 to 65535")]
pub struct InvalidPort(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_range_are_ports() {
        assert_eq!("1".parse::<Port>().unwrap().get(), 1);
        assert_eq!("65535".parse::<Port>().unwrap().to_string(), "65535");
        assert_eq!(Port::new(0), None);
    }

    #[test]
    fn everything_else_is_refused() {
        for text in ["", "0", "65536", "-1", "http", "80 ", "0x50"] {
            assert_eq!(text.parse::<Port>(), Err(InvalidPort(text.to_owned())));
        }
    }
}
