//! Why a definition was not written.

use std::io;
use std::path::PathBuf;

use super::{Invalid, ServerName};

/// Why an operation on the definitions changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// No file defines the server.
    #[error("MCP server '{name}' not found")]
    NotFound {
        /// The server.
        name: ServerName,
    },
    /// A file of that name is there, right or wrong, `.yaml` or `.yml`.
    #[error("MCP server '{name}' already exists: {}", .path.display())]
    AlreadyExists {
        /// The server.
        name: ServerName,
        /// Its file.
        path: PathBuf,
    },
    /// Several files define the server, and which one is meant nobody knows.
    #[error("{} all define the MCP server '{name}'; keep one of them", listed(.paths))]
    Ambiguous {
        /// The server.
        name: ServerName,
        /// The files.
        paths: Vec<PathBuf>,
    },
    /// The project's file defines the server, and that is read only.
    #[error("MCP server '{name}' is defined by {}, which is not written here: edit that file", .path.display())]
    InProject {
        /// The server.
        name: ServerName,
        /// The file.
        path: PathBuf,
    },
    /// The definition is wrong, or would be. What was given as a value and not as a text has mistakes without positions.
    #[error(transparent)]
    Invalid(Invalid),
    /// The file is laid out in a way that cannot be edited without touching more than was asked for.
    #[error("cannot edit {} without changing more of it; write \"{line}\" below \"spec:\" yourself", .path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The line to write.
        line: String,
    },
    /// The file or its directory may not be written.
    #[error("{} cannot be written", .path.display())]
    NotWritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else wrote the file each time that it was about to be written.
    #[error("{} was changed by somebody else at the same time; try again", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed. What was there is there still.
    #[error("{} could not be read or written", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}
