//! `sidegate example-server`.

use std::process::ExitCode;

use super::{Exit, Failure};

pub(super) fn run() -> Result<ExitCode, Failure> {
    let runtime = super::runtime()?;
    let served = runtime.block_on(sidegate::example_server::serve_stdio());
    // A read of stdin that still waits is in a thread of its own, which must not hold us up.
    runtime.shutdown_background();
    served.map_err(|error| Failure::new(Exit::Failed, error))?;
    Ok(ExitCode::SUCCESS)
}
