//! Components that a machine may lack. A test without its component says so loudly and ends.

use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::profile_dir;
use super::sidegate::{Builder, Sidegate};

/// The gateways that a test goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    Embedded,
    Agentgateway,
}

impl Through {
    /// An instance with this gateway; `None` where there is none.
    pub(crate) fn builder(self) -> Option<Builder> {
        match self {
            Self::Embedded => Some(Sidegate::builder()),
            Self::Agentgateway => Some(Sidegate::builder().agentgateway(&real_agentgateway()?)),
        }
    }
}

/// The real agentgateway that `SIDEGATE_TEST_AGENTGATEWAY` names.
pub(crate) fn real_agentgateway() -> Option<PathBuf> {
    let Some(path) = std::env::var_os("SIDEGATE_TEST_AGENTGATEWAY").map(PathBuf::from) else {
        skip("agentgateway", "SIDEGATE_TEST_AGENTGATEWAY names no agentgateway executable");
        return None;
    };
    // A wrong path must not look like a missing one: the run would be green without having run.
    assert!(path.is_file(), "SIDEGATE_TEST_AGENTGATEWAY is {}, which is no file", path.display());
    Some(path)
}

/// The script to run with `node`: the npm package `@modelcontextprotocol/server-everything`, which `scripts/test`
/// installs.
pub(crate) fn npm_server_everything() -> Option<PathBuf> {
    let target = profile_dir().parent().unwrap().to_path_buf();
    let script = target.join("npm/node_modules/@modelcontextprotocol/server-everything/dist/index.js");
    if !script.is_file() {
        skip(
            "server-everything",
            "the npm package is not installed: run `scripts/test` where node and npm are",
        );
        return None;
    }
    if !node_runs() {
        skip("server-everything", "there is no node on PATH");
        return None;
    }
    Some(script)
}

/// The directory of the npm package `@modelcontextprotocol/sdk`, which `scripts/test` installs.
pub(crate) fn typescript_sdk() -> Option<PathBuf> {
    // It is installed together with the server.
    let sdk = npm_server_everything()?.ancestors().nth(3)?.join("sdk");
    if !sdk.join("dist/esm").is_dir() {
        skip("TypeScript SDK", "the npm package is not installed: run `scripts/test` where node and npm are");
        return None;
    }
    Some(sdk)
}

/// A Python that has the official SDK, which `scripts/test` installs; or the one that `SIDEGATE_TEST_PYTHON` names.
pub(crate) fn python_with_mcp() -> Option<PathBuf> {
    python_with("mcp, uvicorn", "Python SDK", "mcp")
}

/// As [`python_with_mcp`], with `mcp-server-time` too.
pub(crate) fn python_with_time_server() -> Option<PathBuf> {
    python_with("mcp, mcp_server_time", "mcp-server-time", "mcp-server-time")
}

/// As [`python_with_mcp`], with pytest.
pub(crate) fn python_with_pytest() -> Option<PathBuf> {
    python_with("pytest", "pytest", "pytest")
}

/// Whether there is a Node with a test runner.
pub(crate) fn node_tests() -> bool {
    let runs = std::process::Command::new("node").args(["-e", "require('node:test')"]).output();
    let runs = runs.is_ok_and(|output| output.status.success());
    if !runs {
        skip("node", "there is none on PATH that has node:test");
    }
    runs
}

fn python_with(modules: &str, component: &str, package: &str) -> Option<PathBuf> {
    let given = std::env::var_os("SIDEGATE_TEST_PYTHON").map(PathBuf::from);
    let python = given.unwrap_or_else(|| profile_dir().parent().unwrap().join("python/bin/python"));
    let runs = std::process::Command::new(&python).args(["-c", &format!("import {modules}")]).output();
    if runs.is_ok_and(|output| output.status.success()) {
        return Some(python);
    }
    let why = format!("the package {package} is not installed: run `scripts/test` where python3 and pip are");
    skip(component, &why);
    None
}

/// A Chromium, which Debian has as `chromium`; or the one that `SIDEGATE_TEST_CHROMIUM` names.
pub(crate) fn chromium() -> Option<PathBuf> {
    if let Some(given) = std::env::var_os("SIDEGATE_TEST_CHROMIUM").map(PathBuf::from) {
        // A wrong path must not look like a missing one.
        assert!(given.is_file(), "SIDEGATE_TEST_CHROMIUM is {}, which is no file", given.display());
        return Some(given);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-headless-shell"];
    let found = std::env::split_paths(&path).flat_map(|directory| names.map(|name| directory.join(name)));
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        skip("browser", "there is no chromium on PATH: install Debian's package chromium");
    }
    found
}

/// Whether this machine has an IPv6 loopback address.
pub(crate) fn ipv6_loopback() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        skip("IPv6", "the loopback interface has no address ::1");
    }
    has
}

/// Whether there is a script(1), which makes terminals.
pub(crate) fn has_script() -> bool {
    let has_script = std::process::Command::new("script").arg("--version").output().is_ok();
    if !has_script {
        skip("script", "there is no script(1) to make a terminal");
    }
    has_script
}

/// Whether there is a curl.
pub(crate) fn curl_runs() -> bool {
    let runs = std::process::Command::new("curl").arg("--version").output();
    let runs = runs.is_ok_and(|output| output.status.success());
    if !runs {
        skip("curl", "there is none on PATH");
    }
    runs
}

/// Whether this user can mount file systems that nobody else sees.
pub(crate) fn can_mount() -> bool {
    works_in_namespaces("mount -t tmpfs none /mnt")
}

/// Whether this user can leave itself without watches on directories.
pub(crate) fn can_forbid_watches() -> bool {
    works_in_namespaces(FORBID_WATCHES)
}

/// A line of shell after which no directory can be watched.
pub(crate) const FORBID_WATCHES: &str = "echo 0 >/proc/sys/user/max_inotify_instances";

fn works_in_namespaces(line: &str) -> bool {
    let tried = std::process::Command::new("unshare").args(["-rm", "sh", "-c", line]).output();
    let works = tried.is_ok_and(|output| output.status.success());
    if !works {
        skip("namespaces", &format!("`unshare -rm sh -c '{line}'` does not work"));
    }
    works
}

fn node_runs() -> bool {
    static RUNS: OnceLock<bool> = OnceLock::new();
    *RUNS.get_or_init(|| {
        std::process::Command::new("node")
            .arg("--version")
            .output()
            .is_ok_and(|output| output.status.success())
    })
}

/// Says that a test did not run. Test runners hide what passing tests print, so the line also goes to the file that
/// `SIDEGATE_TEST_SKIPS` names, which `scripts/test` prints at the end.
pub(crate) fn skip(component: &str, reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("SKIPPED: {test} (no {component}: {reason})\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(file) = std::env::var_os("SIDEGATE_TEST_SKIPS") {
        let mut file =
            fs_err::OpenOptions::new().append(true).create(true).open(PathBuf::from(file)).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}
