//! Binaries that the user names.

use std::os::unix::fs::symlink;

use sidegate::binary_resolver::{
    DEFAULT_VERSION, Event, Origin, Request, ResolveError, Warning, verify_running,
};

use super::*;

/// A directory with a script in it.
struct Given {
    temp: TempDir,
}

impl Given {
    fn script(body: &str) -> Self {
        let given = Self { temp: tempfile::tempdir().unwrap() };
        std::fs::write(given.path(), format!("#!/bin/sh\n{body}\n")).unwrap();
        set_mode(&given.path(), 0o755);
        given
    }

    fn path(&self) -> PathBuf {
        self.temp.path().join("gateway")
    }

    async fn resolve(&self) -> Result<Verified, ResolveError> {
        resolve(&self.path()).await
    }
}

async fn resolve(path: &Path) -> Result<Verified, ResolveError> {
    let mut limits = limits();
    limits.probe = Duration::from_secs(5);
    // A base nobody answers at, and a cache that must not be created: nothing falls through to either.
    let cache = Cache::new();
    let resolver = resolver_with("https://releases.invalid", &cache.root(), &content(0), limits);
    let request = Request { binary: Some(path.to_owned()), version: DEFAULT_VERSION, offline: false };
    let result = resolver.resolve(&request, &|event: Event<'_>| panic!("{event:?}")).await;
    assert!(!cache.root().exists());
    result
}

#[tokio::test]
async fn a_binary_that_answers_is_used() {
    for answer in ["{\"version\":\"1.2.1\"}", "1.2.1", "v1.2.1"] {
        let given = Given::script(&format!("[ \"$*\" = --version ] && echo '{answer}'"));
        let found = given.resolve().await.unwrap();
        assert_eq!(found.origin(), Origin::Given);
        assert_eq!(found.path(), std::fs::canonicalize(given.path()).unwrap());
        assert_eq!(
            (found.version().to_string().as_str(), found.digest(), found.warning()),
            ("1.2.1", None, None)
        );
        // It is a script: what runs is a shell, and nothing was promised.
        verify_running(std::process::id(), &found).unwrap();
    }
}

#[tokio::test]
async fn another_version_is_a_warning_with_both() {
    let given = Given::script("echo v1.3.1-4-gabc");
    let found = given.resolve().await.unwrap();
    assert!(matches!(found.warning(), Some(Warning::OtherVersion { .. })));
    let text = found.warning().unwrap().to_string();
    assert!(text.contains("1.3.1-4-gabc") && text.contains("1.2.1"), "{text}");
}

#[tokio::test]
async fn a_link_is_followed_to_its_file() {
    let given = Given::script("echo 1.2.1");
    let link = given.temp.path().join("link");
    symlink(given.path(), &link).unwrap();
    assert_eq!(resolve(&link).await.unwrap().path(), std::fs::canonicalize(given.path()).unwrap());
}

#[tokio::test]
async fn it_runs_without_our_environment() {
    let given = Given::script("[ -z \"$HOME$CARGO_MANIFEST_DIR\" ] && [ -n \"$PATH\" ] && echo 1.2.1");
    given.resolve().await.unwrap();
}

#[tokio::test]
async fn what_is_no_executable_file_is_refused_with_the_reason() {
    let given = Given::script("echo 1.2.1");
    let refusal = |error: ResolveError| match error {
        ResolveError::NotExecutable { problem, .. } => problem,
        other => panic!("{other:?}"),
    };
    let missing = given.temp.path().join("missing");
    assert_eq!(refusal(resolve(&missing).await.unwrap_err()), "does not exist");
    assert_eq!(refusal(resolve(given.temp.path()).await.unwrap_err()), "is a directory");
    assert_eq!(refusal(resolve(Path::new("/dev/null")).await.unwrap_err()), "is not a regular file");
    set_mode(&given.path(), 0o644);
    assert_eq!(refusal(given.resolve().await.unwrap_err()), "is not executable by this user");
}

#[tokio::test]
async fn what_everybody_can_replace_is_refused() {
    let given = Given::script("echo 1.2.1");
    set_mode(&given.path(), 0o757);
    assert!(matches!(given.resolve().await, Err(ResolveError::Unsafe { .. })));
    set_mode(&given.path(), 0o755);
    set_mode(given.temp.path(), 0o777);
    assert!(matches!(given.resolve().await, Err(ResolveError::Unsafe { .. })));
    // As in /tmp, nobody else can rename in it.
    set_mode(given.temp.path(), 0o1777);
    given.resolve().await.unwrap();
}

#[tokio::test]
async fn a_binary_that_says_no_version_is_refused_with_what_it_said() {
    for (body, said) in [
        ("echo 'sleep (GNU coreutils) 9.1'", "coreutils"),
        ("echo 1.2.1; exit 3", "exit status: 3"),
        ("echo 'no such library' >&2; exit 127", "no such library"),
        ("kill -9 $$", "signal: 9"),
    ] {
        let error = Given::script(body).resolve().await.unwrap_err();
        assert!(matches!(error, ResolveError::NoVersion { .. }), "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn a_binary_that_hangs_is_killed() {
    let given = Given::script(&format!("echo $$ > {}; exec sleep 600", "\"$0.pid\""));
    let resolver = {
        let mut limits = limits();
        limits.probe = Duration::from_secs(1);
        resolver_with("https://releases.invalid", given.temp.path(), &content(0), limits)
    };
    let error = resolver.given(&given.path(), DEFAULT_VERSION).await.unwrap_err();
    assert!(matches!(error, ResolveError::ProbeTimeout { seconds: 1, .. }), "{error:?}");
    let pid = std::fs::read_to_string(given.temp.path().join("gateway.pid")).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while Path::new("/proc").join(pid.trim()).exists() {
        assert!(std::time::Instant::now() < deadline, "pid {pid} lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_binary_that_talks_without_end_is_refused() {
    let error = Given::script("while :; do echo yes; done").resolve().await.unwrap_err();
    assert!(matches!(error, ResolveError::NoVersion { .. }), "{error:?}");
}
