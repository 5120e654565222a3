//! Levels of log messages (2025-11-25, server/utilities/logging, "Log Levels").

use std::sync::atomic::{AtomicU8, Ordering};

use crate::wire::json;

/// How severe a log message is; the least severe is the smallest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    Debug,
    Info,
    Notice,
    Warning,
    Error,
    Critical,
    Alert,
    Emergency,
}

impl Level {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Debug, "debug"),
        (Self::Info, "info"),
        (Self::Notice, "notice"),
        (Self::Warning, "warning"),
        (Self::Error, "error"),
        (Self::Critical, "critical"),
        (Self::Alert, "alert"),
        (Self::Emergency, "emergency"),
    ];

    /// The level that a raw JSON string names.
    pub(super) fn from_raw(raw: &str) -> Option<Self> {
        let name = json::string(raw)?;
        Self::ALL.into_iter().find(|(_, known)| *known == name).map(|(level, _)| level)
    }

    /// As it stands in messages.
    pub(super) fn as_str(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The level of the `params` of a log message. One that says none is as severe as can be: nobody loses it.
    pub(super) fn of_message(params: Option<&str>) -> Self {
        let level = params.and_then(|params| json::members(params, ["level"]).ok()?[0]);
        level.and_then(Self::from_raw).unwrap_or(Self::Emergency)
    }
}

/// A level, or none yet, that can be read without a lock.
#[derive(Debug)]
pub(super) struct LevelCell(AtomicU8);

const UNSET: u8 = u8::MAX;

impl Default for LevelCell {
    fn default() -> Self {
        Self(AtomicU8::new(UNSET))
    }
}

impl LevelCell {
    pub(super) fn get(&self) -> Option<Level> {
        Level::ALL.get(usize::from(self.0.load(Ordering::Acquire))).map(|(level, _)| *level)
    }

    /// Gives what it was before.
    pub(super) fn set(&self, level: Level) -> Option<Level> {
        Level::ALL.get(usize::from(self.0.swap(level as u8, Ordering::AcqRel))).map(|(level, _)| *level)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_in_order_and_have_their_names() {
        for (place, (level, name)) in Level::ALL.into_iter().enumerate() {
            assert_eq!(level as usize, place);
            assert_eq!(Level::from_raw(&json::quoted(name)), Some(level));
            assert_eq!(level.as_str(), name);
        }
        assert_eq!(Level::from_raw("\"loud\""), None);
        assert_eq!(Level::of_message(Some(r#"{"level":"info","data":1}"#)), Level::Info);
        assert_eq!(Level::of_message(None), Level::Emergency);
        let cell = LevelCell::default();
        assert_eq!((cell.set(Level::Error), cell.get()), (None, Some(Level::Error)));
    }
}
