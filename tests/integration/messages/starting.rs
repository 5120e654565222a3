//! What keeps an instance from starting, or makes it start otherwise than wished.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use super::super::support::definitions::{built_in, with};
use super::super::support::sidegate::{Builder, private_dir};
use super::super::support::{eventually, example_path};
use super::book::{Chapter, place};
use super::played::Played;

pub(super) async fn gateway() -> String {
    let mut chapter = Chapter::new("The gateway");
    let here = place();
    chapter
        .commands(
            "there is no agentgateway",
            &here,
            &[
                &["serve", "--gateway", "agentgateway", "--offline"],
                &["gateway", "path"],
                &["gateway", "verify"],
                &["gateway", "path", "--gateway-version", "0.0.1"],
            ],
        )
        .await;
    let probe = "[ \"$1\" = --version ] && echo '{\"version\": \"1.2.1\"}' && exit\n";
    for (when, mode, text) in [
        ("it is no program", 0o755, "\u{1}\u{2}".to_owned()),
        ("it may not be run", 0o644, "#!/bin/sh\n".to_owned()),
        ("it is another program", 0o755, "#!/bin/sh\necho hello\n".to_owned()),
        ("others could replace it", 0o777, "#!/bin/sh\n".to_owned()),
        ("it ends at once", 0o755, format!("#!/bin/sh\n{probe}echo out of order >&2\nexit 9\n")),
    ] {
        let place = place().file("agentgateway", &text);
        let binary = place.config_dir().with_file_name("agentgateway");
        fs_err::set_permissions(&binary, Permissions::from_mode(mode)).unwrap();
        chapter
            .command(
                when,
                &place,
                &["serve", "--gateway", "agentgateway", "--gateway-binary", "agentgateway"],
            )
            .await;
    }
    chapter
        .command("it is not there", &here, &["serve", "--gateway", "auto", "--gateway-binary", "missing"])
        .await;
    chapter
        .command("it is a directory", &here, &["serve", "--gateway", "auto", "--gateway-binary", "config"])
        .await;
    let faulty = |orders: &str| {
        let binary = example_path("faulty_gateway");
        place()
            .env("SIDEGATE_GATEWAY_BINARY", binary)
            .env("SIDEGATE_GATEWAY_MODE", "agentgateway")
            .file("gateway-faults", orders)
    };
    chapter.command("it ends before it is ready", &faulty("exit 7 no such luck"), &["serve"]).await;
    let unused = place().env("SIDEGATE_GATEWAY_BINARY", "agentgateway");
    let ended = unused.clone().start().await.stop().await;
    chapter.logged("it is given, and the embedded one asked for", &unused, &ended.stderr, "gateway.binary");
    let elsewhere = Played::silent().await;
    let external =
        place().config("gateway: {frontendPolicies: {tcp: {}}}\n").env("SIDEGATE_GATEWAY_MODE", "external");
    let sidegate = external.clone().external_gateway(&elsewhere.url()).start().await;
    let asking = external.clone().env("SIDEGATE_INSTANCE", &sidegate.ready.runtime_dir);
    chapter.command("it is somebody else's", &asking, &["gateway", "restart"]).await;
    let ended = sidegate.stop().await;
    chapter.logged("settings are for a gateway of ours", &external, &ended.stderr, "frontendPolicies");
    let embedded = place().config("gateway: {frontendPolicies: {tcp: {}}}\n");
    chapter.command("settings are agentgateway's alone", &embedded, &["serve"]).await;
    chapter
        .commands(
            "gateway serve: the file",
            &here
                .clone()
                .file("wrong.yaml", "binds: [")
                .file("other.yaml", "binds: []\nllm: {}\n")
                .file("two.yaml", "binds: [{port: 1}, {port: 2}]\n"),
            &[
                &["gateway", "serve", "-f", "missing.yaml"],
                &["gateway", "serve", "-f", "wrong.yaml"],
                &["gateway", "serve", "-f", "other.yaml"],
                &["gateway", "serve", "-f", "two.yaml"],
            ],
        )
        .await;
    let policies = |policies: &str| with(built_in(), &format!("policies: {policies}"));
    let refusing = faulty("none\nrefuse brew")
        .definition("tea", &policies("{brew: {}}"))
        .definition("shape", &policies("{authorization: {rules: 5}}"))
        .definition("rule", &policies("{authorization: {rules: ['a)']}}"))
        .env("SIDEGATE_TELEMETRY_GATEWAY_SPANS", "true");
    let sidegate = refusing.clone().gateway_of_settings().wait_for_servers().start().await;
    let ended = sidegate.stop().await;
    chapter.logged("it refuses the policies of a server", &refusing, &ended.stderr, "server=tea");
    chapter.logged(
        "policies have a form that cannot be joined with ours",
        &refusing,
        &ended.stderr,
        "server=shape",
    );
    chapter.logged("a rule does not close what it opens", &refusing, &ended.stderr, "server=rule");
    chapter.logged(
        "its spans are asked for, and nothing is exported",
        &refusing,
        &ended.stderr,
        "gatewaySpans",
    );
    let replaced = faulty("exit-on-usr1 3\nnone");
    let sidegate = replaced.clone().gateway_of_settings().start().await;
    rustix::process::kill_process(sidegate.gateway_pid().unwrap(), rustix::process::Signal::USR1).unwrap();
    sidegate.wait_for_stderr("code 3").await;
    let ended = sidegate.stop().await;
    chapter.logged("it ends, and is started again", &replaced, &ended.stderr, "code 3");
    chapter.text()
}

