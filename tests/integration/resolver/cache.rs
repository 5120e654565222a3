//! What can have happened to the cache since.

use std::fs::{File, FileTimes};
use std::os::unix::fs::symlink;

use sidegate::binary_resolver::{DEFAULT_VERSION, Event, Origin, Request, ResolveError};

use super::release_server::{ReleaseServer, file};
use super::*;

/// A cache with a verified release in it, and the server it came from.
async fn filled(seed: u8) -> (Cache, ReleaseServer, Resolver, Vec<u8>) {
    let data = content(seed);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| file(seen, &served, "\"a\"")).await;
    let cache = Cache::new();
    let resolver = cache.resolver(&server.url(), &data);
    fetch(&resolver).await.unwrap();
    (cache, server, resolver, data)
}

async fn cached(resolver: &Resolver) -> Result<Option<Verified>, ResolveError> {
    resolver.cached(DEFAULT_VERSION, &|_: Event<'_>| {}).await
}

fn modified(path: &Path) -> std::time::SystemTime {
    std::fs::metadata(path).unwrap().modified().unwrap()
}

fn set_modified(path: &Path, time: std::time::SystemTime) {
    File::options().write(true).open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

#[tokio::test]
async fn an_empty_cache_is_empty_and_stays_so() {
    let cache = Cache::new();
    let resolver = cache.resolver("https://releases.invalid", &content(1));
    assert!(cached(&resolver).await.unwrap().is_none());
    let request = Request { binary: None, version: DEFAULT_VERSION, offline: true };
    let error = resolver.resolve(&request, &|_: Event<'_>| {}).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotCached { .. }), "{error:?}");
    assert!(matches!(resolver.verify(DEFAULT_VERSION).await, Err(ResolveError::NotCached { .. })));
    assert!(!cache.root().exists());
}

#[tokio::test]
async fn offline_the_cache_is_enough() {
    let (_cache, server, resolver, _) = filled(2).await;
    let request = Request { binary: None, version: DEFAULT_VERSION, offline: true };
    let found = resolver.resolve(&request, &|_: Event<'_>| {}).await.unwrap();
    assert_eq!(found.origin(), Origin::Cached);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_changed_file_is_reported_moved_aside_and_fetched_again() {
    let (cache, server, resolver, data) = filled(3).await;
    std::fs::write(cache.binary(), "something else").unwrap();
    let recorder = Recorder::default();
    let found = resolver.fetch(DEFAULT_VERSION, &recorder).await.unwrap();
    assert_eq!(found.origin(), Origin::Downloaded);
    assert_eq!(std::fs::read(cache.binary()).unwrap(), data);
    let expected = ["moved to agentgateway-linux-amd64.changed", "started at 0 of Some(200000)", "installed"];
    assert_eq!(recorder.events(), expected);
    let aside = cache.directory().join("agentgateway-linux-amd64.changed");
    assert_eq!(std::fs::read_to_string(&aside).unwrap(), "something else");
    assert_eq!(mode(&aside), 0o600);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_changed_file_is_never_handed_out_offline_either() {
    let (cache, server, resolver, _) = filled(4).await;
    std::fs::write(cache.binary(), "something else").unwrap();
    assert!(cached(&resolver).await.unwrap().is_none());
    assert!(!cache.binary().exists());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_file_that_was_only_touched_is_hashed_and_used() {
    let (cache, server, resolver, _) = filled(5).await;
    set_modified(&cache.binary(), std::time::UNIX_EPOCH);
    assert!(cached(&resolver).await.unwrap().is_some());
    std::fs::write(cache.directory().join("agentgateway-linux-amd64.verified"), "rubbish").unwrap();
    assert!(cached(&resolver).await.unwrap().is_some());
    std::fs::remove_file(cache.directory().join("agentgateway-linux-amd64.verified")).unwrap();
    assert!(cached(&resolver).await.unwrap().is_some());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_warm_start_hashes_nothing_and_verify_does() {
    let (cache, _server, resolver, data) = filled(6).await;
    // The same inode, size and time with other bytes: only hashing can tell.
    let before = modified(&cache.binary());
    let mut other = data.clone();
    other[0] ^= 1;
    std::fs::write(cache.binary(), &other).unwrap();
    set_modified(&cache.binary(), before);
    assert!(cached(&resolver).await.unwrap().is_some());
    let error = resolver.verify(DEFAULT_VERSION).await.unwrap_err();
    let ResolveError::CacheMismatch { expected, actual, .. } = error else { panic!("{error:?}") };
    assert_eq!((expected, actual), (sha256(&data), sha256(&other)));
}

#[tokio::test]
async fn a_marker_for_another_digest_counts_for_nothing() {
    let (cache, _server, _, _) = filled(7).await;
    let repinned = cache.resolver("https://releases.invalid", &content(8));
    assert!(cached(&repinned).await.unwrap().is_none());
}

#[tokio::test]
async fn what_others_can_write_to_is_refused() {
    for (name, bits) in [
        (cache_binary as fn(&Cache) -> PathBuf, 0o757),
        (cache_binary, 0o775),
        (Cache::directory, 0o707),
        (Cache::directory, 0o770),
        (Cache::root, 0o777),
    ] {
        let (cache, _server, resolver, _) = filled(9).await;
        let path = name(&cache);
        set_mode(&path, bits);
        for result in [cached(&resolver).await.map(drop), fetch(&resolver).await.map(drop)] {
            let error = result.unwrap_err();
            let ResolveError::Unsafe { path: named, .. } = &error else { panic!("{error:?}") };
            assert_eq!(*named, path);
            assert!(error.to_string().contains(&format!("mode 0{bits:o}")), "{error}");
        }
    }
}

fn cache_binary(cache: &Cache) -> PathBuf {
    cache.binary()
}

#[tokio::test]
async fn a_link_in_the_place_of_the_release_is_refused() {
    let (cache, _server, resolver, _) = filled(10).await;
    let elsewhere = cache.root().join("elsewhere");
    std::fs::rename(cache.binary(), &elsewhere).unwrap();
    symlink(&elsewhere, cache.binary()).unwrap();
    let error = cached(&resolver).await.unwrap_err();
    assert!(error.to_string().ends_with("is a symbolic link"), "{error}");
}

#[tokio::test]
async fn a_directory_in_the_place_of_the_release_is_refused() {
    let (cache, _server, resolver, _) = filled(11).await;
    std::fs::remove_file(cache.binary()).unwrap();
    std::fs::create_dir(cache.binary()).unwrap();
    let error = fetch(&resolver).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotExecutable { .. }), "{error:?}");
}
