//! Printing, to readers that may have gone.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

use tracing::{info, warn};

/// Prints a line of data on stdout.
///
/// # Errors
///
/// Writing failed. A reader that has gone is none: it has seen what it wanted.
pub(super) fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let line = shown(line, stdout.is_terminal());
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(unwritten(&error)),
        _ => Ok(()),
    }
}

/// The error of a write, with what was written to.
fn unwritten(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("stdout cannot be written: {error}"))
}

/// Prints a line for a person on stderr. Where that fails there is nobody to tell.
pub(super) fn say_error(line: &str) {
    let mut stderr = io::stderr().lock();
    let line = shown(line, stderr.is_terminal());
    let _ = writeln!(stderr, "{line}");
}

/// How a command that goes on for long says on stderr what happens: where the log is for machines, as part of it, so that every line
/// there is one of the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Voice {
    Person,
    Machine,
}

impl Voice {
    /// Says what happens.
    pub(super) fn say(self, line: &str) {
        match self {
            Self::Person => say_error(line),
            Self::Machine => info!("{line}"),
        }
    }

    /// Says what may be wrong.
    pub(super) fn warn(self, line: &str) {
        match self {
            Self::Person => say_error(&format!("warning: {line}")),
            Self::Machine => warn!("{line}"),
        }
    }
}

/// What servers say of themselves must not steer a terminal: control characters are shown as such.
pub(super) fn shown(text: &str, terminal: bool) -> Cow<'_, str> {
    let steers = |c: char| c.is_control() && c != '\n' && c != '\t';
    if terminal && text.contains(steers) {
        Cow::Owned(text.replace(steers, "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
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
        Err(error) => Err(unwritten(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters() {
        let text = "a\tb\n\u{1b}[2Jc\r\u{9b}d";
        assert_eq!(shown(text, true), "a\tb\n\u{fffd}[2Jc\u{fffd}\u{fffd}d");
        assert_eq!(shown(text, false), text);
    }
}