pub(super) async fn downloads() -> String {
    let mut chapter = Chapter::new("Downloads and the cache");
    let fetch = async |chapter: &mut Chapter, when: &str, played: &Played| {
        let mirror = format!("http://{}", played.address);
        chapter.command(when, &place(), &["gateway", "fetch", "--gateway-mirror", &mirror]).await;
    };
    for (when, answer) in [
        (
            "the server has no such file",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
        ("it is another file", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"),
        ("a redirect leads nowhere", "HTTP/1.1 302 Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"),
        (
            "a redirect leads to plain http",
            "HTTP/1.1 302 Found\r\nlocation: http://example.com/x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
        (
            "it is far too large",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\nconnection: close\r\n\r\nhello",
        ),
    ] {
        fetch(&mut chapter, when, &Played::saying(answer).await).await;
    }
    fetch(&mut chapter, "the connection breaks each time", &Played::saying("").await).await;
    not_fetched_meanwhile(&mut chapter).await;
    let here = place();
    chapter
        .commands(
            "the mirror is not safe, or the version is not known",
            &here,
            &[
                &["gateway", "fetch", "--gateway-mirror", "http://example.com"],
                &["gateway", "fetch", "--gateway-mirror", "mirror"],
                &["gateway", "fetch", "--gateway-version", "9.9.9"],
            ],
        )
        .await;
    let changed = place();
    let cached = cached(&changed);
    private_dir(cached.parent().unwrap());
    fs_err::write(&cached, "changed").unwrap();
    fs_err::set_permissions(&cached, Permissions::from_mode(0o755)).unwrap();
    chapter
        .commands(
            "the cached file was changed",
            &changed,
            &[&["gateway", "verify"], &["serve", "--gateway", "agentgateway", "--offline"]],
        )
        .await;
    fs_err::write(&cached, "changed").unwrap();
    fs_err::set_permissions(&cached, Permissions::from_mode(0o777)).unwrap();
    chapter.command("others could change the cached file", &changed, &["gateway", "verify"]).await;
    let sealed = place().env("XDG_CACHE_HOME", "/proc");
    let nothing = Played::saying("").await;
    let mirror = format!("http://{}", nothing.address);
    chapter
        .command(
            "nothing can be written to the cache",
            &sealed,
            &["gateway", "fetch", "--gateway-mirror", &mirror],
        )
        .await;
    chapter.text()
}

/// An instance that fetches agentgateway in the background says what became of that, for as long as it runs.
async fn not_fetched_meanwhile(chapter: &mut Chapter) {
    let mirror =
        Played::saying("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let place = place()
        .env("CI", "")
        .env("SIDEGATE_GATEWAY_MODE", "auto")
        .env("SIDEGATE_GATEWAY_MIRROR", format!("http://{}", mirror.address));
    let mut serving = place.clone().begin(&["serve"]);
    serving.first_line().await;
    let said = eventually("the end of the download", async || {
        let ended = place.clone().command(&["status"]).await;
        let gateway = ended.stdout.lines().find(|line| line.starts_with("Gateway")).map(str::to_owned);
        gateway.filter(|line| !line.contains("while agentgateway is fetched"))
    })
    .await;
    let when = "it is fetched while the embedded gateway serves, and cannot be: what `sidegate status` says";
    chapter.said(when, &place, &said);
    serving.signal(rustix::process::Signal::INT);
    let ended = serving.wait().await;
    chapter.logged("and what is logged", &place, &ended.stderr, "the embedded gateway stays");
}

/// Where the pinned release would be for somebody at `place`.
fn cached(place: &Builder) -> PathBuf {
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let cache = place.config_dir().with_file_name("home").join(".cache/sidegate/agentgateway/1.2.1");
    cache.join(format!("agentgateway-linux-{architecture}"))
}

pub(super) async fn surroundings() -> String {
    let mut chapter = Chapter::new("Ports, directories and other instances");
    let at = place();
    let first = at.clone().start().await;
    let address = first.url().trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    let runtime_dir = first.ready.runtime_dir.to_str().unwrap().to_owned();
    chapter.command("the address is taken", &at, &["serve", "--listen", &address]).await;
    chapter.command("the address is not of this machine", &at, &["serve", "--listen", "192.0.2.1:0"]).await;
    chapter
        .command(
            "a port of the gateway is taken",
            &at.clone().env("SIDEGATE_GATEWAY_PORTS_ADMIN", address.rsplit(':').next().unwrap()),
            &["serve"],
        )
        .await;
    chapter.command("an instance runs there already", &at, &["serve", "--runtime-dir", &runtime_dir]).await;
    assert!(first.stop().await.status.success());
    let twice = place();
    let mut first = twice.clone().begin(&["serve"]);
    let ready = first.first_line().await;
    let address = ready.rsplit("http://").next().unwrap().trim_end_matches("/mcp").to_owned();
    chapter.command("serve is typed twice", &twice, &["serve", "--listen", &address]).await;
    chapter.command("serve is typed twice, with another address", &twice, &["serve"]).await;
    first.signal(rustix::process::Signal::INT);
    let ended = first.wait().await;
    let stop = ended
        .stderr
        .lines()
        .skip_while(|line| !line.starts_with("stopping"))
        .filter(|line| line.starts_with("stop"));
    chapter.said("Ctrl-C ends it", &twice, &stop.collect::<Vec<_>>().join("\n"));
    for (when, helper) in
        [("the helper is not there", "/nonexistent"), ("the helper is another program", "/bin/true")]
    {
        chapter.command(when, &place().env("SIDEGATE_HELPER", helper), &["serve"]).await;
    }
    let open = place();
    let above = open.config_dir().with_file_name("open");
    fs_err::create_dir(&above).unwrap();
    fs_err::set_permissions(&above, Permissions::from_mode(0o777)).unwrap();
    chapter
        .command("others can write to its directory", &open, &["serve", "--runtime-dir", "open/run"])
        .await;
    let file = place().file("a-file", "");
    chapter.command("its directory is a file", &file, &["serve", "--runtime-dir", "a-file"]).await;
    chapter
        .command("its directory cannot be made", &file, &["serve", "--runtime-dir", "/proc/sidegate"])
        .await;
    let passed = |sockets: &str| {
        format!("LISTEN_PID=$$ LISTEN_FDS={sockets} exec \"$0\" serve 3</dev/null 4</dev/null")
    };
    chapter.shell("a service manager passes a file", &file, &passed("1")).await;
    chapter.shell("a service manager passes two sockets", &file, &passed("2")).await;
    chapter
        .command("the command that it is for is not there", &file, &["run", "--", "no-such-command"])
        .await;
    chapter.text()
}

pub(super) async fn telemetry() -> String {
    let mut chapter = Chapter::new("Telemetry and logging");
    let wrong = place()
        .env("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "collector:4317")
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
        .env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:9")
        .env("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/json")
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "brotli")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization")
        .env("OTEL_LOGS_EXPORTER", "console")
        .env("OTEL_TRACES_SAMPLER", "sometimes")
        .env("OTEL_PROPAGATORS", "b3")
        .env("OTEL_RESOURCE_ATTRIBUTES", "team=%ff")
        .env("SIDEGATE_TELEMETRY_GATEWAY_SPANS", "true")
        .env("SIDEGATE_LOG", "lots,=");
    let sidegate = wrong.clone().start().await;
    let stderr = sidegate.kill().await.stderr;
    for (when, what) in [
        ("SIDEGATE_LOG is wrong", "SIDEGATE_LOG"),
        ("an endpoint is no URL", "METRICS_ENDPOINT"),
        ("a number is none", "_TIMEOUT"),
        ("a protocol is not known", "_PROTOCOL"),
        ("an unknown compression is asked for", "_COMPRESSION"),
        ("a header has no value", "_HEADERS"),
        ("an exporter is not known", "OTEL_LOGS_EXPORTER"),
        ("a sampler is not known", "OTEL_TRACES_SAMPLER"),
        ("a propagator is not known", "b3"),
        ("an attribute is no text", "OTEL_RESOURCE_ATTRIBUTES"),
        ("spans of the gateway are asked for, which has none", "gatewaySpans"),
    ] {
        chapter.logged(when, &wrong, &stderr, what);
    }
    let certificate = place()
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "https://127.0.0.1:9")
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", "missing.pem");
    chapter.command("a certificate is not there", &certificate, &["serve"]).await;
    let certificate = certificate.env("OTEL_EXPORTER_OTLP_CERTIFICATE", "empty.pem").file("empty.pem", "");
    chapter.command("a certificate is none", &certificate, &["serve"]).await;
    chapter.text()
}
