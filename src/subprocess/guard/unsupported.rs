//! No guard: it needs a subreaper and pidfds, which only Linux has.

use std::process::ExitCode;

use super::{GUARD_FAILED, Invocation};

pub(super) fn run(_: Invocation) -> ExitCode {
    ExitCode::from(GUARD_FAILED)
}
