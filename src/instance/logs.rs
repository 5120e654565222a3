//! What children have written, as it is in the log files.

use std::io;
use std::path::Path;

/// The lines of the log `name`, and of the old file beside it.
pub(super) fn read(directory: &Path, name: &str) -> io::Result<Vec<String>> {
    let mut lines = Vec::new();
    // A name with a slash in it would lead elsewhere, and is no server's.
    if name.contains('/') {
        return Ok(lines);
    }
    for file in [format!("{name}.log.old"), format!("{name}.log")] {
        match std::fs::read(directory.join(file)) {
            Ok(content) => lines.extend(String::from_utf8_lossy(&content).lines().map(str::to_owned)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}
