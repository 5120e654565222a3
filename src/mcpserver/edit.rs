//! Text edits of a definition. They know what a definition means, so that an edit can be held against it.

use std::path::Path;

use serde_json::Value;

use super::{Definition, EditError, Reader};
use crate::yaml::edit;

/// The text of a definition with `spec.suspended` as wished; `None` where it is so already.
///
/// # Errors
///
/// [`EditError::Invalid`] where `content` is no definition, [`EditError::Refused`] where no edit is known that changes
/// this and nothing else.
pub(super) fn suspend(
    reader: &Reader,
    path: &Path,
    content: &[u8],
    suspended: bool,
) -> Result<Option<String>, EditError> {
    let old = reader.read(path, content).map_err(EditError::Invalid)?;
    if old.suspended == suspended {
        return Ok(None);
    }
    let refused = || EditError::Refused { path: path.to_owned(), line: format!("suspended: {suspended}") };
    let text = std::str::from_utf8(content).map_err(|_| refused())?;
    let text = edit::set(text, &["spec", "suspended"], &Value::from(suspended)).map_err(|_| refused())?;
    // The edit has compared the texts as YAML; this compares what they mean.
    let new = reader.read(path, text.as_bytes()).map_err(|_| refused())?;
    if new == (Definition { suspended, ..old }) { Ok(Some(text)) } else { Err(refused()) }
}

#[cfg(test)]
mod tests;
