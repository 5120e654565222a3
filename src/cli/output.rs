//! Printing, to readers that may have gone.

use std::io::{self, Write};

/// Prints a line of data on stdout.
///
/// # Errors
///
/// Writing failed. A reader that has gone is none: it has seen what it wanted.
pub(super) fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints a line for a person on stderr. Where that fails there is nobody to tell.
pub(super) fn say_error(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
