//! Sessions with real children, asked as the gateway asks: requests go in where the socket's connections put them.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use rustix::process::{Pid, test_kill_process};

use super::*;
use crate::wire::server::{Body, SESSION_ID};

/// Answers by what a request holds. Its first line on stderr is its process id.
const SERVER: &str = r#"
echo $$ >&2
while read -r line; do
  case $line in
    *'"initialize"'*) echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-11-25"}}' ;;
    *'"pid"'*) echo '{"jsonrpc":"2.0","id":7,"result":'$$'}' ;;
    *'"progress"'*)
      echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"nobody","progress":1}}'
      echo '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":2}}'
      echo '{"jsonrpc":"2.0","id":7,"result":"done"}' ;;
    *'"ask"'*)
      echo '{"jsonrpc":"2.0","id":"q","method":"roots/list"}'
      echo '{"jsonrpc":"2.0","method":"note"}'
      echo '{"jsonrpc":"2.0","id":7,"result":"asked"}' ;;
    *'"crash"'*) echo 'first words' >&2; echo 'last words' >&2; exit 5 ;;
    *'"deaf"'*) exec >&-; exec /bin/sleep 3600 ;;
  esac
done
"#;

/// Reads everything, answers nothing.
const SILENT: &str = "echo $$ >&2; while read -r line; do :; done";

/// How long anything may take before a test fails.
const DEADLINE: Duration = Duration::from_secs(30);

struct Served {
    bridge: Bridge,
    route: RouteName,
    directory: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Served {
    fn start(script: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let settings = BridgeSettings {
            helper: Helper::None,
            logs: None,
            grace: Duration::from_millis(500),
            open_files: None,
            environment: Vec::new(),
            proxies: crate::outbound::Proxies::default(),
            children: Arc::default(),
            secrets: crate::telemetry::secrets::Secrets::default(),
        };
        let bridge = Bridge::start(&directory.path().join("socket"), settings).unwrap();
        let route = RouteName::new("near".parse().unwrap(), 0);
        let target = StdioTarget {
            command: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: Vec::new(),
            cwd: directory.path().to_path_buf(),
        };
        bridge.set(&route, Target::Stdio(Arc::new(target)));
        Self { bridge, route, directory }
    }

    async fn begin(&self, method: Method, session: Option<&str>, body: &str) -> Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri("/near")
            .header("host", "localhost")
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json");
        if let Some(session) = session {
            request = request.header(SESSION_ID, session);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        Arc::clone(&self.bridge.http).handle(request).await
    }

    async fn send(&self, method: Method, session: Option<&str>, body: &str) -> Answer {
        let exchange = async {
            let (parts, body) = self.begin(method, session, body).await.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let body = String::from_utf8(body.to_vec()).unwrap();
            Answer { status: parts.status, headers: parts.headers, body }
        };
        tokio::time::timeout(DEADLINE, exchange).await.unwrap()
    }

    async fn initialize(&self) -> Answer {
        self.send(Method::POST, None, r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#).await
    }

    async fn open(&self) -> String {
        let answer = self.initialize().await;
        let session = answer.headers.get(SESSION_ID).unwrap_or_else(|| panic!("{}", answer.body));
        session.to_str().unwrap().to_owned()
    }

    /// Sends request 7.
    async fn ask(&self, session: &str, method: &str) -> Answer {
        let meta = r#"{"_meta":{"progressToken":"t"}}"#;
        let request = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{meta}}}"#);
        self.send(Method::POST, Some(session), &request).await
    }

    async fn pid(&self, session: &str) -> Pid {
        let answer = self.ask(session, "pid").await;
        let pid = answer.body.rsplit(':').next().unwrap().trim_end_matches('}').parse().unwrap();
        Pid::from_raw(pid).unwrap()
    }

    async fn delete(&self, session: &str) -> StatusCode {
        self.send(Method::DELETE, Some(session), "").await.status
    }
}

fn lives(pid: Pid) -> bool {
    test_kill_process(pid).is_ok()
}

