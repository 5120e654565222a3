//! The content of a file, read without waiting and within [`MAX_BYTES`].

use std::io::{self, Read};
use std::path::Path;

use super::{MAX_BYTES, Mistake};

/// Why a file was not read.
#[derive(Debug)]
pub(crate) enum FileError {
    /// It is not there, not even as a symbolic link.
    Absent,
    /// A directory, a FIFO, a device.
    NotAFile,
    /// Its size in bytes.
    TooLarge(u64),
    Io(io::Error),
}

impl FileError {
    /// As a mistake of the file.
    pub(crate) fn mistake(&self) -> Mistake {
        match self {
            Self::Absent => Mistake::of_file("the file does not exist", None),
            Self::NotAFile => Mistake::of_file("not a regular file", Some("move it away".to_owned())),
            Self::TooLarge(bytes) => {
                let advice = format!("at most {} KiB are read", MAX_BYTES >> 10);
                Mistake::of_file(format!("{bytes} bytes large"), Some(advice))
            }
            Self::Io(error) if error.kind() == io::ErrorKind::NotFound => Mistake::of_file(
                "a symbolic link to a file that does not exist",
                Some("mend or remove it".to_owned()),
            ),
            Self::Io(error) => Mistake::of_file(format!("cannot be read: {error}"), None),
        }
    }
}

/// Reads the whole of a regular file. Symbolic links are followed.
pub(crate) fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut options = std::fs::OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        // Opening a FIFO waits for its writer otherwise. Regular files do not know the flag.
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    let file = options.open(path).map_err(|error| {
        let absent = error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err();
        if absent { FileError::Absent } else { FileError::Io(error) }
    })?;
    let metadata = file.metadata().map_err(FileError::Io)?;
    if !metadata.is_file() {
        return Err(FileError::NotAFile);
    }
    let limit = MAX_BYTES as u64;
    if metadata.len() > limit {
        return Err(FileError::TooLarge(metadata.len()));
    }
    let mut content = Vec::new();
    // One byte more than allowed tells whether it grew since.
    file.take(limit + 1).read_to_end(&mut content).map_err(FileError::Io)?;
    if content.len() > MAX_BYTES { Err(FileError::TooLarge(content.len() as u64)) } else { Ok(content) }
}
