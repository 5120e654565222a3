//! Directories and settings.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use sidegate::config::Settings;
use sidegate::environment::Environment;
use sidegate::instance::check_token_file;

use super::super::words::quoted;
use super::Finding;

/// HOME and the variables of the XDG Base Directory Specification.
pub(super) fn home(environment: &Environment) -> Vec<Finding> {
    let mut findings = Vec::new();
    let path = |name| environment.get_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match path("HOME") {
        Some(home) if home.is_absolute() && home.is_dir() => {
            findings.push(Finding::ok("HOME", home.display().to_string()));
        }
        Some(home) => findings.push(Finding::warning(
            "HOME",
            format!("{} is no directory", home.display()),
            "set HOME to your home directory; servers look for their files there",
        )),
        None => findings.push(Finding::warning(
            "HOME",
            "not set",
            "set HOME to your home directory; servers look for their files there",
        )),
    }
    for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"] {
        if let Some(directory) = path(name).filter(|directory| !directory.is_absolute()) {
            findings.push(Finding::warning(
                name,
                format!("{} is not absolute, so it is ignored", directory.display()),
                "set it to an absolute path, or unset it",
            ));
        }
    }
    findings
}

/// The configuration directory and the definitions in it.
pub(super) fn config_dir(directory: &Path) -> Vec<Finding> {
    let subject = "config directory";
    let shown = directory.display();
    match std::fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            vec![Finding::ok(subject, format!("{shown} is not there yet; `sidegate serve` makes it"))]
        }
        Err(error) => {
            let message = format!("{shown} cannot be read: {error}");
            vec![Finding::problem(
                subject,
                message,
                "check owner and mode, or name another with --config-dir",
            )]
        }
        Ok(_) => {
            let definitions = directory.join("mcpservers");
            let paths = [directory, definitions.as_path()];
            let open: Vec<Finding> = paths.into_iter().filter_map(writable_by_others).collect();
            if open.is_empty() { vec![Finding::ok(subject, shown.to_string())] } else { open }
        }
    }
}

/// Definitions are command lines: who can write them runs programs as their owner.
fn writable_by_others(directory: &Path) -> Option<Finding> {
    let meta = std::fs::metadata(directory).ok()?;
    let (group, everybody) = (meta.mode() & 0o020 != 0, meta.mode() & 0o002 != 0);
    let (who, change) = match (group, everybody) {
        (false, false) => return None,
        (true, false) => ("its group", "g-w"),
        (false, true) => ("everybody", "o-w"),
        (true, true) => ("everybody", "go-w"),
    };
    Some(Finding::warning(
        "config directory",
        format!("{who} can write to {}, and a definition is a command that runs as you", directory.display()),
        format!("chmod {change} {}", quoted(directory)),
    ))
}

/// What the settings ask for.
pub(super) fn settings(settings: &Settings, config_dir: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    let file = config_dir.join("config.yaml");
    let where_from = match file.exists() {
        true => format!("{} is right", file.display()),
        false => "there is no config.yaml, and none is needed".to_owned(),
    };
    findings.push(Finding::ok("settings", where_from));
    if let Some(file) = &settings.aggregator.token_file.value {
        findings.push(match check_token_file(file) {
            Ok(true) => Finding::ok("token file", file.display().to_string()),
            Ok(false) => {
                Finding::ok("token file", format!("{}, which the next start writes", file.display()))
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                Finding::problem(
                    "token file",
                    format!("{error}{}", cause.unwrap_or_default()),
                    "write a token of at least 16 characters into it, and let nobody else read it: chmod 600",
                )
            }
        });
    }
    findings
}

/// The runtime directory, or the one that it would be made in.
pub(super) fn runtime_dir(directory: &Path) -> Finding {
    let subject = "runtime directory";
    let shown = directory.display();
    let ours = rustix::process::geteuid().as_raw();
    match std::fs::symlink_metadata(directory) {
        Ok(meta) if !meta.is_dir() || meta.uid() != ours => Finding::problem(
            subject,
            format!("{shown} is not a directory of this user"),
            "remove it, or name another with --runtime-dir",
        ),
        Ok(_) => Finding::ok(subject, shown.to_string()),
        Err(_) => {
            let above = directory.ancestors().skip(1).find(|above| above.exists());
            match above {
                Some(above) if access(above, Access::WRITE_OK | Access::EXEC_OK).is_ok() => {
                    Finding::ok(subject, format!("{shown} is not there yet; `sidegate serve` makes it"))
                }
                above => {
                    let above = above.unwrap_or(Path::new("/")).display();
                    let message = format!("{shown} cannot be made: {above} is not writable");
                    Finding::problem(
                        subject,
                        message,
                        "set XDG_RUNTIME_DIR to a directory of yours, or name one with --runtime-dir",
                    )
                }
            }
        }
    }
}
