//! The examples for the test suites of others, as they would run them.

use std::process::Command;

use super::support::optional;
use super::support::sidegate::binary;

/// Runs a test suite that finds the binary in `SIDEGATE_BINARY`.
fn passes(command: &mut Command) {
    let tmp = tempfile::tempdir().unwrap();
    let root = env!("CARGO_MANIFEST_DIR");
    let output = command
        .current_dir(root)
        .env("SIDEGATE_BINARY", binary())
        .env("TMPDIR", tmp.path())
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{stdout}{stderr}");
    let left: Vec<_> = fs_err::read_dir(tmp.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("sidegate"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_fixture_for_pytest_works() {
    let Some(python) = optional::python_with_pytest() else { return };
    passes(Command::new(python).args(["-m", "pytest", "-q", "-p", "no:cacheprovider", "examples/pytest"]));
}

#[test]
fn the_fixture_for_node_works() {
    if optional::node_tests() {
        passes(Command::new("node").args(["--test", "examples/node/"]));
    }
}
