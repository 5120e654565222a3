//! What becomes of somebody else's file in which one entry is to be put, whatever its format.

/// What became of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Edit {
    /// It says so already.
    Unchanged,
    /// The new text.
    Changed(String),
}

/// Why a text is left alone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("it is not {format}: {why}")]
    Syntax {
        format: &'static str,
        /// With line and column.
        why: String,
    },
    #[error("{0} is no object")]
    NoObject(String),
    #[error("{0} is no table")]
    NoTable(String),
    #[error("it has {0} twice")]
    Twice(String),
    #[error("there are comments in the entry that would be replaced")]
    Comments,
    #[error("it is laid out in a way that cannot be edited without touching more")]
    Layout,
}
