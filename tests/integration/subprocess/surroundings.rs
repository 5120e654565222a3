//! What a command sees, and what is told when there is none.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;

use rstest::rstest;
use sidegate::subprocess::{
    ChildTree, Ending, Helper, LookupError, SpawnError, StopRecipe, Stream, TREE_VARIABLE,
};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::pipe;

use super::{Tagged, guarded, read_all, soon};

#[rstest]
#[case::guarded(guarded())]
#[case::unguarded(Helper::None)]
#[tokio::test]
async fn streams_reach_the_command_and_their_ends_do_too(#[case] helper: Helper) {
    let tag = Tagged::new();
    let mut spec = tag.spec(&["echo"]);
    spec.stdin = Stream::Piped;
    let mut tree = ChildTree::spawn(spec, &helper).await.unwrap();
    let mut stdin = tree.take_stdin().unwrap();
    stdin.write_all(b"there and back").await.unwrap();
    drop(stdin);
    // To the end of the stream, which nobody else may hold open.
    assert_eq!(read_all(tree.take_stdout().unwrap()).await, "there and back");
    assert_eq!(soon(tree.wait()).await, Ending::Exited(0));
    soon(tree.stop(&StopRecipe::kill())).await;
    tag.assert_none_left();
}

#[rstest]
#[case::guarded(guarded())]
#[case::unguarded(Helper::None)]
#[tokio::test]
async fn the_environment_is_the_given_one(#[case] helper: Helper) {
    let tag = Tagged::new();
    let dir = tempfile::tempdir().unwrap();
    let mut spec = tag.spec(&["surroundings"]).env("A", "1").env("A", "2");
    spec.cwd = Some(dir.path().to_owned());
    let mut tree = ChildTree::spawn(spec, &helper).await.unwrap();
    let text = read_all(tree.take_stdout().unwrap()).await;
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["A", super::TAG, TREE_VARIABLE, "cwd"], "{text}");
    assert!(text.contains(&format!("cwd={}\n", dir.path().display())), "{text}");
    assert!(text.contains("A=2\n"), "{text}");
}

#[tokio::test]
async fn no_descriptor_slips_through() {
    // What was handed down to this test by whoever runs it is handed on.
    let handed_down = inheritable();
    let tag = Tagged::new();
    let mut tree = ChildTree::spawn(tag.spec(&["descriptors"]), &guarded()).await.unwrap();
    let mut seen: Vec<u32> = serde_json::from_str(&read_all(tree.take_stdout().unwrap()).await).unwrap();
    seen.retain(|number| !handed_down.contains(number));
    // The standard ones, and the one with which they are listed.
    assert_eq!(seen.len(), 4, "{seen:?}");
}

/// Our descriptors above the standard ones that an exec keeps.
fn inheritable() -> Vec<u32> {
    const CLOEXEC: u32 = 0o2_000_000;
    let kept = |number: &u32| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap_or_default();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).map(str::trim);
        flags.is_some_and(|flags| u32::from_str_radix(flags, 8).unwrap() & CLOEXEC == 0)
    };
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let numbers = entries.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap());
    numbers.filter(|number| *number > 2 && kept(number)).collect()
}

#[tokio::test]
async fn a_descriptor_is_passed_on_under_its_variable() {
    let tag = Tagged::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut spec = tag.spec(&["write-to", "READY_FD"]);
    spec.descriptors.push(("READY_FD".to_owned(), OwnedFd::from(writer)));
    let _tree = ChildTree::spawn(spec, &guarded()).await.unwrap();
    // The end of the stream shows that neither we nor the guard kept it.
    assert_eq!(read_all(pipe::Receiver::from_owned_fd(reader.into()).unwrap()).await, "ready");
}

#[tokio::test]
async fn the_limit_on_open_files_is_the_commands_own() {
    let tag = Tagged::new();
    let mut spec = tag.spec(&["open-files"]);
    spec.open_files = Some(123);
    let mut tree = ChildTree::spawn(spec, &guarded()).await.unwrap();
    assert_eq!(read_all(tree.take_stdout().unwrap()).await, "Some(123)\n");
}

#[tokio::test]
async fn what_needs_a_guard_says_so() {
    let tag = Tagged::new();
    let mut spec = tag.spec(&["park"]);
    spec.open_files = Some(123);
    let error = ChildTree::spawn(spec, &Helper::None).await.unwrap_err();
    assert!(matches!(error, SpawnError::NeedsGuard(_)), "{error:?}");
}

#[tokio::test]
async fn a_missing_command_names_the_path() {
    let tag = Tagged::new();
    let mut spec = tag.spec(&[]).env("PATH", "/nowhere");
    spec.program = "no-such-command".into();
    let error = ChildTree::spawn(spec, &guarded()).await.unwrap_err();
    assert!(matches!(error, SpawnError::Lookup(LookupError::NotOnPath { .. })), "{error:?}");
    assert_eq!(error.to_string(), "no-such-command was not found on PATH (/nowhere)");
    tag.assert_none_left();
}

#[rstest]
#[case::guarded(guarded())]
#[case::unguarded(Helper::None)]
#[tokio::test]
async fn a_missing_interpreter_is_the_kernels_word(#[case] helper: Helper) {
    let tag = Tagged::new();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut spec = tag.spec(&[]);
    spec.program = script.clone().into();
    match ChildTree::spawn(spec, &helper).await.unwrap_err() {
        SpawnError::NotRun { program, source } => {
            assert_eq!((program, source.kind()), (script, std::io::ErrorKind::NotFound));
        }
        other => panic!("{other:?}"),
    }
    tag.none_left().await;
}

#[tokio::test]
async fn a_missing_working_directory_is_not_a_missing_command() {
    let tag = Tagged::new();
    let mut spec = tag.spec(&["park"]);
    spec.cwd = Some("/no/such/directory".into());
    let error = ChildTree::spawn(spec, &guarded()).await.unwrap_err();
    assert!(matches!(error, SpawnError::WorkingDirectory { .. }), "{error:?}");
}

#[tokio::test]
async fn a_helper_that_is_none_is_noticed() {
    let tag = Tagged::new();
    let missing = ChildTree::spawn(tag.spec(&["park"]), &Helper::Program("/no/such/helper".into())).await;
    assert!(matches!(missing, Err(SpawnError::Helper { .. })), "{missing:?}");
    let wrong = soon(ChildTree::spawn(tag.spec(&["park"]), &Helper::Program("/bin/true".into()))).await;
    assert!(matches!(wrong, Err(SpawnError::NoGuard { .. })), "{wrong:?}");
    tag.none_left().await;
}
