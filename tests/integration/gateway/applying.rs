//! The applier: what is in force, and what it says when something is not.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use sidegate::yaml_applier::*;
use tokio::sync::oneshot;

use super::support::*;

fn nonce() -> SpawnNonce {
    SpawnNonce::random().unwrap()
}

#[tokio::test]
async fn wishes_are_coalesced_and_the_last_one_is_in_force() {
    let ok = upstream(listen().await, async |_| http::Response::new(full("ok")));
    let harness = Harness::serving(routes([])).await;
    let revisions: Vec<_> =
        (0..200).map(|number| harness.applier.apply(routes([(&format!("s{number}"), plain(ok))]))).collect();
    for revision in &revisions {
        let now = tokio::time::timeout(LONG, harness.applier.in_force(*revision)).await.unwrap().unwrap();
        assert!(now.revision >= *revision);
    }
    assert_eq!(harness.fetch("/mcp/s199").await.0, 200);
    assert_eq!(harness.fetch("/mcp/s198").await.0, 404);
    // 200 wishes without a pause between them were one write.
    harness.until_metric("sidegate_gateway_reloads_total{result=\"taken\"} 1").await;

    // The same routes again are the same bytes: in force at once, without a write.
    let before = std::fs::metadata(&harness.file).unwrap().modified().unwrap();
    harness.apply(routes([("s199", plain(ok))])).await;
    assert_eq!(std::fs::metadata(&harness.file).unwrap().modified().unwrap(), before);
    harness.stop().await;
}

#[tokio::test]
async fn a_stranger_behind_the_port_is_told_from_the_child() {
    let harness = Harness::new();
    let generation = harness.applier.prepare(nonce()).await.unwrap();
    let address = ("127.0.0.1", harness.ports.data.get());
    let stranger = tokio::spawn(async move {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        upstream(listener, async |_| http::Response::new(full("00.predecessor")));
        std::future::pending::<()>().await;
    });
    let patience = Duration::from_millis(300);
    let error = loop {
        // Until the stranger listens nothing answers.
        match harness.applier.prove(patience).await.unwrap_err() {
            ApplyError::NotInForce { last: Some(ProbeAnswer::Silent(_)), .. } => {}
            other => break other,
        }
    };
    assert_eq!(
        error.to_string(),
        format!(
            "generation {generation} is not in force after 300ms: asked for it, it answered generation \"00.predecessor\""
        )
    );
    stranger.abort();
    harness.stop().await;
}

/// What answers one generation for good, as a process does that drains.
fn predecessor(harness: &Harness, generation: Generation) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(([127, 0, 0, 1], harness.ports.data.get()).into()).unwrap();
    upstream(socket.listen(16).unwrap(), move |_| async move {
        http::Response::new(full(generation.to_string()))
    });
}

#[tokio::test]
async fn a_predecessor_with_the_same_content_is_told_from_the_child() {
    let harness = Harness::new();
    let old = harness.applier.prepare(nonce()).await.unwrap();
    predecessor(&harness, old);
    let new = harness.applier.prepare(nonce()).await.unwrap();
    assert_eq!(new.content, old.content, "nothing but the process is another");
    let error = harness.applier.prove(Duration::from_millis(300)).await.unwrap_err();
    assert!(
        matches!(&error, ApplyError::NotInForce { last: Some(ProbeAnswer::Generation(text)), .. } if *text == old.to_string()),
        "{error}"
    );

    // The nonce is what tells them apart: with the predecessor's own, it passes for the child that nobody has started.
    assert_eq!(harness.applier.prepare(old.nonce).await.unwrap(), old);
    assert_eq!(harness.applier.prove(LONG).await.unwrap().generation, old);
    harness.stop().await;
}

