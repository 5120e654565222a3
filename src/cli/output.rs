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

/// Whether somebody still reads stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader {
    /// As far as is known.
    There,
    /// The pipe is closed: nobody will see any more.
    Gone,
}

/// Prints lines of data on stdout, for commands that go on printing.
///
/// # Errors
///
/// Writing failed, and not because the reader has gone.
pub(super) fn say_to_reader(lines: impl IntoIterator<Item = String>) -> io::Result<Reader> {
    let mut stdout = io::BufWriter::new(io::stdout().lock());
    let write = || {
        for line in lines {
            writeln!(stdout, "{line}")?;
        }
        stdout.flush()
    };
    match write() {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error),
    }
}
