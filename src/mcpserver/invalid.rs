//! A file that is no definition, and why.

use std::fmt;
use std::path::PathBuf;

use crate::yaml::Mistake;

/// Everything that is wrong with one file. `Display` gives a line for each mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invalid {
    /// The file, as it was asked for.
    pub path: PathBuf,
    /// What is wrong with it, in the order of the file; never empty.
    pub mistakes: Vec<Mistake>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.mistakes.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}", mistake.in_file(&self.path))?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}
