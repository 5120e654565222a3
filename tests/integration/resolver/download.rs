//! What a server can do to a download.

use std::sync::Mutex;
use std::time::Duration;

use sidegate::binary_resolver::{DEFAULT_VERSION, Event, Origin, Releases, ResolveError, Resolver, Version};
use sidegate::ports::{Interface, lease_any};

use super::release_server::{
    ReleaseServer, cut, endless, file, part, redirect, stall, status, tagged, whole,
};
use super::*;

const RELEASE: [&str; 2] = ["agentgateway-linux-amd64", "agentgateway-linux-amd64.verified"];
const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn a_download_is_installed_and_found_again_without_a_request() {
    let data = content(1);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| file(seen, &served, "\"a\"")).await;
    let cache = Cache::new();
    let resolver = cache.resolver(&server.url(), &data);
    let recorder = Recorder::default();

    let first = resolver.fetch(DEFAULT_VERSION, &recorder).await.unwrap();
    assert_eq!((first.origin(), first.digest()), (Origin::Downloaded, Some(sha256(&data))));
    assert_eq!((first.path(), first.version().to_string().as_str()), (cache.binary().as_path(), "1.2.1"));
    assert_eq!(std::fs::read(first.path()).unwrap(), data);
    assert_eq!(cache.files(), RELEASE);
    assert_eq!(recorder.events(), ["started at 0 of Some(200000)", "installed"]);
    let modes = [cache.root(), cache.directory(), cache.binary()].map(|path| mode(&path));
    assert_eq!(modes, [0o700, 0o700, 0o755]);

    let second = fetch(&resolver).await.unwrap();
    assert_eq!((second.origin(), second.path()), (Origin::Cached, first.path()));
    assert_eq!(server.seen().iter().map(|seen| seen.path.as_str()).collect::<Vec<_>>(), [ASSET]);
}

#[tokio::test]
async fn bytes_are_counted_up_to_the_whole() {
    let data = content(2);
    let served = data.clone();
    let server = ReleaseServer::start(move |_| whole(&served)).await;
    let cache = Cache::new();
    let counts = Mutex::new(Vec::new());
    let count = |event: Event<'_>| {
        if let Event::Received { bytes, total } = event {
            counts.lock().unwrap().push((bytes, total));
        }
    };
    cache.resolver(&server.url(), &data).fetch(DEFAULT_VERSION, &count).await.unwrap();
    let counts = counts.into_inner().unwrap();
    assert!(counts.is_sorted());
    assert_eq!(counts.last(), Some(&(200_000, Some(200_000))));
}

#[tokio::test]
async fn what_is_not_there_is_asked_for_once() {
    let server = ReleaseServer::start(|_| status(404)).await;
    let cache = Cache::new();
    let error = fetch(&cache.resolver(&server.url(), &content(3))).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{}{ASSET} answered 404 Not Found", server.url()));
    assert!(error.hint().is_some());
    assert_eq!(server.seen().len(), 1);
    assert_eq!(cache.files(), NOTHING);
}

#[tokio::test]
async fn a_server_error_is_tried_three_times() {
    let server = ReleaseServer::start(|_| status(500)).await;
    let cache = Cache::new();
    let recorder = Recorder::default();
    let resolver = cache.resolver(&server.url(), &content(4));
    let error = last_try(resolver.fetch(DEFAULT_VERSION, &recorder).await.unwrap_err());
    assert!(matches!(&error, ResolveError::Status { status, .. } if status.as_u16() == 500), "{error:?}");
    assert_eq!(server.seen().len(), 3);
    assert_eq!(recorder.events(), ["try 2", "try 3"]);
    assert_eq!(cache.files(), NOTHING);
}

#[tokio::test]
async fn a_passing_error_passes() {
    let data = content(5);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.index {
        0 => status(503),
        1 => status(429),
        _ => file(seen, &served, "\"a\""),
    })
    .await;
    let cache = Cache::new();
    fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
}

#[tokio::test]
async fn a_refused_connection_is_tried_again_and_named() {
    // A lease is bound and never listens.
    let lease = lease_any(Interface::LoopbackV4).unwrap();
    let cache = Cache::new();
    let base = format!("http://{}", lease.address());
    let error = last_try(fetch(&cache.resolver(&base, &content(6))).await.unwrap_err());
    assert!(matches!(error, ResolveError::Transfer { received: 0, .. }), "{error:?}");
}

