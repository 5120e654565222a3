//! The `sidegate` binary: arguments, output, exit codes. How anything is done is the library's business.

mod cli;

use std::process::ExitCode;

use sidegate::subprocess::{GUARD_SUBCOMMAND, guard_main};

fn main() -> ExitCode {
    // Before anything else: a guard must stay in one thread, and starts with every child.
    let mut arguments = std::env::args_os().skip(1).peekable();
    if arguments.next_if(|first| first == GUARD_SUBCOMMAND).is_some() {
        return guard_main(arguments);
    }
    cli::main()
}
