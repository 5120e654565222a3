//! Any bytes as the file of a server's definition.

use std::path::Path;

use sidegate::environment::Environment;
use sidegate::mcpserver::{Reader, Transport};

/// The value of `${TOKEN}`: nothing that could come from an input.
const SECRET: &str = "5c1e-8f07-secret";

/// Reads `bytes` as `time.yaml`.
///
/// # Panics
///
/// When a refusal has no reason or one beside the text, when a secret is shown, or a second look sees something else.
pub(crate) fn judge(bytes: &[u8]) {
    let environment = Environment::from_iter([("TOKEN", SECRET), ("TZ", "UTC")]);
    let reader = Reader::new(Path::new("/etc/sidegate"), environment).unwrap();
    let read = || reader.read(Path::new("time.yaml"), bytes);
    let outcome = read();
    assert_eq!(read(), outcome);
    let shown = match &outcome {
        Ok(definition) => {
            // Where a server is may be shown; what else a variable stands in may not.
            let places = match &definition.transport {
                Transport::Stdio(stdio) => [stdio.command.clone(), stdio.cwd.display().to_string()],
                Transport::StreamableHttp(remote) | Transport::Sse(remote) => {
                    [remote.url.origin().ascii_serialization(), String::new()]
                }
            };
            let shown = format!("{definition:?}");
            places.iter().fold(shown, |shown, place| shown.replace(&format!("{place:?}"), "\"\""))
        }
        Err(invalid) => {
            assert!(!invalid.mistakes.is_empty());
            // One line more than there are line ends of any kind, and one for the end of the text.
            let text = String::from_utf8_lossy(bytes);
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 1;
            for mistake in &invalid.mistakes {
                assert!(!mistake.problem.is_empty());
                let Some(position) = mistake.position else { continue };
                assert!(
                    (1..=lines).contains(&position.line) && position.column >= 1,
                    "{mistake:?} of {lines}"
                );
            }
            format!("{invalid}\n{invalid:?}")
        }
    };
    if !String::from_utf8_lossy(bytes).contains(SECRET) {
        assert!(!shown.contains(SECRET), "{shown}");
    }
}