#[tokio::test]
async fn a_cut_download_is_resumed_where_it_was_cut() {
    let data = content(7);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.index {
        0 => tagged(cut(&served, 70_000), "\"a\""),
        _ => file(seen, &served, "\"a\""),
    })
    .await;
    let cache = Cache::new();
    let recorder = Recorder::default();
    let resolver = cache.resolver(&server.url(), &data);
    resolver.fetch(DEFAULT_VERSION, &recorder).await.unwrap();
    assert_eq!(std::fs::read(cache.binary()).unwrap(), data);
    let seen = server.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].range.as_deref(), Some("bytes=70000-"));
    assert_eq!(seen[1].if_range.as_deref(), Some("\"a\""));
    let expected = ["started at 0 of Some(200000)", "try 2", "started at 70000 of Some(200000)", "installed"];
    assert_eq!(recorder.events(), expected);
}

#[tokio::test]
async fn without_a_reliable_name_a_cut_download_begins_again() {
    for weak in [false, true] {
        let data = content(8);
        let served = data.clone();
        let server = ReleaseServer::start(move |seen| match (seen.index, weak) {
            (0, false) => cut(&served, 70_000),
            (0, true) => tagged(cut(&served, 70_000), "W/\"a\""),
            _ => whole(&served),
        })
        .await;
        let cache = Cache::new();
        fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
        assert_eq!(std::fs::read(cache.binary()).unwrap(), data);
        assert_eq!(server.seen()[1].range, None);
    }
}

#[tokio::test]
async fn an_asset_that_changes_between_ranges_is_taken_whole() {
    let (old, data) = (content(9), content(10));
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.index {
        0 => tagged(cut(&old, 70_000), "\"old\""),
        _ => file(seen, &served, "\"new\""),
    })
    .await;
    let cache = Cache::new();
    fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
    assert_eq!(std::fs::read(cache.binary()).unwrap(), data);
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_server_that_resumes_another_version_is_asked_for_the_whole() {
    let (old, data) = (content(11), content(12));
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.index {
        0 => tagged(cut(&old, 70_000), "\"old\""),
        // Ignores If-Range.
        1 => tagged(part(&served, 70_000), "\"new\""),
        _ => whole(&served),
    })
    .await;
    let cache = Cache::new();
    fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
    assert_eq!(std::fs::read(cache.binary()).unwrap(), data);
    assert_eq!(server.seen()[2].range, None);
}

#[tokio::test]
async fn two_versions_joined_without_a_word_are_found_by_the_digest_and_fetched_whole() {
    let (old, data) = (content(13), content(14));
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.index {
        0 => tagged(cut(&old, 70_000), "\"old\""),
        1 => part(&served, 70_000),
        _ => whole(&served),
    })
    .await;
    let cache = Cache::new();
    fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
    assert_eq!(std::fs::read(cache.binary()).unwrap(), data);
    assert_eq!(server.seen()[2].range, None);
}

#[tokio::test]
async fn a_server_that_cannot_resume_any_more_is_asked_for_the_whole() {
    let data = content(15);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.index {
        0 => tagged(cut(&served, 70_000), "\"a\""),
        1 => status(416),
        _ => whole(&served),
    })
    .await;
    let cache = Cache::new();
    fetch(&cache.resolver(&server.url(), &data)).await.unwrap();
    assert_eq!(server.seen()[2].range, None);
}

#[tokio::test]
async fn another_file_is_refused_with_both_digests_and_nothing_is_kept() {
    let (data, other) = (content(16), content(17));
    let served = other.clone();
    let server = ReleaseServer::start(move |_| whole(&served)).await;
    let cache = Cache::new();
    let error = fetch(&cache.resolver(&server.url(), &data)).await.unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&sha256(&data).to_string()) && text.contains(&sha256(&other).to_string()),
        "{text}"
    );
    assert_eq!(server.seen().len(), 1);
    assert_eq!(cache.files(), NOTHING);
}

#[tokio::test]
async fn a_silent_server_is_given_up() {
    let data = content(18);
    let served = data.clone();
    let server = ReleaseServer::start(move |_| stall(&served, 1000)).await;
    let cache = Cache::new();
    let mut limits = limits();
    limits.idle = Duration::from_millis(50);
    let resolver = resolver_with(&server.url(), &cache.root(), &data, limits);
    let error = last_try(fetch(&resolver).await.unwrap_err());
    let ResolveError::Transfer { received, source, .. } = &error else { panic!("{error:?}") };
    assert!(source.is_timeout(), "{source:?}");
    assert_eq!(*received, 1000);
    assert_eq!(cache.files(), NOTHING);
}