/// For what has no event to wait for.
async fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn every_session_has_a_child_of_its_own_and_ends_it() {
    let served = Served::start(SERVER);
    let (one, two) = (served.open().await, served.open().await);
    let (first, second) = (served.pid(&one).await, served.pid(&two).await);
    assert_ne!(first, second);
    assert_eq!(served.pid(&one).await, first);

    assert_eq!(served.delete(&one).await, StatusCode::NO_CONTENT);
    assert!(!lives(first), "DELETE is answered when the child has ended");
    assert_eq!(served.ask(&one, "pid").await.status, StatusCode::NOT_FOUND);
    assert_eq!(served.pid(&two).await, second);

    served.bridge.shutdown().await;
    assert!(!lives(second));
    assert_eq!(served.initialize().await.status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_crash_answers_whoever_waits_and_ends_the_session() {
    let served = Served::start(SERVER);
    let session = served.open().await;
    let hang = r#"{"jsonrpc":"2.0","id":8,"method":"hang"}"#;
    let (waiting, crashed) =
        tokio::join!(served.send(Method::POST, Some(&session), hang), served.ask(&session, "crash"),);
    for (answer, id) in [(waiting, 8), (crashed, 7)] {
        let start = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32000,"#);
        assert!(answer.body.starts_with(&start), "{}", answer.body);
        for part in ["exited with code 5", "first words | last words"] {
            assert!(answer.body.contains(part), "{}", answer.body);
        }
    }
    assert_eq!(served.ask(&session, "pid").await.status, StatusCode::NOT_FOUND);
    // The next session has the next child.
    let session = served.open().await;
    assert!(lives(served.pid(&session).await));
    served.bridge.shutdown().await;
}

#[tokio::test]
async fn a_child_that_ends_before_it_is_initialized_says_why() {
    let served = Served::start("echo 'no such database' >&2; exit 3");
    let answer = served.initialize().await;
    assert!(!answer.headers.contains_key(SESSION_ID));
    for part in ["exited with code 3", "no such database"] {
        assert!(answer.body.contains(part), "{}", answer.body);
    }
    served.bridge.shutdown().await;
}

#[tokio::test]
async fn a_child_that_closes_its_stdout_and_lives_on_is_not_waited_for() {
    let served = Served::start(SERVER);
    let session = served.open().await;
    let pid = served.pid(&session).await;
    let answer = served.ask(&session, "deaf").await;
    assert!(answer.body.contains("the server has closed its stdout"), "{}", answer.body);
    assert_eq!(served.ask(&session, "pid").await.status, StatusCode::NOT_FOUND);
    served.bridge.shutdown().await;
    assert!(!lives(pid));
}

#[tokio::test]
async fn an_initialize_that_is_given_up_ends_its_child() {
    let served = Served::start(SILENT);
    let mut opening = Box::pin(served.initialize());
    let pid =
        eventually_while(&mut opening, || served.bridge.last_lines(&served.route).first()?.parse().ok());
    let pid = Pid::from_raw(pid.await).unwrap();
    assert!(lives(pid));
    drop(opening);
    eventually(|| (!lives(pid)).then_some(())).await;
    served.bridge.shutdown().await;
}

/// As [`eventually`], while something goes on that does not end.
async fn eventually_while<T>(
    going_on: &mut (impl Future<Output = Answer> + Unpin),
    condition: impl FnMut() -> Option<T>,
) -> T {
    tokio::select! {
        answer = going_on => panic!("it is answered: {}", answer.body),
        value = eventually(condition) => value,
    }
}

#[tokio::test]
async fn progress_goes_to_the_request_with_its_token() {
    let served = Served::start(SERVER);
    let session = served.open().await;
    let answer = served.ask(&session, "progress").await;
    assert_eq!(answer.headers["content-type"], "text/event-stream");
    assert_eq!(answer.body.matches("notifications/progress").count(), 1, "{}", answer.body);
    assert!(answer.body.contains(r#""progressToken":"t","progress":2"#), "{}", answer.body);
    assert!(
        answer.body.ends_with("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":\"done\"}\n\n"),
        "{}",
        answer.body
    );
    served.bridge.shutdown().await;
}

#[tokio::test]
async fn what_belongs_to_no_request_goes_to_the_get_stream() {
    let served = Served::start(SERVER);
    let session = served.open().await;
    let stream = served.begin(Method::GET, Some(&session), "").await;
    let answer = served.ask(&session, "ask").await;
    assert_eq!(answer.body, r#"{"jsonrpc":"2.0","id":7,"result":"asked"}"#);
    assert_eq!(served.delete(&session).await, StatusCode::NO_CONTENT);
    let told = stream.into_body().collect().await.unwrap().to_bytes();
    let expected = "id: 0-0\nretry: 50\ndata: \n\n\
                    id: 0-1\ndata: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n\n\
                    id: 0-2\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"note\"}\n\n";
    assert_eq!(told, expected);
    served.bridge.shutdown().await;
}

#[tokio::test]
async fn a_bridge_that_is_dropped_ends_its_children() {
    let served = Served::start(SERVER);
    let session = served.open().await;
    let pid = served.pid(&session).await;
    drop(served);
    eventually(|| (!lives(pid)).then_some(())).await;
}

/// By then its definition may be of another server; the old session is closed when the new one is open.
#[tokio::test]
async fn a_session_with_a_child_stays_one_when_its_server_becomes_a_remote_one() {
    let served = Served::start(SERVER);
    let session = served.open().await;
    let pid = served.pid(&session).await;
    let target = RemoteTarget { url: "http://127.0.0.1:9/mcp".parse().unwrap(), headers: HeaderMap::new() };
    let remote = RouteName::new(served.route.server().clone(), 1);
    served.bridge.set(&remote, Target::Http(Arc::new(target)));
    let ask = r#"{"jsonrpc":"2.0","id":7,"method":"pid","params":{}}"#;
    let through_socket = async |route: &RouteName| {
        let stream = tokio::net::UnixStream::connect(served.directory.path().join("socket")).await.unwrap();
        let mut connection = crate::http1::Connection::open(stream).await.unwrap();
        let request = Request::post(route.bridge_path().as_str())
            .header("host", "localhost")
            .header("accept", "application/json, text/event-stream")
            .header("content-type", "application/json")
            .header(SESSION_ID, &session)
            .body(Full::new(Bytes::from_static(ask.as_bytes())));
        connection.send(request.unwrap()).await.unwrap().status()
    };
    assert_eq!(through_socket(&served.route).await, StatusCode::OK);
    assert_eq!(through_socket(&remote).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(served.bridge.trees().len(), 1);
    // What was not closed in order ends with its route, and not with the server.
    assert!(served.bridge.remove(&served.route).is_none());
    eventually(|| (!lives(pid)).then_some(())).await;
    let children = served.bridge.remove(&remote).unwrap();
    tokio::time::timeout(DEADLINE, children.wait()).await.unwrap();
    served.bridge.shutdown().await;
}
