//! Finding the helper: the `sidegate` binary that runs what must be a process of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::environment::Environment;
use crate::subprocess::lookup;

/// The variable that names the helper.
const VARIABLE: &str = "SIDEGATE_HELPER";

/// The helper's name, where nobody says more.
const NAME: &str = "sidegate";

/// How long a binary may take to say what it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// The helper, or why there is none.
///
/// It is `SIDEGATE_HELPER`; this program, where that is `sidegate`; or `sidegate` on `PATH`, where it is of the same version: the
/// two speak a protocol of their own.
pub(super) async fn find(environment: &Environment) -> Result<PathBuf, String> {
    if let Some(named) = environment.get_os(VARIABLE).filter(|value| !value.is_empty()) {
        return Ok(named.into());
    }
    if let Ok(own) = std::env::current_exe()
        && own.file_name() == Some(OsStr::new(NAME))
    {
        return Ok(own);
    }
    let found = lookup(OsStr::new(NAME), environment.get_os("PATH"), Path::new("/"));
    let path = found.map_err(|error| error.to_string())?;
    match version(&path).await {
        Some(version) if version == env!("CARGO_PKG_VERSION") => Ok(path),
        Some(version) => {
            Err(format!("{} is {version}, and this is {}", path.display(), env!("CARGO_PKG_VERSION")))
        }
        None => Err(format!("{} does not say its version", path.display())),
    }
}

/// The version that a binary says it is of.
async fn version(path: &Path) -> Option<String> {
    let mut command = Command::new(path);
    command.arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.ok()?.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().strip_prefix("sidegate ")?.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_variable_goes_before_the_path_and_the_version_counts() {
        let directory = tempfile::tempdir().unwrap();
        let bin = directory.path().join(NAME);
        let path = directory.path().to_str().unwrap();
        let say = |text: &str| {
            std::fs::write(&bin, format!("#!/bin/sh\necho {text}\n")).unwrap();
            std::fs::set_permissions(&bin, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let environment = Environment::from_iter([("PATH", path)]);
        assert!(find(&environment).await.unwrap_err().contains("was not found on PATH"));
        say(concat!("sidegate ", env!("CARGO_PKG_VERSION")));
        assert_eq!(find(&environment).await, Ok(bin.clone()));
        say("sidegate 0.0.1");
        assert!(find(&environment).await.unwrap_err().contains("is 0.0.1, and this is"));
        assert_eq!(find(&environment.with(VARIABLE, "/h")).await, Ok("/h".into()));
    }
}
