//! Start, reload and end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::Request;
use http_body_util::BodyExt as _;
use sidegate::gateway::{ServeError, Surface};
use sidegate::yaml_applier::*;

use super::support::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_routes_come_and_go() {
    let ok = upstream(listen().await, async |_| http::Response::new(full("ok")));
    let harness = Arc::new(Harness::serving(routes([("a", plain(ok))])).await);
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (harness, done, calls) = (Arc::clone(&harness), Arc::clone(&done), Arc::clone(&calls));
            tokio::spawn(async move {
                let mut client = harness.client().await;
                while !done.load(Ordering::Relaxed) {
                    let answer = client.text(harness.post("/mcp/a").body(full("x")).unwrap()).await;
                    assert_eq!(answer, (200, "ok".to_owned()));
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..20 {
        let other = format!("b{round}");
        harness.apply(routes([("a", plain(ok)), (&other, plain(ok))])).await;
        assert_eq!(harness.fetch(&format!("/mcp/{other}")).await.0, 200);
        if round > 0 {
            assert_eq!(harness.fetch(&format!("/mcp/b{}", round - 1)).await.0, 404);
        }
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert!(calls.load(Ordering::Relaxed) > 0);
    Arc::into_inner(harness).unwrap().stop().await;
}

#[tokio::test]
async fn a_call_in_flight_ends_on_the_route_it_began_on() {
    let (release, gate) = tokio::sync::watch::channel(false);
    let (begun, mut begins) = tokio::sync::mpsc::channel(1);
    let old = upstream(listen().await, move |_| {
        let (mut gate, begun) = (gate.clone(), begun.clone());
        async move {
            begun.send(()).await.unwrap();
            gate.wait_for(|open| *open).await.unwrap();
            http::Response::new(full("old"))
        }
    });
    let new = upstream(listen().await, async |_| http::Response::new(full("new")));
    let harness = Harness::serving(routes([("a", plain(old))])).await;
    let mut client = harness.client().await;
    let request = harness.get("/mcp/a").body(full("")).unwrap();
    let in_flight = tokio::spawn(async move { client.text(request).await });
    begins.recv().await.unwrap();
    harness.apply(routes([("a", plain(new))])).await;
    assert_eq!(harness.fetch("/mcp/a").await.1, "new");
    release.send(true).unwrap();
    assert_eq!(in_flight.await.unwrap(), (200, "old".to_owned()));
    harness.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_served_changes_nothing() {
    let ok = upstream(listen().await, async |_| http::Response::new(full("ok")));
    let harness = Harness::serving(routes([("a", plain(ok))])).await;
    let good = std::fs::read_to_string(&harness.file).unwrap();
    let replace = |text: &str| {
        let temp = harness.directory.path().join("new");
        std::fs::write(&temp, text).unwrap();
        std::fs::rename(temp, &harness.file).unwrap();
    };
    let other_port = good.replace(&harness.ports.admin.to_string(), &Lease::new().port.to_string());
    let bad = ["config: [", "", &good.replace("backends:", "backend:"), &other_port];
    for (number, text) in bad.iter().enumerate() {
        replace(text);
        harness
            .until_metric(&format!("sidegate_gateway_reloads_total{{result=\"refused\"}} {}", number + 1))
            .await;
        assert_eq!(harness.fetch("/mcp/a").await, (200, "ok".to_owned()));
    }
    std::fs::remove_file(&harness.file).unwrap();
    assert_eq!(harness.fetch("/mcp/a").await.0, 200);
    replace(&good.replace("/mcp/a", "/mcp/b"));
    harness.until_metric("sidegate_gateway_reloads_total{result=\"taken\"} 1").await;
    assert_eq!(harness.fetch("/mcp/b").await.0, 200);
    harness.stop().await;
}

#[tokio::test]
async fn the_other_ports_tell_and_take_nothing() {
    let ok = upstream(listen().await, async |_| http::Response::new(full("ok")));
    let harness = Harness::serving(routes([("a", plain(ok))])).await;
    harness.fetch("/mcp/a").await;
    let ask = async |port, request: Request<Body>| Client::connect(port).await.text(request).await;
    let get = |path: &str| Request::get(path).body(full("")).unwrap();
    assert_eq!(ask(harness.ports.readiness, get("/healthz/ready")).await, (200, "ready".to_owned()));
    harness.until_metric("sidegate_gateway_requests_total{route=\"a\",status=\"2xx\"} 1").await;

    let (status, dump) = ask(harness.ports.admin, get("/config_dump")).await;
    assert_eq!(status, 200);
    let dump: serde_json::Value = serde_json::from_str(&dump).unwrap();
    assert_eq!(dump["binds"][0]["listeners"][0]["routes"][1]["name"], "a");
    assert!(!dump.to_string().contains(harness.key.header_value().to_str().unwrap()));

    let post = Request::post("/quitquitquit").body(full("")).unwrap();
    assert_eq!(ask(harness.ports.admin, post).await.0, 404);
    for port in [harness.ports.admin, harness.ports.stats, harness.ports.readiness] {
        assert_eq!(ask(port, get("/mcp/a")).await.0, 404);
    }
    harness.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_fatal() {
    let harness = Harness::new();
    harness.applier.prepare(SpawnNonce::random().unwrap()).await.unwrap();
    let _stranger = tokio::net::TcpListener::bind(("127.0.0.1", harness.ports.data.get())).await.unwrap();
    let error = Child::spawn(harness.file.clone()).stop().await.unwrap_err();
    assert!(matches!(error, ServeError::Bind { surface: Surface::Data, .. }), "{error}");
    assert_eq!(error.to_string(), format!("cannot listen on the data port 127.0.0.1:{}", harness.ports.data));
    harness.stop().await;
}

#[tokio::test]
async fn a_missing_or_bad_file_is_fatal_at_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("gone.yaml");
    assert!(matches!(Child::spawn(file.clone()).stop().await, Err(ServeError::Read(_))));
    std::fs::write(&file, "binds: []").unwrap();
    let error = Child::spawn(file.clone()).stop().await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot serve {}", file.display()));
    assert_eq!(
        std::error::Error::source(&error).unwrap().to_string(),
        "missing field `config` at line 1, column 1"
    );
}

#[tokio::test]
async fn the_end_cuts_what_does_not_end_by_itself() {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let endless = upstream(listen().await, move |_| {
        let receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            let frames = futures_util::stream::once(async move {
                drop(receiver.await);
                Ok(hyper::body::Frame::data(bytes::Bytes::new()))
            });
            http::Response::new(http_body_util::StreamBody::new(Box::pin(frames)).boxed())
        }
    });
    let mut harness = Harness::serving(routes([("a", plain(endless))])).await;
    let mut client = harness.client().await;
    let response = client.send(harness.get("/mcp/a").body(full("")).unwrap()).await;
    harness.child.take().unwrap().stop().await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    drop(sender);
    harness.stop().await;
}
