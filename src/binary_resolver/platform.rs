//! The platforms agentgateway is published for.

use std::fmt;

/// A platform with a release asset of its own. There is none for macOS on Intel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Platform {
    /// Linux on x86-64.
    LinuxAmd64,
    /// Linux on 64-bit ARM.
    LinuxArm64,
    /// macOS on Apple silicon.
    DarwinArm64,
    /// Windows on x86-64.
    WindowsAmd64,
}

impl Platform {
    /// Every platform.
    pub const ALL: [Self; 4] = [Self::LinuxAmd64, Self::LinuxArm64, Self::DarwinArm64, Self::WindowsAmd64];

    /// The platform this program was built for; `None` when agentgateway is not published for it.
    pub fn current() -> Option<Self> {
        match (std::env::consts::OS, std::env::consts::ARCH) {
            ("linux", "x86_64") => Some(Self::LinuxAmd64),
            ("linux", "aarch64") => Some(Self::LinuxArm64),
            ("macos", "aarch64") => Some(Self::DarwinArm64),
            ("windows", "x86_64") => Some(Self::WindowsAmd64),
            _ => None,
        }
    }

    /// The file name of the release asset: a bare executable, no archive.
    pub fn asset(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "agentgateway-linux-amd64",
            Self::LinuxArm64 => "agentgateway-linux-arm64",
            Self::DarwinArm64 => "agentgateway-darwin-arm64",
            Self::WindowsAmd64 => "agentgateway-windows-amd64.exe",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinuxAmd64 => "linux-amd64",
            Self::LinuxArm64 => "linux-arm64",
            Self::DarwinArm64 => "darwin-arm64",
            Self::WindowsAmd64 => "windows-amd64",
        })
    }
}
