//! `sidegate man`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;

use super::output::say;
use super::words::quoted;
use super::{Arguments, Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  sidegate man ~/.local/share/man/man1

A page for each command: sidegate.1, sidegate-serve.1 and so on. Pages that are
there are replaced.")]
pub(super) struct ManArguments {
    /// Where to write them; made where it is not there
    directory: PathBuf,
}

pub(super) fn run(arguments: &ManArguments) -> Result<ExitCode, Failure> {
    let directory = &arguments.directory;
    write(directory).map_err(|error| {
        Failure::text(
            Exit::Failed,
            format!("the pages cannot be written to {}: {error}", directory.display()),
        )
    })?;
    let first = quoted(&directory.join("sidegate.1"));
    say(&format!("The pages are in {}: `man -l {first}`", directory.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn write(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    clap_mangen::generate_to(Arguments::command(), directory)
}