#[tokio::test]
async fn redirects_are_followed_and_the_last_address_is_named() {
    let data = content(19);
    let served = data.clone();
    let server = ReleaseServer::start(move |seen| match seen.path.as_str() {
        ASSET => redirect("/elsewhere?signature=secret"),
        _ => file(seen, &served, "\"a\""),
    })
    .await;
    let cache = Cache::new();
    let from = Mutex::new(String::new());
    let note = |event: Event<'_>| {
        if let Event::Started { url, .. } = event {
            url.clone_into(&mut from.lock().unwrap());
        }
    };
    cache.resolver(&server.url(), &data).fetch(DEFAULT_VERSION, &note).await.unwrap();
    assert_eq!(*from.lock().unwrap(), format!("{}/elsewhere", server.url()));
}

#[tokio::test]
async fn a_redirect_to_plain_http_elsewhere_is_not_followed() {
    // A documentation address (RFC 5737), so that a failing test disturbs nobody.
    let server = ReleaseServer::start(|_| redirect("http://192.0.2.1/agentgateway?token=secret")).await;
    let cache = Cache::new();
    let error = fetch(&cache.resolver(&server.url(), &content(20))).await.unwrap_err();
    let expected = "http://192.0.2.1/agentgateway is not https (http is for loopback addresses only)";
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn redirects_end_after_five() {
    let server = ReleaseServer::start(|seen| redirect(&format!("/hop/{}", seen.index))).await;
    let cache = Cache::new();
    let error = fetch(&cache.resolver(&server.url(), &content(21))).await.unwrap_err();
    assert!(matches!(error, ResolveError::TooManyRedirects { limit: 5, .. }), "{error:?}");
    assert_eq!(server.seen().len(), 6);
}

#[tokio::test]
async fn a_redirect_to_nowhere_is_an_error() {
    let server = ReleaseServer::start(|_| status(302)).await;
    let error = fetch(&Cache::new().resolver(&server.url(), &content(22))).await.unwrap_err();
    assert!(matches!(error, ResolveError::BadRedirect { .. }), "{error:?}");
}

#[tokio::test]
async fn a_body_beyond_the_cap_is_refused_announced_or_not() {
    for announced in [true, false] {
        let served = content(23);
        let server =
            ReleaseServer::start(move |_| if announced { stall(&served, 0) } else { endless() }).await;
        let cache = Cache::new();
        let mut limits = limits();
        limits.max_size = 100_000;
        let resolver = resolver_with(&server.url(), &cache.root(), &content(23), limits);
        let error = fetch(&resolver).await.unwrap_err();
        assert!(matches!(error, ResolveError::TooLarge { limit: 100_000, .. }), "{error:?}");
        assert_eq!(server.seen().len(), 1);
        assert_eq!(cache.files(), NOTHING);
    }
}

#[tokio::test]
async fn what_is_not_pinned_is_not_asked_for() {
    let server = ReleaseServer::start(|_| status(500)).await;
    let cache = Cache::new();
    let resolver = cache.resolver(&server.url(), &content(24));
    let error = resolver.fetch(Version::new(1, 5, 0), &|_: Event<'_>| {}).await.unwrap_err();
    assert!(matches!(error, ResolveError::NotPinned { .. }), "{error:?}");
    let unknown = Resolver::with(Releases::official().unwrap(), cache.root(), None, limits());
    assert!(matches!(fetch(&unknown).await, Err(ResolveError::UnsupportedPlatform { .. })));
    assert_eq!(server.seen(), []);
    assert!(!cache.root().exists());
}

#[tokio::test]
async fn a_download_that_is_given_up_leaves_nothing() {
    let data = content(25);
    let served = data.clone();
    let server = ReleaseServer::start(move |_| stall(&served, 1000)).await;
    let cache = Cache::new();
    let resolver = cache.resolver(&server.url(), &data);
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |event: Event<'_>| {
        if matches!(event, Event::Received { .. }) {
            sender.send(()).unwrap();
        }
    };
    tokio::select! {
        result = resolver.fetch(DEFAULT_VERSION, &progress) => panic!("{result:?}"),
        _ = receiver.recv() => {}
    }
    assert_eq!(cache.files(), NOTHING);
    // The lock is free again: the next attempt comes as far.
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let progress = move |event: Event<'_>| {
        if matches!(event, Event::Started { .. }) {
            sender.send(()).unwrap();
        }
    };
    tokio::select! {
        result = resolver.fetch(DEFAULT_VERSION, &progress) => panic!("{result:?}"),
        _ = receiver.recv() => {}
    }
}
