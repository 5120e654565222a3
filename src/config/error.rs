//! What is wrong with the configuration.

use std::fmt;
use std::path::PathBuf;

use crate::yaml::Mistake;

/// Everything that is wrong with the configuration. `Display` gives a line for each mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigError {
    /// Never empty.
    pub mistakes: Vec<ConfigMistake>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{mistake}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// One mistake and where it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigMistake {
    /// Where.
    pub place: Place,
    /// What.
    pub mistake: Mistake,
}

/// Where a value comes from that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file; the mistake says line and column.
    File(PathBuf),
    /// An environment variable or a flag, by name.
    Name(&'static str),
}

impl fmt::Display for ConfigMistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File(path) => self.mistake.in_file(path).fmt(f),
            Place::Name(name) => write!(f, "{name}: {}", self.mistake),
        }
    }
}
