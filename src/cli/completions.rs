//! `sidegate completions`.

use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::output::say;
use super::{Arguments, Exit, Failure};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  sidegate completions bash \\
    > ~/.local/share/bash-completion/completions/sidegate
  sidegate completions zsh > \"${fpath[1]}/_sidegate\"
  sidegate completions fish > ~/.config/fish/completions/sidegate.fish")]
pub(super) struct CompletionsArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(arguments: &CompletionsArguments) -> Result<ExitCode, Failure> {
    // Not straight to stdout: that panics where the reader has gone.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "sidegate", &mut script);
    let script = String::from_utf8(script).map_err(|error| Failure::new(Exit::Failed, error))?;
    say(script.trim_end())?;
    Ok(ExitCode::SUCCESS)
}
