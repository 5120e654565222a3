//! Documents that are made from the code.

use std::path::Path;

/// Set, it has documents written instead of compared.
const UPDATE: &str = "SIDEGATE_UPDATE_DOCS";

/// Compares a document of the repository with the text that it has to have.
///
/// # Panics
///
/// It has another one, unless [`UPDATE`] is set: it is written then.
#[track_caller]
pub(crate) fn check(path: &str, expected: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os(UPDATE).is_some() {
        fs_err::write(&file, expected).unwrap();
        return;
    }
    let found = fs_err::read_to_string(&file).unwrap_or_default();
    let differ = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
    let line = differ.unwrap_or_else(|| found.lines().count().min(expected.lines().count()));
    assert!(
        found == expected,
        "{path} differs from the code in line {}:\n  it has     {}\n  it must be {}\nRun the test with {UPDATE}=1, and read the diff.",
        line + 1,
        found.lines().nth(line).unwrap_or("(nothing)"),
        expected.lines().nth(line).unwrap_or("(nothing)"),
    );
}
