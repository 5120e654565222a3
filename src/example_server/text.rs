//! Counts over a text.

use rmcp::schemars::{self, JsonSchema};
use serde::Serialize;

/// How much of what is in a text.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct TextStats {
    /// Length in UTF-8 bytes.
    pub(super) bytes: usize,
    /// Unicode scalar values.
    pub(super) characters: usize,
    /// Runs of anything but white space.
    pub(super) words: usize,
    /// Lines; the last one counts with or without its line break.
    pub(super) lines: usize,
    /// Unicode scalar values in the longest line.
    pub(super) longest_line: usize,
}

impl TextStats {
    pub(super) fn of(text: &str) -> Self {
        Self {
            bytes: text.len(),
            characters: text.chars().count(),
            words: text.split_whitespace().count(),
            lines: text.lines().count(),
            longest_line: text.lines().map(|line| line.chars().count()).max().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let empty = TextStats { bytes: 0, characters: 0, words: 0, lines: 0, longest_line: 0 };
        assert_eq!(TextStats::of(""), empty);
        let some = TextStats { bytes: 14, characters: 13, words: 3, lines: 2, longest_line: 8 };
        assert_eq!(TextStats::of("grün und\r\n ja"), some);
    }
}
