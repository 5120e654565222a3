//! Variables that look like ours: what is ours is known, and who has misspelt one is told.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;
use sidegate::config::variables::{OTHERS, is_known};

use super::support::Sidegate;
use super::support::definitions::built_in;

const TOLD: &str = "the environment variable SIDEGATE_LISTN is none of Sidegate's and has no effect; did you mean SIDEGATE_LISTEN?";

/// Everything in `text` that is written like the name of a variable of ours.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("SIDEGATE_").filter_map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| c != '_' && !c.is_ascii_uppercase() && !c.is_ascii_digit());
        let name = &rest[..end.unwrap_or(rest.len())];
        // Otherwise it is what several begin with.
        (!name.ends_with('_')).then_some(name)
    })
}

#[test]
fn every_variable_in_the_sources_is_known() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let of_this_test = root.join("src/config/variables.rs");
    let places =
        ["src", "scripts", "examples", "docs", "packaging", ".ci", "README.md", "Dockerfile", "benches/src"];
    let mut paths: Vec<_> = places.iter().map(|place| root.join(place)).collect();
    let mut found = BTreeSet::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            let is_made = path.ends_with("node_modules") || path.ends_with("target");
            let entries = fs_err::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
            paths.extend(entries.filter(|_| !is_made));
        } else if path != of_this_test
            && let Ok(text) = fs_err::read_to_string(&path)
        {
            found.extend(names(&text).map(str::to_owned));
        }
    }
    assert!(found.len() > 30, "{found:?}");
    assert_eq!(found.iter().filter(|name| !is_known(name)).collect::<Vec<_>>(), Vec::<&String>::new());
    for name in OTHERS {
        assert!(found.contains(*name), "{name} is in the list and nowhere else");
    }
}

#[tokio::test]
async fn a_variable_that_is_misspelt_is_told() {
    let builder = Sidegate::builder().env("SIDEGATE_LISTN", "x").env("SIDEGATE_INSTANCE", "");
    let ended = builder.clone().start().await.kill().await;
    assert_eq!(ended.stderr.matches("SIDEGATE_").count(), 2, "once: {}", ended.stderr);
    assert!(ended.stderr.contains(&format!("WARN {TOLD}\n")), "{}", ended.stderr);

    // Also where nothing starts: it may be why.
    let ended = builder.clone().env("SIDEGATE_DRAIN", "x").command(&["serve"]).await;
    assert_eq!(ended.status.code(), Some(2));
    assert!(ended.stderr.starts_with(&format!("warning: {TOLD}\n")), "{}", ended.stderr);

    let ended = builder.clone().command(&["config", "show"]).await;
    assert!(ended.status.success() && !ended.stdout.contains("LISTN"), "{}", ended.stdout);
    assert!(ended.stderr.contains(&format!("warning: {TOLD}\n")), "{}", ended.stderr);

    let ended = builder.command(&["doctor", "--output", "json"]).await;
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap();
    let finding =
        findings.iter().find(|finding| finding["advice"] == "did you mean SIDEGATE_LISTEN?").unwrap();
    assert_eq!(
        (finding["level"].as_str(), finding["subject"].as_str()),
        (Some("warning"), Some("environment"))
    );
}

#[tokio::test]
async fn what_an_instance_tells_its_children_is_no_mistake() {
    let builder = Sidegate::builder().definition("calc", &built_in());
    let line = "\"$0\" run -- \"$0\" run -- sh -c 'env | grep -c ^SIDEGATE_'";
    let ended = builder.env("CI", "true").shell(line).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(!ended.stderr.contains("SIDEGATE_"), "{}", ended.stderr);
}