#[tokio::test]
async fn a_dead_child_is_reported_and_its_successor_serves_the_latest_wish() {
    let ok = upstream(listen().await, async |_| http::Response::new(full("ok")));
    let mut harness = Harness::with_reload_deadline(Duration::from_millis(500));
    harness.respawn().await;
    harness.child.take().unwrap().stop().await.unwrap();
    let revision = harness.applier.apply(routes([("a", plain(ok))]));
    let error = tokio::time::timeout(LONG, harness.applier.in_force(revision)).await.unwrap().unwrap_err();
    assert!(matches!(error, ApplyError::NotInForce { last: Some(ProbeAnswer::Silent(_)), .. }), "{error}");
    assert_eq!(harness.applier.status().borrow().in_force, None);

    let now = harness.respawn().await;
    assert!(now.revision >= revision);
    assert_eq!(harness.fetch("/mcp/a").await.0, 200);
    // The successor follows as its predecessor did.
    harness.apply(routes([("b", plain(ok))])).await;
    assert_eq!(harness.fetch("/mcp/b").await.0, 200);
    harness.stop().await;
}

#[tokio::test]
async fn preparing_a_successor_ends_the_wait_for_a_dead_child() {
    let mut harness = Harness::new();
    assert!(matches!(harness.applier.prove(LONG).await, Err(ApplyError::NotPrepared)));
    harness.applier.prepare(nonce()).await.unwrap();
    let applier = harness.applier.clone();
    let (waiting, is_waiting) = oneshot::channel();
    let proof = tokio::spawn(async move {
        waiting.send(()).unwrap();
        applier.prove(LONG).await
    });
    is_waiting.await.unwrap();
    harness.respawn().await;
    let ended = tokio::time::timeout(LONG, proof).await.unwrap().unwrap();
    assert!(matches!(ended, Err(ApplyError::Superseded)), "{ended:?}");
    harness.stop().await;
}

#[tokio::test]
async fn an_unwritable_place_is_an_error_with_its_source() {
    let harness = Harness::new();
    std::fs::remove_dir_all(harness.directory.path()).unwrap();
    let error = harness.applier.prepare(nonce()).await.unwrap_err();
    assert!(matches!(error, ApplyError::Write(_)), "{error}");
    assert!(harness.applier.status().borrow().failure.is_some());
    harness.stop().await;
}

/// Judges as the gateway itself does.
struct ByTheGateway;

impl Validator for ByTheGateway {
    fn validate<'a>(
        &'a self,
        candidate: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), ValidateError>> + Send + 'a>> {
        let verdict = sidegate::gateway::validate(candidate);
        Box::pin(async move {
            verdict.map(drop).map_err(|error| ValidateError::Refused { reason: error.to_string() })
        })
    }
}

#[tokio::test]
async fn a_route_that_the_gateway_refuses_does_not_hold_up_the_others() {
    let ok = upstream(listen().await, async |_| http::Response::new(full("ok")));
    let mut harness = Harness::with(Duration::from_secs(3), Some(Arc::new(ByTheGateway)));
    let mut bad = plain(ok);
    bad.policies.insert("localRateLimit".to_owned(), serde_json::json!([]));
    let mut unjoinable = plain(ok);
    unjoinable.policies.insert("authorization".to_owned(), serde_json::json!("none"));
    harness.applier.apply(routes([
        ("a", plain(ok)),
        ("bad", bad),
        ("c", plain(ok)),
        ("unjoinable", unjoinable),
    ]));
    let now = harness.respawn().await;
    let refused: Vec<_> =
        now.refused.iter().map(|(name, reason)| (name.server().as_str(), reason.as_str())).collect();
    assert_eq!(refused.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["bad", "unjoinable"]);
    assert!(
        refused[0].1.ends_with("the embedded gateway does not support \"localRateLimit\""),
        "{refused:?}"
    );
    assert_eq!(refused[1].1, "policies.authorization.rules: expected a list of CEL expressions");
    for (name, status) in [("a", 200), ("bad", 404), ("c", 200), ("unjoinable", 404)] {
        assert_eq!(harness.fetch(&format!("/mcp/{name}")).await.0, status, "{name}");
    }
    harness.apply(routes([("bad", plain(ok))])).await;
    assert_eq!(harness.fetch("/mcp/bad").await.0, 200);
    harness.stop().await;
}
