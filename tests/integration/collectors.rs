//! How collectors are reached: compressed, over TLS, and as whom.

use rstest::rstest;

use super::support::Sidegate;
use super::support::certificates::Certificates;
use super::support::collector::{Collector, Exporting, Otlp};
use super::support::sidegate::Builder;

/// Exports the spans of a start, which come whole.
async fn exports(builder: Builder, collector: &Collector) -> Sidegate {
    let sidegate = builder.exporting_to(collector).start().await;
    collector.spans_where(1, |span| span.name == "sidegate.start").await;
    collector.log_where(|_| true).await;
    sidegate
}

#[rstest]
#[tokio::test]
async fn what_is_sent_is_compressed_where_that_is_wanted(#[values(Otlp::Grpc, Otlp::Http)] otlp: Otlp) {
    let collector = Collector::start(otlp).await;
    let _sidegate =
        exports(Sidegate::builder().env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), &collector).await;
    let encodings = collector.encodings();
    assert!(encodings.len() >= 2 && encodings.iter().all(|encoding| encoding == "gzip"), "{encodings:?}");

    let collector = Collector::start(otlp).await;
    let builder = Sidegate::builder().env("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "none");
    let builder = builder.env("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "zip");
    let sidegate = exports(builder, &collector).await;
    assert!(collector.encodings().is_empty(), "{:?}", collector.encodings());
    sidegate.wait_for_stderr("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION is ignored").await;
}

#[rstest]
#[tokio::test]
async fn a_collector_is_reached_over_tls(
    #[values(Otlp::Grpc, Otlp::Http)] otlp: Otlp,
    #[values(false, true)] asks_who_we_are: bool,
) {
    let certificates = Certificates::new();
    let mut builder = Sidegate::builder().env("OTEL_EXPORTER_OTLP_CERTIFICATE", certificates.file("ca.pem"));
    let certificates = if asks_who_we_are {
        builder = builder
            .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", certificates.file("client.pem"))
            .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", certificates.file("client.key"));
        certificates.asking_clients()
    } else {
        certificates
    };
    let collector = Collector::start_tls(otlp, &certificates).await;
    exports(builder, &collector).await;
}

/// Whom we do not trust gets nothing, nor do we send where we are not trusted; one line each says why.
#[rstest]
#[tokio::test]
async fn a_collector_that_is_not_trusted_gets_nothing_and_that_is_said_once(
    #[values(Otlp::Grpc, Otlp::Http)] otlp: Otlp,
) {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let collector = Collector::start_tls(otlp, &certificates).await;
    let sidegate = Sidegate::builder()
        .exporting_to(&collector)
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", others.file("ca.pem"))
        .start()
        .await;
    sidegate.wait_for_stderr("spans were not exported").await;
    sidegate.wait_for_stderr("log records were not exported").await;
    let ended = sidegate.stop().await;
    assert!(ended.status.success(), "{:?}", ended.status);
    for what in ["spans were not exported", "log records were not exported"] {
        let lines: Vec<&str> = ended.stderr.lines().filter(|line| line.contains(what)).collect();
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        assert!(lines[0].contains("certificate"), "it says why: {}", lines[0]);
    }
    assert!(collector.spans().is_empty() && collector.logs().is_empty());
}
