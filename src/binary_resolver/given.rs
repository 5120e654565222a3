//! A binary that the user names.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::fs::{Access, access};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::error::ResolveError;
use super::safety::{check_foreign_binary, check_foreign_directory};
use super::verified::{FileIdentity, Origin, Verified, Warning};
use super::{ReportedVersion, Version};

/// How much of the output of `--version` is read, in bytes.
const OUTPUT_LIMIT: u64 = 64 * 1024;
/// How much of it stands in an error, in characters.
const OUTPUT_SHOWN: usize = 300;
/// How often a start is tried that fails because the file is open for writing.
const BUSY_TRIES: u32 = 20;

/// Checks a binary that the user names: an executable regular file that only its owner can replace, and that says its
/// version. It is not looked up on PATH.
pub(super) async fn examine(
    path: &Path,
    wanted: Version,
    timeout: Duration,
) -> Result<Verified, ResolveError> {
    let (path, identity) = check_file(path)?;
    let version = probe(&path, timeout).await?;
    let warning = (!version.is(wanted)).then(|| Warning::OtherVersion {
        path: path.clone(),
        found: version.clone(),
        wanted,
    });
    Ok(Verified { path, version, digest: None, origin: Origin::Given, warning, identity })
}

fn check_file(given: &Path) -> Result<(PathBuf, FileIdentity), ResolveError> {
    let refused = |problem| ResolveError::NotExecutable { path: given.to_owned(), problem };
    let path = match std::fs::canonicalize(given) {
        Ok(path) => path,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(refused("does not exist")),
        Err(error) => return Err(ResolveError::io("reading", given)(error)),
    };
    let metadata = std::fs::metadata(&path).map_err(ResolveError::io("reading", &path))?;
    if metadata.is_dir() {
        return Err(refused("is a directory"));
    }
    if !metadata.is_file() {
        return Err(refused("is not a regular file"));
    }
    if access(&path, Access::EXEC_OK).is_err() {
        return Err(refused("is not executable by this user"));
    }
    check_foreign_binary(&path, &metadata)?;
    if let Some(directory) = path.parent() {
        check_foreign_directory(directory)?;
    }
    Ok((path, FileIdentity::of(&metadata)))
}

/// Asks the binary for its version.
async fn probe(path: &Path, timeout: Duration) -> Result<ReportedVersion, ResolveError> {
    let mut child =
        start(path).await.map_err(|source| ResolveError::Start { path: path.to_owned(), source })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let all = async { tokio::try_join!(child.wait(), read(stdout), read(stderr)) };
    let (status, stdout, stderr) = match tokio::time::timeout(timeout, all).await {
        // The child is killed when it is dropped.
        Err(_) => {
            return Err(ResolveError::ProbeTimeout { path: path.to_owned(), seconds: timeout.as_secs() });
        }
        Ok(answer) => answer.map_err(ResolveError::io("reading the output of", path))?,
    };
    let version = if status.success() { ReportedVersion::from_output(&stdout) } else { None };
    version.ok_or_else(|| {
        let output = if stdout.trim().is_empty() { stderr } else { stdout };
        let output = output.trim().chars().take(OUTPUT_SHOWN).collect();
        ResolveError::NoVersion { path: path.to_owned(), status, output }
    })
}

/// Starts the binary with nothing of our environment but PATH, which a script needs: agentgateway reads many variables.
async fn start(path: &Path) -> io::Result<Child> {
    let mut command = Command::new(path);
    command.arg("--version").env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(search) = std::env::var_os("PATH") {
        command.env("PATH", search);
    }
    let mut tries = 0;
    loop {
        match command.spawn() {
            // A process that was forked while somebody wrote the file holds it open until it executes something else.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < BUSY_TRIES => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            result => return result,
        }
    }
}

async fn read(pipe: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(OUTPUT_LIMIT).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
